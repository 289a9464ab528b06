"""chorus-server on the tiny golden model, on free loopback ports: for tests of everything around the model."""
import json
import pathlib
import subprocess
import sys
import time

from server_process import ServerProcess

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client" / "python"))

MODEL = ROOT / "tests" / "golden" / "models" / "tiny_mha"


class TinyServer(ServerProcess):
    """Without a metrics page. Its log is JSON lines; it drains when its `with` block ends."""

    def __init__(self, bin_folder, *flags):
        super().__init__(bin_folder, MODEL, "--threads=1", "--kv_cache_bytes=1MiB", "--log_format=json", *flags,
                         metrics_listen="")

    def __exit__(self, *_):
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            pass  # killed
        self.close()

    def events(self, name):
        """The log's lines of one event. Every line must be JSON."""
        lines = [json.loads(line) for line in self.log_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def wait_for_event(self, name, count=1, seconds=15):
        deadline = time.monotonic() + seconds
        while len(self.events(name)) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {count} lines of event {name} in the log:\n{self.log_text()}")
            time.sleep(0.05)

    def rss_bytes(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in fields if line.startswith("VmRSS:"))

    def num_descriptors(self):
        return sum(1 for _ in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir())

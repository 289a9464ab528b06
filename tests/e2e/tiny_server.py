"""chorus-server on the tiny golden model, on free loopback ports: for tests of everything around the model."""
import json
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client" / "python"))

MODEL = ROOT / "tests" / "golden" / "models" / "tiny_mha"


class TinyServer:
    """Runs until the block ends. `ports`: grpc, metrics, health. Its log is JSON lines."""

    def __init__(self, bin_folder, *flags):
        self._command = [bin_folder / "chorus-server", f"--model={MODEL}", "--listen=127.0.0.1:0", "--metrics_listen=",
                         "--threads=1", "--kv_cache_bytes=1MiB", "--log_format=json", *flags]

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        port_file = folder / "ports.json"
        self._log = folder / "log"
        with open(self._log, "w") as log:
            self.process = subprocess.Popen([*self._command, f"--port_file={port_file}"], stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{self.log_text()}")
            time.sleep(0.02)
        self.ports = json.loads(port_file.read_text())
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.exit_code = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.exit_code = self.process.wait()
        self._folder.cleanup()

    def log_text(self):
        return self._log.read_text()

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

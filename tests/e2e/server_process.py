"""One chorus-server on loopback: what every test here starts its servers by."""
import json
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.request

START_SECONDS = 120
STOP_SECONDS = 60


class ServerProcess:
    """Starts at once, on `port` (0: a free one); serves once wait_until_serving returns, or the `with` block begins.

    `ports` then has what the server says: grpc, metrics, health. Ends with its `with` block, or `close`.
    """

    def __init__(self, binaries, model, *flags, port=0, metrics_listen="127.0.0.1:0", niceness=0):
        self.bin = binaries
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        self._log, self._port_file = folder / "log", folder / "ports.json"
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                ["nice", "-n", str(niceness), binaries / "chorus-server", f"--model={model}",
                 f"--listen=127.0.0.1:{port}", f"--metrics_listen={metrics_listen}", f"--port_file={self._port_file}",
                 *flags], stdout=log, stderr=subprocess.STDOUT)

    def wait_until_serving(self):
        deadline = time.monotonic() + START_SECONDS
        while not self._port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = self.log_text()
                self.close()
                raise AssertionError(f"the server did not start:\n{log}")
            time.sleep(0.02)
        self.ports = json.loads(self._port_file.read_text())
        return self

    def log_text(self):
        return self._log.read_text()

    def page(self):
        """The metrics page, as Prometheus reads it."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.ports['metrics']}/metrics", timeout=10) as reply:
            return reply.read().decode()

    def metrics(self):
        """{"name{labels}": value} of the metrics page."""
        samples = (line.rsplit(" ", 1) for line in self.page().splitlines() if line and line[0] != "#")
        return {series: float(value) for series, value in samples}

    def terminate(self, timeout=STOP_SECONDS):
        """SIGTERM; the exit code, once it has drained."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._folder.cleanup()

    def __enter__(self):
        return self.wait_until_serving()

    def __exit__(self, *_):
        self.close()

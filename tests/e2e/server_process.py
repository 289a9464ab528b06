"""One chorus-server on loopback, for tests that start and stop several."""
import json
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.request

START_SECONDS = 120


class ServerProcess:
    """A chorus-server with metrics; `port` 0 takes a free one. Ends with its `with` block."""

    def __init__(self, binaries, model, *flags, port=0):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        self._log = open(folder / "log", "w+")
        port_file = folder / "ports.json"
        self.process = subprocess.Popen(
            [binaries / "chorus-server", f"--model={model}", f"--listen=127.0.0.1:{port}",
             "--metrics_listen=127.0.0.1:0", f"--port_file={port_file}", *flags],
            stdout=self._log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(0.02)
        ports = json.loads(port_file.read_text())
        self.port, self.metrics_port = ports["grpc"], ports["metrics"]

    def log(self):
        self._log.flush()
        return pathlib.Path(self._log.name).read_text()

    def answered(self):
        """Requests that ended so far, however."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines
                   if line.startswith("chorus_requests_finished_total{"))

    def terminate(self, timeout):
        """SIGTERM; the exit code, once it has drained."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

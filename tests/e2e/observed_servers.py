"""Real chorus-servers, each in one kind of trouble that deploy/prometheus/rules.yml knows."""
import contextlib
import http.server
import pathlib
import re
import signal
import subprocess
import threading

from server_process import ServerProcess

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_MODEL = ROOT / "models" / "smollm2-135m-instruct"
TINY_MODEL = ROOT / "tests" / "golden" / "models" / "tiny_gqa"
QUESTIONS = ROOT / "tests" / "data" / "qa.jsonl"


class Server(ServerProcess):
    """chorus-server that `load` sends traffic until `close`."""

    def __init__(self, bin_folder, *flags, model=DEFAULT_MODEL, niceness=0):
        super().__init__(bin_folder, model, *flags, niceness=niceness)
        self.loads = []

    def load(self, *flags):
        self.loads.append(subprocess.Popen(
            [self.bin / "chorus", "load", f"--server=127.0.0.1:{self.ports['grpc']}", "--duration=1h", "--quiet", *flags],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self.loads[-1]

    def stop_loads(self):
        for load in self.loads:
            load.kill()
            load.wait()

    def close(self):
        self.stop_loads()
        super().close()


class TamperedPage:
    """Another server's metrics page with two counters changed, for faults that no real server could be
    brought to: five accepted requests that are nowhere, and two more that ended with INTERNAL."""

    def __init__(self, server):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                page = changed(server.page(), "chorus_requests_accepted_total", self.server.num_accepted)
                page = changed(page, 'chorus_requests_finished_total{method="vote",outcome="internal"}', self.server.num_internal)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(page.encode())

            def log_message(self, *_):
                pass
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.num_accepted = self.http.num_internal = 0
        self.ports = {"metrics": self.http.server_port}
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def tamper(self):
        self.http.num_accepted, self.http.num_internal = 5, 2

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def changed(page, series, by):
    new, count = re.subn(rf"^({re.escape(series)}) (\S+)$", lambda m: f"{m[1]} {float(m[2]) + by:g}", page, flags=re.M)
    assert count == 1, f"{series} is not on the page"
    return new


class Fleet:
    """The servers, by the name that Prometheus knows them by as `instance`."""

    def __init__(self, bin_folder, stack):
        def start(*flags, **options):
            server = Server(bin_folder, *flags, **options)
            stack.callback(server.close)
            return server
        self.servers = {
            # Traffic of all kinds and no trouble: what the dashboard is made for.
            "mixed": start("--kv_cache_bytes=64MiB", "--threads=1"),
            # More callers than its queue has places.
            "overloaded": start("--kv_cache_bytes=64MiB", "--threads=1", "--max_running_requests=2"),
            # About 360 KV slots for 16 callers that want 216 each.
            "tight": start("--kv_cache_bytes=8MiB", "--threads=1", "--max_request_tokens=300"),
            # Callers that give up: some by their deadlines, others by cancelling.
            "given_up": start("--kv_cache_bytes=64MiB", "--threads=1"),
            # One step of 7,900 rows on one thread: most of a minute.
            "stuck": start("--kv_cache_bytes=256MiB", "--threads=1", "--max_step_rows=8192", "--drain_timeout=1s", niceness=10),
            # A stream longer than its drain may take.
            "drained": start("--kv_cache_bytes=64MiB", "--threads=1", "--drain_timeout=12s"),
            # First the same segments, then never the same ones.
            "cold": start("--kv_cache_bytes=8MiB", "--threads=1", model=TINY_MODEL)}
        for server in self.servers.values():
            server.wait_until_serving()
        self.tampered = TamperedPage(self.servers["mixed"])
        stack.callback(self.tampered.close)

    def metrics_ports(self):
        ports = {name: server.ports["metrics"] for name, server in self.servers.items()}
        return {**ports, "tampered": self.tampered.ports["metrics"]}

    def start_mixed_traffic(self):
        mixed = self.servers["mixed"]
        mixed.load(f"--data={QUESTIONS}", "--method=all", "--clients=2", "--max_new_tokens=12", "--timeout=60s")
        mixed.load(f"--data={QUESTIONS}", "--attribution", "--disagreement", "--clients=1", "--max_new_tokens=12", "--timeout=60s")

    def start_faults(self):
        servers = self.servers
        servers["overloaded"].load("--synthetic=1x8", "--clients=300", "--error_pause=1s", "--max_new_tokens=6", "--ignore_eos", "--timeout=10m")
        servers["tight"].load("--synthetic=1x16", "--clients=16", "--max_new_tokens=200", "--ignore_eos", "--timeout=10m")
        given_up = servers["given_up"]
        given_up.load("--synthetic=1x16", "--clients=2", "--max_new_tokens=200", "--ignore_eos", "--timeout=300ms")
        given_up.load("--synthetic=1x16", "--clients=2", "--max_new_tokens=200", "--ignore_eos", "--cancel=1", "--cancel_within=200ms")
        servers["stuck"].load("--synthetic=1x7900", "--clients=1", "--max_new_tokens=2", "--timeout=10m")
        servers["drained"].load("--synthetic=1x16", "--clients=1", "--max_new_tokens=2000", "--ignore_eos", "--timeout=10m")
        servers["cold"].load("--synthetic=4x12", "--repeat=4", "--clients=1", "--max_new_tokens=8", "--ignore_eos")
        self.tampered.tamper()

    def replace_segments(self):
        cold = self.servers["cold"]
        cold.stop_loads()
        cold.load("--synthetic=4x12", "--clients=1", "--max_new_tokens=8", "--ignore_eos")

    def terminate(self, name):
        self.servers[name].process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def fleet(bin_folder):
    with contextlib.ExitStack() as stack:
        yield Fleet(bin_folder, stack)

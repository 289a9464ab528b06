"""A real Prometheus for tests: in seconds, with the rule file of deploy/prometheus.

So that nobody waits for minutes, the rules run in a copy whose times (ranges in brackets, offsets,
`for`) are divided by one factor; expressions stay as they are otherwise, thresholds too.
"""
import json
import math
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
BINARY = ROOT / ".tools" / "prometheus" / "usr" / "bin" / "prometheus"
FACTOR = 60  # a minute becomes a second
SCRAPE_SECONDS = 0.5
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
CONFIG = """
global: {{scrape_interval: {interval}ms, scrape_timeout: {interval}ms, evaluation_interval: {interval}ms}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: chorus
    file_sd_configs: [{{files: [targets.json], refresh_interval: 1s}}]
"""


def shortened(rules):
    """The rule file's text with every time divided by FACTOR."""
    def divided(match):
        milliseconds = int(match[2]) * UNIT_SECONDS[match[3]] * 1000 // FACTOR
        return f"{match[1]}{milliseconds}ms"
    return re.sub(r"(\[|\boffset |\bfor: )(\d+)([smhd])\b", divided, rules)


class Prometheus:
    """Prometheus on a free loopback port, until the block ends."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.folder.name)
        self.watch({})
        (path / "rules.yml").write_text(shortened(RULES.read_text()))
        (path / "prometheus.yml").write_text(CONFIG.format(interval=int(SCRAPE_SECONDS * 1000)))
        self.log = open(path / "log", "w+")
        self.process = subprocess.Popen(
            [BINARY, f"--config.file={path / 'prometheus.yml'}", f"--storage.tsdb.path={path / 'data'}",
             "--web.listen-address=127.0.0.1:0"], stdout=self.log, stderr=subprocess.STDOUT)
        self.port = self.wait_for(self.listening_port, "to listen")
        self.wait_for(self.is_ready, "to be ready")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def wait_for(self, condition, what, seconds=60):
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"waited for Prometheus {what}:\n{pathlib.Path(self.log.name).read_text()[-4000:]}")
            time.sleep(0.05)
        return value

    def listening_port(self):
        found = re.search(r'"Listening on".*?address=\S*?:(\d+)', pathlib.Path(self.log.name).read_text())
        return found and int(found[1])

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def watch(self, targets):
        """Scrapes the metrics ports in `targets`, by instance, within two seconds."""
        groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in targets.items()]
        path = pathlib.Path(self.folder.name) / "targets.json"
        path.with_suffix(".new").write_text(json.dumps(groups))
        path.with_suffix(".new").rename(path)

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as reply:
            return json.load(reply)["data"]

    def query(self, expr):
        return self.get("query", query=expr)["result"]

    def query_range(self, expr, seconds, step=1):
        """Series over the last `seconds`: (labels, [(time, value)]) each."""
        now = time.time()
        found = self.get("query_range", query=expr, start=now - seconds, end=now, step=step)["result"]
        return [(series["metric"], [(when, float(value)) for when, value in series["values"]]) for series in found]

    def firing(self):
        return [alert for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"]


def with_variables(expr, job=".*", instance=".*", rate_interval="10s"):
    """A dashboard's query as Grafana sends it."""
    for name, value in (("$__rate_interval", rate_interval), ("$job", job), ("$instance", instance)):
        expr = expr.replace(name, value)
    return expr


def has_numbers(series):
    return any(not math.isnan(value) for _, points in series for _, value in points)

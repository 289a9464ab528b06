#!/usr/bin/env python3
"""Every alert of deploy/prometheus/rules.yml, seen firing in a real Prometheus because of a real fault
of a real server under load; every panel of the dashboard, asked of the same Prometheus.

    .venv/bin/python tests/e2e/alerts_test.py --bin build/release/bin

Times of the rules are divided by 60 (live_prometheus.py). Two faults could not be brought about in a
real server, requests lost count of and internal errors: for these a small exporter shows the page of
a real server with one counter changed each (observed_servers.TamperedPage).
"""
import argparse
import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import yaml

import live_prometheus
import observed_servers

sys.path.insert(0, str(live_prometheus.ROOT / "deploy" / "grafana"))
import draw_dashboard  # noqa: E402
import panels  # noqa: E402  the dashboard's queries

BIN = None
WAIT_SECONDS = 150  # for the last alert; about 40 on a quiet machine
# alert -> the instance whose fault it must see; None: there is none.
EXPECTED = {
    "ChorusDown": "drained",  # killed at last by its own drain's end
    "ChorusAbsent": None,     # by a Prometheus without targets
    "ChorusNoProgress": "stuck",
    "ChorusQueueGrowing": "overloaded",
    "ChorusTurningAway": "overloaded",
    "ChorusSlowFirstToken": "overloaded",
    "ChorusDeadlineMisses": "given_up",
    "ChorusCancelSurge": "given_up",
    "ChorusKvFull": "tight",
    "ChorusSegmentCacheCollapse": "cold",
    "ChorusInternalErrors": "tampered",
    "ChorusConservationBroken": "tampered",
    "ChorusDrainSlow": "drained",
    "ChorusDrainOverrun": "stuck",
}


def alert_rules():
    groups = yaml.safe_load(live_prometheus.RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


class AlertWatch:
    """Collects every alert that fires from its start on, as (name, instance) -> (seconds, annotations)."""

    def __init__(self, *prometheus):
        self.seen = {}
        self.start = time.monotonic()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(one,)) for one in prometheus]
        for thread in self.threads:
            thread.start()

    def run(self, prometheus):
        while not self.stopping.wait(0.25):
            for alert in prometheus.firing():
                key = alert["labels"]["alertname"], alert["labels"].get("instance")
                self.seen.setdefault(key, (time.monotonic() - self.start, alert["annotations"]))

    def await_all(self, expected, seconds):
        deadline = time.monotonic() + seconds
        while expected - self.seen.keys() and time.monotonic() < deadline:
            time.sleep(0.1)
        return expected - self.seen.keys()

    def close(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


class AlertsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.prometheus = cls.stack.enter_context(live_prometheus.Prometheus())
        cls.fleet = cls.stack.enter_context(observed_servers.fleet(BIN))
        ports = cls.fleet.metrics_ports()
        cls.prometheus.watch(ports)
        cls.prometheus.wait_for(lambda: len(cls.prometheus.query("up == 1")) == len(ports), "to see every server up")
        # Before it was given its targets there was no server: that alert ends with the next evaluation.
        cls.prometheus.wait_for(lambda: not cls.prometheus.firing(), "to see that there are servers now")
        cls.fleet.start_mixed_traffic()

    def await_query(self, expr, what):
        self.prometheus.wait_for(lambda: self.prometheus.query(expr), what)

    def test_every_alert_fires_when_its_fault_is_there(self):
        self.assertEqual(EXPECTED.keys(), {rule["alert"] for rule in alert_rules()})
        self.assertEqual([], [a["labels"] for a in self.prometheus.firing()], "an alert fires before there is a fault")
        with live_prometheus.Prometheus() as without_targets:
            watch = AlertWatch(self.prometheus, without_targets)
            self.addCleanup(watch.close)
            self.fleet.start_faults()
            self.await_query('chorus_requests_running{instance="drained"} > 0', "to see the long stream")
            self.fleet.terminate("drained")
            self.await_query('ALERTS{alertname="ChorusNoProgress",alertstate="firing",instance="stuck"}', "to see the standing worker")
            self.fleet.terminate("stuck")
            self.await_query('avg_over_time(instance:chorus_segment_cache_hits:ratio_rate10m{instance="cold"}[1m] offset 10s) > 0.6',
                             "to see ten seconds of a warm cache")
            self.fleet.replace_segments()
            missing = watch.await_all(set(EXPECTED.items()), WAIT_SECONDS)
            watch.close()
        for (name, instance), (seconds, annotations) in sorted(watch.seen.items(), key=lambda item: item[1][0]):
            print(f"{seconds:6.1f} s  {name:28} {instance or '':10} {annotations['description']}")
            self.assertFalse(re.search(r"{{|<no value>|error (calling|executing)", "".join(annotations.values())), annotations)
        self.assertEqual(set(), missing)
        healthy = {name for name, instance in watch.seen if instance == "mixed"}
        self.assertLessEqual(healthy, {"ChorusSlowFirstToken"}, "of a server in no trouble, on a machine that may be slow")

    def test_every_alert_says_what_to_do_with_flags_that_exist(self):
        help_text = subprocess.run([BIN / "chorus-server", "--help"], capture_output=True, text=True, check=True).stdout
        for rule in alert_rules():
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                self.assertEqual({"summary", "description", "runbook"}, rule["annotations"].keys())
                flags = set(re.findall(r"--[a-z_]{3,}", rule["annotations"]["description"] + rule["annotations"]["runbook"]))
                for flag in flags - {"--server", "--json"}:  # of the command `chorus`
                    self.assertIn(f"{flag}=", help_text)

    def test_every_metric_named_is_on_the_page(self):
        page = self.fleet.servers["mixed"].page()
        exported = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
        texts = [query.expr for row in panels.ROWS for panel in row.panels for query in panel.queries]
        texts.append("\n".join(line for line in live_prometheus.RULES.read_text().splitlines() if "record:" not in line))
        for name in {name for text in texts for name in re.findall(r"(?<![:\w])chorus_\w+", text)}:
            self.assertIn(re.sub("_(bucket|sum|count)$", "", name), exported)

    def test_every_panel_has_data(self):
        queries = [(panel, query) for row in panels.ROWS for panel in row.panels for query in panel.queries]
        empty = queries
        deadline = time.monotonic() + WAIT_SECONDS
        while empty and time.monotonic() < deadline:
            empty = [(panel, query) for panel, query in empty if not live_prometheus.has_numbers(
                self.prometheus.query_range(live_prometheus.with_variables(query.expr), seconds=30))]
            time.sleep(0.2)
        self.assertEqual([], [(panel.title, query.expr) for panel, query in empty])
        print(f"{len(queries)} queries of {sum(len(row.panels) for row in panels.ROWS)} panels have data")

    def test_the_panels_can_be_drawn(self):
        found = draw_dashboard.answers(f"http://127.0.0.1:{self.prometheus.port}", seconds=20, rate_interval="10s")
        with tempfile.TemporaryDirectory() as folder:
            draw_dashboard.save(draw_dashboard.draw(found, "a test"), pathlib.Path(folder) / "dashboard.png")
            self.assertTrue((pathlib.Path(folder) / "dashboard.png").read_bytes().startswith(b"\x89PNG"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    arguments, rest = parser.parse_known_args()
    BIN = arguments.bin.resolve()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)

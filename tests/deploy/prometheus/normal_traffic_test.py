#!/usr/bin/env python3
"""No alert fires in hours of simulated normal traffic: random arrivals with bursts, a restart by a
drain, a quiet night. And the simulation is one in which alerts do fire: overloaded, or with a cache
that collapses, it raises the right ones. Alerts are worked out by promtool from the rule file.

    .venv/bin/python tests/deploy/prometheus/normal_traffic_test.py
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from simulated_server import NAMES, SCRAPE, SimulatedServer, Traffic

ROOT = pathlib.Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
PROMTOOL = ROOT / ".tools" / "prometheus" / "usr" / "bin" / "promtool"
TARGET = 'job="chorus",instance="a:9464"'
HOUR = 3600
SEEDS = range(1, 4)


def series_of(pages):
    """The pages as promtool's input_series; a server that is gone leaves `up` at 0 and stale series."""
    def values(name):
        for before, page in zip([None, *pages], pages):
            yield f"{page[name]:.10g}" if page else "stale" if before else "_"
    series = [{"series": f"up{{{TARGET}}}", "values": " ".join("1" if page else "0" for page in pages)}]
    for name in NAMES:
        metric, _, labels = name.rstrip("}").partition("{")
        labels = f"{labels},{TARGET}" if labels else TARGET
        series.append({"series": f"chorus_{metric}{{{labels}}}", "values": " ".join(values(name))})
    return series


def fired(pages):
    """The names of the alerts that fire at any time, worked out by promtool."""
    seconds = len(pages) * SCRAPE
    names = 'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[%ds]))' % seconds
    test = {"rule_files": [str(RULES)], "evaluation_interval": f"{SCRAPE}s",
            "tests": [{"interval": f"{SCRAPE}s", "input_series": series_of(pages),
                       "promql_expr_test": [{"expr": names, "eval_time": f"{seconds - SCRAPE}s", "exp_samples": []}]}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:  # JSON is YAML
        json.dump(test, file)
        file.flush()
        done = subprocess.run([PROMTOOL, "test", "rules", file.name], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return set()
    found = {part.split('"')[0] for part in done.stderr.split('got: ', 1)[-1].split('alertname="')[1:]}
    assert found, done.stdout + done.stderr
    return found


class NormalTrafficTest(unittest.TestCase):
    def test_no_alert_in_an_hour_of_traffic(self):
        for seed in SEEDS:
            with self.subTest(seed=seed):
                pages = SimulatedServer(Traffic(phases=((HOUR, 2),)), seed).scrapes()
                self.assertGreater(max(page["requests_waiting"] for page in pages), 0, "bursts make a queue")
                self.assertEqual(set(), fired(pages))

    def test_no_alert_in_a_restart_and_a_quiet_night(self):
        day = ((HOUR, 2), (1.5 * HOUR, 0.05), (2.5 * HOUR, 0), (3.5 * HOUR, 2))
        for seed in SEEDS:
            with self.subTest(seed=seed):
                traffic = Traffic(phases=day, restarts=((HOUR / 2, HOUR / 2 + 90), (3 * HOUR, 3 * HOUR + 105)))
                pages = SimulatedServer(traffic, seed).scrapes()
                self.assertIn(None, pages, "the server is gone for a while")
                self.assertEqual(set(), fired(pages))

    def test_overload_does_raise_alerts(self):
        pages = SimulatedServer(Traffic(phases=((HOUR / 2, 2), (HOUR, 5))), seed=1).scrapes()
        self.assertEqual({"ChorusQueueGrowing", "ChorusTurningAway", "ChorusSlowFirstToken"}, fired(pages))

    def test_a_caller_that_gives_up_raises_alerts(self):
        pages = SimulatedServer(Traffic(phases=((HOUR, 2),), cancelled=0.5, late=0.1), seed=1).scrapes()
        self.assertEqual({"ChorusCancelSurge", "ChorusDeadlineMisses"}, fired(pages))

    def test_a_restart_that_takes_five_minutes_raises_an_alert(self):
        pages = SimulatedServer(Traffic(phases=((HOUR, 2),), restarts=((1800, 2130),)), seed=1).scrapes()
        self.assertEqual({"ChorusDown"}, fired(pages))


if __name__ == "__main__":
    unittest.main(argv=sys.argv, verbosity=2)

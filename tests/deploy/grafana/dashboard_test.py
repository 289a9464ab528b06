#!/usr/bin/env python3
"""The committed dashboard is what its generator makes, and its panels tell their reader enough.

    .venv/bin/python tests/deploy/grafana/dashboard_test.py
"""
import json
import pathlib
import sys
import unittest

import yaml

GRAFANA = pathlib.Path(__file__).resolve().parents[3] / "deploy" / "grafana"
sys.path.insert(0, str(GRAFANA))
import make_dashboard  # noqa: E402
import panels  # noqa: E402


class DashboardTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dashboard = json.loads(make_dashboard.OUT.read_text())
        cls.panels = [panel for panel in cls.dashboard["panels"] if panel["type"] != "row"]

    def test_the_committed_file_is_what_the_generator_makes(self):
        self.assertEqual(make_dashboard.dashboard_of(panels.ROWS), make_dashboard.OUT.read_text(),
                         "run deploy/grafana/make_dashboard.py")

    def test_every_panel_has_a_title_of_its_own_a_description_a_unit_and_queries(self):
        titles = [(row.title, panel.title) for row in panels.ROWS for panel in row.panels]
        self.assertEqual(len(titles), len(set(titles)))
        self.assertEqual(len(titles), len(self.panels))
        for panel in self.panels:
            with self.subTest(panel["title"]):
                self.assertGreater(len(panel["description"]), 60)
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])
                self.assertTrue(panel["targets"])

    def test_every_query_asks_the_chosen_source_for_the_chosen_servers(self):
        for panel in self.panels:
            for target in panel["targets"]:
                with self.subTest(panel["title"]):
                    self.assertEqual("${datasource}", target["datasource"]["uid"])
                    if "ALERTS" not in target["expr"]:
                        self.assertEqual(target["expr"].count("{"), target["expr"].count('{job=~"$job",instance=~"$instance"'))

    def test_panels_fill_the_grid_and_do_not_overlap(self):
        taken = {}
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], panels.WIDTH)
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertNotIn((x, y), taken, panel["title"])
                    taken[x, y] = panel["title"]

    def test_provisioning_reads_the_dashboard_from_a_source_of_its_kind(self):
        [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
        [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/chorus.yml").read_text())["providers"]
        self.assertEqual("prometheus", source["type"])
        self.assertEqual("file", provider["type"])
        variables = {variable["name"]: variable for variable in self.dashboard["templating"]["list"]}
        self.assertEqual({"datasource", "job", "instance"}, variables.keys())
        self.assertEqual("prometheus", variables["datasource"]["query"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv, verbosity=2)

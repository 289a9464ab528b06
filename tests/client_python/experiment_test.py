#!/usr/bin/env python3
"""chorus-eval experiment: plans, statistics, tables and figures, against a service in Python."""
import json
import math
import pathlib
import unittest

import numpy

import chorus_client as chorus
from chorus_eval import bootstrap, experiment, experiment_plan, experiment_statistics, options, plan
from eval_test import QUESTIONS, Folder, lines, number_answer
from fake_server import FakeService, serve

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAN = {
    "title": "Numbers", "metric": "contains", "tuned_on": 4,
    "options": {"data": "data.jsonl", "methods": "attention", "num-paraphrases": 2, "lemmatize": True},
    "baselines": {"question alone": {"methods": "per_prompt", "num-paraphrases": 0},
                  "per_prompt": {"methods": "per_prompt"}},
    "axes": {"method": {"attention": {}, "per_prompt": {"methods": "per_prompt"}, "vote": {"methods": "vote"}},
             "prompts": {"1": {"num-paraphrases": 0}, "2": {"num-paraphrases": 1}, "3": {}},
             "half": {"a": {"num-paraphrases": None, "indexes": "0,1"},
                      "b": {"num-paraphrases": None, "indexes": "2"}}},
    "groups": [{"name": "methods", "title": "Methods", "axes": ["method"], "cost": True},
               {"name": "prompts", "title": "By number", "axes": ["method", "prompts"],
                "against": {"method": "per_prompt"}, "figure": {"x": "prompts", "lines": "method"}},
               {"name": "halves", "title": "Halves", "axes": ["method", "half"], "agreement_over": "half"}]}


class StatisticsTest(unittest.TestCase):
    def test_sign_flips_are_the_binomial_test(self):
        # n differences of +1 alone: both signs all equal has the chance 2 / 2^n.
        values = numpy.zeros((40, 2))
        values[:6, 0] = 1
        p = bootstrap.sign_flip_p(values)
        chance = 2 / 2 ** 6
        self.assertAlmostEqual(chance, p[0], delta=5 * math.sqrt(chance / bootstrap.FLIPS))
        self.assertEqual(1.0, p[1])

    def test_holm_is_stepwise_and_monotone(self):
        # Holm's own order: 4 x .01, 3 x .02 at least as much, 2 x .04, 1 x .9.
        numpy.testing.assert_allclose([0.06, 0.04, 0.9, 0.08], bootstrap.holm([0.02, 0.01, 0.9, 0.04]))
        numpy.testing.assert_allclose([1, 1], bootstrap.holm([0.6, 0.7]))

    def test_what_is_compared_twice_counts_once(self):
        values = numpy.array([[0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 0]] * 10, dtype=float)
        # Columns 1 and 2 ask the same; 0 against 1 is 1 against 0.
        found = experiment_statistics.Comparisons(values, 10, [0, 1, 1, 2],
                                                  [{1: "x"}, {0: "y"}, {0: "y"}, {0: "y", 3: "z"}])
        self.assertEqual(2, found.count)
        row = found.row(1)
        self.assertEqual((1, 1, 1), tuple(row["minus"]["y"][name] for name in ("mean", "low", "high")))
        self.assertEqual(row["minus"]["y"]["holm"], found.row(0)["minus"]["x"]["holm"])
        self.assertLess(row["minus"]["y"]["holm"], 0.001)
        self.assertIsNone(found.row(3)["minus"]["z"]["holm"])
        self.assertEqual((1.0, 1.0), (row["tuned"], row["held_out"]["mean"]))

    def test_costs(self):
        timing = {"generated_tokens": 4, "prompt_tokens": 100}
        for method, wanted in (("attention", (4, 103, 103)), ("logit_mean", (12, 109, 129)),
                               ("vote", (4, 101, 121)), ("per_prompt", (4, 101, 121))):
            found = experiment.cost_of(method, 3, timing, prefix_tokens=10)
            self.assertEqual(wanted, (found["passes"], found["rows"], found["rows_unshared"]), method)
        self.assertIsNone(experiment.cost_of("vote", 3, timing, None)["rows_unshared"])

    def test_bias_by_the_number_of_prompts(self):
        made = plan.Plan(plan.Frame(), chorus.Fusion(), chorus.Sampling(), chorus.Stopping(), log_bias_by_count=True)
        item = plan.Item(0, "q", "q", ("x", "y", "z"), ("a",))
        [attention, vote] = plan.make_variants([chorus.Method.ATTENTION, chorus.Method.VOTE],
                                               [chorus.Positions.OVERLAPPING])
        self.assertEqual(-math.log(3), made.request(item, attention).fusion.segment_log_bias)
        self.assertEqual(-math.log(2), made.request(item, attention, 0).fusion.segment_log_bias)
        self.assertIsNone(made.request(item, vote).fusion.segment_log_bias)


class PlanTest(Folder):
    def load(self, **changes):
        path = self.write("plan.json", json.dumps({**PLAN, **changes}))
        return experiment_plan.load(path, options.make_parser())

    def test_a_group_is_every_combination(self):
        found = self.load()
        self.assertEqual([3, 9, 6], [len(group.settings) for group in found.groups])
        setting = found.groups[1].settings[5]
        self.assertEqual({"method": "per_prompt", "prompts": "3"}, setting.labels)
        self.assertEqual(([chorus.Method.PER_PROMPT], 2), (setting.arguments.methods, setting.arguments.num_paraphrases))
        self.assertIsNone(found.groups[2].settings[0].arguments.num_paraphrases)

    def test_bad_plans_are_named(self):
        group = PLAN["groups"][0]
        for changes, words in (
                ({"axes": {}}, "axes: is missing"), ({"more": 1}, "more: no such field"),
                ({"tuned_on": "x"}, "tuned_on: \"x\""),
                ({"groups": [{**group, "axes": ["size"]}]}, "group 'methods': axes: 'size'"),
                ({"groups": [group, group]}, "a name stands twice"),
                ({"groups": [{**group, "agreement_over": "half"}]}, "agreement_over: 'half' is none"),
                ({"groups": [{**group, "against": {"method": "mean"}}]}, "against: method 'mean'"),
                ({"groups": [{**group, "options": {"output": "x"}}]}, "method attention: output: belongs"),
                ({"groups": [{**group, "options": {"colour": "x"}}]}, "method attention: .*--colour"),
                ({"groups": [{**group, "options": {"segment-log-bias": "-lnM"}}]}, "'-lnM' is not valid"),
                ({"groups": [{**group, "options": {"positions": "overlapping,sequential"}}]}, "one of each")):
            with self.assertRaisesRegex(experiment_plan.PlanError, words):
                self.load(**changes)

    def test_the_published_plan_loads(self):
        found = experiment_plan.load(ROOT / "tests" / "data" / "experiment.json", options.make_parser())
        biases = [setting.arguments.segment_log_bias for group in found.groups if group.name == "log_bias"
                  for setting in group.settings]
        self.assertEqual([plan.MINUS_LOG_COUNT, -1.0, None, 1.0], biases)


class ExperimentTest(Folder):
    def setUp(self):
        super().setUp()
        self.write("data.jsonl", lines(QUESTIONS))
        self.plan = self.write("plan.json", json.dumps(PLAN))
        self.output = self.folder / "out"

    def test_an_experiment_writes_tables_and_figures_and_asks_nothing_twice(self):
        service = FakeService(number_answer)
        seconds = self.write("seconds.json", '{"attention": 0.1, "vote": 0.2, "per_prompt": 0.3}')
        with serve(service) as target:
            command = ("experiment", "--server", target, "--plan", self.plan, "--output", self.output, "--seconds",
                       seconds)
            code, out, err = self.eval(*command)
            self.assertEqual(0, code, err)
            asked = [r for r in service.requests if r.DESCRIPTOR.name == "GenerateRequest"]
            # Methods by numbers of prompts, of which the other groups repeat most; halves; no baseline anew.
            self.assertEqual(12 * (9 + 3), len(asked))
            journal = (self.output / "journal.jsonl").read_bytes()
            self.assertEqual(0, self.eval(*command)[0])
            self.assertEqual(journal, (self.output / "journal.jsonl").read_bytes())
        document = json.loads((self.output / "experiment.json").read_text())
        [methods, prompts, halves] = document["groups"]
        self.assertEqual(12, document["questions"])
        attention = methods["rows"][0]
        self.assertAlmostEqual(1 / 3, attention["minus"]["per_prompt"]["mean"], places=4)
        self.assertEqual((1.0, 0.1, 2.0), (attention["held_out"]["mean"], attention["seconds"], attention["passes"]))
        by_labels = {tuple(row["labels"].values()): row for row in prompts["rows"]}
        self.assertAlmostEqual(1 / 3, by_labels["attention", "3"]["minus"]["against"]["mean"], places=4)
        self.assertEqual(0, by_labels["attention", "2"]["minus"]["against"]["mean"])
        self.assertNotIn("against", by_labels["per_prompt", "2"]["minus"])
        # per_prompt: of "1", "1" and "none", one pair in three agrees; the last wording alone gives "none".
        self.assertEqual({"attention": 0.0, "per_prompt": 0.33333, "vote": 0.0},
                         {row["labels"]["method"]: row["mean"] for row in halves["agreement"]["rows"]})
        self.assertIn("| attention | 3 | 1.000 [1.000, 1.000] |", out)
        self.assertEqual(12 * 20, len((self.output / "results.jsonl").read_text().splitlines()))
        for name in ("prompts", "methods_seconds"):
            self.assertIn("<svg", (self.output / "figures" / f"{name}.svg").read_text())

        again = self.folder / "again"
        self.assertEqual(0, self.eval("experiment", "--summary", self.output / "experiment.json", "--output", again)[0])
        for name in ("experiment.md", "figures/prompts.svg", "figures/methods_seconds.svg"):
            self.assertEqual((self.output / name).read_bytes(), (again / name).read_bytes(), name)

    def test_bad_options_exit_2(self):
        for arguments, words in ((("--plan", self.folder / "none"), "No such file"),
                                 (("--plan", self.plan, "--groups", "x"), "'x' is not"),
                                 (("--summary", self.plan), "not the experiment.json")):
            code, _, err = self.eval("experiment", "--server", "127.0.0.1:1", "--output", self.output, *arguments)
            self.assertEqual(2, code, err)
            self.assertIn(words, err)


if __name__ == "__main__":
    unittest.main(verbosity=2)

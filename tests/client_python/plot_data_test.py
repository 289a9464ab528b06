#!/usr/bin/env python3
"""chorus_plot's readers and statistics: Explain's data, saved answers, what sums them up."""
import copy
import json
import math
import pathlib
import tempfile
import unittest

import numpy as np

from chorus_plot.attention_statistics import attention_statistics, layer_statistics
from chorus_plot.attribution_data import attribution_from_json, load_attribution
from chorus_plot.errors import InputError
from chorus_plot.explain_data import ExplainData, load_explain_data
from chorus_plot.statistics_table import statistics_report
from plot_example import ANSWER, LAYERS, RESPONSE, UNITS


class ExplainDataTest(unittest.TestCase):
    def test_every_field_is_where_the_protocol_says(self):
        data = ExplainData.from_json(RESPONSE)
        self.assertEqual((LAYERS, [0, 1, 2], [0, 1]), (data.layers, data.heads, data.steps))
        self.assertEqual(["prefix", "prompt 1", "prompt 0", "separators", "suffix", "generated"],
                         [unit.label for unit in data.units])
        self.assertEqual((2, 2, 3, 6), data.logits.shape)
        # [steps, heads, units], row-major: the second step's third head.
        flat = RESPONSE["layers"][1]["mass"]
        np.testing.assert_array_equal(np.float32(flat[5 * UNITS:]), data.mass[1, 1, 2])
        self.assertTrue(np.isnan(data.logits[0, 0, 0, 5]))  # no token was generated before the first
        self.assertEqual("Paris.", data.answer)
        self.assertEqual((2, 9, 11, 2), (data.layout.prefix_length, data.layout.original_length,
                                         data.layout.length, data.layout.suffix_length))
        everything = range(data.layout.length)
        np.testing.assert_array_equal(data.layout.runs().dense(everything, everything),
                                      data.mask_runs.dense(everything, everything))

    def test_protobuf_json_is_read_too(self):
        response = copy.deepcopy(RESPONSE)
        for unit in response["units"]:
            unit["kind"] = "UNIT_KIND_" + unit["kind"].upper()
            unit["num_keys"] = str(unit["num_keys"])
        for layer in response["layers"]:
            layer["logits"] = ["NaN" if value is None else value for value in layer["logits"]]
        del response["layers"][0]["layer"]  # a zero is left out
        del response["mask_runs"]           # the layout says it as well
        want, data = ExplainData.from_json(RESPONSE), ExplainData.from_json(response)
        self.assertEqual((want.units, want.layers, want.mask_runs), (data.units, data.layers, data.mask_runs))
        np.testing.assert_array_equal(want.logits, data.logits)

    def test_saved_data_are_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "explain.npz"
            want = ExplainData.from_json(RESPONSE)
            want.save(path)
            data = load_explain_data(path)
        np.testing.assert_array_equal(want.logits, data.logits)
        np.testing.assert_array_equal(want.mass, data.mass)
        for name in ["layout", "mask_runs", "tokens", "units", "layers", "heads", "steps", "response", "answer"]:
            self.assertEqual(getattr(want, name), getattr(data, name), name)

    def test_what_does_not_fit_is_named(self):
        def changed(change):
            response = copy.deepcopy(RESPONSE)
            change(response)
            return response
        cases = [
            (lambda r: r["layers"][1]["logits"].pop(), r"layers\[1\].logits has 35 values; 2 x 3 x 6"),
            (lambda r: r["layers"][0]["mass"].__setitem__(0, "x"), r"layers\[0\].mass is not a list of numbers"),
            (lambda r: r.pop("layers"), "layers is empty"),
            (lambda r: r.pop("layout"), "layout is missing"),
            (lambda r: r.pop("steps"), "0 steps"),
            (lambda r: r["units"][0].pop("kind"), r"units\[0\].kind is missing"),
            (lambda r: r["units"][0].__setitem__("num_keys", "many"), r"units\[0\].num_keys is 'many'"),
            (lambda r: r["layout"]["segments"][1].__setitem__("begin", 3), r"segments\[1\] begins at 3"),
            (lambda r: r["mask_runs"][2]["rows"].__setitem__("end", 12), r"mask_runs\[2\].rows"),
        ]
        for change, message in cases:
            with self.subTest(message), self.assertRaisesRegex(InputError, message):
                ExplainData.from_json(changed(change))

    def test_unreadable_files_are_named(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in [("a.json", b"{"), ("b.json", b"[]"), ("c.npz", b"PK"), ("d.npz", b"")]:
                path = pathlib.Path(folder) / name
                path.write_bytes(content)
                with self.subTest(name), self.assertRaisesRegex(InputError, name):
                    load_explain_data(path)
            np.savez(pathlib.Path(folder) / "e.npz", other=1)
            with self.assertRaisesRegex(InputError, "not saved by this version"):
                load_explain_data(pathlib.Path(folder) / "e.npz")
            with self.assertRaisesRegex(InputError, "f.json cannot be read"):
                load_explain_data(pathlib.Path(folder) / "f.json")


class StatisticsTest(unittest.TestCase):
    def test_of_one_layer_by_hand(self):
        one = layer_statistics([[6.0, 1.0, 3.0, 2.0], [2.0, 1.0, 1.0, 0.0]])
        self.assertEqual([4.0, 1.0], one.sink_scores.tolist())
        self.assertEqual([(6 - 1) / 3 * 100, 200.0], one.spreads.tolist())
        self.assertEqual([4.0, 1.0, 2.0, 1.0], one.mean.tolist())
        self.assertEqual([2.0, 0.0, 1.0, 1.0], one.deviation.tolist())  # N in the denominator
        self.assertEqual((4.0, 1.5, 1.0), (one.first, one.middle, one.last))
        self.assertEqual((4 / 1.5, 3.0), (one.ratio, one.difference))
        self.assertEqual([0], one.sink_heads)
        self.assertTrue(one.has_sink)

    def test_thresholds_are_exclusive(self):
        self.assertEqual([], layer_statistics([[2.0, 0.0, 0.0]]).sink_heads)
        self.assertFalse(layer_statistics([[1.2, 1.0, 0.0]]).has_sink)

    def test_without_a_middle_the_mean_stands_for_it(self):
        one = layer_statistics([[3.0, 1.0]])
        self.assertEqual(([1.0], 2.0), (one.sink_scores.tolist(), one.middle))
        self.assertEqual([0.0], layer_statistics([[3.0]]).sink_scores.tolist())

    def test_a_middle_of_zero_gives_no_ratio(self):
        one = layer_statistics([[3.0, 0.0, 1.0]])
        self.assertTrue(math.isnan(one.ratio))
        self.assertFalse(one.has_sink)

    def test_mean_over_steps_leaves_out_rows_that_see_nothing(self):
        data = ExplainData.from_json(RESPONSE)
        statistics = attention_statistics(data, "logits")
        self.assertEqual(6, len(statistics.units))
        of_layer = statistics.of_layer(LAYERS[1])
        for head in range(3):
            want = data.logits[1, :, head].astype(np.float64).mean(axis=0)
            np.testing.assert_array_equal(want[:5], of_layer.values[head, :5])
            self.assertEqual(data.logits[1, 1, head, 5], of_layer.values[head, 5])  # the second step's alone
        np.testing.assert_array_equal(data.mass[0].astype(np.float64).mean(axis=0),
                                      attention_statistics(data, "mass").of_layer(0).values)

    def test_units_that_no_row_sees_are_left_out(self):
        response = copy.deepcopy(RESPONSE)
        response["steps"] = [0]
        for layer in response["layers"]:
            layer["logits"], layer["mass"] = layer["logits"][:18], layer["mass"][:18]
        data = ExplainData.from_json(response)
        for quantity in ["logits", "mass"]:
            labels = [unit.label for unit in attention_statistics(data, quantity).units]
            self.assertEqual(["prefix", "prompt 1", "prompt 0", "separators", "suffix"], labels)

    def test_the_largest_sink_is_found(self):
        response = copy.deepcopy(RESPONSE)
        for step in range(2):
            response["layers"][1]["logits"][step * 18 + 1 * 6] = 50.0  # second head, first unit
        statistics = attention_statistics(ExplainData.from_json(response), "logits")
        self.assertEqual((LAYERS[1], 1), statistics.largest_sink())

    def test_tables_say_the_numbers(self):
        data = ExplainData.from_json(RESPONSE)
        all_statistics = [attention_statistics(data, name) for name in ("logits", "mass")]
        text = statistics_report(all_statistics)
        one = all_statistics[0].of_layer(4)
        row = next(line for line in text.splitlines() if line.split()[:1] == ["4"])
        self.assertEqual([f"{one.first:.4f}", f"{one.middle:.4f}", f"{one.last:.4f}"], row.split()[1:4])
        self.assertIn("first: prefix; middle: prompt 1, prompt 0, separators, suffix; last: generated", text)
        markdown = statistics_report(all_statistics, markdown=True, heads=True)
        rows = [line for line in markdown.splitlines() if line.startswith("|")]
        self.assertEqual(2 * ((2 + 2) + (2 + 2 * 3)), len(rows))  # header, rule, layers; header, rule, heads


class AttributionTest(unittest.TestCase):
    def test_parts_without_a_share_are_left_out(self):
        data = attribution_from_json(ANSWER)
        self.assertEqual(["prefix", "prompt 0", "prompt 1", "suffix", "generated"], data.labels)
        self.assertEqual(["Paris", "#42", "\n"], data.tokens)
        np.testing.assert_allclose(data.shares[0], [0.5, 0.2, 0.2, 0.1, 0.0], rtol=1e-6)

    def test_bad_answers_are_named(self):
        def changed(change):
            answer = copy.deepcopy(ANSWER)
            change(answer["tokens"])
            return answer
        cases = [
            (lambda tokens: tokens.clear(), "tokens is empty"),
            (lambda tokens: tokens[1].update(attribution=None), r"tokens\[1\].attribution is missing"),
            (lambda tokens: tokens[1]["attribution"]["segments"].pop(), "differs in length"),
            (lambda tokens: tokens[2]["attribution"].update(prefix=0.9), r"tokens\[2\].attribution adds up to 1"),
        ]
        for change, message in cases:
            with self.subTest(message), self.assertRaisesRegex(InputError, message):
                attribution_from_json(changed(change))

    def test_a_file_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "answer.json"
            path.write_text(json.dumps({"tokens": []}))
            with self.assertRaisesRegex(InputError, "answer.json: tokens is empty"):
                load_attribution(path)


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/env python3
"""chorus_plot's files: which there are, that their text is text, and what the command answers."""
import contextlib
import io
import json
import pathlib
import re
import struct
import tempfile
import unittest
import unittest.mock
import xml.etree.ElementTree

import numpy as np

from chorus_plot import attention_figures, cli, flowchart, style
from chorus_plot.attribution_figure import attribution_figure
from chorus_plot.attribution_data import attribution_from_json
from chorus_plot.layout import SCENARIOS
from chorus_plot.sampling import sampled_positions
from plot_example import ANSWER, RESPONSE

ROOT = pathlib.Path(__file__).resolve().parents[2]
DPI = style.DPI


def texts(path):
    """Every text of an SVG, as a reader could search or edit it."""
    svg = xml.etree.ElementTree.parse(path)
    return ["".join(element.itertext()).strip() for element in svg.iter("{http://www.w3.org/2000/svg}text")]


def figures(*names):
    return {f"{name}.{kind}" for name in names for kind in ("svg", "png")}


class CommandTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.explained = self.folder / "explain.json"
        self.explained.write_text(json.dumps(RESPONSE))
        self.out = self.folder / "figures"
        # Fewer dots, for speed; what a user gets has a test of its own.
        few_dots = unittest.mock.patch.object(style, "DPI", 30)
        few_dots.start()
        self.addCleanup(few_dots.stop)

    def run_command(self, *arguments):
        """(exit code, standard output, standard error)"""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main([str(argument) for argument in arguments])
            except SystemExit as exit_error:
                code = exit_error.code
        return code, out.getvalue(), err.getvalue()

    def draw(self, *arguments):
        """Runs it with --out; the names of the files it wrote, all of which it must have printed."""
        code, out, err = self.run_command(*arguments, f"--out={self.out}")
        self.assertEqual((0, ""), (code, err))
        written = {path.name for path in self.out.iterdir()}
        self.assertEqual(written, {pathlib.Path(line).name for line in out.splitlines()})
        return written

    def test_named_masks(self):
        self.assertEqual(figures("mask_small", "mask_medium", "mask_large", "mask_custom", "attention_patterns")
                         | {"mask_matrix_custom.npy"}, self.draw("masks"))
        pieces, max_positions = SCENARIOS["custom"]
        layout = pieces.layout()
        positions = sampled_positions(layout, max_positions)
        matrix = np.load(self.out / "mask_matrix_custom.npy")
        np.testing.assert_array_equal(layout.runs().dense(positions, positions), matrix)
        small = texts(self.out / "mask_small.svg")
        for text in ["S1 0", "E1 14", "S2 17", "E3 48", "G0 49", "53", "segment boundary", "generation starts",
                     "all 54 positions", "all  620 of 2,916 (21.3%)", "rows that see nothing  4"]:
            self.assertIn(text, small)
        for text in ["35 of 281 positions (12.5%)", "all  10,485 of 78,961 (13.3%)", "shown  296 of 1,225 (24.2%)"]:
            self.assertIn(text, texts(self.out / "mask_large.svg"))
        patterns = texts(self.out / "attention_patterns.svg")
        for text in ["first segment: query 5 sees 6 of 145 keys (4.1%)",
                     "last segment: query 117 sees 6 of 145 keys (4.1%)",
                     "first generated: query 137 sees 138 of 145 keys (95.2%)",
                     "last: query 144 sees 145 of 145 keys (100.0%)"]:
            self.assertIn(text, patterns)

    def test_lines_have_the_documents_colours(self):
        self.draw("masks", "--scenario=small")
        svg = (self.out / "mask_small.svg").read_text()
        dashed = re.findall(r"stroke-dasharray[^;\"]*; stroke-dashoffset: 0; stroke: (#[0-9a-f]{6})", svg)
        # Two ends and two directions of each gap, and both directions of where generation starts; in the
        # legend one of each.
        self.assertEqual(2 * 2 * 2 + 1, dashed.count(style.SEGMENT_BOUNDARY.lower()))
        self.assertEqual(2 + 1, dashed.count(style.GENERATION_START.lower()))

    def test_a_layout_by_flags(self):
        self.draw("masks", "--prompts=2", "--tokens=4", "--separator_tokens=0", "--prefix_length=3", "--generated=2")
        matrix = np.load(self.out / "mask_matrix_custom.npy")
        prefix, segment, between = np.tri(3), np.tri(4), np.zeros((4, 4))
        want = np.block([[prefix, np.zeros((3, 8))],
                         [np.ones((4, 3)), segment, between],
                         [np.ones((4, 3)), between, segment]])
        want = np.block([[want, np.zeros((11, 2))], [np.ones((2, 11)), np.tri(2)]])
        np.testing.assert_array_equal(want, matrix)

    def test_the_mask_of_a_request(self):
        self.assertEqual(figures("mask_custom", "attention_patterns") | {"mask_matrix_custom.npy"},
                         self.draw("masks", self.explained))
        self.assertIn("Attention mask: an explained request", texts(self.out / "mask_custom.svg"))
        self.assertEqual((11, 11), np.load(self.out / "mask_matrix_custom.npy").shape)

    def test_the_mask_of_a_file_of_chorus_mask(self):
        mask = self.folder / "mask.json"
        mask.write_text(json.dumps({
            "layout": "ranges", "length": 6, "original_length": 5, "prefix_length": 0, "segments": [[0, 2], [3, 5]],
            "row_intervals": [{"begin": 0, "end": 2, "keys": [[0, 2]]}, {"begin": 3, "end": 5, "keys": [[3, 5]]},
                              {"begin": 5, "end": 6, "keys": [[0, 6]]}],
            "shown": {"positions": [0, 1, 2, 4, 5]}, "token_ids": []}))
        self.assertEqual(figures("mask_custom", "attention_patterns") | {"mask_matrix_custom.npy"},
                         self.draw("masks", mask))
        np.testing.assert_array_equal([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0],
                                       [1, 1, 1, 1, 1]], np.load(self.out / "mask_matrix_custom.npy"))
        self.draw("masks", mask, "--full")
        self.assertEqual((6, 6), np.load(self.out / "mask_matrix_custom.npy").shape)

    def test_flowchart(self):
        self.assertEqual(figures("flowchart"), self.draw("flowchart"))
        self.assertLessEqual({box.name for box in flowchart.BOXES}, set(texts(self.out / "flowchart.svg")))

    def test_attention(self):
        names = ["attention_main", "layer1_per_head_grid", "layer1_all_heads", "layer5_per_head_grid",
                 "layer5_all_heads", "layer_comparison"]
        self.assertEqual(figures(*names, *(f"{name}_mass" for name in names)), self.draw("draw", self.explained))
        for name in names:
            self.assertLessEqual({"prefix", "prompt 0", "suffix", "generated"}, set(texts(self.out / f"{name}.svg")))
        main = texts(self.out / "attention_main.svg")
        self.assertTrue(any(text.startswith("L1H1 (layer index 0, head index 0)") for text in main))
        self.assertTrue(any(text.startswith("max ") for text in main))
        grid = texts(self.out / "layer5_per_head_grid.svg")
        self.assertEqual(3, sum(bool(re.match(r"H[123] \(Δ=", text)) for text in grid))
        self.assertIn("Layer 5 (index 4): every head", grid)

    def test_chosen_layers_and_heads(self):
        self.assertEqual(figures("attention_main", "layer5_per_head_grid", "layer5_all_heads", "layer_comparison"),
                         self.draw("draw", self.explained, "--layers=4", "--main_heads=4:2", "--quantities=logits"))
        self.assertTrue(any(text.startswith("L5H3") for text in texts(self.out / "attention_main.svg")))

    def test_saved_data_draw_the_same_picture(self):
        saved = self.folder / "explain.npz"
        self.assertEqual(0, self.run_command("save", self.explained, saved)[0])
        self.draw("draw", self.explained, "--quantities=mass")
        first = {path.name: path.read_bytes() for path in self.out.glob("*.svg")}
        self.draw("draw", saved, "--quantities=mass")
        self.assertEqual(first, {path.name: path.read_bytes() for path in self.out.glob("*.svg")})

    def test_pictures_have_300_dots_an_inch(self):
        with unittest.mock.patch.object(style, "DPI", DPI):
            self.draw("flowchart")
        png = (self.out / "flowchart.png").read_bytes()
        at = png.index(b"pHYs") + 4
        self.assertEqual((11811, 11811, 1), struct.unpack(">IIB", png[at:at + 9]))  # dots a metre

    def test_attribution(self):
        answer = self.folder / "answer.json"
        answer.write_text(json.dumps(ANSWER))
        self.assertEqual(figures("attribution"), self.draw("attribution", answer))
        for text in ["prefix", "prompt 0", "prompt 1", "suffix", "generated", "Paris", "#42", r"\n"]:
            self.assertIn(text, texts(self.out / "attribution.svg"))

    def test_statistics(self):
        code, out, _ = self.run_command("statistics", self.explained, "--markdown", "--quantities=logits")
        self.assertEqual(0, code)
        self.assertIn("| layer | first | middle | last | first/middle |", out)

    def test_wrong_usage_is_2_and_failure_is_1(self):
        cases = [
            (2, "COMMAND", []), (2, "invalid choice", ["paint"]), (2, "prompts is 0", ["masks", "--prompts=0"]),
            (2, "--prompts does not go with FILE", ["masks", self.explained, "--prompts=2"]),
            (2, "'probability' is none of", ["draw", self.explained, "--quantities=probability"]),
            (2, "indexes count from 0", ["draw", self.explained, "--layers=-1"]),
            (2, "layer:head", ["draw", self.explained, "--main_heads=3"]),
            (1, "layer is 7; the data has 0, 4", ["draw", self.explained, "--layers=7"]),
            (1, "head is 3; the data has 0, 1, 2", ["draw", self.explained, "--main_heads=0:3"]),
            (1, "max_positions is 2", ["masks", "--max_positions=2"]),
            (1, "at most 2000 positions", ["masks", "--tokens=1000", "--full"]),
            (1, "nothing.json cannot be read", ["draw", self.folder / "nothing.json"]),
        ]
        for code, message, arguments in cases:
            with self.subTest(message):
                got, out, err = self.run_command(*arguments, *([f"--out={self.out}"] if len(arguments) > 1 else []))
                self.assertEqual((code, ""), (got, out))
                self.assertIn(message, err)
                self.assertNotIn("Traceback", err)

    def test_help_teaches(self):
        code, out, _ = self.run_command("--help")
        self.assertEqual(0, code)
        for command in ["masks", "flowchart", "explain", "ask", "draw", "attribution", "statistics", "save"]:
            self.assertIn(f"chorus-plot {command}" if command not in {"flowchart", "ask", "save"} else command, out)


class FigureTest(unittest.TestCase):
    def test_the_flowchart_is_the_line_of_core_readme(self):
        readme = (ROOT / "core" / "README.md").read_text()
        line = readme[readme.index("## One request, a straight line"):readme.index("## Folders")]
        for box in flowchart.BOXES:
            for word in re.findall(r"[A-Z]\w+(?:::\w+)?", f"{box.name} {box.note}"):
                self.assertIn(word, line)

    def test_at_most_six_layers_are_compared(self):
        self.assertEqual([0, 5, 11, 17, 23, 29], attention_figures.compared_layers(list(range(30))))
        self.assertEqual([3, 8], attention_figures.compared_layers([3, 8]))
        self.assertEqual([3], attention_figures.compared_layers([3]))

    def test_areas_are_the_shares(self):
        data = attribution_from_json(ANSWER)
        with style.settings():
            figure = attribution_figure(data)
        above, below = figure.axes
        tops = [collection.get_paths()[0].vertices[:, 1].max() for collection in above.collections]
        np.testing.assert_allclose(np.cumsum(data.shares, axis=1).max(axis=0), tops, atol=1e-6)
        self.assertEqual(2, len(below.collections))  # the prompts alone

    def test_tokens_are_one_line_of_text(self):
        self.assertEqual([r"a\nb", "x", "␣", "$x$"], [style.visible(token) for token in ["a\nb", " x", " ", "$x$"]])


if __name__ == "__main__":
    unittest.main(verbosity=2)

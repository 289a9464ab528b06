#!/usr/bin/env python3
"""Two definitions of one mask: chorus_plot's in numpy, and that of the command `chorus mask`.

    PYTHONPATH=client/python .venv/bin/python tests/client_python/plot_command_test.py --bin build/release/bin
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import unittest

from chorus_plot.layout import SCENARIOS, SegmentLayout
from chorus_plot.mask_data import mask_from_json
from chorus_plot.mask_runs import TokenRange
from chorus_plot.sampling import position_labels, sampled_positions

BIN = None


def chorus_mask(*flags):
    run = subprocess.run([BIN / "chorus", "mask", "--json", *flags], capture_output=True, text=True, timeout=60)
    if run.returncode != 0:
        raise AssertionError(f"chorus mask {' '.join(flags)}: {run.stderr}")
    return json.loads(run.stdout)


class SameMaskTest(unittest.TestCase):
    def check_same(self, mask, layout, positions, message):
        """Everything that both say: layout, mask, statistics, shown positions, labels, queries."""
        read, runs = mask_from_json(mask), layout.runs()
        self.assertEqual((layout, positions), (read.layout, read.positions), message)
        everything = range(layout.length)
        self.assertEqual(runs.dense(everything, everything).tolist(),
                         read.mask_runs.dense(everything, everything).tolist(), message)
        self.assertEqual((mask["allowed"], mask["total"]), (runs.allowed(), runs.total()), message)
        self.assertEqual(mask["fully_masked_rows"], [list(pair) for pair in runs.fully_masked_rows()], message)
        shown = mask["shown"]
        self.assertEqual(shown["matrix"], runs.dense(positions, positions).astype(int).tolist(), message)
        labels = [label.split()[0] if " " in label else "" for label in position_labels(layout, positions)]
        self.assertEqual(shown["labels"], labels, message)
        queries = [(query["name"], query["query"]) for query in mask["queries"]]
        self.assertEqual(queries, layout.representative_queries(), message)

    def test_named_layouts(self):
        for name, (pieces, max_positions) in SCENARIOS.items():
            layout = pieces.layout()
            positions = (sampled_positions(layout, max_positions) if max_positions
                         else list(range(layout.length)))
            self.check_same(chorus_mask(f"--scenario={name}"), layout, positions, name)

    def test_layouts_by_ranges(self):
        seed = random.SystemRandom().randrange(1 << 32)
        rng = random.Random(seed)
        for case in range(40):
            at, segments = 0, []
            for _ in range(rng.randint(1, 30)):
                begin = at + rng.choice([0, 0, 2])
                at = begin + rng.choice([1, 2, 4, 5, 17])
                segments.append(TokenRange(begin, at))
            layout = SegmentLayout(tuple(segments), at, at + rng.choice([0, 1, 6, 20]))
            most = rng.randint(5, 40)
            mask = chorus_mask("--segments=" + ",".join(f"{begin}:{end}" for begin, end in segments),
                               f"--original_length={layout.original_length}", f"--length={layout.length}",
                               f"--max_positions={most}")
            self.check_same(mask, layout, sampled_positions(layout, most), f"seed {seed}, case {case}: {layout}, {most}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    arguments, rest = parser.parse_known_args()
    BIN = arguments.bin.resolve()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)

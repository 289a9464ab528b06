#!/usr/bin/env python3
"""chorus_plot's layouts, masks and sampled positions, against the definition and the founding documents."""
import random
import time
import unittest

import numpy as np

from chorus_plot.errors import InputError
from chorus_plot.layout import SCENARIOS, Pieces, SegmentLayout
from chorus_plot.mask_runs import MaskRun, MaskRuns, TokenRange
from chorus_plot.sampling import position_labels, sampled_positions


def allows(layout, query, key):
    """The definition, said once more and pair by pair: core/segment/segment_mask.h."""
    def owner(index):
        for number, (begin, end) in enumerate(layout.segments):
            if begin <= index < end:
                return number
        return None
    if key > query:
        return False
    if query >= layout.original_length:
        return True
    if key < layout.prefix_length:
        return query < layout.prefix_length or owner(query) is not None
    return owner(query) is not None and owner(query) == owner(key)


def brute_force(layout):
    return np.array([[allows(layout, query, key) for key in range(layout.length)]
                     for query in range(layout.length)])


def ranges(*pairs):
    return tuple(TokenRange(*pair) for pair in pairs)


def random_layout(rng):
    at = prefix = rng.choice([0, 0, 1, 5])
    segments = []
    for _ in range(rng.randint(1, 9)):
        at += rng.choice([0, 0, 1, 3])
        length = rng.choice([1, 2, 4, 5, 12])
        segments.append((at, at + length))
        at += length
    at += rng.choice([0, 2])
    return SegmentLayout(ranges(*segments), at, at + rng.choice([0, 1, 4, 9]), prefix)


# Document 003: five prompts, the answer's first ten tokens.
EXAMPLE = SegmentLayout(ranges((0, 48), (48, 95), (95, 143), (143, 192), (192, 238)), 238, 248)


class MaskTest(unittest.TestCase):
    def test_named_layouts_have_the_documents_statistics(self):
        expected = {  # allowed, total, displayed allowed, displayed total
            "small": (620, 2916, 620, 2916), "medium": (2757, 21025, 238, 900),
            "large": (10485, 78961, 296, 1225), "custom": (3205, 19321, 249, 900)}
        self.assertEqual(set(expected), set(SCENARIOS))
        for name, (pieces, max_positions) in SCENARIOS.items():
            with self.subTest(name):
                layout = pieces.layout()
                runs, full = layout.runs(), brute_force(layout)
                positions = sampled_positions(layout, max_positions or layout.length)
                shown = runs.dense(positions, positions)
                self.assertEqual(expected[name], (runs.allowed(), runs.total(), shown.sum(), shown.size))
                self.assertEqual(runs.allowed(), full.sum())
                np.testing.assert_array_equal(full[np.ix_(positions, positions)], shown)

    def test_any_layout_is_its_definition(self):
        seed = random.SystemRandom().randrange(1 << 32)
        rng = random.Random(seed)
        for case in range(200):
            layout = random_layout(rng)
            runs, full = layout.runs(), brute_force(layout)
            message = f"seed {seed}, case {case}: {layout}"
            everything = range(layout.length)
            np.testing.assert_array_equal(full, runs.dense(everything, everything), message)
            self.assertEqual(full.sum(), runs.allowed(), message)
            empty = [row for begin, end in runs.fully_masked_rows() for row in range(begin, end)]
            self.assertEqual(np.flatnonzero(~full.any(axis=1)).tolist(), empty, message)

    def test_any_runs_are_counted_right(self):
        seed = random.SystemRandom().randrange(1 << 32)
        rng = random.Random(seed)
        for case in range(200):
            length = rng.randint(1, 20)
            cuts = sorted(rng.randint(0, length) for _ in range(4))
            runs = MaskRuns(tuple(
                MaskRun(TokenRange(begin, end), ranges(*zip(*[iter(sorted(rng.randint(0, length) for _ in range(4)))] * 2)))
                for begin, end in zip(cuts, cuts[1:])), length)
            full = runs.dense(range(length), range(length))
            message = f"seed {seed}, case {case}: {runs}"
            empty = [row for begin, end in runs.fully_masked_rows() for row in range(begin, end)]
            self.assertEqual(np.flatnonzero(~full.any(axis=1)).tolist(), empty, message)
            # Key intervals may touch but not overlap, so that no pair counts twice.
            self.assertEqual(full.sum(), runs.allowed(), message)

    def test_an_attached_separator_sees_its_segment(self):
        layout = Pieces(prompts=2, tokens=3, separator_tokens=2, generated=1, attached=True).layout()
        self.assertEqual(ranges((0, 5), (5, 8)), layout.segments)
        self.assertEqual([], layout.runs().fully_masked_rows())

    def test_bad_layouts_are_named(self):
        cases = [
            (lambda: SegmentLayout(ranges((0, 4), (3, 6)), 6, 6), r"segments\[1\] begins at 3"),
            (lambda: SegmentLayout(ranges((4, 6), (0, 4)), 6, 6), r"segments\[1\] begins at 0"),
            (lambda: SegmentLayout(ranges((0, 4), (4, 4)), 6, 6), r"segments\[1\] is \[4, 4\)"),
            (lambda: SegmentLayout(ranges((0, 7)), 6, 6), r"segments\[0\] ends at 7; the original_length is 6"),
            (lambda: SegmentLayout((), 6, 6), "segments is empty"),
            (lambda: SegmentLayout(ranges((0, 2)), 6, 5), "length is 5"),
            (lambda: SegmentLayout(ranges((0, 2)), 2, 3, prefix_length=3), "prefix_length is 3"),
            (lambda: SegmentLayout(ranges((0, 2)), 2, 3, suffix_length=2), "suffix_length is 2"),
            (lambda: Pieces(prompts=0, tokens=1, separator_tokens=0, generated=0), "prompts is 0"),
            (lambda: Pieces(prompts=1 << 20, tokens=1 << 20, separator_tokens=0, generated=0), "at most"),
            (lambda: MaskRuns((MaskRun(TokenRange(2, 9), ()),), 8), r"mask_runs\[0\].rows"),
            (lambda: MaskRuns((MaskRun(TokenRange(0, 8), ranges((3, 2))),), 8), r"mask_runs\[0\].keys"),
        ]
        for make, message in cases:
            with self.subTest(message), self.assertRaisesRegex(InputError, message):
                make()


class SamplingTest(unittest.TestCase):
    def test_the_example_of_document_003(self):
        positions = sampled_positions(EXAMPLE, 25)
        self.assertEqual([0, 16, 32, 47, 48, 63, 79, 94, 95, 111, 127, 142, 143, 159, 175, 191, 192,
                          207, 222, 237, 238, 239, 240, 241, 242], positions)
        marks = {label.split()[0]: int(label.split()[1])
                 for label in position_labels(EXAMPLE, positions) if " " in label}
        self.assertEqual({"S1": 0, "E1": 47, "S2": 48, "E2": 94, "S3": 95, "E3": 142, "S4": 143, "E4": 191,
                          "S5": 192, "E5": 237, "G0": 238}, marks)
        # Four shown tokens of each segment see 1, 2, 3, 4 of them; five fused rows see 21 to 25.
        shown = EXAMPLE.runs().dense(positions, positions)
        self.assertEqual([1, 2, 3, 4] * 5 + [21, 22, 23, 24, 25], shown.sum(axis=1).tolist())
        np.testing.assert_array_equal(brute_force(EXAMPLE)[np.ix_(positions, positions)], shown)

    def test_many_segments_are_left_out_evenly(self):
        layout = Pieces(prompts=101, tokens=10, separator_tokens=0, generated=5).layout()
        positions = sampled_positions(layout, 23)  # the start of generation and 11 segments
        shown = [number for number, (begin, _) in enumerate(layout.segments) if begin in positions]
        self.assertEqual(list(range(0, 101, 10)), shown)
        self.assertIn(layout.original_length, positions)

    def test_what_must_hold_of_any_sample(self):
        seed = random.SystemRandom().randrange(1 << 32)
        rng = random.Random(seed)
        for case in range(500):
            layout, most = random_layout(rng), rng.randint(5, 60)
            positions = sampled_positions(layout, most)
            message = f"seed {seed}, case {case}: {layout}, {most}: {positions}"
            self.assertEqual(sorted(set(positions)), positions, message)
            self.assertTrue(0 <= positions[0] and positions[-1] < layout.length, message)
            self.assertLessEqual(len(positions), most, message)
            must = {layout.segments[0].begin, layout.segments[0].end - 1, layout.segments[-1].begin,
                    layout.segments[-1].end - 1, layout.original_length} - {layout.length}
            self.assertLessEqual(must, set(positions), message)

    def test_too_few_positions_are_refused(self):
        with self.assertRaisesRegex(InputError, "max_positions is 4; at least 5"):
            sampled_positions(EXAMPLE, 4)

    def test_representative_queries_stay_in_their_segment(self):
        self.assertEqual([("first segment", 5), ("last segment", 197), ("first generated", 238), ("last", 247)],
                         EXAMPLE.representative_queries())
        short = SegmentLayout(ranges((0, 3), (3, 4)), 4, 4)
        self.assertEqual([("first segment", 2), ("last segment", 3), ("last", 3)], short.representative_queries())

    def test_a_long_layout_takes_no_square_of_it(self):
        layout = Pieces(prompts=200, tokens=497, separator_tokens=3, generated=3).layout()
        begin = time.perf_counter()
        runs = layout.runs()
        positions = sampled_positions(layout, 60)
        shown = runs.dense(positions, positions)
        seconds = time.perf_counter() - begin
        own, fused = 497 * 498 // 2, sum(range(99998, 100001))
        self.assertEqual((100000, 200 * own + fused), (layout.length, runs.allowed()))
        self.assertEqual(60, len(shown))
        self.assertLess(seconds, 5)  # the full matrix would be 10^10 pairs


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/env python3
"""Checks the reference itself: against stock Transformers, published mask counts and identities.

    python reference_test.py          (needs requirements.txt; part of regenerating the data)
"""

import math
import pathlib
import random
import types
import unittest

import torch
import transformers

import reference
from reference import Fusion, FusedSequence, Layout, PlainSequence, Prompt

MODELS = pathlib.Path(__file__).resolve().parent / "models"
SEED = 20261
# Rows of about 3 in magnitude, a few hundred float32 operations deep.
TOLERANCE = 2e-4


def random_prompt(seed, prefix=6, separator=2, suffix=3, lengths=(5, 8, 3)):
    rng = random.Random(seed)
    make = lambda count: [rng.randrange(4, 300) for _ in range(count)]  # noqa: E731
    return Prompt([make(length) for length in lengths], make(prefix), make(separator),
                  make(suffix))


class MaskTest(unittest.TestCase):
    def test_allowed_pairs_of_the_published_scenarios(self):
        for count, tokens, separator, generated, allowed in (
                (3, 15, 2, 5, 620), (5, 25, 3, 8, 2757), (5, 50, 4, 15, 10485),
                (4, 30, 3, 10, 3205)):
            layout = Layout(Prompt([[9] * tokens] * count, separator=[9] * separator),
                            Fusion(positions="SEQUENTIAL"))
            for _ in range(generated):
                layout.append_generated(9)
            self.assertEqual(int(layout.mask().sum()), allowed)

    def test_overlapping_positions(self):
        prompt = Prompt([[1, 2, 3], [4]], prefix=[5, 6], separator=[7], suffix=[8])
        layout = Layout(prompt, Fusion())
        layout.append_generated(9)
        self.assertEqual([entry.position for entry in layout.entries],
                         [0, 1, 2, 3, 4, 5, 2, 6, 7])

    def test_an_isolated_separator_sees_nothing_and_an_attached_one_its_segment(self):
        prompt = Prompt([[1, 2], [3]], prefix=[5], separator=[7], suffix=[8])
        isolated = Layout(prompt, Fusion()).mask()
        attached = Layout(prompt, Fusion(separators="ATTACHED")).mask()
        self.assertFalse(bool(isolated[3].any()))
        self.assertEqual(attached[3].tolist(), [True, True, True, True, False, False])


class AttentionTest(unittest.TestCase):
    def test_an_empty_row_is_zero_and_its_log_sum_exp_minus_infinity(self):
        probabilities, lse = reference._softmax_and_lse(torch.full((1, 4), -math.inf))
        self.assertEqual(probabilities.tolist(), [[0.0] * 4])
        self.assertEqual(lse.item(), -math.inf)

    def test_scaling_equals_its_closed_form(self):
        # Weight of a segment column: exp(bias) * Z^(S - 1) * exp(z / T), Z = sum of exp(z / T).
        torch.manual_seed(SEED)
        scores = torch.randn(1, 9, dtype=torch.float64) * 3
        columns = torch.tensor([False, True, True, False, True, False, True, True, False])
        temperature, scale, bias = 0.7, 1.3, -0.4
        scaling = reference.SegmentScaling(temperature, scale, bias, columns, torch.tensor([True]))
        powers = torch.exp(scores / temperature)
        total = powers[0, columns].sum()
        weights = torch.where(columns, math.exp(bias) * total ** (scale - 1) * powers,
                              torch.exp(scores))
        torch.testing.assert_close(reference._scaled_probabilities(scores, scaling),
                                   weights / weights.sum())


class ModelTest(unittest.TestCase):
    def models(self):
        for directory in sorted(MODELS.iterdir()):
            stock = transformers.AutoModelForCausalLM.from_pretrained(
                directory, dtype=torch.float32, attn_implementation="eager").eval()
            yield directory.name, reference.load_model(directory), stock

    def windowed_models(self):
        """With the masks that stock Transformers takes: one, or one per kind of layer. Llama's
        class knows no kinds, so chunks cannot be checked against it."""
        for name, model, stock in self.models():
            kinds = set(reference.layer_types(model.config))
            if "chunked_attention" in kinds:
                continue

            def masks(allowed, positions, config=model.config, kinds=kinds):
                by_kind = {kind: torch.where(
                    allowed & reference.window(config, kind, positions, positions), 0.0,
                    torch.finfo(torch.float32).min)[None, None] for kind in kinds}
                return by_kind if len(kinds) > 1 else by_kind.popitem()[1]

            yield name, model, stock, masks

    @torch.no_grad()
    def test_a_plain_sequence_equals_stock_transformers(self):
        for name, model, stock, _ in self.windowed_models():
            with self.subTest(name):
                prompt = random_prompt(SEED)
                sequence = PlainSequence(model, prompt, 1)
                tokens = prompt.prefix + prompt.segments[1] + prompt.suffix
                rows = [sequence.first_row(), sequence.next_row(50), sequence.next_row(60)]
                expected = stock(torch.tensor([tokens + [50, 60]])).logits[0, -3:].double()
                torch.testing.assert_close(torch.stack(rows), expected, atol=TOLERANCE, rtol=0)

    @torch.no_grad()
    def test_a_bias_equals_an_additive_mask_in_stock_transformers(self):
        for name, model, stock, masks in self.windowed_models():
            with self.subTest(name):
                prompt, bias = random_prompt(SEED + 1, separator=0), -1.25
                sequence = FusedSequence(model, prompt, Fusion(segment_log_bias=bias))
                layout = sequence.layout
                additive = masks(layout.mask(), layout.positions())
                touched = layout.fused_rows()[:, None] & layout.segment_columns()[None, :]
                bias = torch.where(touched, bias, 0.0)
                additive = ({kind: mask + bias for kind, mask in additive.items()}
                            if isinstance(additive, dict) else additive + bias)
                expected = stock(
                    torch.tensor([[entry.token for entry in layout.entries]]),
                    position_ids=torch.tensor([layout.positions()]),
                    attention_mask=additive).logits[0, -1].double()
                torch.testing.assert_close(sequence.first_row(), expected, atol=TOLERANCE, rtol=0)

    def test_windows_hide_keys_by_position(self):
        config = types.SimpleNamespace(sliding_window=3, attention_chunk_size=4)
        sliding = reference.window(config, "sliding_attention", [5, 2], [0, 2, 3, 5])
        chunked = reference.window(config, "chunked_attention", [5, 8], [3, 4, 5, 8])
        self.assertEqual(sliding.tolist(), [[False, False, True, True], [True] * 4])
        self.assertEqual(chunked.tolist(), [[False, True, True, False], [False] * 3 + [True]])

    @torch.no_grad()
    def test_a_fused_sequence_of_one_segment_is_the_plain_one(self):
        # The explicit masks of every layer against the masks and the cache of the model's class.
        for name, model, _ in self.models():
            with self.subTest(name):
                prompt = random_prompt(SEED + 5, lengths=(20,))
                fused, plain = (FusedSequence(model, prompt, Fusion()),
                                PlainSequence(model, prompt, 0))
                for row in (fused, plain):
                    row.rows = torch.stack([row.first_row(), row.next_row(50), row.next_row(60)])
                torch.testing.assert_close(fused.rows, plain.rows, atol=TOLERANCE, rtol=0)

    def test_a_cache_changes_nothing(self):
        fusion = Fusion(separators="ISOLATED", attention_temperature=0.8, attention_scale=0.9)
        for name, model, _ in self.models():
            with self.subTest(name):
                prompt = random_prompt(SEED + 2)
                cached = FusedSequence(model, prompt, fusion)
                recomputed = FusedSequence(model, prompt, fusion, recompute=True)
                rows = [(s.first_row(), s.next_row(70), s.next_row(80))
                        for s in (cached, recomputed)]
                torch.testing.assert_close(torch.stack(rows[0]), torch.stack(rows[1]),
                                           atol=TOLERANCE, rtol=0)

    def test_a_segment_sees_only_the_prefix_and_itself(self):
        for name, model, _ in self.models():
            with self.subTest(name):
                prompt = random_prompt(SEED + 3, suffix=0)
                alone = [PlainSequence(model, prompt, index).first_row() for index in range(3)]
                fused = FusedSequence(model, prompt, Fusion()).first_row()
                torch.testing.assert_close(fused, torch.stack(alone).mean(dim=0), atol=TOLERANCE,
                                           rtol=0)

    def test_the_order_of_overlapping_segments_does_not_matter(self):
        for name, model, _ in self.models():
            with self.subTest(name):
                prompt = random_prompt(SEED + 4, separator=0)
                turned = Prompt(prompt.segments[::-1], prompt.prefix, [], prompt.suffix)
                torch.testing.assert_close(FusedSequence(model, prompt, Fusion()).first_row(),
                                           FusedSequence(model, turned, Fusion()).first_row(),
                                           atol=TOLERANCE, rtol=0)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    unittest.main()

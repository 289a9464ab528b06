#!/usr/bin/env python3
"""Writes tests/golden/data/probes_*.json: where rows look, by stock Transformers.

    python make_probes.py [--only NAME ...] [--qa FILE] [--smollm2 DIR]

Eager attention in float32 with output_attentions, under an explicit 4-D mask and explicit position
ids, the whole sequence in one pass. Logits are taken where the attention function computes them.
Disagreement is computed in float64 from each prompt's own causal pass. README.md has the schema.
"""

import argparse
import datetime
import json
import math
import pathlib
import random
import sys

import numpy as np
import tokenizers
import torch
import transformers
from transformers.models.llama import modeling_llama

from make_golden import (CHATML_PREFIX, CHATML_SUFFIX, FEW_SHOT, HERE, ROOT, random_prompt,
                         sha256_of)
from reference import GENERATED, PREFIX, SEPARATOR, SUFFIX, Fusion, Layout, Prompt

DECIMALS = 5
NUM_GENERATED = 3


class EagerModel:
    """A model that also remembers each layer's logits, q k / sqrt(head_dim), of the last pass."""

    def __init__(self, directory):
        self._logits = []
        stock = modeling_llama.eager_attention_forward

        def recording(module, query, key, value, attention_mask, scaling, **rest):
            keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            self._logits.append((query @ keys.transpose(2, 3) * scaling)[0].double().numpy())
            return stock(module, query, key, value, attention_mask, scaling, **rest)

        modeling_llama.eager_attention_forward = recording
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager").eval()

    @torch.no_grad()
    def run(self, tokens, positions, allowed):
        """Next-token logits [rows, vocabulary], attentions and logits [layers, heads, rows, keys]."""
        self._logits.clear()
        mask = torch.where(allowed, 0.0, -math.inf)[None, None]
        output = self.model(input_ids=torch.tensor([tokens]), position_ids=torch.tensor([positions]),
                            attention_mask=mask, use_cache=False, output_attentions=True)
        masses = np.stack([layer[0].double().numpy() for layer in output.attentions])
        return output.logits[0].double().numpy(), masses, np.stack(self._logits)


def unit_of(entry, num_segments):
    """Prefix, segments, suffix, generated."""
    if entry.owner is not None:
        return 1 + entry.owner
    return {PREFIX: 0, SUFFIX: num_segments + 1, GENERATED: num_segments + 2}[entry.kind]


def ranges_of(units):
    """[begin, end, unit] of the runs of equal units."""
    ranges = []
    for key, unit in enumerate(units):
        if ranges and ranges[-1][2] == unit:
            ranges[-1][1] = key + 1
        else:
            ranges.append([key, key + 1, unit])
    return ranges


def statistics(units, num_units, seen, masses, logits):
    """Mass and mean logit of a row, each [layers, heads, units] flattened. `seen`: bool [keys]."""
    mass, mean = [], []
    for unit in range(num_units):
        keys = seen & (np.asarray(units) == unit)
        mass.append(masses[:, :, keys].sum(axis=-1))
        none = np.full(mass[-1].shape, np.nan)
        mean.append(logits[:, :, keys].mean(axis=-1) if keys.any() else none)
    return [[None if math.isnan(value) else round(value, DECIMALS)
             for value in np.stack(values, axis=-1).reshape(-1).tolist()] for values in (mass, mean)]


def divergence(rows):
    """Jensen-Shannon divergence in bits of softmaxes, rows [prompts, vocabulary]."""
    rows = np.asarray(rows)
    rows = rows - rows.max(axis=1, keepdims=True)
    p = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)

    def entropy(q):
        return -(q * np.log2(np.where(q > 0, q, 1.0))).sum(axis=-1)

    return float(entropy(p.mean(axis=0)) - entropy(p).mean())


def disagreement(model, prompt):
    rows = []
    for segment in prompt.segments:
        tokens = prompt.prefix + segment + prompt.suffix
        causal = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        rows.append(model.run(tokens, list(range(len(tokens))), causal)[0][-1])
    return divergence(rows)


def case_json(name, model, prompt, fusion, rng, with_segment_row):
    layout = Layout(prompt, fusion)
    generated = [rng.randrange(4, 300) for _ in range(NUM_GENERATED)]
    for token in generated:
        layout.append_generated(token)
    entries, num_segments = layout.entries, len(prompt.segments)
    assert all(entry.kind != SEPARATOR or entry.owner is not None for entry in entries), \
        "eager attention knows no row that sees nothing"
    units = [unit_of(entry, num_segments) for entry in entries]
    allowed = layout.mask()
    _, masses, logits = model.run([entry.token for entry in entries],
                                  [entry.position for entry in entries], allowed)
    rows = [len(entries) - 1]
    if with_segment_row:
        rows.append(layout.segment_ranges[1][1] - 1)
    probes = []
    for row in rows:
        mass, mean = statistics(units, num_segments + 3, allowed[row].numpy(), masses[:, :, row],
                                logits[:, :, row])
        probes.append({"row": row, "mass": mass, "logits": mean})
    return {"name": name,
            "prompt": {"segments": prompt.segments, "prefix": prompt.prefix,
                       "separator": prompt.separator, "suffix": prompt.suffix},
            "positions": f"POSITION_MODE_{fusion.positions}", "generated": generated,
            "num_units": num_segments + 3, "units": ranges_of(units), "probes": probes,
            "disagreement": round(disagreement(model, prompt), 7)}


def tiny_cases(model):
    rng = random.Random("probes")
    for name, lengths, pieces, positions in (
            ("overlapping", (5, 70, 3), {"prefix": 6, "separator": 0, "suffix": 4}, "OVERLAPPING"),
            ("attached", (12, 9, 31), {"prefix": 2, "separator": 3, "suffix": 1}, "OVERLAPPING"),
            ("sequential", (7, 2, 40, 8), {"prefix": 0, "separator": 0, "suffix": 2},
             "SEQUENTIAL")):
        prompt = random_prompt(rng, lengths, **pieces)
        fusion = Fusion(positions=positions, separators="ATTACHED")
        yield case_json(name, model, prompt, fusion, rng, with_segment_row=True)


def smollm2_cases(model, directory, qa):
    rng = random.Random("probes")
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    questions = [json.loads(line) for line in qa.read_text().splitlines()]

    def ids(text):
        return tokenizer.encode(text, add_special_tokens=False).ids if text else []

    for name, index, lead, prefix, suffix, separator, positions in (
            ("few_shot", 0, "Q: ", FEW_SHOT, "\nA:", "", "OVERLAPPING"),
            ("chatml", 1, "", CHATML_PREFIX, CHATML_SUFFIX, "", "OVERLAPPING"),
            ("attached_sequential", 2, "", "", "\n", "\n\n", "SEQUENTIAL")):
        wordings = [questions[index]["question"], *questions[index]["paraphrases"]][:4]
        prompt = Prompt([ids(lead + wording) for wording in wordings], ids(prefix), ids(separator),
                        ids(suffix))
        yield case_json(name, model, prompt, Fusion(positions=positions, separators="ATTACHED"),
                        rng, with_segment_row=False)


def write_file(name, directory, cases, qa):
    document = {
        "schema": 1,
        "model": str(directory.relative_to(ROOT)),
        "provenance": {
            "command": f"tests/golden/make_probes.py --only {name}",
            "date": datetime.date.today().isoformat(),
            "python": sys.version.split()[0], "torch": torch.__version__,
            "transformers": transformers.__version__, "numpy": np.__version__,
            "attn_implementation": "eager", "dtype": "float32",
            "model_sha256": sha256_of(directory / "model.safetensors"),
        },
        "cases": [],
    }
    if qa is not None:
        document["provenance"]["questions_sha256"] = sha256_of(qa)
    head = json.dumps(document, indent=1)[:-len("[]\n}")]
    lines = [json.dumps(case, separators=(",", ":")) for case in cases]
    path = HERE / "data" / f"{name}.json"
    path.write_text(head + "[\n" + ",\n".join(lines) + "\n]\n}\n", encoding="utf-8")
    print(f"{path.name}: {len(lines)} cases, {path.stat().st_size} bytes")


def main():
    names = ("probes_tiny_gqa", "probes_smollm2")
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--qa", type=pathlib.Path, default=ROOT / "tests" / "data" / "qa.jsonl",
                        help="questions, JSON lines (for SmolLM2)")
    parser.add_argument("--smollm2", type=pathlib.Path,
                        default=ROOT / "models" / "smollm2-135m-instruct")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if "probes_tiny_gqa" in arguments.only:
        directory = HERE / "models" / "tiny_gqa"
        write_file("probes_tiny_gqa", directory, tiny_cases(EagerModel(directory)), None)
    if "probes_smollm2" in arguments.only:
        directory = arguments.smollm2.resolve()
        write_file("probes_smollm2", directory,
                   smollm2_cases(EagerModel(directory), directory, arguments.qa), arguments.qa)
    return 0


if __name__ == "__main__":
    sys.exit(main())

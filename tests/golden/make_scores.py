#!/usr/bin/env python3
"""Writes tests/golden/data/scores.json: what continuations must score. README.md has the schema.

    python make_scores.py

Takes the requests of data/tiny_*.json, which must be there already (make_golden.py), and scores
for each of them the start of its greedy answer and seeded continuations, by the reference's slow
way: one row at a time, each prompt a sequence of its own. Deterministic.
"""

import datetime
import json
import math
import random
import sys

import numpy as np
import torch
import transformers

import reference
from make_golden import HERE, TINY_MODELS, rounded, sha256_of
from reference import Fusion, Prompt

ENUM_PREFIXES = {"method": "FUSION_METHOD_", "positions": "POSITION_MODE_",
                 "separators": "SEPARATOR_POLICY_", "first_token": "FIRST_TOKEN_"}


def read_fusion(entry):
    """The case's settings, its enums without their prefixes."""
    return Fusion(**{name: value.removeprefix(ENUM_PREFIXES.get(name, ""))
                     if name in ENUM_PREFIXES else value for name, value in entry.items()})


def walk(sequence, tokens):
    """Log-probability of each token, and the smallest distance of a row's largest logit from the
    second; and whether every token is its row's largest."""
    logprobs, margins, greedy = [], [], True
    for index, token in enumerate(tokens):
        row = (sequence.first_row() if index == 0
               else sequence.next_row(tokens[index - 1])).numpy()
        second, first = np.partition(row, -2)[-2:]
        logprobs.append(float(row[token] - np.logaddexp.reduce(row)))
        margins.append(float(first - second))
        greedy = greedy and int(np.argmax(row)) == token
    return logprobs, min(margins), greedy


def mixed(of_prompts):
    """Conditional log-probabilities of the mixture, every prompt as likely as the others."""
    running = [0.0] * len(of_prompts)
    before, logprobs = 0.0, []
    for k in range(len(of_prompts[0])):
        running = [total + prompt[k] for total, prompt in zip(running, of_prompts)]
        now = float(np.logaddexp.reduce(running)) - math.log(len(of_prompts))
        logprobs.append(now - before)
        before = now
    return logprobs


def score(model, prompt, fusion, tokens):
    alone = [walk(reference.PlainSequence(model, prompt, index), tokens)
             for index in range(len(prompt.segments))]
    if fusion.method in ("PER_PROMPT", "VOTE"):
        num_greedy = sum(greedy for _, _, greedy in alone)
        greedy = (num_greedy == len(alone) if fusion.method == "PER_PROMPT"
                  else 2 * num_greedy > len(alone))
        logprobs = mixed([logprobs for logprobs, _, _ in alone])
        margin = min(margin for _, margin, _ in alone)
    else:
        logprobs, margin, greedy = walk(reference.sequence_for(model, prompt, fusion), tokens)
    return {"token_ids": tokens, "token_logprobs": rounded(logprobs),
            "logprob": round(sum(logprobs), 6), "is_greedy": greedy, "margin": round(margin, 6),
            "prompt_logprobs": rounded(sum(logprobs) for logprobs, _, _ in alone)}


def continuations(case, rng):
    expected = case["expected"]
    answer = expected["token_ids"] if "token_ids" in expected else (
        expected["prompts"][0]["token_ids"])
    return [answer[:4], [rng.randrange(4, 300) for _ in range(5)], [rng.randrange(4, 300)]]


def case_scores(model, case, rng):
    prompt = Prompt(**case["prompt"])
    fusion = read_fusion(case["fusion"])
    entries = [(case["name"], fusion)]
    if fusion.method == "PER_PROMPT":  # the same prompts once more, as a vote
        entries.append((case["name"], Fusion(method="VOTE")))
    for name, settings in entries:
        yield {"case": name, "method": ENUM_PREFIXES["method"] + settings.method,
               "scores": [score(model, prompt, settings, tokens)
                          for tokens in continuations(case, rng)]}


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    lines = []
    models = {}
    for name in TINY_MODELS:
        directory = HERE / "models" / name
        models[name] = sha256_of(directory / "model.safetensors")
        model = reference.load_model(directory)
        rng = random.Random(f"scores {name}")
        file = json.loads((HERE / "data" / f"{name}.json").read_text(encoding="utf-8"))
        # Every form of one model, of the others every third.
        cases = file["cases"] if name == "tiny_gqa" else file["cases"][::3] + [
            case for case in file["cases"] if case["name"] == "per_prompt"]
        for case in {case["name"]: case for case in cases}.values():
            lines += [json.dumps({"file": name, **entry}, separators=(",", ":"))
                      for entry in case_scores(model, case, rng)]
        print(f"{name}: {len(lines)} requests so far", file=sys.stderr)
    provenance = {"command": "tests/golden/make_scores.py",
                  "date": datetime.date.today().isoformat(), "python": sys.version.split()[0],
                  "torch": torch.__version__, "transformers": transformers.__version__,
                  "numpy": np.__version__, "dtype": "float32", "model_sha256": models}
    head = json.dumps({"schema": 1, "provenance": provenance, "requests": []}, indent=1)
    (HERE / "data" / "scores.json").write_text(
        head[:-len("[]\n}")] + "[\n" + ",\n".join(lines) + "\n]\n}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Writes tests/golden/data/*.json: what every fusion method must answer. README.md has the schema.

    python make_golden.py [--only NAME ...] [--qa FILE] [--smollm2 DIR]

Deterministic: seeded prompts, greedy choice, one thread. The tiny models must be there already
(make_models.py); SmolLM2 is made by scripts/convert_default_model.py.
"""

import argparse
import dataclasses
import datetime
import hashlib
import itertools
import json
import math
import pathlib
import random
import sys

import numpy as np
import tokenizers
import torch
import transformers

import reference
from reference import Fusion, Prompt

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOGIT_METHODS = ("LOGIT_MEAN", "PROB_MEAN", "PROB_MAX", "LOGIT_MAX")
WINDOW_MODELS = ("tiny_mistral", "tiny_hybrid", "tiny_chunked")
TINY_MODELS = ("tiny_gqa", "tiny_mha", "tiny_mqa", "tiny_llama3_rope", "tiny_bias",
               *WINDOW_MODELS)
# As many as a case has prompts. Exact in float32, not normalised, one of them zero.
WEIGHTS = (0.5, 0.125, 0.25, 0.0, 1.0, 0.0625)
# float32 against itself in another order of summation; findings about this model: 5e-5.
IDENTITY_TOLERANCE = 5e-4

EXAMPLES = (("What is the capital of Norway?", "Oslo"),
            ("Name the currency of Switzerland.", "Franc"),
            ("Which country is Geneva in?", "Switzerland"),
            ("On which continent is Finland?", "Europe"),
            ("Tell me the main language of Austria.", "German"))
FEW_SHOT = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in EXAMPLES)
CHATML_PREFIX = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
                 "Hugging Face<|im_end|>\n<|im_start|>user\n")
CHATML_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
PROTOTYPE_SEPARATOR = "\n\n[SEP]\n\n"
# What Score is asked about the first question (the capital of Guatemala).
CONTINUATIONS = (" Guatemala City\n", " Mexico\n")


@dataclasses.dataclass
class Case:
    name: str
    prompt: Prompt
    fusion: Fusion
    max_new_tokens: int = 16
    ignore_eos: bool = True
    # Text of the pieces, where there was text.
    text: dict | None = None
    # Another case of the same file whose first row and tokens this one must equal.
    same_as: str | None = None
    continuations: list = dataclasses.field(default_factory=list)
    keep_first_row: bool = True


# --- Running a case ------------------------------------------------------------------------------


class Runner:
    def __init__(self, model_directory, tokenizer, sparse_rows):
        self.model = reference.load_model(model_directory)
        self._eos_id = self.model.config.eos_token_id
        self._tokenizer = tokenizer
        self._sparse_rows = sparse_rows

    def _row(self, row, case):
        """A logit row: whole, or for a large vocabulary the top 32 and every 200th id."""
        if not case.keep_first_row:
            return None
        if not self._sparse_rows:
            return {"values": rounded(row)}
        top = np.argsort(-row, kind="stable")[:32]
        ids = sorted({*top.tolist(), *range(0, len(row), 200)})
        return {"ids": ids, "values": rounded(row[ids])}

    def _text(self, token_ids):
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)

    def _answer(self, answer, case):
        return {"token_ids": answer.token_ids, "text": self._text(answer.token_ids),
                "finish_reason": f"FINISH_REASON_{answer.finish_reason}",
                "margins": rounded(answer.margins), "logprobs": rounded(answer.logprobs),
                "first_row": self._row(answer.first_row, case)}

    def expected(self, case):
        eos_ids = [] if case.ignore_eos else [self._eos_id]
        if case.fusion.method in ("PER_PROMPT", "VOTE"):
            return self._expected_per_prompt(case, eos_ids)
        sequence = reference.sequence_for(self.model, case.prompt, case.fusion)
        layout = self._layout(sequence) if case.fusion.method == "ATTENTION" else None
        answer = reference.generate(sequence, case.max_new_tokens, eos_ids)
        result = self._answer(answer, case)
        if layout is not None:
            result["layout"] = layout
            result["attribution"] = [None if row is None else rounded(row) for row in
                                     sequence.attributions[:len(answer.token_ids)]]
        if case.continuations:
            result["scores"] = [self._score(case, tokens) for tokens in case.continuations]
        return result

    def _expected_per_prompt(self, case, eos_ids):
        answers = reference.per_prompt_answers(self.model, case.prompt, case.max_new_tokens,
                                               eos_ids)
        entries = [{"index": index, **self._answer(answer, case),
                    "mean_logprob": round(reference.mean_logprob(answer), 6)}
                   for index, answer in enumerate(answers)]
        result = {"prompts": entries}
        if case.fusion.method == "VOTE":
            result["vote"] = reference.vote(answers, [entry["text"] for entry in entries])
            result["token_ids"] = answers[result["vote"]["winner"]].token_ids
        return result

    def _score(self, case, tokens):
        sequence = reference.sequence_for(self.model, case.prompt, case.fusion)
        logprobs, greedy = reference.score(sequence, tokens)
        return {"token_ids": tokens, "token_logprobs": rounded(logprobs),
                "logprob": round(sum(logprobs), 6), "is_greedy": greedy}

    @staticmethod
    def _layout(sequence):
        layout = sequence.layout
        return {"original_length": layout.original_length, "length": len(layout.entries),
                "segments": [list(pair) for pair in layout.segment_ranges],
                "position_ids": [entry.position for entry in layout.entries],
                "allowed_pairs": int(layout.mask().sum())}


def rounded(values):
    return [round(float(value), 6) for value in values]


def fusion_json(fusion):
    enums = {"method": "FUSION_METHOD_", "positions": "POSITION_MODE_",
             "separators": "SEPARATOR_POLICY_", "first_token": "FIRST_TOKEN_"}
    return {name: enums[name] + value if name in enums else value
            for name, value in dataclasses.asdict(fusion).items() if value is not None}


def case_json(case, expected):
    entry = {"name": case.name, "prompt": dataclasses.asdict(case.prompt),
             "fusion": fusion_json(case.fusion), "max_new_tokens": case.max_new_tokens,
             "ignore_eos": case.ignore_eos}
    if case.text is not None:
        entry["text"] = case.text
    if case.same_as is not None:
        entry["same_as"] = case.same_as
    return {**entry, "expected": expected}


def check_identities(cases, results):
    """The reference must satisfy its own identities before anybody is tested against it."""
    for case in cases:
        if case.same_as is None:
            continue
        mine, other = results[case.name], results[case.same_as]
        difference = max(abs(a - b) for a, b in zip(mine["first_row"]["values"],
                                                    other["first_row"]["values"]))
        if difference > IDENTITY_TOLERANCE or mine["token_ids"] != other["token_ids"]:
            raise AssertionError(f"{case.name} differs from {case.same_as} by {difference}")


# --- Tiny random models --------------------------------------------------------------------------


def random_prompt(rng, lengths, prefix, separator, suffix):
    """Ordinary tokens only (ids below 4 are special in the tiny models)."""

    def tokens(count):
        return [rng.randrange(4, 300) for _ in range(count)]

    return Prompt([tokens(length) for length in lengths], tokens(prefix), tokens(separator),
                  tokens(suffix))


def attention_grid(rng):
    """Every position mode x separator form x prefix x suffix x first token, where it matters."""
    prompt = random_prompt(rng, (5, 8, 3), prefix=6, separator=2, suffix=4)
    for positions, separator, prefix, ending in itertools.product(
            ("OVERLAPPING", "SEQUENTIAL"), ("none", "ISOLATED", "ATTACHED"), (True, False),
            ("suffix", "FUSE_FIRST", "LAST_SEGMENT")):
        pieces = Prompt(prompt.segments, prompt.prefix if prefix else [],
                        [] if separator == "none" else prompt.separator,
                        prompt.suffix if ending == "suffix" else [])
        fusion = Fusion(positions=positions)
        if separator != "none":
            fusion.separators = separator
        if ending != "suffix":
            fusion.first_token = ending
        name = (f"attention/{positions.lower()}/separator_{separator.lower()}/"
                f"{'prefix' if prefix else 'no_prefix'}/{ending.lower()}")
        scored = prefix and positions == "OVERLAPPING"
        yield Case(name, pieces, fusion, 12, continuations=[[40, 7, 199]] if scored else [])


def attention_extras(rng):
    """Weights of FUSE_FIRST, and temperature, scale and bias over the segment columns."""
    prompt = random_prompt(rng, (4, 9, 6, 1), prefix=5, separator=3, suffix=2)
    bare = Prompt(prompt.segments, [], prompt.separator, [])
    weights = list(WEIGHTS[:4])
    yield Case("attention/weights/fuse_first", Prompt(prompt.segments, prompt.prefix),
               Fusion(weights=weights), 12)
    yield Case("attention/weights/fuse_first/attached/sequential", bare,
               Fusion(weights=weights, separators="ATTACHED", positions="SEQUENTIAL"), 12)
    for temperature, scale, bias in ((0.75, None, None), (None, 0.75, None), (None, None, -1.5),
                                     (0.5, 1.25, 0.5), (1.5, 0.5, -0.5)):
        name = f"attention/scaling/temperature_{temperature}/scale_{scale}/bias_{bias}"
        settings = dict(attention_temperature=temperature, attention_scale=scale,
                        segment_log_bias=bias)
        yield Case(name, Prompt(prompt.segments, prompt.prefix, [], prompt.suffix),
                   Fusion(**settings), 12, continuations=[[17, 250, 33, 90]])
        for policy in ("ISOLATED", "ATTACHED"):
            yield Case(f"{name}/separator_{policy.lower()}/no_prefix", bare,
                       Fusion(**settings, separators=policy), 12)


def logit_cases(rng, prefix=4, suffix=3):
    prompt = random_prompt(rng, (6, 2, 9, 4), prefix, 0, suffix)
    for method in LOGIT_METHODS:
        yield Case(method.lower(), prompt, Fusion(method=method), 12,
                   continuations=[[200, 5, 61]] if method != "LOGIT_MAX" else [])
    for method in ("LOGIT_MEAN", "PROB_MEAN"):
        yield Case(f"{method.lower()}/weights", prompt,
                   Fusion(method=method, weights=list(WEIGHTS[:4])), 12)
    yield Case("per_prompt", prompt, Fusion(method="PER_PROMPT"), 12)


def identity_cases(rng):
    single = random_prompt(rng, (7,), prefix=5, separator=0, suffix=3)
    yield Case("identity/single", single, Fusion(), 12)
    yield Case("identity/single/logit_mean", single, Fusion(method="LOGIT_MEAN"), 12,
               same_as="identity/single")
    copies = Prompt(single.segments * 4, single.prefix, [], single.suffix)
    yield Case("identity/four_copies", copies, Fusion(segment_log_bias=-math.log(4)), 12,
               same_as="identity/single")
    yield Case("identity/four_copies/logit_max", copies, Fusion(method="LOGIT_MAX"), 12,
               same_as="identity/single")


def tiny_cases(name):
    rng = random.Random(f"golden {name}")
    cases = [*attention_grid(rng), *attention_extras(rng), *logit_cases(rng)]
    if name == "tiny_gqa":
        for prefix, suffix in ((0, 3), (4, 0), (0, 0)):
            for case in logit_cases(rng, prefix, suffix):
                case.name += f"/{'prefix' if prefix else 'no_prefix'}"
                case.name += f"/{'suffix' if suffix else 'no_suffix'}"
                cases.append(case)
    else:
        # The whole grid once is enough; the other models are about head layouts and RoPE forms.
        # Windows meet every form of layout, so theirs have more of it.
        kept = (0, 3) if name in WINDOW_MODELS else (0,)
        cases = [case for index, case in enumerate(cases)
                 if not case.name.startswith("attention/") or index % 5 in kept]
    return cases + list(identity_cases(rng))


# --- SmolLM2 with real questions -----------------------------------------------------------------


class Texts:
    """Makes prompts from text; every piece is tokenised on its own."""

    def __init__(self, tokenizer, questions):
        self._tokenizer = tokenizer
        self._questions = questions

    def wordings(self, index):
        question = self._questions[index]
        return [question["question"], *question["paraphrases"]]

    def case(self, name, segments, fusion, prefix="", suffix="", separator="", continue_with=(),
             **settings):
        def ids(text):
            return self._tokenizer.encode(text, add_special_tokens=False).ids if text else []

        text = {"segments": segments, "prefix": prefix, "suffix": suffix, "separator": separator}
        prompt = Prompt([ids(segment) for segment in segments], ids(prefix), ids(separator),
                        ids(suffix))
        return Case(name, prompt, fusion, text=text,
                    continuations=[ids(text) for text in continue_with], **settings)

    def few_shot(self, name, index, fusion, suffix="\nA:", **settings):
        segments = [f"Q: {wording}" for wording in self.wordings(index)]
        return self.case(name, segments, fusion, FEW_SHOT, suffix, **settings)

    def chatml(self, name, index, fusion, **settings):
        return self.case(name, self.wordings(index), fusion, CHATML_PREFIX, CHATML_SUFFIX,
                         ignore_eos=False, **settings)


def smollm2_attention_cases(texts):
    for positions, separator in itertools.product(("OVERLAPPING", "SEQUENTIAL"),
                                                  ("none", "ISOLATED", "ATTACHED")):
        fusion = Fusion(positions=positions)
        settings = {"continue_with": CONTINUATIONS}
        if separator != "none":
            fusion.separators, settings = separator, {"separator": PROTOTYPE_SEPARATOR}
        yield texts.few_shot(f"attention/{positions.lower()}/separator_{separator.lower()}", 0,
                             fusion, **settings)
    for positions, first in itertools.product(("OVERLAPPING", "SEQUENTIAL"),
                                              ("FUSE_FIRST", "LAST_SEGMENT")):
        yield texts.few_shot(f"attention/{positions.lower()}/no_suffix/{first.lower()}", 1,
                             Fusion(positions=positions, first_token=first), suffix="")
    yield texts.few_shot("attention/weights/fuse_first", 2, Fusion(weights=list(WEIGHTS)),
                         suffix="")
    for temperature, scale, bias in ((0.875, None, None), (0.875, 0.875, None), (0.75, 1.25, 0.25),
                                     (None, None, -1.0)):
        yield texts.few_shot(
            f"attention/scaling/temperature_{temperature}/scale_{scale}/bias_{bias}", 2,
            Fusion(attention_temperature=temperature, attention_scale=scale,
                   segment_log_bias=bias))


def smollm2_few_shot_cases(texts):
    yield from smollm2_attention_cases(texts)
    for index in (3, 4):
        yield texts.few_shot(f"attention/question_{index}", index, Fusion())
    for method in LOGIT_METHODS:
        yield texts.few_shot(method.lower(), 0, Fusion(method=method),
                             continue_with=CONTINUATIONS)
    for method in ("LOGIT_MEAN", "PROB_MEAN"):
        yield texts.few_shot(f"{method.lower()}/weights", 1,
                             Fusion(method=method, weights=list(WEIGHTS)))
    yield texts.few_shot("per_prompt", 1, Fusion(method="PER_PROMPT"))
    for index in (0, 1, 4):
        yield texts.few_shot(f"vote/question_{index}", index, Fusion(method="VOTE"),
                             keep_first_row=False)
    segments = [f"Q: {texts.wordings(2)[0]}"]
    single = texts.case("identity/single", segments, Fusion(), FEW_SHOT, "\nA:")
    yield single
    yield texts.case("identity/six_copies", segments * 6, Fusion(segment_log_bias=-math.log(6)),
                     FEW_SHOT, "\nA:", same_as=single.name)


def smollm2_chatml_cases(texts):
    for index in (2, 5):
        for positions in ("OVERLAPPING", "SEQUENTIAL"):
            yield texts.chatml(f"attention/{positions.lower()}/question_{index}", index,
                               Fusion(positions=positions))
        for method in LOGIT_METHODS:
            yield texts.chatml(f"{method.lower()}/question_{index}", index, Fusion(method=method))
    yield texts.chatml("per_prompt/question_5", 5, Fusion(method="PER_PROMPT"))
    for index in (2, 5):
        yield texts.chatml(f"vote/question_{index}", index, Fusion(method="VOTE"),
                           keep_first_row=False)


def smollm2_prototype_cases(texts):
    """The founding prototype: no prefix, no suffix, unowned separators, sequential positions."""
    fusion = Fusion(positions="SEQUENTIAL", first_token="LAST_SEGMENT")
    for index in (0, 3):
        yield texts.case(f"bare/question_{index}", texts.wordings(index), fusion,
                         separator=PROTOTYPE_SEPARATOR)
    short = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in EXAMPLES[:2])
    segments = [f"{short}Q: {wording}\nA:" for wording in texts.wordings(1)]
    yield texts.case("few_shot_in_every_segment/question_1", segments, fusion,
                     separator=PROTOTYPE_SEPARATOR)


# --- Files ---------------------------------------------------------------------------------------


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_file(name, model_directory, runner, cases, qa=None):
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "case names must be unique"
    results = {}
    for count, case in enumerate(cases, start=1):
        results[case.name] = runner.expected(case)
        print(f"\r{name}: {count}/{len(cases)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    check_identities(cases, results)
    relative = model_directory.relative_to(ROOT)
    document = {
        "schema": 1,
        "model": str(relative),
        "provenance": {
            "command": f"tests/golden/make_golden.py --only {name}",
            "date": datetime.date.today().isoformat(),
            "python": sys.version.split()[0], "torch": torch.__version__,
            "transformers": transformers.__version__, "numpy": np.__version__,
            "tokenizers": tokenizers.__version__, "dtype": "float32",
            "model_sha256": sha256_of(model_directory / "model.safetensors"),
            "tokenizer_sha256": sha256_of(model_directory / "tokenizer.json"),
        },
        "cases": [],
    }
    if qa is not None:
        document["provenance"]["command"] += " --qa FILE"
        document["provenance"]["questions_sha256"] = sha256_of(qa)
    head = json.dumps(document, indent=1)[:-len("[]\n}")]
    lines = [json.dumps(case_json(case, results[case.name]), separators=(",", ":"))
             for case in cases]
    path = HERE / "data" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    # One case a line: a regenerated file shows in a diff which cases changed.
    path.write_text(head + "[\n" + ",\n".join(lines) + "\n]\n}\n", encoding="utf-8")
    report(path, results)


def report(path, results):
    margins = [margin for result in results.values()
               for answer in result.get("prompts", [result]) for margin in answer["margins"]]
    print(f"{path.name}: {len(results)} cases, {path.stat().st_size} bytes, "
          f"{len(margins)} choices, smallest margin {min(margins):.5f}, "
          f"{sum(margin < 0.05 for margin in margins)} below 0.05")


def main():
    smollm2_files = {"smollm2_few_shot": smollm2_few_shot_cases,
                     "smollm2_chatml": smollm2_chatml_cases,
                     "smollm2_prototype": smollm2_prototype_cases}
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*TINY_MODELS, *smollm2_files])
    parser.add_argument("--qa", type=pathlib.Path, help="questions, JSON lines (for SmolLM2)")
    parser.add_argument("--smollm2", type=pathlib.Path,
                        default=ROOT / "models" / "smollm2-135m-instruct")
    arguments = parser.parse_args()
    wanted = arguments.only or [*TINY_MODELS, *smollm2_files]
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    for name in (name for name in TINY_MODELS if name in wanted):
        directory = HERE / "models" / name
        tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        write_file(name, directory, Runner(directory, tokenizer, sparse_rows=False),
                   tiny_cases(name))
    if any(name in wanted for name in smollm2_files):
        if arguments.qa is None:
            parser.error("--qa is needed for the SmolLM2 files")
        directory = arguments.smollm2.resolve()
        tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        questions = [json.loads(line) for line in arguments.qa.read_text().splitlines()]
        runner = Runner(directory, tokenizer, sparse_rows=True)
        for name in (name for name in smollm2_files if name in wanted):
            write_file(name, directory, runner,
                       list(smollm2_files[name](Texts(tokenizer, questions))), arguments.qa)
    return 0


if __name__ == "__main__":
    sys.exit(main())

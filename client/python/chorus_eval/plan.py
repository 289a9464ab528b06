"""What a run asks: the prompt's frame, the methods, and one request for each question and method."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pathlib

from chorus_client import types as t
from chorus_eval.data import DataError

WEIGHTED = (t.Method.LOGIT_MEAN, t.Method.PROB_MEAN)  # the methods that take weights
MINUS_LOG_COUNT = "-lnN"  # a segment_log_bias that goes by the number of prompts


@dataclasses.dataclass(frozen=True)
class Variant:
    """A column of the table: a method, for ATTENTION with its positions."""
    name: str
    method: t.Method
    positions: t.Positions | None = None


def make_variants(methods, positions):
    """Every method once, ATTENTION once for each of `positions`. "attention" alone is OVERLAPPING."""
    variants = []
    for method in methods:
        if method is not t.Method.ATTENTION:
            variants.append(Variant(method.value, method))
            continue
        for mode in positions:
            name = "attention" if mode is t.Positions.OVERLAPPING else f"attention_{mode.value}"
            variants.append(Variant(name, method, mode))
    return variants


@dataclasses.dataclass(frozen=True)
class Frame:
    """What stands around a wording. Texts are None where the server's default holds.

    `examples` (few-shot text) stand once before all prompts (shared), or in every prompt."""
    prompt_format: str = "{prompt}"
    examples: str = ""
    repeat_examples: bool = False
    prefix: str | None = None
    suffix: str | None = None
    separator: str | None = None
    template: t.Template | None = None
    system: str | None = None

    def text_prompt(self, wordings):
        own = self.examples if self.repeat_examples else ""
        prompts = [own + self.prompt_format.replace("{prompt}", wording) for wording in wordings]
        prefix = self.prefix
        if self.examples and not self.repeat_examples:
            prefix = (prefix or "") + self.examples
        return t.TextPrompt(prompts=prompts, prefix=prefix, suffix=self.suffix, separator=self.separator,
                            template=self.template, system=self.system)


def load_examples(path, example_format, count=None):
    """The few-shot text: each of the file's examples, {"question", "answer"}, in `example_format`."""
    path, texts = pathlib.Path(path), []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, 0, "", getattr(error, "strerror", None) or "is not UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(path, number, "", f"is not JSON: {error.msg} (column {error.colno})") from None
        for field in ("question", "answer"):
            if not isinstance(record, dict) or not isinstance(record.get(field), str):
                raise DataError(path, number, field, "is missing, or no string")
        texts.append(example_format.replace("{question}", record["question"])
                     .replace("{answer}", record["answer"]))
    if count is not None and len(texts) < count:
        raise DataError(path, 0, "", f"holds {len(texts)} examples, fewer than --num-examples={count}")
    return "".join(texts[:count])


@dataclasses.dataclass(frozen=True)
class Item:
    """A question of the run with the wordings that are asked."""
    index: int
    id: str
    question: str
    wordings: tuple[str, ...]
    answers: tuple[str, ...]


def seed_of(seed, *parts):
    """A seed of its own for every question, the same in every run."""
    text = json.dumps([seed, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """Turns items into requests. `weights` is None, one list for all items, or {item id: list}.
    `log_bias_by_count`: ATTENTION's segment_log_bias is minus the logarithm of the number of prompts."""
    frame: Frame
    fusion: t.Fusion
    sampling: t.Sampling
    stopping: t.Stopping
    seed: int = 0
    weights: object = None
    log_bias_by_count: bool = False

    def _weights_of(self, variant, item, left_out):
        if variant.method not in WEIGHTED or self.weights is None:
            return ()
        weights = self.weights.get(item.id) if isinstance(self.weights, dict) else self.weights
        if weights is None:
            return ()
        kept = [w for i, w in enumerate(weights) if i != left_out]
        return tuple(kept) if sum(kept) > 0 else ()

    def request(self, item, variant, left_out=None):
        """`left_out`: the index of a wording that is not asked, for the consistency column."""
        wordings = [w for i, w in enumerate(item.wordings) if i != left_out]
        fusion = dataclasses.replace(self.fusion, method=variant.method, positions=variant.positions,
                                     weights=self._weights_of(variant, item, left_out))
        if self.log_bias_by_count and variant.method is t.Method.ATTENTION:
            fusion = dataclasses.replace(fusion, segment_log_bias=-math.log(len(wordings)))
        return t.GenerateRequest(prompt=self.frame.text_prompt(wordings), fusion=fusion,
                                 sampling=self._sampling(item.id), stopping=self.stopping)

    def own_answers(self, item, temperature=None, sample=0):
        """Every wording's own answer, PER_PROMPT: greedy, or sampled at `temperature`."""
        sampling = t.Sampling()
        if temperature is not None:
            sampling = t.Sampling(temperature=temperature,
                                  seed=seed_of(self.seed, "confidence", item.id, sample))
        return t.GenerateRequest(prompt=self.frame.text_prompt(item.wordings),
                                 fusion=t.Fusion(method=t.Method.PER_PROMPT), sampling=sampling,
                                 stopping=self.stopping)

    def _sampling(self, item_id):
        if not self.sampling.temperature:
            return self.sampling
        return dataclasses.replace(self.sampling, seed=seed_of(self.seed, item_id))

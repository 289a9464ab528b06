"""Paraphrases by the model itself, for questions that have too few."""
from __future__ import annotations

import dataclasses

from chorus_client import types as t
from chorus_eval import scoring
from chorus_eval.plan import seed_of

INSTRUCTION = ("Say the following question in other words. Keep its meaning. Write one question and "
               "nothing else.\n\nQuestion: {question}")
_QUOTES = "\"'“”‘’`*- "


@dataclasses.dataclass(frozen=True)
class Rewording:
    """`instruction`: with {question} in it; `prefix` and `suffix` are None for the model's template."""
    instruction: str = INSTRUCTION
    prefix: str | None = None
    suffix: str | None = None
    temperature: float = 0.8
    top_p: float = 0.95
    max_new_tokens: int = 48
    seed: int = 0

    def request(self, question, number):
        text = self.instruction.replace("{question}", question.question)
        return t.GenerateRequest(
            prompt=t.TextPrompt(prompts=[text], prefix=self.prefix, suffix=self.suffix),
            fusion=t.Fusion(method=t.Method.PER_PROMPT),
            sampling=t.Sampling(temperature=self.temperature, top_p=self.top_p,
                                seed=seed_of(self.seed, "paraphrase", question.id, number)),
            stopping=t.Stopping(max_new_tokens=self.max_new_tokens))


def clean(text):
    """The rewording in an answer: its first line, without a label or quotes around it."""
    line = scoring.first_line(text)
    label, found, rest = line.partition(":")
    if found and label.strip().casefold() in ("question", "paraphrase", "rewritten question", "q"):
        line = rest
    return line.strip(_QUOTES)


def choose(question, texts, count):
    """The first `count` of `texts` that are neither empty nor said before."""
    said = {tuple(scoring.words(wording)) for wording in question.wordings}
    chosen = []
    for text in map(clean, texts):
        form = tuple(scoring.words(text))
        if form and form not in said and len(chosen) < count:
            said.add(form)
            chosen.append(text)
    return tuple(chosen)


def make_paraphrases(runner, questions, count, rewording):
    """The questions, each with `count` paraphrases if the model finds that many: twice as many are
    asked for as are missing, since some repeat one another."""
    wanted = [(question, number) for question in questions
              for number in range(2 * max(0, count - len(question.paraphrases)))]
    if not wanted:
        return list(questions)
    outcomes = runner.run("paraphrases", [rewording.request(q, number) for q, number in wanted])
    texts = {}
    for (question, _), outcome in zip(wanted, outcomes):
        texts.setdefault(question.id, []).append(outcome.get("text", ""))
    made = []
    for question in questions:
        more = choose(question, texts.get(question.id, []), count - len(question.paraphrases))
        made.append(dataclasses.replace(question, paraphrases=question.paraphrases + more))
    return made

"""Paraphrases by the model itself, for questions that have too few."""
from __future__ import annotations

import dataclasses

from chorus_client import types as t
from chorus_eval import scoring
from chorus_eval.plan import seed_of

# Examples show even a small model what is asked for; an order alone it often answers instead.
INSTRUCTION = ("Say each question in other words and keep its meaning.\n\n"
               "Question: Who wrote Hamlet?\nIn other words: Which author is Hamlet by?\n\n"
               "Question: How high is Mount Everest?\nIn other words: What is the height of Mount Everest?\n\n"
               "Question: In which year did Apollo 11 land on the Moon?\n"
               "In other words: When did the Moon landing of Apollo 11 take place?\n\n"
               "Question: {question}\nIn other words:")
_TRIES = 4
_MAX_GROWTH, _SPARE_WORDS = 2, 4  # a rewording has at most twice the words, and a few
_QUOTES = "\"'“”‘’`*- "


@dataclasses.dataclass(frozen=True)
class Rewording:
    """`instruction`: with {question} in it, given to the model as it is, without a template; its first
    line counts."""
    instruction: str = INSTRUCTION
    temperature: float = 0.8
    top_p: float = 0.95
    max_new_tokens: int = 48
    seed: int = 0

    def request(self, question, number):
        text = self.instruction.replace("{question}", question.question)
        return t.GenerateRequest(
            prompt=t.TextPrompt(prompts=[text], template=t.Template.NONE),
            fusion=t.Fusion(method=t.Method.PER_PROMPT),
            sampling=t.Sampling(temperature=self.temperature, top_p=self.top_p,
                                seed=seed_of(self.seed, "paraphrase", question.id, number)),
            stopping=t.Stopping(max_new_tokens=self.max_new_tokens, stop=("\n\n",)))


def clean(text):
    """The rewording in an answer: its first line, without a label or quotes around it."""
    line = scoring.first_line(text)
    label, found, rest = line.partition(":")
    if found and label.strip().casefold() in ("question", "paraphrase", "in other words", "q"):
        line = rest
    return line.strip(_QUOTES)


def choose(question, texts, count):
    """The first `count` of `texts` that are not said before and look like rewordings: a question for a
    question, and not much longer."""
    most_words = _MAX_GROWTH * len(scoring.words(question.question)) + _SPARE_WORDS
    any_end = not question.question.rstrip().endswith("?")
    said = {tuple(scoring.words(wording)) for wording in question.wordings}
    chosen = []
    for text in map(clean, texts):
        form = tuple(scoring.words(text))
        fits = len(form) <= most_words and (any_end or text.endswith("?"))
        if form and fits and form not in said and len(chosen) < count:
            said.add(form)
            chosen.append(text)
    return tuple(chosen)


def make_paraphrases(runner, questions, count, rewording):
    """The questions, each with `count` paraphrases if the model finds that many: four times as
    many are asked for as are missing, since some repeat one another or are no rewordings."""
    wanted = [(question, number) for question in questions
              for number in range(_TRIES * max(0, count - len(question.paraphrases)))]
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

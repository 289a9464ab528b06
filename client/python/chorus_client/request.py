"""A request from a question and keyword arguments."""
from __future__ import annotations

import dataclasses
import difflib

from chorus_client import types as t

_GENERATE = {"prompt": t.TextPrompt, "fusion": t.Fusion, "sampling": t.Sampling,
             "stopping": t.Stopping, "response": t.ResponseOptions}
_SCORE = {"prompt": t.TextPrompt, "fusion": t.Fusion}


def _sorted_into(parts, own, options):
    """{name: its dataclass, of the options that are its fields}, and `own` options beside them.
    TypeError for a name that is in neither."""
    part_of = {field.name: name for name, cls in parts.items() for field in dataclasses.fields(cls)}
    values, rest = {name: {} for name in parts}, {}
    for name, value in options.items():
        if name in part_of:
            values[part_of[name]][name] = value
        elif name in own:
            rest[name] = value
        else:
            close = difflib.get_close_matches(name, [*part_of, *own], 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"{name}: no option of a request{hint}")
    return {**{name: cls(**values[name]) for name, cls in parts.items()}, **rest}


def make_request(question="", paraphrases=(), **options) -> t.GenerateRequest:
    """Any field of TextPrompt, Fusion, Sampling, Stopping and ResponseOptions by its name, and
    request_id and priority:

        make_request("What is the capital of France?", ["Name France's capital."],
                     method="attention", max_new_tokens=16, temperature=0.7, seed=1)

    TypeError for a name that none of them has."""
    options = {"question": question, "paraphrases": paraphrases, **options}
    return t.GenerateRequest(**_sorted_into(_GENERATE, ("request_id", "priority"), options))


def make_score_request(question="", continuations=(), paraphrases=(), **options) -> t.ScoreRequest:
    """Any field of TextPrompt and Fusion by its name, and prompt_logprobs, request_id and priority:

        make_score_request("What is the capital of France?", ["Paris", "Lyon"],
                           ["Name France's capital."], method="logit_mean")

    A continuation is a text or a list of token ids. TypeError for a name that is none of these."""
    options = {"question": question, "paraphrases": paraphrases, **options}
    return t.ScoreRequest(continuations=continuations, **_sorted_into(
        _SCORE, ("prompt_logprobs", "request_id", "priority"), options))


def as_request(request, paraphrases, options) -> t.GenerateRequest:
    """What `generate` and `stream` take: a GenerateRequest, or a question with its options."""
    return _as(t.GenerateRequest, request, (paraphrases, options),
               lambda: make_request(request, paraphrases, **options))


def as_score_request(request, continuations, paraphrases, options) -> t.ScoreRequest:
    """What `score` takes: a ScoreRequest, or a question with its options."""
    return _as(t.ScoreRequest, request, (continuations, paraphrases, options),
               lambda: make_score_request(request, continuations, paraphrases, **options))


def _as(cls, request, beside, make):
    if isinstance(request, cls):
        if any(beside):
            raise TypeError(f"a {cls.__name__} says everything itself: nothing else beside it")
        return request
    if not isinstance(request, str):
        raise TypeError(f"a question or a {cls.__name__} is needed, not {request!r}")
    return make()

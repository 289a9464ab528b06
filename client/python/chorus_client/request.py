"""A request from a question and keyword arguments."""
from __future__ import annotations

import dataclasses
import difflib

from chorus_client import types as t

_PARTS = {"fusion": t.Fusion, "sampling": t.Sampling, "stopping": t.Stopping,
          "response": t.ResponseOptions}
_PART_OF = {field.name: part for part, cls in (("prompt", t.TextPrompt), *_PARTS.items())
            for field in dataclasses.fields(cls)}
_OWN = ("request_id", "priority")


def make_request(question="", paraphrases=(), **options) -> t.GenerateRequest:
    """Any field of TextPrompt, Fusion, Sampling, Stopping and ResponseOptions by its name, and
    request_id and priority:

        make_request("What is the capital of France?", ["Name France's capital."],
                     method="attention", max_new_tokens=16, temperature=0.7, seed=1)

    TypeError for a name that none of them has."""
    parts = {"prompt": {"question": question, "paraphrases": paraphrases}, **{p: {} for p in _PARTS}}
    own = {}
    for name, value in options.items():
        if name in _OWN:
            own[name] = value
        elif name in _PART_OF:
            parts[_PART_OF[name]][name] = value
        else:
            close = difflib.get_close_matches(name, [*_PART_OF, *_OWN], 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"{name}: no option of a request{hint}")
    prompt = parts.pop("prompt")
    return t.GenerateRequest(prompt=t.TextPrompt(**prompt), **own,
                             **{name: _PARTS[name](**values) for name, values in parts.items()})


def as_request(request, paraphrases, options) -> t.GenerateRequest:
    """What `generate` and `stream` take: a GenerateRequest, or a question with its options."""
    if isinstance(request, t.GenerateRequest):
        if paraphrases or options:
            raise TypeError("a GenerateRequest says everything itself: no paraphrases or options beside it")
        return request
    if not isinstance(request, str):
        raise TypeError(f"a question or a GenerateRequest is needed, not {request!r}")
    return make_request(request, paraphrases, **options)

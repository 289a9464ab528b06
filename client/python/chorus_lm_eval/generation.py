"""gen_kwargs of lm_eval as Sampling and Stopping of the contract."""
from __future__ import annotations

import dataclasses
import hashlib
import json

import chorus_client as chorus
from chorus_lm_eval.errors import OptionError
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

_DRAWN = ("temperature", "top_p", "top_k", "min_p", "seed")  # mean nothing to a greedy answer
_SAMPLING = (*_DRAWN, "repetition_penalty", "presence_penalty", "frequency_penalty")
_STOPPING = ("min_new_tokens", "ignore_eos")
_HARMLESS = {"num_beams": 1, "num_return_sequences": 1}  # what Chorus does anyway
# The contract's limits on stop strings; what does not fit is cut off here, after the answer.
_MAX_STOPS, _MAX_STOP_BYTES = 16, 1024


@dataclasses.dataclass(frozen=True)
class Generation:
    """How one answer is made. `until`: every string that ends it."""
    sampling: chorus.Sampling
    stopping: chorus.Stopping
    until: tuple[str, ...]

    @property
    def is_drawn(self):
        return bool(self.sampling.temperature)

    def seeded(self, seed, what):
        """Of a drawn answer: with a seed of its own for `what`, made from gen_kwargs' seed, else `seed`;
        so it depends neither on the order of requests nor on what was answered before."""
        if not self.is_drawn:
            return self
        base = seed if self.sampling.seed is None else self.sampling.seed
        digest = hashlib.sha256(json.dumps([base, *what]).encode()).digest()
        own = int.from_bytes(digest[:8], "big")
        return dataclasses.replace(self, sampling=dataclasses.replace(self.sampling, seed=own))

    def cut(self, text):
        """`text` up to the first of `until`."""
        return postprocess_generated_text(text, list(self.until), None)


def make_generation(gen_kwargs, max_gen_toks, special_token) -> Generation:
    """`special_token(text)`: the id of the special token that a text spells, or None. OptionError for
    what Chorus has not."""
    kwargs = dict(normalize_gen_kwargs(gen_kwargs, max_gen_toks))
    until = tuple(_texts(kwargs.pop("until")))
    do_sample, num_tokens = kwargs.pop("do_sample", False), kwargs.pop("max_gen_toks")
    for name, value in kwargs.items():
        if name not in (*_SAMPLING, *_STOPPING) and _HARMLESS.get(name) != value:
            raise OptionError(f"gen_kwargs: {name}: {value!r} is not valid: the model chorus knows until, max_gen_toks, "
                              f"do_sample, {', '.join((*_SAMPLING, *_STOPPING))}")
    if do_sample:
        kwargs.setdefault("temperature", 1.0)
    sampling = {name: kwargs[name] for name in _SAMPLING
                if name in kwargs and (do_sample or name not in _DRAWN)}
    ids = [special_token(text) for text in until]
    stops = [text for text, id_ in zip(until, ids) if id_ is None and len(text.encode()) <= _MAX_STOP_BYTES]
    stopping = chorus.Stopping(max_new_tokens=num_tokens, stop=stops[:_MAX_STOPS],
                               stop_token_ids=sorted({id_ for id_ in ids if id_ is not None}),
                               **{name: kwargs[name] for name in _STOPPING if name in kwargs})
    return Generation(chorus.Sampling(**sampling), stopping, until)


def _texts(until):
    for text in until:
        if text is None:
            continue
        if not isinstance(text, str):
            raise OptionError(f"gen_kwargs: until: {text!r} is not valid: texts are needed")
        if text:
            yield text

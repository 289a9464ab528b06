"""Contexts in token ids as prompts that fit the model and the server."""
from __future__ import annotations

import dataclasses
import logging

import chorus_client as chorus
from chorus_lm_eval.errors import OptionError
from chorus_lm_eval.tokens import common_length, fit

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Limits:
    """max_length: what lm_eval's models call so, a context and its continuation, whose last token need
    not be read. max_tokens: of a whole request, over all sequences that read it."""
    max_length: int
    max_tokens: int
    max_continuations: int

    @staticmethod
    def of(info, options):
        most = min(info.context_length, info.max_request_tokens, info.kv_slots)
        # The server counts a continuation's last token too.
        if options.max_length is not None and options.max_length > most - 1:
            raise OptionError(f"model_args: max_length: {options.max_length} is not valid: at most {most - 1} with "
                              "this server")
        max_tokens = min(info.max_request_tokens, info.kv_slots)
        if options.fusion.positions is chorus.Positions.SEQUENTIAL:
            # Positions run through all wordings, and wordings that move in the cache take twice the room.
            max_tokens = min(info.max_request_tokens, info.kv_slots // 2, info.context_length)
        return Limits(options.max_length or most - 1, max_tokens, max(1, info.max_continuations))


@dataclasses.dataclass(frozen=True)
class ScoreJob:
    """One continuation of one prompt, in token ids."""
    prompt: chorus.TokenPrompt
    continuation: tuple[int, ...]


class PromptMaker:
    def __init__(self, options, limits, separator, bos_token_id):
        """`separator`: token ids; `bos_token_id`: what every context begins with, or None."""
        self._options, self._limits = options, limits
        self._separator, self._bos = tuple(separator), bos_token_id
        self._fuses_attention = options.fusion.method in (None, chorus.Method.ATTENTION)
        self._warned = False

    def make(self, contexts, room, num_new) -> chorus.TokenPrompt:
        """`contexts`: ids of each wording, none empty. Each keeps its last `room` tokens at most, fewer
        if the request would be too large with `num_new` tokens behind it."""
        if len(contexts) > 1:
            self._check_weights(len(contexts))
        num_new *= self._num_sequences(len(contexts))
        total = self._limits.max_tokens - num_new - len(self._separator) * (len(contexts) - 1)
        kept = fit(contexts, room, total) if room > 0 else None
        if kept is None:
            raise OptionError(f"{num_new} tokens behind {len(contexts)} wordings are too many: max_length is "
                              f"{self._limits.max_length}, and this server takes requests of "
                              f"{self._limits.max_tokens} tokens")
        if sum(map(len, kept)) < sum(map(len, contexts)) and not self._warned:
            self._warned = True
            _logger.warning("contexts are too long and lose tokens on the left: the first one has %s, and keeps %s",
                            [len(context) for context in contexts], [len(context) for context in kept])
        return self._split(kept)

    def score_requests(self, jobs):
        """[(ScoreRequest, indexes of its jobs)]: continuations of one prompt go together, as many as
        the server takes."""
        by_prompt = {}
        for index, job in enumerate(jobs):
            by_prompt.setdefault(job.prompt, []).append(index)
        requests = []
        for prompt, indexes in by_prompt.items():
            sizes = [len(jobs[index].continuation) for index in indexes]
            room = (self._limits.max_tokens - self._rows(prompt)) // self._num_sequences(len(prompt.segments))
            for part in _parts(indexes, sizes, room, self._limits.max_continuations):
                continuations = [chorus.Continuation(tokens=_segment(jobs[i].continuation)) for i in part]
                requests.append((chorus.ScoreRequest(prompt=prompt, fusion=self.fusion(prompt),
                                                     continuations=continuations, prompt_logprobs=False), part))
        return requests

    def fusion(self, prompt):
        """A single wording has no weight."""
        fusion = self._options.fusion
        return fusion if len(prompt.segments) > 1 else dataclasses.replace(fusion, weights=())

    def _check_weights(self, num_wordings):
        weights = self._options.fusion.weights
        if weights and len(weights) != num_wordings:
            raise OptionError(f"model_args: weights: {len(weights)} numbers are not valid for {num_wordings} wordings: "
                              "one for each")

    def _num_sequences(self, num_wordings):
        """How many sequences read what follows the prompt."""
        return 1 if self._fuses_attention else num_wordings

    def _rows(self, prompt):
        """A prompt's tokens over all sequences."""
        num_wordings = len(prompt.segments)
        shared = len(prompt.prefix.token_ids) + len(prompt.suffix.token_ids)
        own = sum(len(segment.token_ids) for segment in prompt.segments)
        between = len(prompt.separator.token_ids) * (num_wordings - 1)
        return own + self._num_sequences(num_wordings) * shared + between

    def _split(self, contexts):
        """What all wordings share at their ends stands once, if the options want it; BOS always does."""
        prefix = suffix = 0
        if len(contexts) > 1:
            shortest = min(map(len, contexts))
            if self._options.shared_prefix:
                prefix = min(common_length(contexts), shortest - 1)
            elif self._bos is not None and shortest > 1 and all(c[0] == self._bos for c in contexts):
                prefix = 1
            if self._options.shared_suffix:
                suffix = min(common_length([context[::-1] for context in contexts]), shortest - prefix - 1)
        first = contexts[0]
        return chorus.TokenPrompt(
            segments=tuple(_segment(context[prefix:len(context) - suffix]) for context in contexts),
            prefix=_segment(first[:prefix]), suffix=_segment(first[len(first) - suffix:]),
            separator=_segment(self._separator))


def _segment(ids):
    return chorus.TokenSegment(token_ids=tuple(ids))


def _parts(indexes, sizes, room, most):
    """`indexes` in order, cut so that each part has at most `most`, and sizes of `room` together unless
    it is a single one."""
    part, used = [], 0
    for index, size in zip(indexes, sizes):
        if part and (len(part) == most or used + size > room):
            yield part
            part, used = [], 0
        part.append(index)
        used += size
    if part:
        yield part

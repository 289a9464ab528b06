"""The model `chorus` of lm-evaluation-harness: a Chorus server answers."""
from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import math

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

import chorus_client as chorus
from chorus_lm_eval.chat import ChatTemplate
from chorus_lm_eval.errors import OptionError
from chorus_lm_eval.generation import make_generation
from chorus_lm_eval.options import parse_options
from chorus_lm_eval.prompts import Limits, PromptMaker, ScoreJob
from chorus_lm_eval.tokens import ServerTokenizer
from chorus_lm_eval.wordings import Questions, shared

_LONGEST_WAIT = 5.0  # seconds between two attempts
# Attempts that pass before waits have grown that long.
_FIRST_ATTEMPTS = 6


@register_model("chorus")
class ChorusLM(TemplateLM):
    """`model_args`: see options.py. Raises OptionError for one that is not valid, ChorusError when the
    server cannot be reached."""

    def __init__(self, **model_args):
        super().__init__()
        self._options = options = parse_options(model_args)
        with self._open(chorus.RetryPolicy()) as client:
            self._info = client.model_info(deadline=30)
        attempts = _FIRST_ATTEMPTS + math.ceil(options.server_timeout / _LONGEST_WAIT)
        self._client = self._open(chorus.RetryPolicy(max_attempts=attempts, max_backoff=_LONGEST_WAIT))
        self._tokens = ServerTokenizer(self._client, options.concurrency)
        self._limits = Limits.of(self._info, options)
        self._chat = None if options.tokenizer is None else ChatTemplate(options.tokenizer)
        self._prefix_token_id = self._find_prefix_token()
        self._adds_bos = options.add_bos_token
        if self._adds_bos is None:
            self._adds_bos = self._info.bos_token_id is not None
        self._prefix_spelling = self._tokens.decode([self._prefix_token_id])
        separator = self._tokens.encode(options.separator)
        self._prompts = PromptMaker(options, self._limits, separator, self._bos if self._adds_bos else None)

    def _open(self, retry):
        options = self._options
        return chorus.Client(options.target, tls=options.tls, token=options.token, retry=retry)

    def _find_prefix_token(self):
        """As lm_eval's Hugging Face model: BOS, though it may not stand before every text; else EOS."""
        for token_id in (self._options.prefix_token_id, self._info.bos_token_id, self._info.named_bos_token_id,
                         *self._info.eos_token_ids):
            if token_id is not None:
                return token_id
        raise OptionError("model_args: prefix_token_id: needed, as the server's model has neither BOS nor EOS")

    # ---- What lm_eval asks about the model ----

    @property
    def eot_token_id(self):
        return self._info.eos_token_ids[0] if self._info.eos_token_ids else self._prefix_token_id

    @property
    def prefix_token_id(self):
        return self._prefix_token_id

    @property
    def max_length(self):
        return self._limits.max_length

    @property
    def max_gen_toks(self):
        return self._options.max_gen_toks

    @property
    def tokenizer_name(self):
        return self._info.name.replace("/", "__")

    def get_model_info(self):
        """Goes into lm_eval's results file."""
        fields = ("name", "dtype", "num_parameters", "context_length", "server_version")
        return {f"chorus_{field}": getattr(self._info, field) for field in fields}

    def chat_template(self, chat_template=False):
        return self._needed_chat().text if chat_template else ""

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return self._needed_chat().render(chat_history, add_generation_prompt)

    def _needed_chat(self):
        if self._chat is None:
            raise OptionError("model_args: tokenizer: needed for --apply_chat_template: the folder of the served model, "
                              "whose tokenizer_config.json holds the template")
        return self._chat

    # ---- Requests ----

    def _questions(self, kind, requests):
        fuses = self._options.fusion.method is not chorus.Method.PER_PROMPT
        return Questions(kind, requests, self._options.paraphrase_tasks if fuses else None, self.cache_hook)

    @property
    def _bos(self):
        return self._prefix_token_id if self._info.bos_token_id is None else self._info.bos_token_id

    def tok_encode(self, string, add_special_tokens=None, **_):
        add = self._adds_bos if add_special_tokens is None else add_special_tokens
        if add_special_tokens is None and string.startswith(self._prefix_spelling):
            add = False
        ids = self._tokens.encode(string)
        return [self._bos, *ids] if add else ids

    def _encode_context(self, text):
        return self.tok_encode(text) or [self._prefix_token_id]

    def _encode_scored(self, context, continuation):
        """(context's ids, continuation's ids), split as lm_eval's other models do it."""
        if context == "":
            ids = self.tok_encode(continuation, add_special_tokens=False)
            return (ids[:1], ids[1:]) if ids[:1] == [self._prefix_token_id] else ([self._prefix_token_id], ids)
        context_ids, ids = self._encode_pair(context, continuation)
        return context_ids or [self._prefix_token_id], ids

    # ---- loglikelihood ----

    def loglikelihood(self, requests, disable_tqdm=False):
        self._tokens.load(text for request in requests for text in _texts_of_pair(*request.args))
        questions = self._questions("loglikelihood", requests)
        jobs = [self._job_of(question) for question in questions.open]
        self._tokens.forget()
        with _bar("loglikelihood", len(requests), disable_tqdm) as bar:
            bar.update(questions.num_recalled)
            for index, score in self._score(jobs):
                bar.update(questions.answer(index, score))
        return questions.answers

    def _job_of(self, question):
        pairs = [instance.args for instance in question.instances]
        encoded = [self._encode_scored(*pair) for pair in pairs]
        shared(question, "continuation", [_moved_spaces(*pair) for pair in pairs])
        # Where a tokenizer lets the context change the continuation's ids, the first wording decides.
        ids = encoded[0][1]
        if not ids:
            first = question.instances[0]
            raise OptionError(f"{first.task_name}: document {first.doc_id}: the continuation {first.args[1]!r} has no "
                              "token of its own: nothing to score")
        return self._job([context for context, _ in encoded], ids)

    def _job(self, contexts, continuation):
        if all(context == [self._prefix_token_id] for context in contexts):
            contexts = contexts[:1]  # no context in any wording: there is nothing to fuse
        room = self._limits.max_length + 1 - len(continuation)
        return ScoreJob(self._prompts.make(contexts, room, len(continuation)), tuple(continuation))

    def _score(self, jobs):
        """Yields (index of the job, (log-likelihood, is it greedy)) as they come."""
        calls, running = iter(self._prompts.score_requests(jobs)), {}
        most = 2 * self._options.concurrency  # the next ones wait in the pool
        pool = concurrent.futures.ThreadPoolExecutor(self._options.concurrency)
        try:
            while True:
                for request, indexes in itertools.islice(calls, most - len(running)):
                    running[pool.submit(self._client.score, request)] = indexes
                if not running:
                    return
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                failure = next((future.exception() for future in done if future.exception() is not None), None)
                if failure is not None:
                    # What is answered already still counts: it goes into lm_eval's cache.
                    pool.shutdown(cancel_futures=True)
                    done = [future for future in running if not future.cancelled() and future.exception() is None]
                for future in done:
                    for index, score in zip(running.pop(future), future.result().scores, strict=True):
                        yield index, (score.logprob, score.is_greedy)
                if failure is not None:
                    raise failure
        finally:
            pool.shutdown(cancel_futures=True)

    def _loglikelihood_tokens(self, requests, **_):
        """`requests`: (anything, context's ids, continuation's ids)."""
        scores = self._score([self._job([context], ids) for _, context, ids in requests])
        return [score for _, score in sorted(scores)]

    # ---- loglikelihood_rolling ----

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        """Wordings have no part in it: a document is one text."""
        self._tokens.load(text for request in requests for text in request.args)
        windows = [self._windows(request.args[0]) for request in requests]
        self._tokens.forget()
        owners = [number for number, own in enumerate(windows) for _ in own]
        logprobs = [[None] * len(own) for own in windows]
        firsts = list(itertools.accumulate(map(len, windows), initial=0))
        jobs = [self._job([context], ids) for own in windows for context, ids in own]
        with _bar("loglikelihood_rolling", len(jobs), disable_tqdm) as bar:
            for index, (logprob, _) in self._score(jobs):
                number = owners[index]
                logprobs[number][index - firsts[number]] = logprob
                if None not in logprobs[number]:
                    # Summed in the windows' order, not in that of the answers: the same bits every time.
                    self.cache_hook.add_partial("loglikelihood_rolling", requests[number].args, sum(logprobs[number]))
                bar.update()
        return [float(sum(own)) for own in logprobs]

    def _windows(self, text):
        windows = utils.get_rolling_token_windows(token_list=self.tok_encode(text), prefix_token=self._prefix_token_id,
                                                  max_seq_len=self.max_length, context_len=1)
        return [utils.make_disjoint_window(window) for window in windows]

    # ---- generate_until ----

    def generate_until(self, requests, disable_tqdm=False):
        self._tokens.load(request.args[0] for request in requests)
        questions = self._questions("generate_until", requests)
        generations = self._generations(questions.open)
        pairs = ((str(index), self._request_of(question, generation))
                 for index, (question, generation) in enumerate(zip(questions.open, generations)))
        with _bar("generate_until", len(requests), disable_tqdm) as bar:
            bar.update(questions.num_recalled)
            for result in self._client.generate_many(pairs, max_in_flight=self._options.concurrency,
                                                     idle_timeout=self._options.server_timeout):
                index = int(result.request_id)
                generation = generations[index]
                text = generation.cut(result.get().text)
                bar.update(questions.answer(index, text, keep=not generation.is_drawn))
        self._tokens.forget()
        return questions.answers

    def _generations(self, questions):
        made, generations = {}, []
        for question in questions:
            kwargs = shared(question, "generation_kwargs", [instance.args[1] for instance in question.instances])
            key = json.dumps(kwargs, sort_keys=True)
            if key not in made:
                made[key] = make_generation(kwargs, self.max_gen_toks, self._tokens.special_token)
            texts = [instance.args[0] for instance in question.instances]
            generations.append(made[key].seeded(self._options.seed, (*texts, key, question.repeat)))
        return generations

    def _request_of(self, question, generation):
        contexts = [self._encode_context(instance.args[0]) for instance in question.instances]
        num_new = generation.stopping.max_new_tokens
        prompt = self._prompts.make(contexts, self.max_length - num_new, num_new)
        return chorus.GenerateRequest(prompt=prompt, fusion=self._prompts.fusion(prompt), sampling=generation.sampling,
                                      stopping=generation.stopping)


def _texts_of_pair(context, continuation):
    """What splitting the pair will tokenise."""
    return (context.rstrip(), context + continuation)


def _moved_spaces(context, continuation):
    """The continuation with the spaces that its context ends in."""
    return context[len(context.rstrip()):] + continuation


@contextlib.contextmanager
def _bar(kind, total, disable):
    with tqdm(total=total, desc=f"chorus: {kind}", disable=disable) as bar:
        yield bar

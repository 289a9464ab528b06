"""Gets requests answered: over one GenerateMany stream, through restarts of the server, each answer on
disk before it counts."""
from __future__ import annotations

import dataclasses
import sys
import time

import chorus_client as chorus
from chorus_eval.journal import request_key
from chorus_eval.progress import Progress

# Errors that asking again may mend.
_PASSING = ("DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN", "ABORTED")
# The server's state, not the request's: asked again without counting an attempt.
_BUSY = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
_MODEL_FIELDS = ("name", "dtype", "vocab_size", "num_parameters", "num_layers", "hidden_size")
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0


class RunError(Exception):
    """The run cannot go on; its text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Connection:
    """How a run reaches its server, and how long it bears with it."""
    target: str
    tls: chorus.Tls | None = None
    token: str | None = None
    server_timeout: float = 300.0  # seconds without a server before the run gives up
    idle_timeout: float = 300.0    # seconds of silence after which the server counts as dead
    concurrency: int = 16
    attempts: int = 3              # of one request that fails while the server lives

    def open(self):
        retry = chorus.RetryPolicy(max_attempts=1)
        return chorus.Client(self.target, tls=self.tls, token=self.token, retry=retry)


def model_record(info):
    return {name: getattr(info, name) for name in _MODEL_FIELDS}


def outcome_of(answer):
    """What the journal keeps of an answer."""
    record = {"text": answer.text, "token_ids": list(answer.token_ids),
              "reason": answer.reason.value if answer.reason else None,
              "usage": dataclasses.asdict(answer.usage), "timing": dataclasses.asdict(answer.timing),
              "worker": answer.prompt_info.worker}
    if answer.prompts:
        record["prompts"] = [{"text": p.text, "num_tokens": len(p.token_ids)}
                             for p in sorted(answer.prompts, key=lambda p: p.index)]
    if answer.tally:
        record["tally"] = [{"answer": v.answer, "count": v.count} for v in answer.tally]
    return record


def error_outcome(error):
    return {"error": {"code": error.code, "message": error.message, "field": error.field}}


class Runner:
    """Asks what the journal does not hold yet. `model`: the record of the model that the run is about,
    or None to take the server's; afterwards `model` tells."""

    def __init__(self, connection, journal, model=None, note=None, sleep=time.sleep,
                 clock=time.monotonic):
        self._connection, self._journal, self._sleep, self._clock = connection, journal, sleep, clock
        self._note = note or (lambda text: print(text, file=sys.stderr, flush=True))
        self.model = model
        self.num_asked = 0

    def check_model(self):
        """Waits for the server; RunError if it serves another model than the run is about."""
        wait, waited = _FIRST_WAIT, 0.0
        while True:
            try:
                with self._connection.open() as client:
                    found = model_record(client.model_info(deadline=30))
                break
            except (chorus.Unavailable, chorus.DeadlineExceeded, chorus.ResourceExhausted) as error:
                if waited >= self._connection.server_timeout:
                    raise RunError(f"no server answers at {self._connection.target} for {waited:.0f} s "
                                   f"({error}). What is answered is kept: run the same command again") from None
                if not waited:
                    self._note(f"waiting for the server at {self._connection.target}: {error.message}")
            except chorus.ChorusError as error:
                raise RunError(f"{self._connection.target}: {error}") from None
            wait = min(wait, max(0.0, self._connection.server_timeout - waited) or _FIRST_WAIT)
            self._sleep(wait)
            waited, wait = waited + wait, min(_LONGEST_WAIT, 2 * wait)
        self._check_same(found)

    def _check_same(self, found):
        if self.model is None:
            self.model = found
        for name, value in found.items():
            if self.model[name] != value:
                raise RunError(f"the server's model is another one: {name} is {value!r}, the run's answers so "
                               f"far come from {self.model[name]!r}. Serve that model, or choose another --output")

    def run(self, what, requests):
        """Outcomes of a list of requests, in its order: {"text", ...} or {"error": {...}}."""
        keys = [request_key(request) for request in requests]
        open_requests = {key: request for key, request in zip(keys, requests) if self._journal.get(key) is None}
        unique = len(set(keys))
        progress = Progress(what, unique, unique - len(open_requests))
        failures, failed = {}, {}
        last_progress = self._clock()
        while open_requests:
            before = (len(open_requests), sum(failures.values()))
            self._pass(open_requests, failures, failed, progress)
            if (len(open_requests), sum(failures.values())) != before:
                last_progress = self._clock()
            elif self._clock() - last_progress >= self._connection.server_timeout:
                raise RunError(f"the server has answered nothing for {self._connection.server_timeout:g} s; "
                               "what is answered is kept: run the same command again")
            if open_requests:
                self._sleep(_FIRST_WAIT)
                self.check_model()
        progress.finish()
        return [self._journal.get(key) or failed[key] for key in keys]

    def _pass(self, open_requests, failures, failed, progress):
        """One stream over all that is open; returns when it ends or breaks."""
        # The journal's keys are the ids: a list, since answered ones leave the dictionary meanwhile.
        pairs = list(open_requests.items())
        connection = self._connection
        try:
            with connection.open() as client:
                for result in client.generate_many(pairs, max_in_flight=connection.concurrency,
                                                   idle_timeout=connection.idle_timeout):
                    self._take(result, open_requests, failures, failed, progress)
        except (chorus.Unavailable, chorus.ResourceExhausted) as error:
            progress.note(f"the server is gone ({error.message}); "
                          f"{len(open_requests)} answers are still to come")
        except chorus.ChorusError as error:
            raise RunError(f"{connection.target}: {error}") from None

    def _take(self, result, open_requests, failures, failed, progress):
        key, error = result.request_id, result.error
        if error is None:
            self._journal.add(key, outcome_of(result.answer))
            self.num_asked += 1
        elif error.code in _BUSY:
            return
        else:
            failures[key] = failures.get(key, 0) + 1
            if error.code in _PASSING and failures[key] < self._connection.attempts:
                return
            # Not into the journal: the next run asks again.
            failed[key] = error_outcome(error)
        del open_requests[key]
        progress.step(failed=error is not None)

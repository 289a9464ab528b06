"""The state of a GenerateMany call, without any waiting or network: what to send next, whose answer
an event belongs to, what is asked again. `client.py` and `aio.py` drive it."""
from __future__ import annotations

import dataclasses
import heapq
import time

from chorus_client import types as t
from chorus_client.collector import Collector
from chorus_client.convert import to_message
from chorus_client.errors import ChorusError, Unavailable, from_status
from chorus_client.retry import Attempts
from chorus_client.v1 import inference_pb2 as pb

# How long a stream whose answers are all there may take to end in good order.
CLOSE_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class ManyResult:
    """How one request of GenerateMany ended: `answer` or `error`, the other one is None."""
    request_id: str
    answer: t.Answer | None = None
    error: ChorusError | None = None

    def get(self) -> t.Answer:
        """The answer; raises the error."""
        if self.error is not None:
            raise self.error
        return self.answer


class _Running:
    def __init__(self, message, attempts):
        self.message, self.attempts, self.collector = message, attempts, Collector()


class ManyState:
    """Requests are taken from `requests`, pairs (request_id, GenerateRequest), only when there is
    room among `max_in_flight`: a data set of any size needs the memory of those in flight."""

    def __init__(self, requests, max_in_flight, policy, clock=time.monotonic):
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight: {max_in_flight} is not valid: at least 1")
        self._source, self._exhausted = iter(requests), False
        self._max_in_flight, self._policy, self._clock = max_in_flight, policy, clock
        self._running: dict[str, _Running] = {}
        self._unsent: list[str] = []              # in flight, to be sent (again) now
        self._waiting: list[tuple[float, str]] = []  # a heap of (when, request_id) to be sent again
        self._stream_attempts = Attempts(policy)

    def _take(self):
        while not self._exhausted and len(self._running) < self._max_in_flight:
            try:
                request_id, request = next(self._source)
            except StopIteration:
                self._exhausted = True
                return
            if request_id in self._running:
                raise ValueError(f"request_id: {request_id!r} is not valid: a request of this id still runs")
            message = pb.GenerateManyRequest(request_id=request_id, request=to_message(request))
            self._running[request_id] = _Running(message, Attempts(self._policy))
            self._unsent.append(request_id)

    def to_send(self):
        """The messages to send now."""
        self._take()
        now = self._clock()
        while self._waiting and self._waiting[0][0] <= now:
            self._unsent.append(heapq.heappop(self._waiting)[1])
        ready, self._unsent = self._unsent, []
        return [self._running[request_id].message for request_id in ready]

    def is_done(self):
        self._take()
        return self._exhausted and not self._running

    def seconds_to_next_send(self):
        """Until a request is due to be sent again; None: none waits."""
        return max(0.0, self._waiting[0][0] - self._clock()) if self._waiting else None

    def all_wait(self):
        """True if nothing runs on the server: silence is then no sign of trouble."""
        return len(self._waiting) == len(self._running)

    def patience(self, idle_timeout):
        """Seconds to wait for the next event, None: for ever; and the error that it is if none comes,
        None: something is due to be sent again."""
        until_send = self.seconds_to_next_send()
        idle = None if self.all_wait() else idle_timeout
        if idle is not None and (until_send is None or until_send > idle):
            return idle, Unavailable(f"the server has said nothing for {idle:g} s")
        return until_send, None

    def on_event(self, event) -> ManyResult | None:
        """Takes a GenerateManyResponse; the result, if it ended its request."""
        running = self._running.get(event.request_id)
        if running is None:
            return None
        self._stream_attempts.progress()
        if event.HasField("error"):
            return self._on_error(event.request_id, running, from_status(event.error, event.request_id))
        running.collector.add(event.response)
        if running.collector.finish is None:
            return None
        del self._running[event.request_id]
        try:
            return ManyResult(event.request_id, answer=running.collector.answer())
        except ChorusError as error:
            return ManyResult(event.request_id, error=error)

    def _on_error(self, request_id, running, error):
        wait = running.attempts.wait_after(error)
        if wait is None:
            del self._running[request_id]
            return ManyResult(request_id, error=error)
        running.collector = Collector()
        heapq.heappush(self._waiting, (self._clock() + wait, request_id))
        return None

    def on_broken_stream(self, error):
        """The stream ended with `error`: seconds until a new one is worth trying, on which everything
        without an answer is sent again; None: never."""
        for running in self._running.values():
            running.collector = Collector()
        self._waiting.clear()
        self._unsent = list(self._running)
        return self._stream_attempts.wait_after(error)

    def wait_or_raise(self, error, attempts):
        """on_broken_stream, but that `error` is raised if it is final or the time of `attempts`, which
        span all streams, is over before."""
        wait = self.on_broken_stream(error)
        remaining = attempts.remaining()
        if wait is None or (remaining is not None and wait >= remaining):
            raise error
        return wait

"""The blocking client."""
from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

import grpc

from chorus_client import types as t
from chorus_client.collector import Collector
from chorus_client.connection import AnswerStream, Connection, wait_or_raise
from chorus_client.convert import from_message, to_message
from chorus_client.errors import ChorusError, Internal, Unavailable, from_rpc_error
from chorus_client.many import CLOSE_SECONDS, ManyResult, ManyState
from chorus_client.request import as_request, as_score_request
from chorus_client.v1 import inference_pb2 as pb


class TokenStream(AnswerStream):
    """The chunks of one answer as they come: iterate over it. `prompt_info` is there from the
    beginning, `finish` after the last chunk. Leaving its `with` block, or `cancel()`, ends the answer
    on the server too."""

    def __iter__(self) -> Iterator[t.TokenChunk]:
        return self

    def __next__(self) -> t.TokenChunk:
        try:
            for response in self._call:
                chunk = self._collector.add(response)
                if chunk is not None:
                    return chunk
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        self._check_complete()
        raise StopIteration

    def answer(self) -> t.Answer:
        """Reads what is left; the whole answer."""
        for _ in self:
            pass
        return self._collector.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cancel()


class Client(Connection):
    """A connection to one Chorus server; any number of threads may use it.

    target    "HOST:PORT", or any name that gRPC resolves
    tls       None: not encrypted; Tls() or Tls(files)
    token     sent as "authorization: Bearer TOKEN"; needs tls, but for this machine
    deadline  seconds that a call may take, all its attempts together; None: as long as it takes.
              Every call can say another one
    retry     what is asked again, and when: RetryPolicy
    """

    _api = grpc

    def close(self):
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- Calls ----

    def generate(self, request: str | t.GenerateRequest, paraphrases: Sequence[str] = (), *,
                 deadline: float | None = None, **options) -> t.Answer:
        """The whole answer. `request`: a question, with paraphrases and any option of make_request;
        or a GenerateRequest. Raises ChorusError."""
        message = to_message(as_request(request, paraphrases, options))

        def ask(timeout):
            call = self._stub.Generate(message, timeout=timeout, metadata=self._metadata)
            return TokenStream(call, Collector()).answer()

        return self._attempt(ask, deadline)

    def stream(self, request: str | t.GenerateRequest, paraphrases: Sequence[str] = (), *,
               deadline: float | None = None, **options) -> TokenStream:
        """The answer as it comes; arguments as for `generate`. Returns once the server has taken the
        request. Asked again only until then: nothing is ever said twice."""
        message = to_message(as_request(request, paraphrases, options))

        def begin(timeout):
            call = self._stub.Generate(message, timeout=timeout, metadata=self._metadata)
            collector = Collector()
            for response in call:
                collector.add(response)
                return TokenStream(call, collector)
            raise Internal("the stream ended without its first message")

        return self._attempt(begin, deadline)

    def generate_many(self, requests: Iterable[tuple[str, t.GenerateRequest]], *,
                      max_in_flight: int = 64, deadline: float | None = None,
                      idle_timeout: float | None = None) -> Iterator[ManyResult]:
        """Answers of a whole data set over one stream, as they end.

        requests       pairs (request_id, request), taken only as there is room
        max_in_flight  requests on the way at a time
        idle_timeout   seconds without any event after which the server counts as dead

        One bad request is one result with an error. A broken stream is opened again, and what has no
        answer yet is asked again. Raises ChorusError when no attempt is left, or the deadline is over.
        """
        state = ManyState(requests, max_in_flight, self._retry)
        end = self._attempts(deadline)
        while not state.is_done():
            try:
                yield from _Exchange(self._stub, state, self._metadata, end, idle_timeout).results()
            except ChorusError as error:
                time.sleep(state.wait_or_raise(error, end))

    def score(self, request: str | t.ScoreRequest,
              continuations: Sequence[str | Sequence[int]] = (), paraphrases: Sequence[str] = (), *,
              deadline: float | None = None, **options) -> t.ScoreResponse:
        """The log-likelihood of each continuation (a text, or token ids) under the fused model, and
        whether greedy would have said it. `request`: a question, with paraphrases and any option of
        make_score_request; or a ScoreRequest."""
        message = to_message(as_score_request(request, continuations, paraphrases, options))
        return self._unary("Score", message, t.ScoreResponse, deadline)

    def explain(self, request: t.ExplainRequest, *, deadline: float | None = None) -> t.ExplainResponse:
        """What the generated rows looked at: layout, mask, attention per layer, head and segment."""
        return self._unary("Explain", to_message(request), t.ExplainResponse, deadline)

    def tokenize(self, text: str, *, recognize_special: bool = False,
                 deadline: float | None = None) -> t.TokenizeResponse:
        message = pb.TokenizeRequest(text=text, recognize_special=recognize_special)
        return self._unary("Tokenize", message, t.TokenizeResponse, deadline)

    def detokenize(self, token_ids: Sequence[int], *, skip_special: bool = False,
                   deadline: float | None = None) -> str:
        message = pb.DetokenizeRequest(token_ids=token_ids, skip_special=skip_special)
        return self._unary("Detokenize", message, None, deadline).text

    def model_info(self, *, deadline: float | None = None) -> t.ModelInfo:
        """What is served, and its limits."""
        return self._unary("GetModelInfo", pb.GetModelInfoRequest(), t.ModelInfo, deadline)

    # ---- Retries ----

    def _unary(self, name, message, answer_class, deadline):
        def ask(timeout):
            return getattr(self._stub, name)(message, timeout=timeout, metadata=self._metadata)

        response = self._attempt(ask, deadline)
        return response if answer_class is None else from_message(answer_class, response)

    def _attempt(self, ask, deadline):
        """`ask(timeout)` until it succeeds or its error is final."""
        attempts = self._attempts(deadline)
        while True:
            try:
                return ask(attempts.remaining())
            except (grpc.RpcError, ChorusError) as failure:
                wait = wait_or_raise(attempts, failure)
            time.sleep(wait)


class _Exchange:
    """One GenerateMany stream. A thread reads, so that silence is noticed and Ctrl-C works."""

    def __init__(self, stub, state, metadata, attempts, idle_timeout):
        self._state, self._idle_timeout = state, idle_timeout
        self._outbox, self._inbox = queue.SimpleQueue(), queue.SimpleQueue()
        self._call = stub.GenerateMany(iter(self._outbox.get, None), timeout=attempts.remaining(),
                                       metadata=metadata)

    def _read(self):
        end = None
        try:
            for event in self._call:
                self._inbox.put(event)
        except grpc.RpcError as error:
            end = from_rpc_error(error)
        self._inbox.put(end or Unavailable("the server ended the stream before its last answer"))

    def results(self):
        reader = threading.Thread(target=self._read, name="chorus-generate-many", daemon=True)
        reader.start()
        try:
            while not self._state.is_done():
                for message in self._state.to_send():
                    self._outbox.put(message)
                event = self._next_event()
                if isinstance(event, ChorusError):
                    raise event
                result = None if event is None else self._state.on_event(event)
                if result is not None:
                    yield result
            self._outbox.put(None)
            reader.join(CLOSE_SECONDS)
        finally:
            self._outbox.put(None)
            self._call.cancel()
            reader.join()

    def _next_event(self):
        """The next event; None when something is due to be sent again before."""
        timeout, silence = self._state.patience(self._idle_timeout)
        with contextlib.suppress(queue.Empty):
            return self._inbox.get(timeout=timeout)
        if silence is not None:
            raise silence
        return None

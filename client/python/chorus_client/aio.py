"""The client for asyncio: as client.Client, with `await` and `async for`."""
from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence

import grpc
import grpc.aio

from chorus_client import types as t
from chorus_client.collector import Collector
from chorus_client.connection import AnswerStream, Connection, wait_or_raise
from chorus_client.convert import from_message, to_message
from chorus_client.errors import ChorusError, Internal, Unavailable, from_rpc_error
from chorus_client.many import CLOSE_SECONDS, ManyResult, ManyState
from chorus_client.request import as_request, as_score_request
from chorus_client.v1 import inference_pb2 as pb


class AsyncTokenStream(AnswerStream):
    """As client.TokenStream: `async for chunk in stream`."""

    def __aiter__(self) -> AsyncIterator[t.TokenChunk]:
        return self

    async def __anext__(self) -> t.TokenChunk:
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                chunk = self._collector.add(response)
                if chunk is not None:
                    return chunk
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        self._check_complete()
        raise StopAsyncIteration

    async def answer(self) -> t.Answer:
        """Reads what is left; the whole answer."""
        async for _ in self:
            pass
        return self._collector.answer()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.cancel()


class AsyncClient(Connection):
    """As client.Client, for one event loop. `async with AsyncClient(target) as client: ...`."""

    _api = grpc.aio

    async def close(self):
        await self._channel.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    # ---- Calls ----

    async def generate(self, request: str | t.GenerateRequest, paraphrases: Sequence[str] = (), *,
                       deadline: float | None = None, **options) -> t.Answer:
        message = to_message(as_request(request, paraphrases, options))

        async def ask(timeout):
            call = self._stub.Generate(message, timeout=timeout, metadata=self._metadata)
            async with AsyncTokenStream(call, Collector()) as stream:
                return await stream.answer()

        return await self._attempt(ask, deadline)

    async def stream(self, request: str | t.GenerateRequest, paraphrases: Sequence[str] = (), *,
                     deadline: float | None = None, **options) -> AsyncTokenStream:
        message = to_message(as_request(request, paraphrases, options))

        async def begin(timeout):
            call = self._stub.Generate(message, timeout=timeout, metadata=self._metadata)
            collector = Collector()
            response = await call.read()
            if response is grpc.aio.EOF:
                raise Internal("the stream ended without its first message")
            collector.add(response)
            return AsyncTokenStream(call, collector)

        return await self._attempt(begin, deadline)

    async def generate_many(self, requests: Iterable[tuple[str, t.GenerateRequest]], *,
                            max_in_flight: int = 64, deadline: float | None = None,
                            idle_timeout: float | None = None) -> AsyncIterator[ManyResult]:
        state = ManyState(requests, max_in_flight, self._retry)
        end = self._attempts(deadline)
        while not state.is_done():
            exchange = _Exchange(self._stub, state, self._metadata, end, idle_timeout)
            try:
                async for result in exchange.results():
                    yield result
            except ChorusError as error:
                await asyncio.sleep(state.wait_or_raise(error, end))
            finally:
                await exchange.close()

    async def score(self, request: str | t.ScoreRequest,
                    continuations: Sequence[str | Sequence[int]] = (),
                    paraphrases: Sequence[str] = (), *, deadline: float | None = None,
                    **options) -> t.ScoreResponse:
        message = to_message(as_score_request(request, continuations, paraphrases, options))
        return from_message(t.ScoreResponse, await self._unary("Score", message, deadline))

    async def explain(self, request: t.ExplainRequest, *,
                      deadline: float | None = None) -> t.ExplainResponse:
        return from_message(t.ExplainResponse,
                            await self._unary("Explain", to_message(request), deadline))

    async def tokenize(self, text: str, *, recognize_special: bool = False,
                       deadline: float | None = None) -> t.TokenizeResponse:
        message = pb.TokenizeRequest(text=text, recognize_special=recognize_special)
        return from_message(t.TokenizeResponse, await self._unary("Tokenize", message, deadline))

    async def detokenize(self, token_ids: Sequence[int], *, skip_special: bool = False,
                         deadline: float | None = None) -> str:
        message = pb.DetokenizeRequest(token_ids=token_ids, skip_special=skip_special)
        return (await self._unary("Detokenize", message, deadline)).text

    async def model_info(self, *, deadline: float | None = None) -> t.ModelInfo:
        return from_message(t.ModelInfo,
                            await self._unary("GetModelInfo", pb.GetModelInfoRequest(), deadline))

    # ---- Retries ----

    async def _unary(self, name, message, deadline):
        async def ask(timeout):
            return await getattr(self._stub, name)(message, timeout=timeout, metadata=self._metadata)

        return await self._attempt(ask, deadline)

    async def _attempt(self, ask, deadline):
        attempts = self._attempts(deadline)
        while True:
            try:
                return await ask(attempts.remaining())
            except (grpc.RpcError, ChorusError) as failure:
                wait = wait_or_raise(attempts, failure)
            await asyncio.sleep(wait)


class _Exchange:
    """One GenerateMany stream; a task reads beside the one that sends."""

    def __init__(self, stub, state, metadata, attempts, idle_timeout):
        self._state, self._idle_timeout = state, idle_timeout
        self._inbox, self._write_failed = asyncio.Queue(), False
        self._call = stub.GenerateMany(timeout=attempts.remaining(), metadata=metadata)
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        end = Unavailable("the server ended the stream before its last answer")
        try:
            while (event := await self._call.read()) is not grpc.aio.EOF:
                self._inbox.put_nowait(event)
        except grpc.RpcError as error:
            end = self._end_of(error)
        self._inbox.put_nowait(end)

    def _end_of(self, error):
        """grpc.aio puts INTERNAL in the place of the status with which a stream ended if that made a
        write fail (set_internal_error in its call.pyx.pxi): such an end says only that the stream broke."""
        if self._write_failed and error.code() == grpc.StatusCode.INTERNAL:
            return Unavailable("the stream broke while requests were being sent")
        return from_rpc_error(error)

    async def close(self):
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def results(self):
        while not self._state.is_done():
            for message in self._state.to_send():
                await self._send(message)
            event = await self._next_event()
            if isinstance(event, ChorusError):
                raise event
            result = None if event is None else self._state.on_event(event)
            if result is not None:
                yield result
        with contextlib.suppress(Exception):  # all answers are there: how the stream ends is no matter
            await self._call.done_writing()
        await asyncio.wait([self._reader], timeout=CLOSE_SECONDS)

    async def _send(self, message):
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            self._write_failed = True  # the stream has ended: the reader says how

    async def _next_event(self):
        """The next event; None when something is due to be sent again before."""
        timeout, silence = self._state.patience(self._idle_timeout)
        try:
            return await asyncio.wait_for(self._inbox.get(), timeout)
        except asyncio.TimeoutError:
            pass
        if silence is not None:
            raise silence
        return None

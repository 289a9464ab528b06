"""The client for asyncio: as client.Client, with `await` and `async for`."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import grpc
import grpc.aio

from chorus_client import channel as channels
from chorus_client import types as t
from chorus_client.collector import Collector
from chorus_client.convert import from_message, to_message
from chorus_client.errors import ChorusError, Internal, Unavailable, from_rpc_error
from chorus_client.many import ManyResult, ManyState
from chorus_client.request import as_request
from chorus_client.retry import Attempts, RetryPolicy
from chorus_client.v1 import inference_pb2 as pb
from chorus_client.v1 import inference_pb2_grpc as services

# How long a stream whose answers are all there may take to end in good order.
_CLOSE_SECONDS = 2.0


class AsyncTokenStream:
    """As client.TokenStream: `async for chunk in stream`."""

    def __init__(self, call, collector):
        self._call, self._collector = call, collector

    prompt_info = property(lambda self: self._collector.prompt_info)
    finish = property(lambda self: self._collector.finish)

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
        if self._collector.finish is None:
            raise Internal("the stream ended without its last message")
        raise StopAsyncIteration

    async def answer(self) -> t.Answer:
        """Reads what is left; the whole answer."""
        async for _ in self:
            pass
        return self._collector.answer()

    def cancel(self):
        self._call.cancel()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.cancel()


class AsyncClient:
    """As client.Client, for one event loop. `async with AsyncClient(target) as client: ...`."""

    def __init__(self, target, *, tls: channels.Tls | None = None, token: str | None = None,
                 deadline: float | None = None, retry: RetryPolicy = RetryPolicy()):
        self.target = target
        self._metadata = channels.metadata(target, tls, token)
        self._channel = channels.open_channel(grpc.aio, target, tls)
        self._stub = services.InferenceStub(self._channel)
        self._deadline, self._retry = deadline, retry

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
                wait = state.on_broken_stream(error)
                if wait is None or (end.remaining() is not None and wait >= end.remaining()):
                    raise
                await asyncio.sleep(wait)
            finally:
                await exchange.close()

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

    def _attempts(self, deadline):
        return Attempts(self._retry, self._deadline if deadline is None else deadline)

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
                error = failure if isinstance(failure, ChorusError) else from_rpc_error(failure)
                wait = attempts.wait_after(error)
                if wait is None:
                    raise error from None
            await asyncio.sleep(wait)


class _Exchange:
    """One GenerateMany stream; a task reads beside the one that sends."""

    def __init__(self, stub, state, metadata, attempts, idle_timeout):
        self._state, self._idle_timeout = state, idle_timeout
        self._inbox = asyncio.Queue()
        self._call = stub.GenerateMany(timeout=attempts.remaining(), metadata=metadata)
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        end = Unavailable("the server ended the stream before its last answer")
        try:
            while (event := await self._call.read()) is not grpc.aio.EOF:
                self._inbox.put_nowait(event)
        except grpc.RpcError as error:
            end = from_rpc_error(error)
        self._inbox.put_nowait(end)

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
        await self._call.done_writing()
        await asyncio.wait([self._reader], timeout=_CLOSE_SECONDS)

    async def _send(self, message):
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream has ended: the reader says how

    async def _next_event(self):
        """The next event; None when something is due to be sent again before."""
        until_send = self._state.seconds_to_next_send()
        idle = None if self._state.all_wait() else self._idle_timeout
        limits = [seconds for seconds in (until_send, idle) if seconds is not None]
        try:
            return await asyncio.wait_for(self._inbox.get(), min(limits) if limits else None)
        except asyncio.TimeoutError:
            pass
        if idle is not None and (until_send is None or until_send > idle):
            raise Unavailable(f"the server has said nothing for {idle:g} s")
        return None

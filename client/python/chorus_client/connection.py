"""What the blocking and the asyncio client share: the channel, the attempts, the stream of an answer."""
from __future__ import annotations

from chorus_client import channel as channels
from chorus_client.collector import Collector
from chorus_client.errors import ChorusError, Internal, from_rpc_error
from chorus_client.retry import Attempts, RetryPolicy
from chorus_client.v1 import inference_pb2_grpc as services


class Connection:
    _api = None  # grpc or grpc.aio

    def __init__(self, target, *, tls: channels.Tls | None = None, token: str | None = None,
                 deadline: float | None = None, retry: RetryPolicy = RetryPolicy()):
        self.target = target
        self._metadata = channels.metadata(target, tls, token)
        self._channel = channels.open_channel(self._api, target, tls)
        self._stub = services.InferenceStub(self._channel)
        self._deadline, self._retry = deadline, retry

    def _attempts(self, deadline):
        return Attempts(self._retry, self._deadline if deadline is None else deadline)


def wait_or_raise(attempts, failure):
    """Seconds to wait after a failed attempt; raises `failure` (a ChorusError, or what gRPC raised)
    as a ChorusError if it is final."""
    error = failure if isinstance(failure, ChorusError) else from_rpc_error(failure)
    wait = attempts.wait_after(error)
    if wait is None:
        raise error from None
    return wait


class AnswerStream:
    """An answer that comes chunk by chunk."""

    def __init__(self, call, collector: Collector):
        self._call, self._collector = call, collector

    prompt_info = property(lambda self: self._collector.prompt_info)
    finish = property(lambda self: self._collector.finish)

    def cancel(self):
        self._call.cancel()

    def _check_complete(self):
        if self._collector.finish is None:
            raise Internal("the stream ended without its last message")

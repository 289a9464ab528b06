"""What calls raise. Every gRPC status has its class; what the server said in detail is in fields.

    try:
        client.generate("What is the capital of France?", top_p=1.5)
    except chorus_client.InvalidArgument as error:
        print(error.field, error.value, error.limit)  # sampling.top_p 1.5 in (0, 1]
"""
from __future__ import annotations

import dataclasses

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_NOT_VALID = " is not valid: "


@dataclasses.dataclass(frozen=True)
class FieldViolation:
    """One field that the server refuses. `value` and `limit` are None where it said only a sentence."""
    field: str
    description: str
    value: str | None = None
    limit: str | None = None


class ChorusError(Exception):
    """A call failed. `code` is the gRPC status's name, `message` the server's words, `violations`
    the refused fields, `retry_after` the seconds after which the server wants to be asked again."""
    code = "UNKNOWN"

    def __init__(self, message, *, code=None, violations=(), retry_after=None, request_id=None):
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.request_id = request_id

    def _first(self, name):
        return getattr(self.violations[0], name) if self.violations else None

    @property
    def field(self) -> str | None:
        return self._first("field")

    @property
    def value(self) -> str | None:
        return self._first("value")

    @property
    def limit(self) -> str | None:
        return self._first("limit")

    def __str__(self):
        words = f"{self.code}: {self.message}"
        missing = [v for v in self.violations if v.field and v.field not in self.message]
        if missing:
            words += " (" + "; ".join(f"{v.field}: {v.description}" for v in missing) + ")"
        return words


class InvalidArgument(ChorusError):
    code = "INVALID_ARGUMENT"


class ResourceExhausted(ChorusError):
    """The queue is full, or there is no memory; retried by the client as RetryInfo says."""
    code = "RESOURCE_EXHAUSTED"


class Unavailable(ChorusError):
    """No server answers, or it is about to stop; retried by the client."""
    code = "UNAVAILABLE"


class DeadlineExceeded(ChorusError):
    code = "DEADLINE_EXCEEDED"


class Cancelled(ChorusError):
    code = "CANCELLED"


class Unimplemented(ChorusError):
    """The server is older than this client."""
    code = "UNIMPLEMENTED"


class Unauthenticated(ChorusError):
    code = "UNAUTHENTICATED"


class PermissionDenied(ChorusError):
    code = "PERMISSION_DENIED"


class Internal(ChorusError):
    code = "INTERNAL"


_CLASSES = {cls.code: cls for cls in ChorusError.__subclasses__()}
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def make_error(code, message, details=(), request_id=None):
    """A ChorusError of the class of `code` (the status's name); `details`: google.protobuf.Any."""
    violations, retry_after = [], None
    for detail in details:
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad_request):
            violations += [_violation(v) for v in bad_request.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return _CLASSES.get(code, ChorusError)(message, code=code, violations=violations,
                                           retry_after=retry_after, request_id=request_id)


def _violation(message):
    value, found, limit = message.description.partition(_NOT_VALID)
    return FieldViolation(message.field, message.description, value if found else None,
                          limit if found else None)


def from_status(status, request_id=None):
    """From a google.rpc.Status."""
    return make_error(_NAMES.get(status.code, "UNKNOWN"), status.message, status.details, request_id)


def from_rpc_error(error):
    """From what grpc raises."""
    details = []
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except Exception:  # noqa: BLE001 - details nobody can read are worth no second error
                continue
            details += status.details
    return make_error(error.code().name, error.details() or "no reason given", details)

"""Errors as gRPC statuses with google.rpc details. The one place that maps domain errors to codes."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from service.errors import (
    DeadlineExceededError,
    HeedError,
    InternalError,
    InvalidFieldError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
    UnsupportedError,
)

DOMAIN = "heed.dev"
DETAILS_TRAILER = "grpc-status-details-bin"
PUSHBACK_TRAILER = "grpc-retry-pushback-ms"

#: Every class of the tree in ``service.errors``; a test holds that none is missing.
CODES: dict[type[HeedError], StatusCode] = {
    InvalidFieldError: StatusCode.INVALID_ARGUMENT,
    NotFoundError: StatusCode.NOT_FOUND,
    UnsupportedError: StatusCode.FAILED_PRECONDITION,
    OverloadedError: StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: StatusCode.UNAVAILABLE,
    DeadlineExceededError: StatusCode.DEADLINE_EXCEEDED,
    InternalError: StatusCode.INTERNAL,
}


# A client takes 8 KiB of headers: the message is there three times, once of them with % before every byte.
_MOST_BYTES = 800
_MOST_METADATA_BYTES = 200


def message_of(error: HeedError) -> str:
    """Short enough for a header, whatever it quotes."""
    return _shortened(error.message, _MOST_BYTES)


def _shortened(text: str, most: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= most else encoded[: most - 3].decode(errors="ignore") + "…"


def status_code(error: HeedError) -> StatusCode:
    return CODES[type(error)]


def to_status(error: HeedError) -> status_pb2.Status:
    """The whole of an error, for one text's ``status`` or for the call's trailer."""
    metadata = {name: _shortened(value, _MOST_METADATA_BYTES) for name, value in error.metadata.items()}
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata),
        *_more_details(error),
    ]
    code, _ = status_code(error).value
    return status_pb2.Status(code=code, message=message_of(error), details=[_packed(detail) for detail in details])


def _more_details(error: HeedError) -> list[Message]:
    match error:
        case InvalidFieldError():
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=error.field, description=_shortened(error.problem, _MOST_BYTES), reason=error.reason
            )
            return [error_details_pb2.BadRequest(field_violations=[violation])]
        case NotFoundError():
            return [
                error_details_pb2.ResourceInfo(
                    resource_type=error.resource_type,
                    resource_name=_shortened(error.resource_name, _MOST_METADATA_BYTES),
                    description=message_of(error),
                )
            ]
        case UnsupportedError():
            precondition = error_details_pb2.PreconditionFailure.Violation(
                type=error.reason, subject=error.metadata.get("model", ""), description=message_of(error)
            )
            return [error_details_pb2.PreconditionFailure(violations=[precondition])]
        case OverloadedError() | UnavailableError():
            delay = Duration()
            delay.FromMilliseconds(_milliseconds(error.retry_seconds))
            return [error_details_pb2.RetryInfo(retry_delay=delay)]
    return []


def trailers(error: HeedError) -> tuple[tuple[str, str | bytes], ...]:
    """The call's trailing metadata: the details, and for overload the pushback that gRPC clients obey."""
    details: tuple[tuple[str, str | bytes], ...] = ((DETAILS_TRAILER, to_status(error).SerializeToString()),)
    if isinstance(error, OverloadedError):
        return (*details, (PUSHBACK_TRAILER, str(_milliseconds(error.retry_seconds))))
    return details


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed

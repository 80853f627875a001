"""Why a request, or one text of it, has no translation. Knows no wire; ``service.rpc.status`` maps each to a status.

HeedError                    reason, message, metadata: all of it is for the client
├── InvalidFieldError        a field is wrong: which, what is allowed, what was found
├── NotFoundError            no such model, version or language pair
├── UnsupportedError         the model cannot do it, or the server refused its bundle
├── OverloadedError          the queue is full: try again later
├── UnavailableError         the server is loading or draining: try again elsewhere
├── DeadlineExceededError    the deadline has passed
└── InternalError            anything unforeseen: a request id for the log, nothing of the inside
"""

from __future__ import annotations

_SHOWN = 60


def shown(text: str) -> str:
    """What a client sent, as a message quotes it: a message travels in a header, which has no room for all of it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


class HeedError(Exception):
    """Base. ``reason`` is a constant in UPPER_SNAKE_CASE that programs may depend on."""

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


class InvalidFieldError(HeedError):
    """One field of the request is not allowed."""

    def __init__(self, field: str, problem: str, reason: str = "INVALID_FIELD", **metadata: str) -> None:
        super().__init__(reason, f"{field}: {problem}", field=field, **metadata)
        self.field = field
        self.problem = problem


class NotFoundError(HeedError):
    """``resource_type`` is "model", "version" or "language pair"."""

    def __init__(self, resource_type: str, resource_name: str, message: str) -> None:
        super().__init__("NOT_FOUND", message, resource_type=resource_type, resource_name=resource_name)
        self.resource_type = resource_type
        self.resource_name = resource_name


class UnsupportedError(HeedError):
    """What was asked lies beyond this model."""


class OverloadedError(HeedError):
    """``retry_seconds``: when another try makes sense."""

    def __init__(self, message: str, retry_seconds: float, **metadata: str) -> None:
        super().__init__("QUEUE_FULL", message, **metadata)
        self.retry_seconds = retry_seconds


class UnavailableError(HeedError):
    """``retry_seconds``: when another try makes sense."""

    def __init__(self, reason: str, message: str, retry_seconds: float) -> None:
        super().__init__(reason, message)
        self.retry_seconds = retry_seconds


class DeadlineExceededError(HeedError):
    """The caller's deadline, queued or running."""

    def __init__(self) -> None:
        super().__init__("DEADLINE_EXCEEDED", "the deadline passed before the translation was done")


class InternalError(HeedError):
    """The log has the rest, under the same request id."""

    def __init__(self, request_id: str) -> None:
        super().__init__("INTERNAL", f"internal error, request id {request_id}", request_id=request_id)

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from service import errors
from service.rpc.status import CODES, status_code, to_status, trailers


def _all_errors(base: type[errors.HeedError]) -> set[type[errors.HeedError]]:
    return {base} | {found for child in base.__subclasses__() for found in _all_errors(child)}


def test_every_error_has_a_code() -> None:
    assert _all_errors(errors.HeedError) - {errors.HeedError} == CODES.keys()


def _detail(status: status_pb2.Status, kind: type[Message]) -> Message:
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    pytest.fail(f"no {kind.__name__} in {status}")


def test_a_wrong_field_is_named_with_limit_and_value() -> None:
    status = to_status(errors.InvalidFieldError("contents[2]", "300 tokens; dates allows 100", limit="100"))
    assert status.code == StatusCode.INVALID_ARGUMENT.value[0]
    info = _detail(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, info.metadata["limit"]) == ("INVALID_FIELD", "heed.dev", "100")
    violation = _detail(status, error_details_pb2.BadRequest).field_violations[0]
    assert (violation.field, violation.description) == ("contents[2]", "300 tokens; dates allows 100")


def test_an_unknown_resource_is_named() -> None:
    found = _detail(to_status(errors.NotFoundError("model", "x", "no x")), error_details_pb2.ResourceInfo)
    assert (found.resource_type, found.resource_name) == ("model", "x")


def test_overload_says_when_to_come_back_twice() -> None:
    error = errors.OverloadedError("full", 0.25)
    assert status_code(error) is StatusCode.RESOURCE_EXHAUSTED
    retry = _detail(to_status(error), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 250
    assert dict(trailers(error))["grpc-retry-pushback-ms"] == "250"
    sent = status_pb2.Status.FromString(dict(trailers(error))["grpc-status-details-bin"])
    assert sent == to_status(error)


def test_what_is_unforeseen_shows_nothing_but_an_id() -> None:
    status = to_status(errors.InternalError("abc"))
    assert (status.code, status.message) == (13, "internal error, request id abc")


def test_an_unsupported_wish_names_the_precondition() -> None:
    status = to_status(errors.UnsupportedError("NO_SUCH_ATTENTION_MAP", "none", model="dates"))
    violation = _detail(status, error_details_pb2.PreconditionFailure).violations[0]
    assert (violation.type, violation.subject) == ("NO_SUCH_ATTENTION_MAP", "dates")

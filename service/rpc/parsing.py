"""Bytes from a client to a message, with an error that says what is wrong with them.

grpc.aio answers bytes that do not parse with UNKNOWN and the text of a Python exception; so requests come to our
handlers raw, and are parsed here.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from service.errors import InvalidFieldError

M = TypeVar("M", bound=Message)
_LENGTH_DELIMITED = 2
_SEARCHED_BYTES = 16 * 1024


def parse(message_type: type[M], data: bytes) -> M:
    """Raises InvalidFieldError, in a message of up to 16 KiB naming the field where invalid UTF-8 stands."""
    try:
        return message_type.FromString(data)
    except DecodeError as error:
        # To look for the field takes Python a second for each megabyte: only where a message is of a usual size.
        field = _invalid_utf8(message_type.DESCRIPTOR, data) if len(data) <= _SEARCHED_BYTES else None
        if field is not None:
            raise InvalidFieldError(field, "not valid UTF-8", "INVALID_UTF8") from error
        raise InvalidFieldError(
            "request", f"{len(data)} bytes that are no {message_type.DESCRIPTOR.full_name}", "INVALID_MESSAGE"
        ) from error


def _invalid_utf8(descriptor: Any, data: bytes) -> str | None:
    """The path of the first string field that is not UTF-8, such as ``contents[2]``; None when there is none."""
    message = Empty()
    try:
        message.MergeFromString(data)  # a message without fields keeps every field as unknown, unchecked
    except DecodeError:
        return None
    seen: dict[int, int] = {}
    for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]
        field = descriptor.fields_by_number.get(unknown.field_number)
        place = seen.get(unknown.field_number, 0)
        seen[unknown.field_number] = place + 1
        if field is None or unknown.wire_type != _LENGTH_DELIMITED:
            continue
        name = f"{field.name}[{place}]" if field.is_repeated else field.name
        if field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(unknown.data):
            return name
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
            inner = _invalid_utf8(field.message_type, unknown.data)
            if inner is not None:
                return f"{name}.{inner}"
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True

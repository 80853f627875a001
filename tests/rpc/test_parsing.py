from __future__ import annotations

import pytest
from heed.v1.translation_service_pb2 import TranslateRequest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidFieldError
from service.rpc.parsing import parse


def test_a_message_is_parsed() -> None:
    request = TranslateRequest(contents=["a", "ä"], model="m")
    assert parse(TranslateRequest, request.SerializeToString()) == request


@pytest.mark.parametrize(
    ("sound", "field"),
    [
        (TranslateRequest(contents=["fine", "XX"]), "contents[1]"),
        (TranslateRequest(model="XX", contents=["fine"]), "model"),
        (TranslateRequest(contexts=[{"source_sentences": ["fine"]}, {"source_sentences": ["XX"]}]), None),
        (TranslateRequest(attention={"maps": ["a", "b", "XX"]}), "attention.maps[2]"),
    ],
)
def test_invalid_utf8_is_told_with_its_field(sound: TranslateRequest, field: str | None) -> None:
    data = sound.SerializeToString().replace(b"XX", b"\xff\xfe")
    with pytest.raises(InvalidFieldError) as refused:
        parse(TranslateRequest, data)
    assert refused.value.reason == "INVALID_UTF8"
    assert refused.value.field == (field or "contexts[1].source_sentences[0]")


@given(st.binary(max_size=300))
def test_random_bytes_are_a_message_or_an_error_of_ours(data: bytes) -> None:
    try:
        message = parse(TranslateRequest, data)
    except InvalidFieldError as error:
        assert error.reason in ("INVALID_MESSAGE", "INVALID_UTF8")
    else:
        assert isinstance(message, TranslateRequest)

"""A model of several target languages over the wire: which one it writes, and the piece that tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
from heed.v1 import attention_pb2
from heed.v1.translation_service_pb2 import TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.bundle.repository import Repository
from service.client import unpack
from service.rpc.server import Server
from tests.conftest import FAMILIES, tiny_settings
from tests.rpc.calls import refused

LANGUAGES = ("x-one", "x-two")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server(tiny_settings(models=FAMILIES))
    await running.start()
    yield running
    await running.stop()


def request(text: str, language: str, **more: object) -> TranslateRequest:
    return TranslateRequest(contents=[text], source_language_code="x-polyglot", target_language_code=language, **more)


async def test_the_codes_choose_the_model_and_what_it_writes(stub: TranslationServiceStub) -> None:
    golden = Repository(FAMILIES).load("polyglot", 1).manifest.golden_sentences
    assert len({sentence.target for sentence in golden}) == len(LANGUAGES)
    for sentence in golden:
        reply = await stub.Translate(request(sentence.source, sentence.target_language))
        assert reply.model == "polyglot"
        assert reply.translations[0].hypotheses[0].text == sentence.target


async def test_a_model_of_several_must_be_told_which(stub: TranslationServiceStub) -> None:
    code, info = await refused(stub.Translate(TranslateRequest(contents=["1 2"], model="polyglot")))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert info.metadata["field"] == "target_language_code"


async def test_the_piece_that_tells_it_is_seen_and_is_no_text(stub: TranslationServiceStub) -> None:
    attention = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_WORD)
    reply = await stub.Translate(request("1 2 3", "x-two", attention=attention))
    (found,) = reply.translations
    first, *others = found.source_tokens
    assert (first.piece, first.special, first.begin_offset, first.end_offset) == ("<2x-two>", True, 0, 0)
    assert ["1 2 3"[token.begin_offset : token.end_offset] for token in others] == ["1", "2", "3", ""]
    assert [word.text for word in found.source_words] == ["<2x-two>", "1", "2", "3", "</s>"]
    best = found.hypotheses[0]
    (matrix,) = best.attention.matrices
    np.testing.assert_allclose(unpack(matrix).sum(-1), 1.0, atol=1e-5)
    assert matrix.shape[-1] == len(found.source_words)
    assert all(found.source_words[link.source_word].text not in ("<2x-two>", "</s>") for link in best.attention.links)


async def test_a_text_that_says_the_piece_changes_nothing(stub: TranslationServiceStub) -> None:
    attention = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_ALIGNMENT)
    reply = await stub.Translate(request("<2x-two> 1 2 3", "x-one", attention=attention))
    specials = [token.piece for token in reply.translations[0].source_tokens if token.special]
    assert specials == ["<2x-one>", "</s>"]


@pytest.mark.parametrize(("words", "fits"), [(62, True), (63, False)])
async def test_the_piece_counts_among_the_tokens(stub: TranslationServiceStub, words: int, fits: bool) -> None:
    reply = await stub.Translate(request(" ".join(["1"] * words), "x-one"))
    assert (reply.translations[0].status.code == 0) == fits
    if not fits:
        assert "65 tokens; polyglot allows 64" in reply.translations[0].status.message

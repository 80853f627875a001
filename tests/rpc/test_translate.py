"""Translations and their attention, over a real socket."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from heed.v1 import attention_pb2, translation_pb2
from heed.v1.translation_service_pb2 import TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.bundle.repository import Bundle
from service.bundle.tokenizer import EOS_ID
from service.client import unpack
from service.rpc.server import Server
from tests.rpc.calls import info, refused, still_serves


async def test_texts_are_translated_in_order_by_the_model_that_is_named(
    stub: TranslationServiceStub, letters: Bundle
) -> None:
    golden = letters.manifest.golden_sentences
    reply = await stub.Translate(TranslateRequest(model="letters", contents=[g.source for g in golden]))
    assert [item.hypotheses[0].text for item in reply.translations] == [g.target for g in golden]
    assert (reply.model, reply.version) == ("letters", 1)
    best = reply.translations[0].hypotheses[0]
    assert best.log_probability == pytest.approx(sum(token.log_probability for token in best.tokens), rel=1e-5)
    assert not reply.translations[0].source_tokens
    assert not best.HasField("attention")


@pytest.mark.parametrize(
    ("changes", "answers"),
    [
        ({}, ("letters", 1)),
        ({"model": "numbers"}, ("numbers", 2)),
        ({"source_language_code": "x-numbers", "target_language_code": "x-numbers-out"}, ("numbers", 2)),
        ({"model": "numbers", "version": 2, "source_language_code": "x-numbers"}, ("numbers", 2)),
    ],
)
async def test_the_model_is_chosen_by_name_languages_or_default(
    stub: TranslationServiceStub, changes: dict[str, Any], answers: tuple[str, int]
) -> None:
    reply = await stub.Translate(TranslateRequest(contents=["1 2"], **changes))
    assert (reply.model, reply.version) == answers


async def test_a_bad_text_does_not_fail_the_others(stub: TranslationServiceStub) -> None:
    contents = ["abc", "", "  ", "a" * 10_000, "cab"]
    reply = await stub.Translate(TranslateRequest(contents=contents))
    assert [item.status.code for item in reply.translations] == [0, 3, 3, 3, 0]
    assert [info(item.status).reason for item in reply.translations[1:4]] == ["EMPTY_TEXT"] * 2 + ["TEXT_TOO_LONG"]
    assert reply.translations[3].status.message == "contents[3]: 10001 tokens; letters allows 64"
    assert info(reply.translations[3].status).metadata["limit"] == "64"


@pytest.fixture
def hasty(server: Server) -> None:
    """The letters model would end every translation at once."""
    assert server._registry is not None
    (engine,) = (model.engine for model in server._registry.ready if model.name == "letters")
    step = engine._model.decode_step

    def ends(*arguments: Any) -> Any:
        output = step(*arguments)
        output.logits[:, EOS_ID] += 100
        return output

    engine._model.decode_step = ends  # type: ignore[method-assign]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("options", [{}, {"beam_size": 4, "hypotheses": 2}, {"sampling": {"seed": 3}}], ids=str)
async def test_no_text_is_answered_with_nothing(stub: TranslationServiceStub, options: dict[str, Any]) -> None:
    attention = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_TOKEN)
    contents = ["abc", "12 年"]
    request = TranslateRequest(model="letters", contents=contents, attention=attention, decoding=options)
    for translation in (await stub.Translate(request)).translations:
        best = translation.hypotheses[0]
        assert best.text.strip()
        assert [token.special for token in best.tokens] == [False, True]
        assert unpack(best.attention.matrices[0]).shape[-2] == len(best.tokens)


@pytest.mark.usefixtures("hasty")
async def test_nothing_stays_nothing_where_no_more_is_allowed(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(TranslateRequest(model="letters", contents=["abc"], decoding={"max_output_tokens": 1}))
    assert [token.special for token in reply.translations[0].hypotheses[0].tokens] == [True]


async def test_the_output_limit_is_kept_and_told(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(TranslateRequest(contents=["a b c."], decoding={"max_output_tokens": 3}))
    best = reply.translations[0].hypotheses[0]
    assert (len(best.tokens), best.finish_reason) == (3, translation_pb2.FINISH_REASON_LENGTH)


@pytest.mark.parametrize("data_type", attention_pb2.MatrixDataType.values()[1:])
@pytest.mark.parametrize("view", attention_pb2.AttentionView.values()[1:])
async def test_every_view_in_every_packing(stub: TranslationServiceStub, view: Any, data_type: Any) -> None:
    text = "ab c, 12 年"
    options = attention_pb2.AttentionOptions(view=view, data_type=data_type)
    reply = await stub.Translate(TranslateRequest(contents=[text], attention=options))
    item = reply.translations[0]
    best = item.hypotheses[0]
    assert [text[word.begin_offset : word.end_offset] for word in item.source_words[:-1]] == [
        "ab",
        "c",
        ",",
        "12",
        "年",
    ]
    assert item.source_words[4].is_piece
    assert (item.source_words[-1].special, item.source_tokens[-1].special) == (True, True)
    assert best.attention.alignment_source.map == "cross"
    assert best.attention.measures.mean_token_log_probability == pytest.approx(
        best.log_probability / len(best.tokens), rel=1e-5
    )
    for link in best.attention.links:
        assert 0 < link.weight <= 1
        assert not item.source_words[link.source_word].special
    if view == attention_pb2.ATTENTION_VIEW_ALIGNMENT:
        assert not best.attention.matrices
        return
    (matrix,) = best.attention.matrices
    weights = unpack(matrix)
    of_words = view == attention_pb2.ATTENTION_VIEW_WORD
    rows, columns = (best.words, item.source_words) if of_words else (best.tokens, item.source_tokens)
    assert weights.shape == (1, len(rows), len(columns))
    assert (matrix.map, list(matrix.heads), matrix.score_function) == ("cross", [0], "additive")
    assert matrix.rows_sum_to_one
    loss = {1: 1e-5, 2: 1e-2, 3: len(columns) / 255}[data_type]
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=loss)


@pytest.mark.parametrize("options", [{"maps": ["nowhere"]}, {"layers": [7]}, {"heads": [1]}, {"layers": [-1]}], ids=str)
@pytest.mark.parametrize("view", attention_pb2.AttentionView.values()[1:])
async def test_a_map_that_the_model_has_not_is_refused(
    stub: TranslationServiceStub, options: dict[str, Any], view: Any
) -> None:
    request = TranslateRequest(contents=["abc"], attention={"view": view, **options})
    code, found = await refused(stub.Translate(request))
    assert (code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SUCH_ATTENTION_MAP")
    await still_serves(stub)


async def test_maps_by_name_layer_and_head_and_their_mean(stub: TranslationServiceStub) -> None:
    options = {"view": "ATTENTION_VIEW_FULL", "maps": ["cross"], "layers": [0], "heads": [0], "head_reduction": 1}
    reply = await stub.Translate(TranslateRequest(contents=["abc"], attention=options))
    (matrix,) = reply.translations[0].hypotheses[0].attention.matrices
    assert list(matrix.heads) == []
    assert matrix.shape[0] == 1

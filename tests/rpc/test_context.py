"""A model of documents over the wire: the sentences before each text, what was read of them, the attention to them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from heed.v1 import attention_pb2, model_pb2, translation_pb2
from heed.v1.translation_service_pb2 import DocumentContext, GetModelRequest, ListModelsRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.bundle.manifest import GoldenSentence
from service.bundle.repository import Repository
from service.client import unpack
from service.rpc.server import Server
from tests.conftest import FAMILIES, tiny_settings
from tests.rpc.calls import details, info, refused

TRANSLATE = "/heed.v1.TranslationService/Translate"
FULL, WORD, TOKEN = (
    attention_pb2.ATTENTION_VIEW_FULL,
    attention_pb2.ATTENTION_VIEW_WORD,
    attention_pb2.ATTENTION_VIEW_TOKEN,
)
BEFORE = ["1 2", " 3  4 5 ", "6"]  # with their `</s>` 3 + 4 + 2 tokens
LONGEST = " ".join(["7"] * 63)  # 64 tokens with `</s>`: as many as the model allows


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server(tiny_settings(models=FAMILIES))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture(scope="module")
def golden() -> tuple[GoldenSentence, ...]:
    """Translated by the model itself, behind none, one and three sentences."""
    return Repository(FAMILIES).load("stories", 1).manifest.golden_sentences


def _request(contents: Sequence[str], contexts: Sequence[Sequence[str]], **attention: Any) -> TranslateRequest:
    return TranslateRequest(
        model="stories",
        contents=contents,
        contexts=[DocumentContext(source_sentences=before) for before in contexts],
        attention=attention_pb2.AttentionOptions(**attention) if attention else None,
    )


async def _translate(
    stub: TranslationServiceStub, contents: Sequence[str], contexts: Sequence[Sequence[str]], **attention: Any
) -> list[translation_pb2.Translation]:
    reply = await stub.Translate(_request(contents, contexts, **attention))
    assert len(reply.translations) == len(contents)
    return list(reply.translations)


def _matrices(translation: translation_pb2.Translation) -> dict[str, attention_pb2.AttentionMatrix]:
    assert translation.status.code == 0
    return {matrix.map: matrix for matrix in translation.hypotheses[0].attention.matrices}


def _assert_same(one: translation_pb2.Translation, other: translation_pb2.Translation) -> None:
    """Two rows of one batch may differ by rounding."""
    assert one.context_sentences == other.context_sentences
    assert one.source_tokens == other.source_tokens
    best, second = one.hypotheses[0], other.hypotheses[0]
    assert best.text == second.text
    assert best.log_probability == pytest.approx(second.log_probability, abs=1e-4)
    found, expected = _matrices(one), _matrices(other)
    assert found.keys() == expected.keys()
    for name, matrix in found.items():
        np.testing.assert_allclose(unpack(matrix), unpack(expected[name]), atol=1e-4)


# --- what is read ----------------------------------------------------------------------------------------------------


async def test_each_text_is_translated_in_its_own_context(
    stub: TranslationServiceStub, golden: tuple[GoldenSentence, ...]
) -> None:
    sources, contexts = [g.source for g in golden], [g.context for g in golden]
    assert [len(context) for context in contexts] == [0, 1, 3]
    found = await _translate(stub, sources, contexts)
    assert [item.hypotheses[0].text for item in found] == [g.target for g in golden]
    alone = await _translate(stub, sources, [])
    differ = [item.hypotheses[0].text != g.target for item, g in zip(alone, golden, strict=True)]
    assert differ == [False, True, True]


async def test_of_more_sentences_than_the_model_reads_the_last_are_read(stub: TranslationServiceStub) -> None:
    many = ["8 9 10", "11", *BEFORE]
    more, exact, first = await _translate(stub, ["5 6"] * 3, [many, BEFORE, many[:3]], view=FULL)
    _assert_same(more, exact)
    assert [sentence.text for sentence in more.context_sentences] == BEFORE
    assert first.hypotheses[0].text != exact.hypotheses[0].text


async def test_sentences_that_are_not_read_may_be_anything(stub: TranslationServiceStub) -> None:
    unread = ["", LONGEST + " 7", "7" * 30_000]
    more, exact = await _translate(stub, ["5 6"] * 2, [[*unread, *BEFORE], BEFORE], view=FULL)
    _assert_same(more, exact)


async def test_a_text_without_sentences_before_it_is_as_without_contexts(stub: TranslationServiceStub) -> None:
    beside, _ = await _translate(stub, ["5 6", "7"], [[], BEFORE], view=FULL)
    (alone,) = await _translate(stub, ["5 6"], [], view=FULL)
    _assert_same(beside, alone)


async def test_target_sentences_are_not_read(stub: TranslationServiceStub) -> None:
    request = _request(["5 6"], [BEFORE], view=FULL)
    expected = (await stub.Translate(request)).translations
    request.contexts[0].target_sentences.extend(["1 2", "3"])
    assert (await stub.Translate(request)).translations == expected


# --- what is returned ------------------------------------------------------------------------------------------------


async def test_the_reply_has_what_was_read_with_its_tokens_and_words(stub: TranslationServiceStub) -> None:
    (found,) = await _translate(stub, ["5 6"], [BEFORE], view=attention_pb2.ATTENTION_VIEW_ALIGNMENT)
    assert [sentence.text for sentence in found.context_sentences] == BEFORE
    for sentence in found.context_sentences:
        pieces = [sentence.text[token.begin_offset : token.end_offset] for token in sentence.tokens]
        assert pieces == [*sentence.text.split(), ""]
        assert [token.special for token in sentence.tokens] == [False] * (len(pieces) - 1) + [True]
        assert sentence.tokens[-1].piece == "</s>"
        assert not any(token.HasField("log_probability") for token in sentence.tokens)
        words = [sentence.text[word.begin_offset : word.end_offset] for word in sentence.words]
        assert words == pieces
        assert [word.text for word in sentence.words] == [*sentence.text.split(), "</s>"]
        assert [(word.begin_token, word.end_token) for word in sentence.words] == [
            (place, place + 1) for place in range(len(words))
        ]


async def test_without_attention_nothing_is_returned_of_the_context(stub: TranslationServiceStub) -> None:
    (found,) = await _translate(stub, ["5 6"], [BEFORE])
    assert found.hypotheses[0].text
    assert not found.context_sentences
    assert not found.source_tokens


async def test_full_has_the_maps_of_the_words_and_the_sentences_before(stub: TranslationServiceStub) -> None:
    (found,) = await _translate(stub, ["5 6"], [BEFORE], view=FULL)
    matrices = _matrices(found)
    assert matrices.keys() == {"cross", "context", "context-sentences"}
    written = len(found.hypotheses[0].tokens)
    assert {name: list(matrix.shape) for name, matrix in matrices.items()} == {
        "cross": [1, written, len(found.source_tokens)],
        "context": [1, written, 3 + 4 + 2],
        "context-sentences": [1, written, 3],
    }
    for name, unit in (
        ("context", attention_pb2.ATTENTION_UNIT_TOKEN),
        ("context-sentences", attention_pb2.ATTENTION_UNIT_SENTENCE),
    ):
        assert matrices[name].kind == attention_pb2.ATTENTION_KIND_CONTEXT
        assert matrices[name].unit == unit
        np.testing.assert_allclose(unpack(matrices[name]).sum(-1), 1.0, atol=1e-5)
    by_token, by_sentence = unpack(matrices["context"]), unpack(matrices["context-sentences"])
    summed = np.add.reduceat(by_token, [0, 3, 3 + 4], axis=-1)
    np.testing.assert_allclose(summed, by_sentence, atol=1e-5)
    assert matrices["cross"].kind == attention_pb2.ATTENTION_KIND_CROSS


async def test_by_words_the_columns_are_the_words_of_every_sentence(stub: TranslationServiceStub) -> None:
    maps = ["context", "context-sentences"]
    (by_word,) = await _translate(stub, ["5 6"], [BEFORE], view=WORD, maps=maps)
    (by_token,) = await _translate(stub, ["5 6"], [BEFORE], view=TOKEN, maps=maps)
    words, tokens = _matrices(by_word), _matrices(by_token)
    assert list(words) == maps
    best = by_word.hypotheses[0]
    columns = sum(len(sentence.words) for sentence in by_word.context_sentences)
    assert (words["context"].unit, words["context"].kind) == (
        attention_pb2.ATTENTION_UNIT_WORD,
        attention_pb2.ATTENTION_KIND_CONTEXT,
    )
    assert list(words["context"].shape) == [1, len(best.words), columns]
    np.testing.assert_allclose(unpack(words["context"]).sum(-1), 1.0, atol=1e-5)
    assert words["context-sentences"] == tokens["context-sentences"]  # a sentence is one in every view
    # Each of these words is one token.
    np.testing.assert_allclose(unpack(words["context"]), unpack(tokens["context"]), atol=1e-6)


async def test_where_nothing_is_before_a_matrix_has_no_columns(stub: TranslationServiceStub) -> None:
    maps = ["context", "context-sentences"]
    for view, data_type in itertools.product((WORD, TOKEN, FULL), attention_pb2.MatrixDataType.values()[1:]):
        first, second = await _translate(stub, ["5 6"] * 2, [[], BEFORE], view=view, maps=maps, data_type=data_type)
        assert not first.context_sentences
        best, matrices = first.hypotheses[0], _matrices(first)
        assert list(matrices) == maps
        for name, matrix in matrices.items():
            of_words = view == WORD and name == "context"
            assert (matrix.unit == attention_pb2.ATTENTION_UNIT_WORD) == of_words
            assert list(matrix.shape) == [1, len(best.words if of_words else best.tokens), 0]
            assert unpack(matrix).shape == tuple(matrix.shape)
        assert [matrix.shape[2] for matrix in _matrices(second).values()] == [3 + 4 + 2, 3]


async def test_the_mean_of_heads_is_of_the_context_as_well(stub: TranslationServiceStub) -> None:
    options = {"view": FULL, "maps": ["context"], "head_reduction": attention_pb2.HEAD_REDUCTION_MEAN}
    (found,) = await _translate(stub, ["5 6"], [BEFORE], **options)
    (matrix,) = _matrices(found).values()
    assert not matrix.heads
    assert list(matrix.shape) == [1, len(found.hypotheses[0].tokens), 3 + 4 + 2]
    np.testing.assert_allclose(unpack(matrix).sum(-1), 1.0, atol=1e-5)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason", "problem"),
    [
        ("", "EMPTY_TEXT", "empty"),
        (" \t\n", "EMPTY_TEXT", "empty"),
        (LONGEST + " 7", "TEXT_TOO_LONG", "65 tokens; stories allows 64"),
        ("7" * 20_001, "TEXT_TOO_LONG", "20001 characters; 20000 are allowed"),
    ],
    ids=["empty", "blank", "tokens", "characters"],
)
async def test_a_bad_sentence_before_a_text_fails_that_text_alone(
    stub: TranslationServiceStub, bad: str, reason: str, problem: str
) -> None:
    damaged = [[*BEFORE[:place], bad, *BEFORE[place + 1 :]] for place in range(3)]
    before, *failed, after = await _translate(stub, ["5 6"] * 5, [BEFORE, *damaged, BEFORE[:1]])
    for place, item in enumerate(failed):
        field = f"contexts[{1 + place}].source_sentences[{place}]"
        assert item.status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert item.status.message == f"{field}: {problem}"
        found = info(item.status)
        assert (found.reason, found.metadata["field"]) == (reason, field)
        assert not item.hypotheses
        assert not item.context_sentences
    assert (before.status.code, after.status.code) == (0, 0)
    assert before.hypotheses[0].text
    assert after.hypotheses[0].text


async def test_a_sentence_is_named_by_its_place_among_all_that_were_sent(stub: TranslationServiceStub) -> None:
    (failed,) = await _translate(stub, ["5 6"], [["8", "9", *BEFORE[:2], " "]])
    assert failed.status.message == "contexts[0].source_sentences[4]: empty"


async def test_a_bad_text_is_told_before_what_stands_before_it(stub: TranslationServiceStub) -> None:
    (failed,) = await _translate(stub, [" "], [[""]])
    assert failed.status.message == "contents[0]: empty"


async def test_sentences_as_long_as_the_model_allows_are_read(stub: TranslationServiceStub) -> None:
    (found,) = await _translate(stub, [LONGEST], [[LONGEST] * 3], view=FULL)
    assert list(_matrices(found)["context"].shape)[2] == 3 * 64


async def test_a_context_for_each_text_or_for_none(stub: TranslationServiceStub) -> None:
    for count in (1, 3):
        code, found = await refused(stub.Translate(_request(["1", "2"], [BEFORE] * count)))
        assert (code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert found.metadata["field"] == "contexts"


async def test_a_model_of_single_sentences_takes_no_context(stub: TranslationServiceStub) -> None:
    for model in ("transformer", "bottleneck"):
        request = _request(["1"], [BEFORE])
        request.model = model
        code, found = await refused(stub.Translate(request))
        assert (code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_DOCUMENT_CONTEXT")


async def test_a_sentence_that_is_no_utf8_is_named(channel: grpc.aio.Channel) -> None:
    data = _request(["1", "2"], [[], ["3", "XX"]]).SerializeToString().replace(b"XX", b"\xc3\x28")
    raw: Any = channel.unary_unary  # its stub wants serializers, which bytes have no need of
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(TRANSLATE)(data)
    assert info(details(caught.value)).reason == "INVALID_UTF8"
    assert caught.value.details() == "contexts[1].source_sentences[1]: not valid UTF-8"


# --- what is listed --------------------------------------------------------------------------------------------------


async def test_a_model_says_how_much_it_reads_before_a_text(stub: TranslationServiceStub) -> None:
    listed = {model.name: model for model in (await stub.ListModels(ListModelsRequest())).models}
    assert {name: model.capabilities.document_context for name, model in listed.items()} == {
        "stories": True,
        "transformer": False,
        "bottleneck": False,
        "polyglot": False,
    }
    assert {name: model.limits.max_context_sentences for name, model in listed.items()} == {
        "stories": 3,
        "transformer": 0,
        "bottleneck": 0,
        "polyglot": 0,
    }
    assert (await stub.GetModel(GetModelRequest(model="stories"))).model == listed["stories"]
    cross, token = attention_pb2.ATTENTION_KIND_CROSS, attention_pb2.ATTENTION_UNIT_TOKEN
    context, sentence = attention_pb2.ATTENTION_KIND_CONTEXT, attention_pb2.ATTENTION_UNIT_SENTENCE
    assert {entry.name: (entry.kind, entry.unit) for entry in listed["stories"].attention_maps} == {
        "cross": (cross, token),
        "context": (context, token),
        "context-sentences": (context, sentence),
    }
    assert {entry.unit for entry in listed["transformer"].attention_maps} == {token}


async def test_a_queue_that_cannot_hold_a_text_and_its_context_refuses_the_model() -> None:
    """64 source tokens, three times 64 before them, 24 target tokens."""
    server = Server(tiny_settings(models=FAMILIES, queue_tokens=279))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            reply = await TranslationServiceStub(channel).ListModels(ListModelsRequest())
            states = {model.name: model.state for model in reply.models}
            messages = {model.name: model.status.message for model in reply.models}
    finally:
        await server.stop()
    assert states.pop("stories") == model_pb2.MODEL_STATE_REFUSED
    assert set(states.values()) == {model_pb2.MODEL_STATE_READY}
    assert "280 tokens for one sentence, queue_tokens is 279" in messages["stories"]

"""A model that reads plainly, over a real socket: capitals in, capitals out, and everything else as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from heed.v1 import attention_pb2, translation_pb2
from heed.v1.translation_service_pb2 import ListModelsRequest, ScorePair, ScoreRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.bundle.repository import Bundle
from service.bundle.tokenizer import TokenizedText
from service.rpc.server import Server
from tests.conftest import edit_manifest, tiny_settings

TOKENS = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_TOKEN)
LOWER, CAPITALS = "headache, baggage.", "HEADACHE, BAGGAGE."  # words longer than abbreviations: none of them is known


@pytest.fixture
async def server(bundles: Path) -> AsyncIterator[Server]:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(reads_plainly=True))
    running = Server(tiny_settings(models=bundles))
    await running.start()
    yield running
    await running.stop()


async def translated(stub: TranslationServiceStub, *texts: str, **fields: Any) -> list[translation_pb2.Translation]:
    reply = await stub.Translate(TranslateRequest(model="letters", contents=texts, attention=TOKENS, **fields))
    assert all(translation.status.code == 0 for translation in reply.translations)
    return list(reply.translations)


async def test_a_text_in_capitals_is_read_as_ordinary_text_and_answered_in_capitals(
    stub: TranslationServiceStub,
) -> None:
    lower, capitals = await translated(stub, LOWER, CAPITALS)
    written, raised = lower.hypotheses[0], capitals.hypotheses[0]
    assert raised.text == written.text.upper() != written.text
    assert [token.piece for token in capitals.source_tokens] == [token.piece for token in lower.source_tokens]
    assert [token.piece for token in raised.tokens] == [token.piece for token in written.tokens]
    assert raised.attention.matrices == written.attention.matrices
    assert raised.log_probability == written.log_probability
    assert [word.text for word in capitals.source_words] == [word.text.upper() for word in lower.source_words[:-1]] + [
        "</s>"
    ]
    for word in raised.words:
        assert word.special or raised.text[word.begin_offset : word.end_offset] == word.text


async def test_only_the_sentence_that_is_in_capitals_is_answered_in_them(stub: TranslationServiceStub) -> None:
    alone = await translated(stub, LOWER, CAPITALS)
    (both,) = await translated(stub, f"{LOWER} {CAPITALS}", sentence_splitting="SENTENCE_SPLITTING_SENTENCES")
    parts = [part.translation.hypotheses[0].text for part in both.sentences]
    assert parts == [translation.hypotheses[0].text for translation in alone]


@pytest.mark.parametrize(("prefix", "pieces"), [("CABBACA", "cabbaca"), ("A", "A"), ("cABBACA", "cABBACA"), ("a", "a")])
async def test_a_translation_begins_with_its_prefix_as_it_was_given(
    stub: TranslationServiceStub, prefix: str, pieces: str
) -> None:
    (found,) = await translated(stub, CAPITALS, target_prefixes=[prefix])
    best = found.hypotheses[0]
    assert best.text.startswith(prefix)
    assert "".join(token.piece for token in best.tokens).startswith(pieces)
    assert (best.text == best.text.upper()) is (prefix == prefix.upper())


async def test_what_a_prefix_must_not_have_is_told_as_it_was_given(stub: TranslationServiceStub) -> None:
    reply = await stub.Translate(TranslateRequest(model="letters", contents=[CAPITALS], target_prefixes=["ΩΩΩΩΩΩΩΩ"]))
    assert "'ΩΩΩΩΩΩΩΩ' is not in letters/1" in reply.translations[0].status.message


async def test_a_prefix_that_is_too_long_is_refused_before_it_is_read(
    stub: TranslationServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_bundle: Bundle, begun: str, _capitals: bool) -> TokenizedText:
        pytest.fail(f"read {len(begun)} characters")

    monkeypatch.setattr(Bundle, "encode_begun", read)
    request = TranslateRequest(model="letters", contents=[CAPITALS], target_prefixes=["A" * 100_000])
    reply = await stub.Translate(request)
    assert "target_prefixes[0]: 100000 characters; 20000 are allowed" in reply.translations[0].status.message


async def test_a_translation_in_capitals_is_judged_as_it_would_be_written(stub: TranslationServiceStub) -> None:
    pairs = [ScorePair(source=LOWER, target="cabbaca"), ScorePair(source=CAPITALS, target="CABBACA")]
    pairs += [ScorePair(source=CAPITALS, target="Cabbaca"), ScorePair(source=LOWER, target="CABBACA")]
    reply = await stub.Score(ScoreRequest(model="letters", pairs=pairs))
    lower, capitals, mixed, other = (translation.hypotheses[0] for translation in reply.translations)
    assert capitals.log_probability == lower.log_probability
    assert [hypothesis.text for hypothesis in (lower, capitals, mixed, other)] == [
        "cabbaca",
        "CABBACA",
        "Cabbaca",
        "CABBACA",
    ]
    assert len({lower.log_probability, mixed.log_probability, other.log_probability}) == 3


async def test_the_model_says_so(stub: TranslationServiceStub) -> None:
    models = (await stub.ListModels(ListModelsRequest())).models
    assert {model.name: model.reads_plainly for model in models} == {"letters": True, "numbers": False}

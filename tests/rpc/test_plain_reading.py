"""A model that reads plainly, over a real socket: capitals in, capitals out, and everything else as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from heed.v1 import attention_pb2, translation_pb2
from heed.v1.translation_service_pb2 import ListModelsRequest, ScorePair, ScoreRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.rpc.server import Server
from tests.conftest import edit_manifest, tiny_settings

TOKENS = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_TOKEN)
LOWER, CAPITALS = "abc bad, head.", "ABC BAD, HEAD."


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


async def test_a_text_in_capitals_is_read_in_lower_case_and_answered_in_capitals(stub: TranslationServiceStub) -> None:
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


@pytest.mark.parametrize(
    ("prefix", "begins", "raised"), [("ABC", "ABC", True), ("A", "A", True), ("aBc", "aBc", False), ("a", "a", False)]
)
async def test_a_translation_begins_with_its_prefix_as_it_was_given(
    stub: TranslationServiceStub, prefix: str, begins: str, raised: bool
) -> None:
    (found,) = await translated(stub, CAPITALS, target_prefixes=[prefix])
    text = found.hypotheses[0].text
    assert text.startswith(begins)
    assert (text == text.upper()) is raised


async def test_a_translation_in_capitals_is_judged_in_lower_case(stub: TranslationServiceStub) -> None:
    pairs = [ScorePair(source=LOWER, target="cab"), ScorePair(source=CAPITALS, target="CAB")]
    pairs += [ScorePair(source=CAPITALS, target="Cab"), ScorePair(source=LOWER, target="CAB")]
    reply = await stub.Score(ScoreRequest(model="letters", pairs=pairs))
    lower, capitals, mixed, other = (translation.hypotheses[0] for translation in reply.translations)
    assert capitals.log_probability == lower.log_probability
    assert [hypothesis.text for hypothesis in (lower, capitals, mixed, other)] == ["cab", "CAB", "Cab", "CAB"]
    assert len({lower.log_probability, mixed.log_probability, other.log_probability}) == 3


async def test_the_model_says_so(stub: TranslationServiceStub) -> None:
    models = (await stub.ListModels(ListModelsRequest())).models
    assert {model.name: model.reads_plainly for model in models} == {"letters": True, "numbers": False}

"""A model that finds omissions, over a real socket: words that its translations do not rest on are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from heed.v1 import attention_pb2, translation_pb2
from heed.v1.translation_pb2 import DecodingOptions
from heed.v1.translation_service_pb2 import ListModelsRequest, ScorePair, ScoreRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.rpc.server import Server
from tests.conftest import edit_manifest, tiny_settings
from tests.rpc.calls import value

#: The model has random weights: it looks at everything a little, and to most of its translations, which come to an end
#: where no token may come twice, a word more or less is all the same.
TEXTS = [
    "jbe bhh hgd bha ggj a",
    "hed jbf aaa iag dga",
    "fjf hei jag ici idg",
    "abb aha ede bjc feb a",
    "cdf jcf gde bgi",
]
ENDING = DecodingOptions(no_repeat_ngram_size=1)


@pytest.fixture
async def server(bundles: Path) -> AsyncIterator[Server]:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(finds_omissions=True))
    running = Server(tiny_settings(models=bundles))
    await running.start()
    yield running
    await running.stop()


async def translated(stub: TranslationServiceStub, *texts: str, **fields: Any) -> list[translation_pb2.Translation]:
    asked = {"decoding": ENDING, **fields}
    reply = await stub.Translate(TranslateRequest(model="letters", contents=texts, **asked))
    assert all(translation.status.code == 0 for translation in reply.translations)
    return list(reply.translations)


def told(text: str, translation: translation_pb2.Translation) -> list[str]:
    for lost in translation.left_out:
        assert text[lost.begin_offset : lost.end_offset] == lost.text
        assert lost.kind == translation_pb2.OMISSION_KIND_WORD
    begins = [lost.begin_offset for lost in translation.left_out]
    assert begins == sorted(begins)
    return [lost.text for lost in translation.left_out]


async def test_words_are_told_with_their_places(stub: TranslationServiceStub) -> None:
    found = await translated(stub, *TEXTS)
    words = [word for text, one in zip(TEXTS, found, strict=True) for word in told(text, one)]
    assert words
    assert set(words) <= {word for text in TEXTS for word in text.split()}
    assert "a" not in words  # a letter by itself tells nothing


async def test_attention_tells_the_same_whether_it_was_asked_for_or_not(stub: TranslationServiceStub) -> None:
    plain = await translated(stub, *TEXTS)
    assert any(one.left_out for one in plain)
    for view in (attention_pb2.ATTENTION_VIEW_ALIGNMENT, attention_pb2.ATTENTION_VIEW_FULL):
        found = await translated(stub, *TEXTS, attention=attention_pb2.AttentionOptions(view=view))
        assert [one.left_out for one in found] == [one.left_out for one in plain]
        assert [one.hypotheses[0].text for one in found] == [one.hypotheses[0].text for one in plain]
        assert all(one.source_words for one in found)
    assert not any(one.source_words or one.hypotheses[0].HasField("attention") for one in plain)


async def test_a_batch_changes_no_answer(stub: TranslationServiceStub) -> None:
    together = await translated(stub, *TEXTS * 3)
    for text, one in zip(TEXTS * 3, together, strict=True):
        (alone,) = await translated(stub, text)
        assert alone.hypotheses[0].text == one.hypotheses[0].text
        assert alone.left_out == one.left_out


async def test_they_count_the_whole_text_where_that_was_cut(stub: TranslationServiceStub) -> None:
    text = "  ".join(f"{text}ha.".capitalize() for text in TEXTS)
    (found,) = await translated(stub, text, sentence_splitting="SENTENCE_SPLITTING_SENTENCES")
    assert len(found.sentences) == len(TEXTS)
    assert told(text, found) == [word for part in found.sentences for word in told(text, part.translation)]
    assert found.left_out


async def test_of_several_hypotheses_the_best_is_looked_through(stub: TranslationServiceStub) -> None:
    found = await translated(stub, *TEXTS, decoding=DecodingOptions(beam_size=3, hypotheses=3, no_repeat_ngram_size=1))
    assert all(len(one.hypotheses) == 3 for one in found)
    assert any(told(text, one) for text, one in zip(TEXTS, found, strict=True))


async def test_what_is_cut_or_judged_is_not_looked_through(stub: TranslationServiceStub) -> None:
    for one in await translated(stub, *TEXTS, decoding=DecodingOptions(max_output_tokens=2)):
        assert one.hypotheses[0].finish_reason == translation_pb2.FINISH_REASON_LENGTH
        assert not one.left_out
    reply = await stub.Score(ScoreRequest(model="letters", pairs=[ScorePair(source=TEXTS[0], target="cba")]))
    assert not reply.translations[0].left_out


async def test_the_model_says_so_and_the_metrics_count(stub: TranslationServiceStub, server: Server) -> None:
    models = (await stub.ListModels(ListModelsRequest())).models
    assert {model.name: model.finds_omissions for model in models} == {"letters": True, "numbers": False}
    found = await translated(stub, *TEXTS)
    labels = {"model": "letters", "version": "1", "kind": "word"}
    left_out = await asyncio.to_thread(value, server, "heed_left_out_total", **labels)
    assert left_out == sum(len(one.left_out) for one in found) > 0

"""A model that keeps literals, over a real socket: what a translation lacks is asked for again, or told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from heed.v1 import attention_pb2, translation_pb2
from heed.v1.translation_pb2 import DecodingOptions
from heed.v1.translation_service_pb2 import ListModelsRequest, ScorePair, ScoreRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.engine.engine import Engine
from service.engine.errors import DeadlineError, QueueFullError, StoppedError
from service.engine.sentence import SentenceRequest, SentenceResult
from service.rpc.server import Server
from tests.conftest import edit_manifest, tiny_settings
from tests.rpc.calls import value

PICTURE = "👍🏽"
TEXTS = [f"{'abcdefghij'[number] * (1 + number % 3)} {PICTURE} 123" for number in range(10)]


@pytest.fixture
async def server(bundles: Path) -> AsyncIterator[Server]:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(keeps_literals=True))
    running = Server(tiny_settings(models=bundles))
    await running.start()
    yield running
    await running.stop()


async def translated(stub: TranslationServiceStub, *texts: str, **fields: Any) -> list[translation_pb2.Translation]:
    reply = await stub.Translate(TranslateRequest(model="letters", contents=texts, **fields))
    assert all(translation.status.code == 0 for translation in reply.translations)
    return list(reply.translations)


def told(text: str, translation: translation_pb2.Translation) -> list[str]:
    for span in translation.left_out:
        assert text[span.begin_offset : span.end_offset] == span.text
    return [span.text for span in translation.left_out]


def lacks(translation: translation_pb2.Translation) -> list[str]:
    written = translation.hypotheses[0].text
    return [literal for literal in (PICTURE, "123") if literal not in written]


async def test_what_is_not_there_is_told(stub: TranslationServiceStub) -> None:
    """The model's weights are random: now and then it keeps something, or can be made to."""
    found = await translated(stub, *TEXTS)
    assert [told(text, one) for text, one in zip(TEXTS, found, strict=True)] == [lacks(one) for one in found]
    assert any(one.left_out for one in found)
    assert not any(one.left_out for one in await translated(stub, "abc", "cab."))


async def test_it_counts_the_whole_text_where_that_was_cut(stub: TranslationServiceStub) -> None:
    text = f"Abc {PICTURE}.  Cab 123."
    (found,) = await translated(stub, text, sentence_splitting="SENTENCE_SPLITTING_SENTENCES")
    assert len(found.sentences) == 2
    parts = [name for part in found.sentences for name in told(text, part.translation)]
    assert told(text, found) == parts


async def test_several_hypotheses_are_as_many_as_were_asked_for(stub: TranslationServiceStub) -> None:
    options = DecodingOptions(beam_size=3, hypotheses=3)
    for text, one in zip(TEXTS, await translated(stub, *TEXTS, decoding=options), strict=True):
        assert len(one.hypotheses) == 3
        assert told(text, one) == lacks(one)


async def test_a_batch_changes_no_answer(stub: TranslationServiceStub) -> None:
    together = await translated(stub, *TEXTS)
    for text, one in zip(TEXTS, together, strict=True):
        (alone,) = await translated(stub, text)
        assert alone.hypotheses[0].text == one.hypotheses[0].text
        assert alone.left_out == one.left_out


@pytest.mark.parametrize("error", [QueueFullError(9, 9, 9), QueueFullError(9, 0, 1), StoppedError(), DeadlineError()])
async def test_without_room_or_time_for_a_second_try_the_first_answer_stays(
    stub: TranslationServiceStub, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    submit, refused = Engine.submit, list[int]()

    def no_second(engine: Engine, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
        if all(request.decoding.rows == 1 for request in requests):
            return submit(engine, requests)
        refused.append(len(requests))
        if not isinstance(error, DeadlineError):
            raise error
        futures: list[Future[SentenceResult]] = [Future() for _ in requests]
        for future in futures:
            future.set_exception(error)
        return futures

    monkeypatch.setattr(Engine, "submit", no_second)
    found = await translated(stub, *TEXTS)
    assert refused
    assert [told(text, one) for text, one in zip(TEXTS, found, strict=True)] == [lacks(one) for one in found]
    assert all(one.hypotheses[0].text for one in found)


async def test_a_second_try_takes_half_of_the_time_that_is_left(
    stub: TranslationServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, deadlines = Engine.submit, list[float]()

    def seen(engine: Engine, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
        deadlines.extend(request.deadline for request in requests if request.deadline is not None)
        return submit(engine, requests)

    monkeypatch.setattr(Engine, "submit", seen)
    await stub.Translate(TranslateRequest(model="letters", contents=TEXTS[:1]), timeout=50)
    first, second = deadlines
    assert 20 < first - second < 26


async def test_more_second_tries_than_the_queue_holds_come_in_parts(bundles: Path) -> None:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(keeps_literals=True))
    running = Server(tiny_settings(models=bundles, queue_tokens=8000))
    await running.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = TranslationServiceStub(channel)
        together = await translated(stub, *TEXTS * 12)
        alone = [(await translated(stub, text))[0] for text in TEXTS]
    await running.stop()
    assert [one.hypotheses[0].text for one in together] == [one.hypotheses[0].text for one in alone] * 12


async def test_attention_of_a_second_try_is_the_models_own(stub: TranslationServiceStub) -> None:
    """As forced decoding of the same translation has it."""
    attention = attention_pb2.AttentionOptions(view=attention_pb2.ATTENTION_VIEW_FULL)
    plain = await translated(stub, *TEXTS)
    found = await translated(stub, *TEXTS, attention=attention)
    assert [one.hypotheses[0].text for one in found] == [one.hypotheses[0].text for one in plain]
    for one in found:
        best = one.hypotheses[0]
        for matrix in best.attention.matrices:
            assert matrix.shape[1] == len(best.tokens)
            weights = np.frombuffer(matrix.data, "<f4").reshape(matrix.shape)
            np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)


async def test_what_is_judged_is_not_asked_for_again(stub: TranslationServiceStub) -> None:
    reply = await stub.Score(ScoreRequest(model="letters", pairs=[ScorePair(source=TEXTS[0], target="cba")]))
    (judged,) = reply.translations
    assert judged.hypotheses[0].text == "cba"
    assert not judged.left_out


async def test_the_model_says_so_and_the_metrics_count(stub: TranslationServiceStub, server: Server) -> None:
    models = (await stub.ListModels(ListModelsRequest())).models
    assert {model.name: model.keeps_literals for model in models} == {"letters": True, "numbers": False}
    found = await translated(stub, *TEXTS)
    letters = {"model": "letters", "version": "1"}
    left_out = await asyncio.to_thread(value, server, "heed_left_out_total", **letters)
    assert left_out == sum(len(one.left_out) for one in found) > 0
    assert await asyncio.to_thread(value, server, "heed_second_tries_total", **letters) > 0

"""A model that writes nothing, over a real socket: it is asked to go on, and no other text suffers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from google.rpc.code_pb2 import RESOURCE_EXHAUSTED
from heed.v1.translation_service_pb2 import TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.bundle.repository import Bundle
from service.bundle.tokenizer import BOS_ID, EOS_ID
from service.engine.engine import Engine
from service.engine.errors import QueueFullError
from service.engine.hypothesis import FinishReason, Hypothesis
from service.engine.sentence import SentenceRequest, SentenceResult, Timings
from service.rpc.server import Server
from tests.rpc.calls import value

EMPTY, OTHER = "abc", "dea"
LABELS = {"model": "letters", "version": "1"}
Submit = Callable[[Engine, Sequence[SentenceRequest]], list[Future[SentenceResult]]]


@pytest.fixture
def writes_nothing(letters: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """From now on ``EMPTY`` is translated by nothing but what has no text, ``tries`` times; returned is a list that
    gets the least tokens that were asked for. ``refused``: how often in a row then the queue is full."""
    ids = tuple(letters.encode_ids(EMPTY))
    submit: Submit = Engine.submit

    def begin(tries: int, refused: int = 0) -> list[int]:
        asked = list[int]()

        def empty(length: int) -> SentenceResult:
            written = (*[BOS_ID] * (length - 1), EOS_ID)
            numbers: Any = np.full(length, -0.1, np.float32)
            only = Hypothesis(written, numbers, {}, FinishReason.END_OF_SENTENCE, float(numbers.sum()))
            return SentenceResult((only,), Timings(0.0, 0.0, 0.0))

        def answered(engine: Engine, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
            if 0 < len(asked) <= refused:
                asked.append(requests[0].decoding.min_tokens)
                raise QueueFullError(10, 20, 25)
            futures = list[Future[SentenceResult]]()
            for request in requests:
                if request.source_ids == ids and len(asked) < tries:
                    asked.append(request.decoding.min_tokens)
                    futures.append(Future())
                    futures[-1].set_result(empty(max(1, request.decoding.min_tokens)))
                else:
                    futures += submit(engine, [request])
            return futures

        monkeypatch.setattr(Engine, "submit", answered)
        return asked

    return begin


async def test_what_has_no_text_goes_on_for_a_token_more_each_time(
    stub: TranslationServiceStub, server: Server, writes_nothing: Callable[..., list[int]]
) -> None:
    asked = writes_nothing(tries=3)
    reply = await stub.Translate(TranslateRequest(model="letters", contents=[OTHER, EMPTY]))
    assert asked == [0, 2, 3]
    other, empty = reply.translations
    assert other.status.code == empty.status.code == 0
    assert other.hypotheses[0].text
    assert empty.hypotheses[0].text
    assert await asyncio.to_thread(value, server, "heed_second_tries_total", **LABELS) == 3


async def test_what_still_has_none_is_given_in_the_end(
    stub: TranslationServiceStub, writes_nothing: Callable[..., list[int]]
) -> None:
    asked = writes_nothing(tries=99)
    (empty,) = (await stub.Translate(TranslateRequest(model="letters", contents=[EMPTY]))).translations
    assert asked == [0, 2, 3, 4]
    assert empty.hypotheses[0].text == ""


async def test_where_the_queue_is_full_then_only_that_text_fails(
    stub: TranslationServiceStub, writes_nothing: Callable[..., list[int]]
) -> None:
    writes_nothing(tries=1, refused=1)
    reply = await stub.Translate(TranslateRequest(model="letters", contents=[OTHER, EMPTY, OTHER]))
    assert [one.status.code for one in reply.translations] == [0, RESOURCE_EXHAUSTED, 0]
    assert "the queue is full: 20 of 25 tokens are held" in reply.translations[1].status.message
    assert all(reply.translations[place].hypotheses[0].text for place in (0, 2))

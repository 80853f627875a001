"""A model says which other reads its translations back, and does without where that is of no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from heed.v1.translation_pb2 import DecodingOptions
from heed.v1.translation_service_pb2 import ListModelsRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.rpc.server import Server
from tests.conftest import edit_manifest, tiny_settings
from tests.rpc.calls import value


@pytest.fixture
async def server(bundles: Path) -> AsyncIterator[Server]:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(read_back_by="numbers"))
    running = Server(tiny_settings(models=bundles))
    await running.start()
    yield running
    await running.stop()


async def test_the_model_says_by_which(stub: TranslationServiceStub) -> None:
    models = (await stub.ListModels(ListModelsRequest())).models
    assert {model.name: model.read_back_by for model in models} == {"letters": "numbers", "numbers": ""}


async def test_one_of_other_languages_reads_nothing(stub: TranslationServiceStub, server: Server) -> None:
    """Random weights are unsure of what they write: whoever could read it back would search again."""
    wide = DecodingOptions(beam_size=4)
    reply = await stub.Translate(TranslateRequest(model="letters", contents=["abc", "bad"], decoding=wide))
    assert [one.status.code for one in reply.translations] == [0, 0]
    tries = await asyncio.to_thread(value, server, "heed_second_tries_total", model="letters", version="1")
    assert tries == 0

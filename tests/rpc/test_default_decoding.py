"""A model with a beam of its own, over a real socket: what a call does not say is as the model is made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from heed.v1 import translation_pb2
from heed.v1.translation_pb2 import DecodingOptions, SamplingOptions
from heed.v1.translation_service_pb2 import ListModelsRequest, ScorePair, ScoreRequest, TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.rpc.server import Server
from tests.conftest import edit_manifest, tiny_settings

TEXTS = ["abc", "cab.", "jih gfe", "ABC, 012", "a", "ddd eee fff"]
OWN = {"beam_size": 3, "length_penalty": 1.0}


@pytest.fixture(params=[64, 2], ids=["roomy", "narrow"])
def rows(request: pytest.FixtureRequest) -> int:
    """Of a batch: a beam is no wider."""
    return int(request.param)


@pytest.fixture
async def server(bundles: Path, rows: int) -> AsyncIterator[Server]:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(decoding=OWN))
    running = Server(tiny_settings(models=bundles, rows_per_worker=rows))
    await running.start()
    yield running
    await running.stop()


async def translated(stub: TranslationServiceStub, **decoding: Any) -> list[translation_pb2.Hypothesis]:
    request = TranslateRequest(model="letters", contents=TEXTS, decoding=DecodingOptions(**decoding))
    reply = await stub.Translate(request)
    assert all(translation.status.code == 0 for translation in reply.translations)
    return [hypothesis for translation in reply.translations for hypothesis in translation.hypotheses]


async def test_what_is_not_said_is_the_models_own(stub: TranslationServiceStub, rows: int) -> None:
    beam = min(3, rows)
    own, said = await translated(stub), await translated(stub, beam_size=beam, length_penalty=1.0)
    assert own == said == await translated(stub, beam_size=beam)
    assert own == await translated(stub, length_penalty=1.0)
    assert own != await translated(stub, length_penalty=0.0)
    assert len(await translated(stub, hypotheses=2)) == 2 * len(TEXTS)


async def test_a_beam_of_one_is_greedy_search(stub: TranslationServiceStub) -> None:
    greedy = await translated(stub, beam_size=1)
    assert greedy == await translated(stub, beam_size=1, length_penalty=0.0)
    assert [one.text for one in greedy] != [one.text for one in await translated(stub)]
    for one in greedy:
        assert one.score == pytest.approx(one.log_probability, abs=1e-4)


async def test_samples_have_no_beam_and_what_is_judged_is_not_searched_for(stub: TranslationServiceStub) -> None:
    drawn = await translated(stub, sampling=SamplingOptions(seed=5))
    assert drawn == await translated(stub, sampling=SamplingOptions(seed=5), beam_size=1, length_penalty=0.0)
    reply = await stub.Score(ScoreRequest(model="letters", pairs=[ScorePair(source="abc", target="cba")]))
    (judged,) = reply.translations[0].hypotheses
    assert judged.score == pytest.approx(judged.log_probability, abs=1e-4)


async def test_the_model_says_so(stub: TranslationServiceStub) -> None:
    models = {model.name: model for model in (await stub.ListModels(ListModelsRequest())).models}
    assert (models["letters"].default_beam_size, models["letters"].default_length_penalty) == (3, 1.0)
    assert (models["numbers"].default_beam_size, models["numbers"].default_length_penalty) == (1, 0.0)

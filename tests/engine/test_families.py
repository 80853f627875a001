"""Every family in one engine: a Transformer with its caches and maps of one side, a bottleneck with a plain memory, a
recurrent model that carries its scores along the source."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.repository import Repository
from service.bundle.tokenizer import EOS_ID
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest
from tests.conftest import FAMILIES

NAMES = ("transformer", "bottleneck")


@pytest.fixture(scope="module")
def models() -> dict[str, OnnxModel]:
    repository = Repository(FAMILIES)
    return {name: OnnxModel(repository.load(name, 1), "cpu") for name in NAMES}


def _requests(seed: int, count: int, wishes: tuple[str, ...] = ("full",)) -> list[SentenceRequest]:
    generator = random.Random(seed)
    return [
        SentenceRequest(
            (*(generator.randrange(4, 24) for _ in range(generator.randint(1, 40))), EOS_ID),
            max_target_tokens=24,
            attention=generator.choice(wishes),  # type: ignore[arg-type]
        )
        for _ in range(count)
    ]


def _alone(model: OnnxModel, requests: list[SentenceRequest]) -> list[Hypothesis]:
    engine = Engine(model, EngineSettings(workers=1, rows_per_worker=1))
    try:
        return [engine.translate([request])[0].hypotheses[0] for request in requests]
    finally:
        engine.stop()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 9), workers=st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_alone_or_in_any_batch_the_answer_is_one(
    models: dict[str, OnnxModel], name: str, seed: int, rows: int, workers: int
) -> None:
    """Whatever the neighbours ask for: some want every map, some the alignment, some nothing."""
    wishes = ("full", "alignment", "none") if name == "transformer" else ("none",)
    requests = _requests(seed, 16, wishes)
    expected = _alone(models[name], requests)
    engine = Engine(models[name], EngineSettings(workers=workers, rows_per_worker=rows))
    try:
        found = [result.hypotheses[0] for result in engine.translate(requests)]
    finally:
        engine.stop()
    ties = 0
    for one, other in zip(expected, found, strict=True):
        if one.target_ids != other.target_ids:
            pairs = zip(one.target_ids, other.target_ids, strict=False)
            place = next(i for i, (a, b) in enumerate(pairs) if a != b)
            assert abs(one.log_probabilities[place] - other.log_probabilities[place]) < 1e-5
            ties += 1
            continue
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4, rtol=1e-4)
        assert one.attention.keys() <= other.attention.keys()  # a neighbour may have asked for more
        for map_name, weights in one.attention.items():
            np.testing.assert_allclose(weights, other.attention[map_name], atol=1e-4)
    assert ties <= 1


def test_maps_have_the_sizes_of_their_sides(models: dict[str, OnnxModel]) -> None:
    requests = _requests(3, 12)
    for request, best in zip(requests, _alone(models["transformer"], requests), strict=True):
        source, target = len(request.source_ids), len(best.target_ids)
        for layer in (0, 1):
            assert best.attention[f"encoder-self-{layer}"].shape == (source, 2, source)
            assert best.attention[f"decoder-self-{layer}"].shape == (target, 2, target)
            assert best.attention[f"cross-{layer}"].shape == (target, 2, source)
        for weights in best.attention.values():
            np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)


def test_an_alignment_alone_costs_no_other_map(models: dict[str, OnnxModel]) -> None:
    (request,) = _requests(5, 1, ("alignment",))
    (best,) = _alone(models["transformer"], [request])
    assert set(best.attention) == {"cross-1"}


def test_a_bottlenecks_memory_has_no_place_for_a_token(models: dict[str, OnnxModel]) -> None:
    assert models["bottleneck"].growing_axes["memory_values"] is None
    assert models["bottleneck"].attention_maps == frozenset()

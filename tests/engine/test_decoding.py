"""Every option of search in the engine, on real graphs of every family: in any batch, with any neighbours."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.repository import Repository
from service.bundle.tokenizer import EOS_ID
from service.engine.decoding import Decoding, Sampling
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest
from tests.conftest import BUNDLES, FAMILIES

NAMES = ("numbers", "transformer", "bottleneck", "stories")
MOST, PIECES, TIE = 12, 24, 1e-5


@pytest.fixture(scope="module")
def models() -> dict[str, OnnxModel]:
    found = {name: OnnxModel(Repository(FAMILIES).load(name, 1), "cpu") for name in NAMES[1:]}
    return found | {"numbers": OnnxModel(Repository(BUNDLES).load("numbers", 2), "cpu")}


def random_decoding(generator: random.Random) -> Decoding:
    """Greedy, beam or sampling, with or without each of the other options."""

    def maybe(value: Any, otherwise: Any) -> Any:
        return value if generator.random() < 0.3 else otherwise

    beam = generator.choice([1, 1, 2, 4])
    sampling = Sampling((generator.randrange(100),), 0.8, generator.choice([0, 5]), generator.choice([1.0, 0.9]))
    drawn = generator.random() < 0.2
    return Decoding(
        beam_size=1 if drawn else beam,
        hypotheses=generator.randint(1, 3) if drawn else generator.randint(1, beam),
        length_penalty=maybe(1.0, 0.0),
        coverage_penalty=maybe(0.4, 0.0),
        sampling=sampling if drawn else None,
        prefix_ids=maybe(tuple(generator.randrange(4, PIECES) for _ in range(3)), ()),
        min_tokens=maybe(6, 0),
        repetition_penalty=maybe(1.3, 1.0),
        no_repeat_ngram=maybe(2, 0),
        suppressed_ids=maybe(frozenset(generator.sample(range(4, PIECES), 3)), frozenset()),
    )


def random_requests(model: OnnxModel, seed: int, count: int) -> list[SentenceRequest]:
    generator = random.Random(seed)

    def sentence() -> tuple[int, ...]:
        return (*(generator.randrange(4, PIECES) for _ in range(generator.randint(1, 20))), EOS_ID)

    wishes = ("none", "alignment", "full") if model.attention_maps else ("none",)
    found = []
    for _ in range(count):
        context = tuple(sentence() for _ in range(generator.randint(0, model.context_sentences)))
        decoding = random_decoding(generator)
        if model.alignment is None:
            decoding = replace(decoding, coverage_penalty=0.0)
        wish = generator.choice(wishes)
        found.append(SentenceRequest(sentence(), MOST, wish, None, context, decoding))  # type: ignore[arg-type]
    return found


def translate(model: OnnxModel, requests: list[SentenceRequest], rows: int, workers: int = 1) -> list[list[Hypothesis]]:
    engine = Engine(model, EngineSettings(workers=workers, rows_per_worker=rows))
    try:
        return [list(result.hypotheses) for result in engine.translate(requests)]
    finally:
        assert engine.load().held_tokens == 0
        engine.stop()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32), rows=st.integers(4, 20), workers=st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_whatever_the_neighbours_ask_for_the_answer_is_the_one_alone(
    models: dict[str, OnnxModel], name: str, seed: int, rows: int, workers: int
) -> None:
    requests = random_requests(models[name], seed, 20)
    expected = [translate(models[name], [request], rows=4)[0] for request in requests]
    found = translate(models[name], requests, rows, workers)
    ties = 0
    for request, alone, together in zip(requests, expected, found, strict=True):
        if [one.target_ids for one in alone] != [other.target_ids for other in together]:
            ties += 1  # a draw or a rank that hangs on the last bit
            continue
        for one, other in zip(alone, together, strict=True):
            assert one.finish_reason is other.finish_reason
            assert one.score == pytest.approx(other.score, abs=1e-4)
            np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4)
            assert (request.attention != "none") == bool(one.attention)
            for map_name, weights in one.attention.items():
                np.testing.assert_allclose(weights, other.attention[map_name], atol=1e-4)
    assert ties <= 1


@pytest.mark.parametrize("name", NAMES)
def test_forced_decoding_of_every_hypothesis_gives_its_numbers_again(models: dict[str, OnnxModel], name: str) -> None:
    """Log-probabilities and attention, whatever way search came to it."""
    requests = [replace(request, attention="full") for request in random_requests(models[name], 11, 40)]
    if not models[name].attention_maps:
        requests = [replace(request, attention="none") for request in requests]
    pairs = [
        (request, hypothesis)
        for request, hypotheses in zip(requests, translate(models[name], requests, rows=16), strict=True)
        for hypothesis in hypotheses
    ]
    assert len(pairs) > 60
    forced = [
        replace(
            request, decoding=Decoding(prefix_ids=hypothesis.target_ids), max_target_tokens=len(hypothesis.target_ids)
        )
        for request, hypothesis in pairs
    ]
    for (_, wanted), (found,) in zip(pairs, translate(models[name], forced, rows=16), strict=True):
        assert found.target_ids == wanted.target_ids
        np.testing.assert_allclose(found.log_probabilities, wanted.log_probabilities, atol=1e-4)
        assert found.attention.keys() == wanted.attention.keys()
        for map_name, weights in wanted.attention.items():
            np.testing.assert_allclose(found.attention[map_name], weights, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_options_hold_for_what_is_written(models: dict[str, OnnxModel], name: str) -> None:
    requests = random_requests(models[name], 12, 60)
    for request, hypotheses in zip(requests, translate(models[name], requests, rows=16), strict=True):
        decoding = request.decoding
        assert len(hypotheses) == decoding.hypotheses
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert decoding.sampling or len({hypothesis.target_ids for hypothesis in hypotheses}) == len(hypotheses)
        for ids in (hypothesis.target_ids for hypothesis in hypotheses):
            written = ids[len(decoding.prefix_ids) :]
            assert ids[: len(decoding.prefix_ids)] == decoding.prefix_ids
            assert not decoding.suppressed_ids & set(written)
            assert len(ids) >= min(decoding.min_tokens, MOST)
            runs = [ids[begin : begin + 2] for begin in range(len(ids) - 1)]
            new = runs[max(0, len(decoding.prefix_ids) - 1) :]
            if decoding.no_repeat_ngram:
                assert len(set(new)) == len(new)


def test_a_wider_beam_finds_what_is_likelier(models: dict[str, OnnxModel]) -> None:
    requests = [replace(one, decoding=Decoding()) for one in random_requests(models["transformer"], 13, 40)]
    wide = [replace(one, decoding=Decoding(beam_size=6)) for one in requests]
    totals = [
        sum(float(best.score) for (best, *_) in translate(models["transformer"], asked, rows=12))
        for asked in (requests, wide)
    ]
    assert totals[1] > totals[0]

"""One-shot models in the engine: one pass for all that waits, and the same care for each sentence."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.repository import Bundle
from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from service.engine.engine import Engine, EngineSettings
from service.engine.errors import DeadlineError, RuntimeFailureError, StoppedError
from service.engine.hypothesis import FinishReason
from service.engine.onnx_model import Array, OneShotOnnxModel, OneShotOutput, open_model
from service.engine.sentence import SentenceRequest
from tests.engine.fake_model import FORBIDDEN, POISON, UNFORESEEN, VOCABULARY, copying

LENGTH = 12


class MirrorModel(OneShotOnnxModel):
    """Writes its padded source backwards; attention is all on the token that is copied."""

    def __init__(self) -> None:
        self.length = LENGTH
        self.execution_provider = "CPUExecutionProvider"
        self.precision = "fp32"
        self.attention_maps = frozenset({"mirror"})
        self.passes: list[tuple[int, int]] = []
        self.wishes: list[str] = []
        self.held = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def translate(self, source_ids: Array, source_lengths: Array, attention: str) -> OneShotOutput:
        self.held.set()
        if not self.go.wait(timeout=10):
            raise AssertionError("the test never let the pass go")
        self.held.clear()
        self.passes.append(source_ids.shape)
        self.wishes.append(attention)
        if (source_ids == FORBIDDEN).any():
            raise RuntimeFailureError("one_shot.onnx: a bad row")
        if (source_ids == UNFORESEEN).any():
            raise MemoryError("no room")
        assert ((source_ids != PAD_ID).sum(axis=1) == source_lengths).all()
        mirrored = source_ids[:, ::-1]
        logits = np.where(np.arange(VOCABULARY) == mirrored[..., None], 3.0, -1.0).astype(np.float32)
        logits[..., [BOS_ID, UNK_ID]] = 9.0  # never to be chosen, whatever the model finds
        logits[(source_ids == POISON).any(axis=1)] = np.nan
        weights = np.broadcast_to(np.eye(LENGTH, dtype=np.float32)[::-1], (len(source_ids), 1, LENGTH, LENGTH))
        return OneShotOutput(logits, {"mirror": weights} if attention != "none" else {})


def mirrored(*ids: int) -> tuple[int, ...]:
    """What the model writes for ``copying(*ids)``."""
    return (*[PAD_ID] * (LENGTH - len(ids) - 1), EOS_ID, *reversed(ids))


@pytest.fixture
def model() -> MirrorModel:
    return MirrorModel()


@pytest.fixture
def start(model: MirrorModel) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(**changes: int) -> Engine:
        engines.append(Engine(model, EngineSettings(**({"workers": 1} | changes))))  # type: ignore[arg-type]
        return engines[-1]

    yield make
    model.go.set()
    for engine in engines:
        engine.stop()


def test_every_place_is_written_in_one_pass(model: MirrorModel, start: Callable[..., Engine]) -> None:
    best = start().translate([copying(5, 6, 7)])[0].hypotheses[0]
    assert best.target_ids == mirrored(5, 6, 7)
    assert best.finish_reason is FinishReason.END_OF_SENTENCE
    assert best.attention == {}
    assert model.passes == [(1, LENGTH)]
    # Of the whole vocabulary, the two that are never chosen too: e^3 of e^3 + 2 e^9 + 61 e^-1.
    wanted = 3.0 - np.log(np.exp(3.0) + 2 * np.exp(9.0) + (VOCABULARY - 3) * np.exp(-1.0))
    np.testing.assert_allclose(best.log_probabilities, np.full(LENGTH, wanted), rtol=1e-5)


def test_what_waits_goes_together_and_each_gets_its_own(model: MirrorModel, start: Callable[..., Engine]) -> None:
    engine = start(rows_per_worker=5)
    model.go.clear()
    first = engine.submit([copying(5)])
    assert model.held.wait(5)
    waiting = [copying(*range(10, 10 + count), attention="full") for count in range(1, 9)]
    futures = engine.submit(waiting)
    model.go.set()
    assert first[0].result(5).hypotheses[0].target_ids == mirrored(5)
    for request, future in zip(waiting, futures, strict=True):
        best = future.result(5).hypotheses[0]
        assert best.target_ids == mirrored(*request.source_ids[:-1])
        assert best.attention["mirror"].shape == (LENGTH, 1, LENGTH)
        assert best.attention["mirror"][:, 0].argmax(-1).tolist() == list(reversed(range(LENGTH)))
    assert [rows for rows, _ in model.passes] == [1, 5, 3]


def test_attention_is_given_to_those_who_asked(model: MirrorModel, start: Callable[..., Engine]) -> None:
    engine = start()
    model.go.clear()
    engine.submit([copying(9)])
    assert model.held.wait(5)
    plain, asked = engine.submit([copying(5), copying(6, attention="alignment")])
    model.go.set()
    assert plain.result(5).hypotheses[0].attention == {}
    assert set(asked.result(5).hypotheses[0].attention) == {"mirror"}
    assert model.wishes == ["none", "alignment"]


def test_a_bad_row_fails_alone(model: MirrorModel, start: Callable[..., Engine]) -> None:
    for bad in (FORBIDDEN, POISON, UNFORESEEN):
        engine = start()
        model.go.clear()
        engine.submit([copying(9)])
        assert model.held.wait(5)
        good, broken, other = engine.submit([copying(5), copying(bad), copying(6)])
        model.go.set()
        assert good.result(5).hypotheses[0].target_ids == mirrored(5)
        assert other.result(5).hypotheses[0].target_ids == mirrored(6)
        with pytest.raises(RuntimeFailureError):
            broken.result(5)
        assert engine.load().held_tokens == 0


def test_the_cancelled_and_the_late_are_not_computed(model: MirrorModel) -> None:
    now = [100.0]
    engine = Engine(model, EngineSettings(workers=1), clock=lambda: now[0])
    try:
        model.go.clear()
        engine.submit([copying(9)])
        assert model.held.wait(5)
        cancelled, late, good = engine.submit([copying(5), copying(6, deadline=101.0), copying(7)])
        assert cancelled.cancel()
        now[0] = 102.0
        model.go.set()
        assert good.result(5).hypotheses[0].target_ids == mirrored(7)
        with pytest.raises(CancelledError):
            cancelled.result(5)
        with pytest.raises(DeadlineError):
            late.result(5)
        assert [rows for rows, _ in model.passes] == [1, 1]
        assert engine.load().held_tokens == 0
    finally:
        model.go.set()
        engine.stop()


def test_stopping_finishes_or_gives_up_all_that_is_held(model: MirrorModel, start: Callable[..., Engine]) -> None:
    engine = start()
    futures = engine.submit([copying(5) for _ in range(20)])
    assert engine.stop(grace_seconds=5)
    assert {future.result(0).hypotheses[0].target_ids for future in futures} == {mirrored(5)}
    with pytest.raises(StoppedError):
        engine.submit([copying(5)])


# --- the shipped model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandglass_model(sandglass: Bundle) -> OneShotOnnxModel:
    model = open_model(sandglass, "cpu")
    assert isinstance(model, OneShotOnnxModel)
    return model


@given(seed=st.integers(0, 2**32), rows=st.integers(2, 9), workers=st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_alone_or_in_any_batch_the_answer_is_one(
    sandglass_model: OneShotOnnxModel, seed: int, rows: int, workers: int
) -> None:
    generator = random.Random(seed)
    requests = [
        SentenceRequest((*(generator.randrange(4, 62) for _ in range(generator.randint(1, 22))), EOS_ID), 24, "full")
        for _ in range(20)
    ]
    alone = Engine(sandglass_model, EngineSettings(workers=1, rows_per_worker=1))
    together = Engine(sandglass_model, EngineSettings(workers=workers, rows_per_worker=rows))
    try:
        expected = [alone.translate([request])[0].hypotheses[0] for request in requests]
        found = [result.hypotheses[0] for result in together.translate(requests)]
    finally:
        alone.stop()
        together.stop()
    for one, other in zip(expected, found, strict=True):
        parted = [i for i, (a, b) in enumerate(zip(one.target_ids, other.target_ids, strict=True)) if a != b]
        for place in parted:  # a tie
            assert abs(one.log_probabilities[place] - other.log_probabilities[place]) < 1e-5
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4, rtol=1e-4)
        assert one.attention.keys() == other.attention.keys() == {"1", "2a", "2b", "3", "4"}
        for name, weights in one.attention.items():
            assert weights.shape == ((6, 1, 6) if name == "4" else (24, 1, 24))
            np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
            np.testing.assert_allclose(weights, other.attention[name], atol=1e-4)

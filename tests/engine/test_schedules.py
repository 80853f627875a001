"""Random schedules: arrivals, cancels, deadlines, priorities, options and bad sentences, thousands of sentences in all.

Every sentence gets the answer it gets alone, work stops within a step, nothing is lost and nothing leaks.
"""

from __future__ import annotations

import functools
import gc
import random
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.decoding import Decoding, Sampling
from service.engine.engine import Engine, EngineSettings
from service.engine.errors import DeadlineError, QueueFullError, RuntimeFailureError
from service.engine.onnx_model import Array, StepOutput
from service.engine.search import Node, Search
from service.engine.sentence import Priority, SentenceRequest, SentenceResult
from tests.engine.fake_model import FORBIDDEN, POISON, CopyModel, copying

SENTENCES = 50
DECODINGS = [
    Decoding(),
    Decoding(),
    Decoding(beam_size=3, hypotheses=3, length_penalty=1.0),
    Decoding(beam_size=2, coverage_penalty=0.5),
    Decoding(hypotheses=2, sampling=Sampling((5,), temperature=0.5)),
    Decoding(prefix_ids=(9, 8)),
    Decoding(repetition_penalty=1.5, no_repeat_ngram=2, min_tokens=4),
]


def told(result: SentenceResult) -> list[tuple[tuple[int, ...], float]]:
    return [(hypothesis.target_ids, round(hypothesis.score, 4)) for hypothesis in result.hypotheses]


@functools.cache
def alone(source: tuple[int, ...], decoding: int) -> list[tuple[tuple[int, ...], float]]:
    engine = Engine(CopyModel(), EngineSettings(workers=1, rows_per_worker=3))  # type: ignore[arg-type]
    try:
        return told(engine.translate([request_of(source, decoding)])[0])
    finally:
        engine.stop()


def request_of(source: tuple[int, ...], decoding: int, **changes: Any) -> SentenceRequest:
    return copying(*source, max_target_tokens=12, decoding=DECODINGS[decoding], **changes)


@given(seed=st.integers(0, 2**32), rows=st.integers(3, 12), workers=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_every_sentence_gets_the_answer_it_gets_alone_or_its_reason(seed: int, rows: int, workers: int) -> None:
    generator = random.Random(seed)
    engine = Engine(CopyModel(), EngineSettings(workers, rows_per_worker=rows, queue_tokens=4000))  # type: ignore[arg-type]
    held: list[tuple[Future[SentenceResult], tuple[int, ...], int, bool]] = []
    try:
        while len(held) < SENTENCES:
            priority, call = generator.choice(list(Priority)), []
            for _ in range(generator.randint(1, 6)):
                source = tuple(generator.randrange(5, 12) for _ in range(generator.randint(1, 6)))
                if generator.random() < 0.05:
                    source = (generator.choice([FORBIDDEN, POISON]), *source)
                late = generator.random() < 0.1
                deadline = time.monotonic() + generator.choice([0.0, 0.001]) if late else None
                decoding = generator.randrange(len(DECODINGS))
                call.append(
                    (request_of(source, decoding, priority=priority, deadline=deadline), source, decoding, late)
                )
            try:
                futures = engine.submit([request for request, *_ in call])
            except QueueFullError:
                time.sleep(0.001)
                continue
            held += [(future, *rest) for future, (_, *rest) in zip(futures, call, strict=True)]  # type: ignore[misc]
            if generator.random() < 0.3:
                generator.choice(held)[0].cancel()
        for future, source, decoding, late in held:
            if future.cancelled():
                continue
            try:
                result = future.result(20)
            except DeadlineError:
                assert late
            except RuntimeFailureError:
                assert {FORBIDDEN, POISON} & set(source)
            else:
                assert told(result) == alone(source, decoding)
        deadline_of_test = time.monotonic() + 5
        while engine.load().held_tokens:
            assert time.monotonic() < deadline_of_test, "something is still held"
        assert (engine.load().waiting, engine.load().running) == (0, 0)
    finally:
        engine.stop()


class ActingModel(CopyModel):
    """Does something in the middle of its fourth step."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def decode_step(self, feeds: dict[str, Array], attention: str) -> StepOutput:
        if len(self.steps) == 3:
            self._act()
        return super().decode_step(feeds, attention)


@pytest.mark.parametrize("ending", ["cancelled", "expired"])
def test_a_beam_that_is_not_wanted_any_more_leaves_with_all_its_rows_within_a_step(ending: str) -> None:
    now, futures = [100.0], list[Future[SentenceResult]]()
    acts = {"cancelled": lambda: futures[0].cancel(), "expired": lambda: now.__setitem__(0, 200.0)}
    model = ActingModel(acts[ending])
    engine = Engine(model, EngineSettings(workers=1), clock=lambda: now[0])  # type: ignore[arg-type]
    try:
        model.go.clear()
        beam = copying(*range(5, 30), decoding=Decoding(beam_size=4, min_tokens=20), deadline=200.0)
        futures += engine.submit([beam, copying(*range(5, 12))])
        model.go.set()
        assert futures[1].result(5).hypotheses[0].target_ids[:-1] == tuple(range(5, 12))
        assert futures[0].cancelled() or isinstance(futures[0].exception(5), DeadlineError)
        assert model.steps == [2, 5, 5, 5, 1, 1, 1, 1]
    finally:
        engine.stop()


@pytest.mark.parametrize("decoding", [0, 2, 4])
def test_what_is_unforeseen_in_one_search_fails_that_sentence_alone(
    decoding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, best = Search.advance, Search.best

    def breaks(search: Search, *arguments: Any) -> Any:
        if search._most == 9:
            raise MemoryError("no room")
        return advance(search, *arguments)

    monkeypatch.setattr(Search, "advance", breaks)
    monkeypatch.setattr(Search, "best", lambda search: 1 / 0 if search._most == 8 else best(search))
    engine = Engine(CopyModel(), EngineSettings(workers=1, rows_per_worker=20))  # type: ignore[arg-type]
    try:
        others = [request_of((5, 6, 7), decoding) for _ in range(2)]
        broken = [copying(5, 6, max_target_tokens=most, decoding=DECODINGS[2]) for most in (9, 8)]
        one, *bad, other = engine.submit([others[0], *broken, others[1]])
        for future in bad:
            with pytest.raises(RuntimeFailureError, match=r"MemoryError|ZeroDivisionError"):
                future.result(5)
        assert told(one.result(5)) == told(other.result(5)) == alone((5, 6, 7), decoding)
        assert engine.load().held_tokens == 0
    finally:
        engine.stop()


def test_more_hypotheses_than_a_worker_decodes_are_refused_at_once() -> None:
    engine = Engine(CopyModel(), EngineSettings(workers=1, rows_per_worker=3))  # type: ignore[arg-type]
    try:
        with pytest.raises(ValueError, match="a sentence has 4 hypotheses; a worker decodes 3"):
            engine.submit([copying(5, decoding=Decoding(beam_size=4))])
        assert engine.load().held_tokens == 0
    finally:
        engine.stop()


def test_a_finished_sentence_lets_go_of_its_steps_while_its_answer_is_held() -> None:
    engine = Engine(CopyModel(), EngineSettings(workers=1))  # type: ignore[arg-type]
    try:
        (future,) = engine.submit([request_of((5, 6, 7), 2, attention="full")])
        future.result(5)
        gc.collect()
        assert not [one for one in gc.get_objects() if type(one) is Node]
    finally:
        engine.stop()


def test_nothing_of_a_finished_sentence_is_kept() -> None:
    engine = Engine(CopyModel(), EngineSettings(workers=1))  # type: ignore[arg-type]
    try:
        requests = [request_of((5, 6, 7), decoding, attention="full") for decoding in range(len(DECODINGS))]
        futures = engine.submit(requests)
        seen = [weakref.ref(future) for future in futures]
        for future in futures:
            future.result(5)
        engine.translate([copying(5)])  # the worker has gone on to other work
        del futures, future
        gc.collect()
        assert [reference() for reference in seen] == [None] * len(seen)
    finally:
        engine.stop()

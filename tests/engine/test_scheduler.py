"""Whose turn it is: fair to every call, by its priority, to short and long, to narrow and wide."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.decoding import Decoding
from service.engine.scheduler import Scheduler
from service.engine.sentence import Priority, Sentence, SentenceRequest
from tests.engine.fake_model import copying

LIMIT = 10**9


def sentences(count: int, length: int = 8, priority: Priority = Priority.NORMAL, beam: int = 1) -> list[Sentence]:
    decoding = Decoding(beam_size=beam)
    request = copying(*[5] * (length - 1), max_target_tokens=length, priority=priority, decoding=decoding)
    return [Sentence(request, Future(), submitted=0.0) for _ in range(count)]


def scheduler(workers: int = 1) -> Scheduler:
    return Scheduler(LIMIT, workers, lambda: 0.0)


def take_one(queue: Scheduler) -> Sentence:
    (taken,), ended = queue.take([], 1)
    assert not ended
    queue.release(taken)
    return taken


def test_a_call_is_served_in_its_order() -> None:
    queue, call = scheduler(), sentences(20)
    queue.submit(call)
    assert [take_one(queue) for _ in call] == call


def test_one_sentence_does_not_wait_for_the_thousand_of_another_call() -> None:
    queue, many, (one,) = scheduler(), sentences(1000), sentences(1)
    queue.submit(many)
    for _ in range(300):
        take_one(queue)
    queue.submit([one])
    assert one in [take_one(queue) for _ in range(3)]


def test_calls_that_wait_together_take_turns() -> None:
    queue = scheduler()
    calls = [sentences(50), sentences(50), sentences(50)]
    for call in calls:
        queue.submit(call)
    served = [take_one(queue) for _ in range(60)]
    assert [sum(sentence in call for sentence in served) for call in calls] == [20, 20, 20]


def test_turns_are_counted_in_tokens() -> None:
    """Sentences of four times the length come a quarter as often."""
    queue, short, long = scheduler(), sentences(200, length=5), sentences(200, length=20)
    queue.submit(long)
    queue.submit(short)
    served = [take_one(queue) for _ in range(150)]
    assert sum(sentence in long for sentence in served) == pytest.approx(30, abs=2)


def test_a_priority_is_a_share_and_no_wall() -> None:
    queue = scheduler()
    calls = {priority: sentences(2000, priority=priority) for priority in Priority}
    for call in calls.values():
        queue.submit(call)
    served = Counter(take_one(queue).request.priority for _ in range(2100))
    assert served[Priority.HIGH] / served[Priority.NORMAL] == pytest.approx(4, rel=0.05)
    assert served[Priority.NORMAL] / served[Priority.LOW] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("priority", [Priority.LOW, Priority.NORMAL])
def test_an_endless_stream_of_others_starves_nobody(priority: Priority) -> None:
    """A long sentence, and always twenty calls of short ones that came later, of high priority and of its own."""
    queue, (slow,) = scheduler(), sentences(1, length=50, priority=priority)
    queue.submit([slow])
    waiting = Counter({Priority.HIGH: 0, priority: 1})
    for step in range(8000):
        for other in waiting:
            while waiting[other] < 20:
                queue.submit(sentences(1, length=4, priority=other))
                waiting[other] += 1
        taken = take_one(queue)
        waiting[taken.request.priority] -= 1
        if taken is slow:
            assert step > 5, "and short ones did not wait for it"
            return
    pytest.fail("it was never served")


def test_what_a_priority_was_served_when_nobody_waited_is_not_held_against_it() -> None:
    """A day of one priority alone, each call when the queue was empty; then another comes."""
    queue = scheduler()
    for _ in range(3000):
        queue.submit(sentences(1))
        take_one(queue)
    low, normal = sentences(400, priority=Priority.LOW), sentences(400)
    queue.submit(low)
    take_one(queue)
    queue.submit(normal)
    served = [take_one(queue) for _ in range(200)]
    assert sum(sentence in normal for sentence in served) == pytest.approx(160, abs=4)


def test_nobody_passes_a_sentence_that_waits_for_rows() -> None:
    queue, call = scheduler(), [*sentences(1, beam=6), *sentences(3)]
    queue.submit(call)
    running = sentences(1, beam=4)
    assert queue.take(running, 4) == ([], [])
    assert queue.take([], 8)[0] == call[:3]


def test_a_batch_is_filled_with_what_fits() -> None:
    queue, call = scheduler(), [*sentences(2, beam=3), *sentences(2)]
    queue.submit(call)
    joined, _ = queue.take([], 7)
    assert joined == call[:3]


def test_who_is_given_back_is_first_again() -> None:
    queue, call, others = scheduler(), sentences(3), sentences(3, priority=Priority.HIGH)
    queue.submit(call)
    (first, second, third), _ = queue.take([], 3)
    queue.submit(others)
    assert queue.requeue([first, second])
    queue.release(third)
    assert [take_one(queue) for _ in range(5)] == [first, second, *others]


@given(seed=st.integers(0, 2**32), workers=st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_random_schedules_serve_everyone_once_and_forget_everything(seed: int, workers: int) -> None:
    generator, queue = random.Random(seed), scheduler(workers)
    known: set[Sentence] = set()
    served: Counter[Sentence] = Counter()
    cancelled: set[Sentence] = set()
    running: list[Sentence] = []
    while len(known) < 40 or running or queue.load().waiting:
        if len(known) < 40 and generator.random() < 0.5:
            call = sentences(
                generator.randint(1, 8),
                generator.randint(2, 20),
                generator.choice(list(Priority)),
                generator.choice([1, 1, 3]),
            )
            known |= set(call)
            queue.submit(call)
        for sentence in known - cancelled:
            if not served[sentence] and generator.random() < 0.02:
                sentence.future.cancel()
                cancelled.add(sentence)
        if running or queue.load().waiting:
            free = 8 - sum(sentence.wanted_rows for sentence in running)
            joined, ended = queue.take(running, free)
            assert sum(sentence.wanted_rows for sentence in joined) <= free
            assert set(ended) <= cancelled
            for sentence in joined:
                served[sentence] += 1
            running += joined
        for sentence in list(running):
            if generator.random() < 0.3:
                running.remove(sentence)
                queue.release(sentence)
    assert set(served) | cancelled == known
    assert set(served.values()) <= {1}
    load = queue.load()
    assert (load.waiting, load.running, load.held_tokens) == (0, 0, 0)
    assert not any(waiting._calls for waiting in queue._queues.values())


def test_what_a_sentence_holds_grows_with_its_hypotheses() -> None:
    request = SentenceRequest((5, 2), max_target_tokens=10)
    wide = replace(request, decoding=Decoding(beam_size=4))
    assert [Sentence(one, Future(), 0.0).cost_tokens for one in (request, wide)] == [12, 42]


def test_what_a_sentence_holds_is_what_it_is_likely_to_write_and_what_it_is_told_to() -> None:
    """Not the most that it may: 256 tokens for a greeting."""
    request = SentenceRequest((5, 2), max_target_tokens=256)
    told = [replace(request, decoding=one) for one in (Decoding(min_tokens=60), Decoding(prefix_ids=(5,) * 40))]
    longer = replace(request, source_ids=(5,) * 100)
    costs = [Sentence(one, Future(), 0.0).cost_tokens for one in (request, *told, longer)]
    assert costs == [2 + 28, 2 + 60, 2 + 40, 100 + 224]

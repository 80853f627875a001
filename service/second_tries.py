"""Asking the engine once more for what was found at fault, a few sentences at a time, in what time there is to spare.

What is asked for and which answer is better says ``service.recovery``. What could be done without is no reason to fail,
nor to be late: where the queue is full or the time is over, the first answers stay. Called by the translator, on the
event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from service.attention.words import Word
from service.engine.engine import Engine
from service.engine.errors import EngineError, QueueFullError, StoppedError
from service.engine.sentence import SentenceRequest, SentenceResult
from service.recovery import Attempt

_TOGETHER = 16  # sentences, each of several rows, that take a part of the queue at once


def _count_nothing(_: int) -> None:
    return None


async def better_answers(
    engine: Engine,
    attempts: Sequence[Attempt],
    first: Mapping[int, SentenceResult],
    wanted: Mapping[int, SentenceRequest],
    count: Callable[[int], None] = _count_nothing,
) -> dict[int, SentenceResult]:
    """Those that are better than the ``first``, by their places in ``attempts``, with the attention that was asked for.

    ``wanted``: what ``Attempt.again`` asks for at each place; ``count`` is told how many the engine took.
    """
    found: dict[int, SentenceResult] = {}
    for begin in range(0, len(wanted), _TOGETHER):
        part = dict(itertools.islice(wanted.items(), begin, begin + _TOGETHER))
        chosen = {
            place: better
            for place, second in (await _spare(engine, part, count)).items()
            if (better := attempts[place].better(first[place], second)) is not first[place]
        }
        found |= await _with_attention(engine, attempts, chosen)
    return found


@dataclass(frozen=True)
class Read:
    """An answer that was looked through, and the words of its text that it leaves out."""

    result: SentenceResult
    left_out: tuple[Word, ...] = ()


async def looked_through(
    engine: Engine,
    attempts: Sequence[Attempt],
    first: Mapping[int, SentenceResult],
    count: Callable[[int], None] = _count_nothing,
) -> dict[int, Read]:
    """Of the ``first`` answers, by their places in ``attempts``, those that leave words out, or better ones.

    A better one is taken where it leaves out fewer, by the same tests. ``count`` is told how many were searched again.
    """
    found: dict[int, Read] = {}
    for begin in range(0, len(first), _TOGETHER):
        part = dict(itertools.islice(first.items(), begin, begin + _TOGETHER))
        left_out = await _left_out(engine, attempts, part, {})
        found |= {place: Read(part[place], words) for place, words in left_out.items()}
        wanted = {
            place: ask for place, words in left_out.items() if (ask := attempts[place].with_words(words)) is not None
        }
        second = await _spare(engine, wanted, count) if wanted else {}
        better = {
            place: chosen
            for place, other in second.items()
            if (chosen := attempts[place].covering(part[place], other, left_out[place])) is not part[place]
        }
        still = await _left_out(engine, attempts, better, left_out)
        better = {place: one for place, one in better.items() if len(still.get(place, ())) < len(left_out[place])}
        for place, one in (await _with_attention(engine, attempts, better)).items():
            found[place] = Read(one, still.get(place, ()))
        await asyncio.sleep(0)  # it takes a while: others have their turn
    return found


async def _left_out(
    engine: Engine,
    attempts: Sequence[Attempt],
    answers: Mapping[int, SentenceResult],
    before: Mapping[int, Sequence[Word]],
) -> dict[int, tuple[Word, ...]]:
    """The words that the answers do not rest on, as far as they could be tested: none where there was no time.

    ``before``: what earlier answers left out, which is tested whether it is looked at or not.
    """
    doubts = [
        (place, word)
        for place, answer in answers.items()
        for word in {*before.get(place, ()), *attempts[place].doubtful(answer)}
    ]
    if not doubts:
        return {}
    tests = {number: attempts[place].unread(answers[place], word) for number, (place, word) in enumerate(doubts)}
    found = dict[int, tuple[Word, ...]]()
    for number, unread in (await _spare(engine, tests)).items():
        place, word = doubts[number]
        if not attempts[place].rests_on_it(answers[place], unread):
            found[place] = (*found.get(place, ()), word)
    return {place: tuple(sorted(words, key=lambda word: word.begin)) for place, words in found.items()}


async def _with_attention(
    engine: Engine, attempts: Sequence[Attempt], chosen: Mapping[int, SentenceResult]
) -> dict[int, SentenceResult]:
    """``chosen`` with the attention that was asked for; without those for which there was no time."""
    looks = {place: ask for place, one in chosen.items() if (ask := attempts[place].looked_at(one)) is not None}
    looked = await _spare(engine, looks) if looks else {}
    return {
        place: attempts[place].with_attention(one, looked[place]) if place in looks else one
        for place, one in chosen.items()
        if place not in looks or place in looked
    }


async def _spare(
    engine: Engine, wanted: Mapping[int, SentenceRequest], count: Callable[[int], None] = _count_nothing
) -> dict[int, SentenceResult]:
    """The answers that there are within half of the time that is left."""
    now = time.monotonic()
    requests = [
        one if one.deadline is None else replace(one, deadline=now + (one.deadline - now) / 2)
        for one in wanted.values()
    ]
    try:
        futures = engine.submit(requests)
    except (QueueFullError, StoppedError):
        return {}
    count(len(requests))
    found = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
    for failed in found:
        if isinstance(failed, BaseException) and not isinstance(failed, EngineError):
            raise failed
    return {place: one for place, one in zip(wanted, found, strict=True) if isinstance(one, SentenceResult)}

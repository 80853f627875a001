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
from dataclasses import replace

from service.engine.engine import Engine
from service.engine.errors import EngineError, QueueFullError, StoppedError
from service.engine.sentence import SentenceRequest, SentenceResult
from service.recovery import Attempt

_TOGETHER = 16  # sentences, each of several rows, that take a part of the queue at once


async def better_answers(
    engine: Engine,
    attempts: Sequence[Attempt],
    first: Mapping[int, SentenceResult],
    wanted: Mapping[int, SentenceRequest],
    count: Callable[[int], None],
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
        looks = {place: ask for place, one in chosen.items() if (ask := attempts[place].looked_at(one)) is not None}
        looked = await _spare(engine, looks) if looks else {}
        for place, one in chosen.items():
            if place not in looks:
                found[place] = one
            elif place in looked:
                found[place] = attempts[place].with_attention(one, looked[place])
    return found


async def _spare(
    engine: Engine, wanted: Mapping[int, SentenceRequest], count: Callable[[int], None] = lambda _: None
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

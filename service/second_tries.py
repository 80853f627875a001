"""Asking the engine once more for what was found at fault or left out, in what time and room there is to spare.

What is asked for and which answer is better says ``service.recovery``. What could be done without is no reason to fail,
nor to be late: all of it together has half of the time that is left, and where the queue is full or that is over, the
answers stay that there are. Called by the translator, on the event loop, and by ``training.evaluate``, so that what is
measured is what is served.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from service.attention.words import Word
from service.engine.engine import Engine
from service.engine.errors import EngineError, QueueFullError, StoppedError
from service.engine.hypothesis import Hypothesis
from service.engine.sentence import SentenceRequest, SentenceResult
from service.reading_back import Reader, Reading
from service.recovery import Attempt
from service.turn import Turn

_SHARE = 8  # of the queue so much is taken at once: an eighth

_Place = TypeVar("_Place", bound=Hashable)


@dataclass(frozen=True)
class Checked:
    """An answer, and the words of its text that it leaves out."""

    result: SentenceResult
    left_out: tuple[Word, ...] = ()


def _count_nothing(_: int) -> None:
    return None


async def checked(
    engine: Engine,
    attempts: Sequence[Attempt],
    first: Mapping[int, SentenceResult],
    count: Callable[[int], None] = _count_nothing,
    reader: Reader | None = None,
) -> dict[int, Checked]:
    """The ``first`` answers, by their places in ``attempts`` of one call, or better ones.

    ``count`` is told how many were searched again; ``reader`` reads them back.
    """
    until = _half_way_to(next((attempt.request.deadline for attempt in attempts), None))
    tries = _SecondTries(engine, attempts, count, until)
    answers = {**first, **await tries.without_faults(first)}
    if reader is not None:  # what is left out must still be told
        answers |= await _SecondTries(engine, attempts, count, _half_way_to(until)).read_back(answers, reader)
    found = await tries.with_words(answers)
    return {place: found.get(place, Checked(answer)) for place, answer in answers.items()}


def _half_way_to(deadline: float | None) -> float | None:
    now = time.monotonic()
    return None if deadline is None else now + (deadline - now) / 2


class _SecondTries:
    """Those of one call. ``until``: a time of ``time.monotonic``, None for never; nothing is begun behind it."""

    def __init__(
        self, engine: Engine, attempts: Sequence[Attempt], count: Callable[[int], None], until: float | None
    ) -> None:
        self._engine, self._attempts, self._count, self._until = engine, attempts, count, until
        self._turn = Turn()

    async def without_faults(self, first: Mapping[int, SentenceResult]) -> dict[int, SentenceResult]:
        """Those that are better than the first, with the attention that was wished for."""
        wanted = dict[int, SentenceRequest]()
        for place, answer in first.items():
            if (ask := self._attempts[place].again(answer)) is not None:
                wanted[place] = ask
            await self._turn.over()
        chosen = dict[int, SentenceResult]()
        for place, second in (await self._searched(wanted)).items():
            better = self._attempts[place].better(first[place], second)
            if better is not first[place]:
                chosen[place] = better
            await self._turn.over()
        return await self._with_attention(chosen)

    async def read_back(self, first: Mapping[int, SentenceResult], reader: Reader) -> dict[int, SentenceResult]:
        """Those from which ``reader`` reads the text better than from the first, with the attention that was wished."""
        best = dict[tuple[int, int], Hypothesis]()
        for place, answer in first.items():
            if self._attempts[place].may_be_read_back(answer):
                best[place, 0] = answer.hypotheses[0]
            await self._turn.over()
        readings = await self._readings(best, reader)
        badly = [place for (place, _), reading in readings.items() if self._attempts[place].reads_badly(reading)]
        second = await self._spare(badly, lambda place: self._attempts[place].several(), self._count)
        others = {
            (place, number): other for place, answer in second.items() for number, other in enumerate(answer.hypotheses)
        }
        of_others = await self._readings(others, reader)
        chosen = dict[int, SentenceResult]()
        for place, answer in second.items():
            its = [of_others.get((place, number)) for number in range(len(answer.hypotheses))]
            truest = self._attempts[place].truest(first[place], readings[place, 0], answer, its)
            if truest is not first[place]:
                chosen[place] = truest
            await self._turn.over()
        return await self._with_attention(chosen)

    async def _readings(
        self, hypotheses: Mapping[tuple[int, int], Hypothesis], reader: Reader
    ) -> dict[tuple[int, int], Reading]:
        """Of hypotheses, by their sentence's place and their own."""

        def ask(key: tuple[int, int]) -> SentenceRequest | None:
            attempt = self._attempts[key[0]]
            written = attempt.bundle.decode(hypotheses[key].target_ids).text
            return reader.request(attempt.text, written, attempt.request) if written.strip() else None

        answers = await self._spare(hypotheses, ask, engine=reader.engine)
        return {key: Reading.of(answer) for key, answer in answers.items()}

    async def with_words(self, first: Mapping[int, SentenceResult]) -> dict[int, Checked]:
        """Those that leave words out, or better ones: a better one leaves out fewer, by the same tests."""
        doubts = dict[int, list[Word]]()
        for place, answer in first.items():
            if words := self._attempts[place].doubtful(answer):
                doubts[place] = words
            await self._turn.over()
        left_out, _ = await self._left_out(first, doubts)
        found = {place: Checked(first[place], words) for place, words in left_out.items()}
        wanted = dict[int, SentenceRequest]()
        for place, lost in left_out.items():
            if (ask := self._attempts[place].with_words(lost)) is not None:
                wanted[place] = ask
            await self._turn.over()
        better, doubts = dict[int, SentenceResult](), {}
        for place, second in (await self._searched(wanted)).items():
            attempt = self._attempts[place]
            chosen = attempt.covering(first[place], second, left_out[place])
            if chosen is not first[place]:  # what it looks at now is tested too
                better[place] = chosen
                doubts[place] = list(dict.fromkeys((*left_out[place], *attempt.doubtful(chosen))))
            await self._turn.over()
        still, untested = await self._left_out(better, doubts)
        mended = {
            place: one
            for place, one in better.items()
            if place not in untested and len(still.get(place, ())) < len(left_out[place])
        }
        for place, one in (await self._with_attention(mended)).items():
            found[place] = Checked(one, still.get(place, ()))
        return found

    async def _left_out(
        self, answers: Mapping[int, SentenceResult], doubts: Mapping[int, Sequence[Word]]
    ) -> tuple[dict[int, tuple[Word, ...]], set[int]]:
        """The doubted words that the answers do not rest on, in the text's order; and the places of which not every
        word could be tested."""
        tests = [(place, word) for place, words in doubts.items() for word in words]
        tested = await self._rests(
            tests, answers, lambda place, word: self._attempts[place].request_without(word, answers[place])
        )
        # What the text cannot do without by itself, it may without the words that go with it.
        runs = dict[tuple[int, Word], SentenceRequest]()
        for (place, word), rests in tested.items():
            if rests and (ask := self._attempts[place].request_without_run(word, answers[place])) is not None:
                runs[place, word] = ask
            await self._turn.over()
        with_run = await self._rests(runs, answers, lambda place, word: runs[place, word])
        found = dict[int, list[Word]]()
        for (place, word), rests in (tested | with_run).items():
            if not rests:
                found.setdefault(place, []).append(word)
        untested = {place for place, word in tests if (place, word) not in tested}
        untested |= {place for place, word in runs if (place, word) not in with_run}
        in_order = {place: tuple(sorted(words, key=lambda word: word.begin)) for place, words in found.items()}
        return in_order, untested

    async def _rests(
        self,
        tests: Iterable[tuple[int, Word]],
        answers: Mapping[int, SentenceResult],
        ask: Callable[[int, Word], SentenceRequest],
    ) -> dict[tuple[int, Word], bool]:
        """Do the answers rest on what ``ask`` takes out of their texts? As far as there is time."""
        tested = await self._spare(tests, lambda test: ask(*test))
        return {
            (place, word): self._attempts[place].rests_on_it(answers[place], without_it)
            for (place, word), without_it in tested.items()
        }

    async def _with_attention(self, chosen: Mapping[int, SentenceResult]) -> dict[int, SentenceResult]:
        """``chosen`` with the attention that was wished for; without those for which there was no time."""
        looks = {
            place: ask for place, one in chosen.items() if (ask := self._attempts[place].looked_at(one)) is not None
        }
        looked = await self._spare(looks, looks.__getitem__)
        return {
            place: self._attempts[place].with_attention(one, looked[place]) if place in looks else one
            for place, one in chosen.items()
            if place not in looks or place in looked
        }

    async def _searched(self, requests: Mapping[int, SentenceRequest]) -> dict[int, SentenceResult]:
        return await self._spare(requests, requests.__getitem__, self._count)

    async def _spare(
        self,
        places: Iterable[_Place],
        ask: Callable[[_Place], SentenceRequest | None],
        count: Callable[[int], None] = _count_nothing,
        engine: Engine | None = None,
    ) -> dict[_Place, SentenceResult]:
        """The answers that there are in time, a part of the queue at once; nothing more where one part is refused.

        ``ask``: None for what cannot be asked; ``engine``: another than that of the translations.
        """
        engine = engine or self._engine
        found, waiting = dict[_Place, SentenceResult](), deque(places)
        while waiting and (self._until is None or time.monotonic() < self._until):
            part = await self._part(waiting, ask, engine)
            try:
                futures = engine.submit(list(part.values()))
            except (QueueFullError, StoppedError):
                break
            count(len(part))
            answers = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
            for place, answer in zip(part, answers, strict=True):
                if isinstance(answer, SentenceResult):
                    found[place] = answer
                elif not isinstance(answer, EngineError):
                    raise answer
        return found

    async def _part(
        self, waiting: deque[_Place], ask: Callable[[_Place], SentenceRequest | None], engine: Engine
    ) -> dict[_Place, SentenceRequest]:
        """The requests of the first that wait, as many as go into a share of the queue; one, whatever it takes.

        They are made here and not all before: to cut a text without a word takes time, and there may be none left.
        """
        part, room = dict[_Place, SentenceRequest](), engine.load().limit_tokens // _SHARE
        while waiting:
            if (asked := ask(waiting[0])) is None:
                waiting.popleft()
                continue
            request = replace(asked, deadline=self._until, spare=True)
            room -= request.cost_tokens
            if part and room < 0:
                break
            part[waiting.popleft()] = request
            await self._turn.over()
        return part

"""Who waits and who may join: a bounded queue in order of arrival.

Counts tokens, touches no tensors. Shared by an engine's workers; every method takes the lock.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from service.engine.errors import QueueFullError, StoppedError
from service.engine.sentence import Sentence, SentenceResult

_JOIN_SHARE = 8  # while others wait, one eighth of the rows must be free before newcomers are encoded


@dataclass(frozen=True)
class Load:
    """One look at the queue: sentences and tokens, seconds that the oldest has waited."""

    waiting: int
    running: int
    held_tokens: int
    limit_tokens: int
    oldest_wait_seconds: float


class Scheduler:
    """A sentence is held from ``submit`` until ``release``; tokens held never exceed ``limit_tokens``."""

    def __init__(self, limit_tokens: int, workers: int, clock: Callable[[], float]) -> None:
        self._limit_tokens = limit_tokens
        self._workers = workers
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Sentence] = deque()
        self._running = 0
        self._held_tokens = 0
        self._open = True
        self._stopping = False
        # When to look for the ended among those who wait: a look at each of thousands before every step is too dear.
        self._any_cancelled = False
        self._earliest_deadline = math.inf

    def submit(self, sentences: Iterable[Sentence]) -> None:
        """Queue all of them or none. Raises QueueFullError or StoppedError."""
        arrivals = list(sentences)
        wanted = sum(sentence.cost_tokens for sentence in arrivals)
        with self._changed:
            if not self._open:
                raise StoppedError("the engine takes no more work")
            if self._held_tokens + wanted > self._limit_tokens:
                raise QueueFullError(wanted, self._held_tokens, self._limit_tokens)
            self._held_tokens += wanted
            self._waiting.extend(arrivals)
            self._note_deadlines(arrivals)
            self._changed.notify_all()
        for sentence in arrivals:
            sentence.future.add_done_callback(partial(self._note_cancelled, sentence))

    def _note_cancelled(self, sentence: Sentence, future: Future[SentenceResult]) -> None:
        """Called when a future is done, by whichever thread did it."""
        if future.cancelled():
            sentence.cancelled = True
            self._any_cancelled = True

    def _note_deadlines(self, sentences: Iterable[Sentence]) -> None:
        for sentence in sentences:
            if sentence.request.deadline is not None:
                self._earliest_deadline = min(self._earliest_deadline, sentence.request.deadline)

    def requeue(self, sentences: Iterable[Sentence]) -> bool:
        """Give running sentences back to the head of the queue; they stay held. False when the engine is stopping:
        then they are as they were, and the caller's to end."""
        returned = list(sentences)
        with self._changed:
            if self._stopping:
                return False
            self._running -= len(returned)
            self._waiting.extendleft(reversed(returned))
            self._note_deadlines(returned)
            self._any_cancelled = True  # one of them may have been cancelled while it ran
            self._changed.notify_all()
            return True

    def take(self, running: list[Sentence], free_rows: int) -> tuple[list[Sentence], list[Sentence]]:
        """The sentences that join the worker's ``running`` ones now, and those that ended while they waited.

        A worker without rows waits here for work. An empty pair means: step on; or, for a worker without rows, that the
        engine has stopped. A worker takes its share of what waits, so that two workers halve a burst between them;
        where more wait than fit, it takes none until a few rows are free, for encoding one by one is dear.
        """
        with self._changed:
            while not running and not self._waiting and not self._stopping:
                self._changed.wait()
            ended = self._reap()
            joiners: list[Sentence] = []
            if self._waiting and self._may_join(running, free_rows):
                room = min(-(-len(self._waiting) // self._workers), free_rows)
                while self._waiting and len(joiners) < room and not self._waiting[0].alone:
                    joiners.append(self._waiting.popleft())
                if not joiners and not running and self._waiting:  # the first is to be run alone, and nobody is here
                    joiners.append(self._waiting.popleft())
                self._running += len(joiners)
            return joiners, ended

    def _may_join(self, running: list[Sentence], free_rows: int) -> bool:
        if any(sentence.alone for sentence in running):
            return False
        rows = len(running) + free_rows
        return not running or len(self._waiting) <= free_rows or free_rows * _JOIN_SHARE >= rows

    def _reap(self) -> list[Sentence]:
        """Take the cancelled and the expired out of the queue."""
        now = self._clock()
        if not self._any_cancelled and now < self._earliest_deadline:
            return []
        self._any_cancelled, self._earliest_deadline = False, math.inf
        ended: list[Sentence] = []
        kept: deque[Sentence] = deque()
        for sentence in self._waiting:
            (ended if sentence.cancelled or sentence.expired(now) else kept).append(sentence)
        self._note_deadlines(kept)
        if ended:
            self._waiting = kept
            self._held_tokens -= sum(sentence.cost_tokens for sentence in ended)
            self._changed.notify_all()
        return ended

    def release(self, sentence: Sentence) -> None:
        """A running sentence has ended."""
        with self._changed:
            self._running -= 1
            self._held_tokens -= sentence.cost_tokens
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more work; what is held goes on."""
        with self._changed:
            self._open = False

    def wait_until_empty(self, timeout: float | None) -> bool:
        """True when nothing is held any more, False when ``timeout`` seconds came first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held_tokens == 0, timeout)

    def stop(self) -> list[Sentence]:
        """Wake every worker to its end; returns what was still waiting."""
        with self._changed:
            self._open = False
            self._stopping = True
            left = list(self._waiting)
            self._waiting.clear()
            self._held_tokens -= sum(sentence.cost_tokens for sentence in left)
            self._changed.notify_all()
            return left

    @property
    def stopping(self) -> bool:
        return self._stopping

    def load(self) -> Load:
        with self._changed:
            oldest = self._clock() - self._waiting[0].submitted if self._waiting else 0.0
            return Load(len(self._waiting), self._running, self._held_tokens, self._limit_tokens, oldest)

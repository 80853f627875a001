"""Who waits and who may join: a bounded queue in order of arrival.

Counts tokens, touches no tensors. Shared by an engine's workers; every method takes the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from service.engine.errors import QueueFullError, StoppedError
from service.engine.sentence import Sentence


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
            self._changed.notify_all()

    def requeue(self, sentences: Iterable[Sentence]) -> None:
        """Give running sentences back to the head of the queue; they stay held."""
        returned = list(sentences)
        with self._changed:
            self._running -= len(returned)
            self._waiting.extendleft(reversed(returned))
            self._changed.notify_all()

    def take(self, running: list[Sentence], free_rows: int) -> tuple[list[Sentence], list[Sentence]]:
        """The sentences that join the worker's ``running`` ones now, and those that ended while they waited.

        A worker without rows waits here for work. An empty pair means: step on; or, for a worker without rows, that the
        engine has stopped. A worker takes its share of what waits, so that two workers halve a burst between them.
        """
        with self._changed:
            while not running and not self._waiting and not self._stopping:
                self._changed.wait()
            ended = self._reap()
            joiners: list[Sentence] = []
            share = -(-len(self._waiting) // self._workers)
            closed = any(sentence.alone for sentence in running)
            while self._waiting and len(joiners) < min(share, free_rows) and not closed:
                if self._waiting[0].alone:
                    if not running and not joiners:
                        joiners.append(self._waiting.popleft())
                    break
                joiners.append(self._waiting.popleft())
            self._running += len(joiners)
            return joiners, ended

    def _reap(self) -> list[Sentence]:
        """Take the cancelled and the expired out of the queue."""
        now = self._clock()
        ended = [sentence for sentence in self._waiting if sentence.future.cancelled() or sentence.expired(now)]
        if ended:
            gone = set(map(id, ended))
            self._waiting = deque(sentence for sentence in self._waiting if id(sentence) not in gone)
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

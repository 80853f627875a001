"""Who waits and who may join: a bounded queue that is fair to every call.

Priorities share the engine by their weights (stride scheduling, Waldspurger 1995), so that a low one is slow and never
starves, however many calls have a higher one. The calls of a priority share its part equally, by fair queueing (Demers,
Keshav and Shenker 1989): each sentence has a tag, the virtual time at which an engine that served all waiting calls at
once would have finished it, and the least tag is next. So a text of one sentence does not wait for the thousand of a
call that came before it, and a long sentence does not wait for an endless stream of short ones.

Counts tokens, touches no tensors. Shared by an engine's workers; every method takes the lock.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from service.engine.errors import QueueFullError, StoppedError
from service.engine.sentence import Priority, Sentence, SentenceResult

_JOIN_SHARE = 8  # while others wait, one eighth of the rows must be free before newcomers are encoded


@dataclass(frozen=True)
class Load:
    """One look at the queue: sentences and tokens, seconds that the oldest has waited."""

    waiting: int
    running: int
    held_tokens: int
    limit_tokens: int
    oldest_wait_seconds: float


@dataclass(order=True)
class _Waiting:
    """A place in a queue: by its tag, of equals by its number; ``call`` is the number of its call."""

    tag: float
    number: int
    sentence: Sentence = field(compare=False)
    call: int = field(compare=False)


class _Queue:
    """The waiting sentences of one priority. Virtual time goes on by what is served, shared by the calls."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.served = 0.0  # tokens, by the weight
        self._heap: list[_Waiting] = []
        self._calls: Counter[int] = Counter()  # how many sentences of each wait
        self._virtual_time = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> Sentence:
        return self._heap[0].sentence

    @property
    def turn(self) -> float:
        """Of several queues the one with the least is next."""
        return self.served + self.first.cost_tokens / self.weight

    def put(self, sentences: Iterable[Sentence], numbers: Iterator[int]) -> None:
        """The sentences of one call."""
        call, tag = next(numbers), self._virtual_time
        for sentence in sentences:
            tag += sentence.cost_tokens
            heapq.heappush(self._heap, _Waiting(tag, next(numbers), sentence, call))
            self._calls[call] += 1

    def take(self) -> Sentence:
        place = heapq.heappop(self._heap)
        self._virtual_time += place.sentence.cost_tokens / len(self._calls)
        self.served += place.sentence.cost_tokens / self.weight
        self._forget(place)
        return place.sentence

    def remove(self, is_over: Callable[[Sentence], bool]) -> list[Sentence]:
        """Take those out of which it is true."""
        over = [place for place in self._heap if is_over(place.sentence)]
        if over:
            self._heap = [place for place in self._heap if not is_over(place.sentence)]
            heapq.heapify(self._heap)
            for place in over:
                self._forget(place)
        return [place.sentence for place in sorted(over)]

    def _forget(self, place: _Waiting) -> None:
        self._calls[place.call] -= 1
        if not self._calls[place.call]:
            del self._calls[place.call]

    def __iter__(self) -> Iterator[Sentence]:
        return (place.sentence for place in self._heap)


class Scheduler:
    """A sentence is held from ``submit`` until ``release``; tokens held never exceed ``limit_tokens``."""

    def __init__(self, limit_tokens: int, workers: int, clock: Callable[[], float]) -> None:
        self._limit_tokens = limit_tokens
        self._workers = workers
        self._clock = clock
        self._changed = threading.Condition()
        self._queues = {priority: _Queue(priority.weight) for priority in Priority}
        self._again: deque[Sentence] = deque()  # those that were given back, before all others
        self._numbers = itertools.count()
        self._virtual_time = 0.0  # where the queues stand with each other: the tokens served of who was last, by weight
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
        if not arrivals:
            return
        wanted = sum(sentence.cost_tokens for sentence in arrivals)
        with self._changed:
            if not self._open:
                raise StoppedError("the engine takes no more work")
            if self._held_tokens + wanted > self._limit_tokens:
                raise QueueFullError(wanted, self._held_tokens, self._limit_tokens)
            self._held_tokens += wanted
            queue = self._queues[arrivals[0].request.priority]
            if not queue:  # what it did not use while it was empty is gone
                queue.served = max(queue.served, self._virtual_time)
            queue.put(arrivals, self._numbers)
            self._note_deadlines(arrivals)
            self._changed.notify_all()
        for sentence in arrivals:
            sentence.future.add_done_callback(partial(self._note_cancelled, sentence))

    @property
    def _waiting(self) -> int:
        return len(self._again) + sum(map(len, self._queues.values()))

    def _first(self) -> Sentence:
        """Whose turn it is, of those who wait."""
        return self._again[0] if self._again else self._next_queue().first

    def _take_first(self) -> Sentence:
        if self._again:
            return self._again.popleft()
        queue = self._next_queue()
        self._virtual_time = max(self._virtual_time, queue.served)
        return queue.take()

    def _next_queue(self) -> _Queue:
        return min((queue for queue in self._queues.values() if queue), key=lambda queue: queue.turn)

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
            self._again.extendleft(reversed(returned))
            self._note_deadlines(returned)
            self._any_cancelled = True  # one of them may have been cancelled while it ran
            self._changed.notify_all()
            return True

    def take(self, running: list[Sentence], free_rows: int) -> tuple[list[Sentence], list[Sentence]]:
        """The sentences that join the worker's ``running`` ones now, and those that ended while they waited.

        ``free_rows`` are the worker's; a sentence that needs more of them is waited for, and nobody passes it. A worker
        without rows waits here for work. An empty pair means: step on; or, for a worker without rows, that the
        engine has stopped. A worker takes its share of what waits, so that two workers halve a burst between them;
        where more wait than fit, it takes none until a few rows are free, for encoding one by one is dear.
        """
        with self._changed:
            while not running and not self._waiting and not self._stopping:
                self._changed.wait()
            ended = self._reap()
            joiners: list[Sentence] = []
            if self._waiting and self._may_join(running, free_rows):
                share = -(-self._waiting // self._workers)
                while self._waiting and len(joiners) < share and not self._first().alone:
                    free_rows -= self._first().wanted_rows
                    if free_rows < 0:  # those behind it wait too, or it might for ever
                        break
                    joiners.append(self._take_first())
                if not joiners and not running and self._waiting:  # the first is to be run alone, and nobody is here
                    joiners.append(self._take_first())
                self._running += len(joiners)
            return joiners, ended

    def _may_join(self, running: list[Sentence], free_rows: int) -> bool:
        if any(sentence.alone for sentence in running):
            return False
        rows = sum(sentence.wanted_rows for sentence in running) + free_rows
        return not running or self._waiting <= free_rows or free_rows * _JOIN_SHARE >= rows

    def _reap(self) -> list[Sentence]:
        """Take the cancelled and the expired out of the queue."""
        now = self._clock()
        if not self._any_cancelled and now < self._earliest_deadline:
            return []
        self._any_cancelled, self._earliest_deadline = False, math.inf
        ended = [sentence for sentence in self._again if sentence.cancelled or sentence.expired(now)]
        self._again = deque(sentence for sentence in self._again if sentence not in ended)
        for queue in self._queues.values():
            ended += queue.remove(lambda sentence: sentence.cancelled or sentence.expired(now))
        self._note_deadlines(itertools.chain(self._again, *self._queues.values()))
        if ended:
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
            left = [*self._again, *itertools.chain(*(queue.remove(lambda _: True) for queue in self._queues.values()))]
            self._again.clear()
            self._held_tokens -= sum(sentence.cost_tokens for sentence in left)
            self._changed.notify_all()
            return left

    @property
    def stopping(self) -> bool:
        return self._stopping

    def load(self) -> Load:
        with self._changed:
            now = self._clock()
            waiting = itertools.chain(self._again, *self._queues.values())
            oldest = max((now - sentence.submitted for sentence in waiting), default=0.0)
            return Load(self._waiting, self._running, self._held_tokens, self._limit_tokens, oldest)

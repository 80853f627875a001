"""Synthetic tasks by the name a config gives them. A task is a generator of examples and a judge of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from training.tasks import date_variations, dates, dates_in_context, reverse, sandglass_reverse
from training.tasks.date_answers import DateAnswers
from training.tasks.example import Example

TaskName = Literal["dates", "dates-in-context", "reverse", "sandglass-reverse"]


#: The targets that a source may mean, each with its probability.
Posterior = Callable[[str], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """What the trainer and the evaluation need of a task.

    ``posterior`` where a source may mean several things; ``variations`` where people write what ``examples`` never
    shows, for training alone; ``context_sentences`` before a source at most, and ``context_hits`` where a target tells
    what only they say (of sentence, begin and end of what was looked at there).
    """

    examples: Callable[[int], Iterator[Example]]
    attention_hits: Callable[[Example, list[tuple[int, int]]], list[bool]]
    posterior: Callable[[], Posterior] | None = None
    variations: Callable[[int], Iterator[Example]] | None = None
    context_sentences: int = 0
    context_hits: Callable[[Example, list[tuple[int, int, int]]], list[bool]] | None = None


def _date_posterior() -> Posterior:
    answers = DateAnswers()
    return lambda text: {date.isoformat(): share for date, share in answers.posterior(text).items()}


TASKS: dict[TaskName, Task] = {
    "dates": Task(dates.examples, dates.attention_hits, _date_posterior, date_variations.variations),
    "dates-in-context": Task(
        dates_in_context.examples,
        dates_in_context.attention_hits,
        context_sentences=dates_in_context.SENTENCES,
        context_hits=dates_in_context.context_hits,
    ),
    "reverse": Task(reverse.examples, reverse.attention_hits),
    "sandglass-reverse": Task(sandglass_reverse.examples, reverse.attention_hits),
}

__all__ = ["TASKS", "Example", "Posterior", "Task", "TaskName"]

"""Synthetic tasks by the name a config gives them. A task is a generator of examples and a judge of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from training.tasks import date_variations, dates, reverse, sandglass_reverse
from training.tasks.date_answers import DateAnswers
from training.tasks.example import Example

TaskName = Literal["dates", "reverse", "sandglass-reverse"]


#: The targets that a source may mean, each with its probability.
Posterior = Callable[[str], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """What the trainer and the evaluation need of a task.

    ``posterior`` where a source may mean several things; ``variations`` where people write what ``examples`` never
    shows, for training alone.
    """

    examples: Callable[[int], Iterator[Example]]
    attention_hits: Callable[[Example, list[tuple[int, int]]], list[bool]]
    posterior: Callable[[], Posterior] | None = None
    variations: Callable[[int], Iterator[Example]] | None = None


def _date_posterior() -> Posterior:
    answers = DateAnswers()
    return lambda text: {date.isoformat(): share for date, share in answers.posterior(text).items()}


TASKS: dict[TaskName, Task] = {
    "dates": Task(dates.examples, dates.attention_hits, _date_posterior, date_variations.variations),
    "reverse": Task(reverse.examples, reverse.attention_hits),
    "sandglass-reverse": Task(sandglass_reverse.examples, reverse.attention_hits),
}

__all__ = ["TASKS", "Example", "Posterior", "Task", "TaskName"]

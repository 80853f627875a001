"""Synthetic tasks by the name a config gives them. A task is a generator of examples and a judge of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from training.tasks import dates, reverse
from training.tasks.example import Example

TaskName = Literal["dates", "reverse"]


@dataclass(frozen=True)
class Task:
    """What the trainer and the evaluation need of a task."""

    examples: Callable[[int], Iterator[Example]]
    attention_hits: Callable[[Example, list[tuple[int, int]]], list[bool]]


TASKS: dict[TaskName, Task] = {
    "dates": Task(dates.examples, dates.attention_hits),
    "reverse": Task(reverse.examples, reverse.attention_hits),
}

__all__ = ["TASKS", "Example", "Task", "TaskName"]

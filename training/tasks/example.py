"""One example of a synthetic task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A source text, its target, and what the generator knows of their alignment, in a form of the task's own;
    ``context`` are the sentences before the source in its document."""

    source: str
    target: str
    annotation: str
    context: tuple[str, ...] = ()

"""What the benchmarks share: alternating rounds, ratios with their spread, the shipped models, fresh sentences."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from service.bundle.repository import Bundle, Repository
from training.config import load_config
from training.tasks import Example

ROOT = Path(__file__).parents[1]
SEED = 77  # no config uses it


def shipped(name: str, sentences: int) -> tuple[Bundle, list[Example]]:
    """A shipped bundle and fresh sentences of its task."""
    config = load_config(ROOT / "training" / "configs" / f"{name}.yaml")
    bundle = Repository(ROOT / "exported").load(config.name, config.version)
    if config.task is None:
        raise ValueError(f"{name} is of a corpus of files, of which there are no fresh sentences")
    return bundle, list(itertools.islice(config.task.examples(SEED), sentences))


def alternate(rounds: int, *contenders: Callable[[], object]) -> list[list[float]]:
    """Seconds of each contender in each round, one after the other, so that a noisy moment meets them all."""
    for contender in contenders:
        contender()  # warm up
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for place, contender in enumerate(contenders):
            started = time.perf_counter()
            contender()
            seconds[place].append(time.perf_counter() - started)
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> str:
    """How many times faster we are: the median of the rounds' ratios, and the least and the greatest."""
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"

"""Which validations were the best, when to stop, when to lower the learning rate. Knows scores and nothing of models.

Every measure is better when greater but for the loss. A tie is no improvement, except that of exact match, which a
lower loss breaks: a solved task is at 100 % for a long time, and goes on learning. A loss that is no number is the
worst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from training.config import TrainingConfig


@dataclass(frozen=True)
class Validation:
    """One look at the validation set.

    ``loss`` in nats per target token; ``accuracy`` of tokens and ``exact_match`` of whole targets, both teacher-forced:
    greedy search gives a target when each of its tokens is the likeliest after those before it. ``bleu`` and ``chrf``
    (0-100) of greedy translations, None where none were made.
    """

    loss: float
    accuracy: float
    exact_match: float
    bleu: float | None = None
    chrf: float | None = None

    def rank(self, measure: str) -> tuple[float, float]:
        """Greater is better."""
        loss = math.inf if math.isnan(self.loss) else self.loss
        if measure == "loss":
            return (-loss, 0.0)
        value = getattr(self, measure)
        if value is None:
            raise ValueError(f"select_by {measure} needs translations: set validation_sentences")
        return (value, -loss if measure == "exact_match" else 0.0)


@dataclass
class Selection:
    """The state of one run's choices.

    ``best`` (with their ranks by ``measure``) and ``last`` are updates whose weights are kept, best and newest first.
    """

    best: list[tuple[tuple[float, float], int]] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    without_improvement: int = 0
    since_reduction: int = 0
    reductions: int = 0
    measure: str = ""  # "" until the first, and of an older Heed

    def record(self, config: TrainingConfig, update: int, found: Validation) -> bool:
        """Take one validation; True when it is the best so far: of those by this measure, which may be a new one."""
        if self.measure not in ("", config.select_by):
            self.best, self.without_improvement, self.since_reduction = [], 0, 0
        self.measure = config.select_by
        rank = found.rank(config.select_by)
        improved = not self.best or rank > self.best[0][0]
        kept = [entry for entry in self.best if entry[1] != update]
        # Of equals the older comes first: sorted keeps their order, and the new one is behind.
        self.best = sorted([*kept, (rank, update)], key=lambda entry: entry[0], reverse=True)[: config.keep_best]
        self.last = [update, *(other for other in self.last if other != update)][: config.keep_last]
        self.without_improvement = 0 if improved else self.without_improvement + 1
        self.since_reduction = 0 if improved else self.since_reduction + 1
        if config.schedule == "plateau" and self.since_reduction >= config.plateau_patience:
            self.reductions, self.since_reduction = self.reductions + 1, 0
        return improved

    def should_stop(self, config: TrainingConfig) -> bool:
        """``patience`` validations in a row were no better; patience 0 never stops."""
        return 0 < config.patience <= self.without_improvement

    @property
    def kept(self) -> set[int]:
        """The updates whose weights are still wanted."""
        return {update for _, update in self.best} | set(self.last)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "best": [(list(rank), update) for rank, update in self.best]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Selection:
        best = [((float(rank[0]), float(rank[1])), int(update)) for rank, update in values["best"]]
        return cls(**{**values, "best": best, "last": list(values["last"])})

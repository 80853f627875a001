"""Learning rates by update: a linear warm-up to the peak, then one of four ways on. Pure functions.

warm-up        peak (u + 1) / W                      for u < W; u counts from 0, W is warmup_updates
constant       peak
cosine         peak (1 + cos(pi (u - W) / (U - W))) / 2          down to 0 at the last of U updates
inverse_sqrt   peak sqrt(W / (u + 1))                Vaswani et al. 2017, section 5.3, by its peak; W at least 1
plateau        peak factor^n                         n: how often `patience` validations in a row were no better
"""

from __future__ import annotations

import math

from training.config import TrainingConfig


def learning_rate(config: TrainingConfig, update: int, reductions: int = 0) -> float:
    """The rate of one update, counted from 0; ``reductions`` is n of the plateau."""
    peak, warmup = config.learning_rate, config.warmup_updates
    if update < warmup:
        return peak * (update + 1) / warmup
    if config.schedule == "cosine":
        progress = (update - warmup) / max(1, config.updates - warmup)
        return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    if config.schedule == "inverse_sqrt":
        return peak * math.sqrt(max(1, warmup) / (update + 1))
    if config.schedule == "plateau":
        return peak * config.plateau_factor**reductions
    return peak

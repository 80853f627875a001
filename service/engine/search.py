"""Choosing the next token of every row from its logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.engine.sentence import Floats


def choose_greedily(logits: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The likeliest token of each row and its log-probability: (rows, vocabulary) -> (rows,) int64, (rows,) float32.

    The log-softmax is taken at the chosen token only: log p = -log sum exp(logit - greatest logit).
    """
    greatest = logits.max(axis=-1, keepdims=True)
    return logits.argmax(axis=-1), -np.log(np.exp(logits - greatest).sum(axis=-1))

"""Choosing the next token of every row from its logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.bundle.tokenizer import BOS_ID, PAD_ID, UNK_ID
from service.engine.sentence import Floats

#: Tokens that no translation holds, however likely the model finds them.
NEVER_CHOSEN = [PAD_ID, BOS_ID, UNK_ID]


#: Places of a one-shot model that hold nothing are padding.
NEVER_CHOSEN_IN_ONE_PASS = [BOS_ID, UNK_ID]


def choose_in_one_pass(logits: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The likeliest token of every place and its log-probability: (length, vocabulary) -> both (length,)."""
    return _choose(logits, NEVER_CHOSEN_IN_ONE_PASS)


def choose_greedily(logits: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The likeliest token of each row and its log-probability: (rows, vocabulary) -> (rows,) int64, (rows,) float32.

    The log-softmax is over the whole vocabulary, so that it equals that of forced decoding; it is taken at the chosen
    token only. Padding, `<s>` and `<unk>` are never chosen.
    """
    return _choose(logits, NEVER_CHOSEN)


def _choose(logits: Floats, never: list[int]) -> tuple[npt.NDArray[np.int64], Floats]:
    kept = logits[:, never]
    logits[:, never] = -np.inf
    tokens = logits.argmax(axis=-1)
    logits[:, never] = kept
    greatest = logits.max(axis=-1, keepdims=True)
    totals = np.log(np.exp(logits - greatest).sum(axis=-1))
    return tokens, logits[np.arange(len(tokens)), tokens] - greatest[:, 0] - totals

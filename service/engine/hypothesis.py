"""One translation as the engine gives it: token ids, their log-probabilities, what was looked at, why it ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class FinishReason(enum.Enum):
    """Why a hypothesis ended."""

    END_OF_SENTENCE = "end_of_sentence"
    LENGTH = "length"


@dataclass(frozen=True)
class Hypothesis:
    """One translation.

    ``target_ids`` end in `</s>` unless the length limit came first; those of a one-shot model are all of its places,
    `<pad>` and `</s>` wherever it put them. ``log_probabilities`` (target_length,) float32 in nats; ``attention`` by
    map name (target_length, heads, source_length) float32, both in the map's units, empty when it was not asked for;
    over the context (target_length, heads, tokens of its sentences one after another) or (…, sentences). ``score``
    ranks it among the others (``service.engine.search``).
    """

    target_ids: tuple[int, ...]
    log_probabilities: Floats
    attention: dict[str, Floats]
    finish_reason: FinishReason
    score: float = 0.0

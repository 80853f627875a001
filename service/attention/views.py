"""Views of attention: matrices of words, links. Pure functions of weights and units.

Weights are (target_length, source_length) float32, one head of one map, `</s>` included on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.attention.types import Floats
from service.attention.words import Word
from service.bundle.manifest import AlignmentEntry


@dataclass(frozen=True)
class Link:
    """A target word and the source word it looked at most; ``weight`` is that word's share."""

    source_word: int
    target_word: int
    weight: float


def aligned(weights: Floats, alignment: AlignmentEntry) -> Floats:
    """The alignment of a hypothesis: (target_length, heads, source_length) -> (target_length, source_length).

    The mean of the alignment's heads. Weights read when a token is input (shift 1) are moved to the step that output
    it; the last row then stands twice.
    """
    chosen: Floats = weights[:, list(alignment.heads)].mean(axis=1, dtype=np.float32)
    return chosen if alignment.shift == 0 else np.concatenate([chosen[1:], chosen[-1:]])


def word_matrix(weights: Floats, target_words: Sequence[Word], source_words: Sequence[Word]) -> Floats:
    """Source columns summed, target rows averaged, so that a row that summed to one still does.

    (target_length, source_length) -> (target_words, source_words). The words' tokens cover both axes, in order.
    """
    if not target_words or not source_words:
        return np.zeros((len(target_words), len(source_words)), dtype=np.float32)
    columns = np.add.reduceat(weights, [word.begin_token for word in source_words], axis=1)
    sums = np.add.reduceat(columns, [word.begin_token for word in target_words], axis=0)
    sizes = np.array([word.end_token - word.begin_token for word in target_words], dtype=np.float32)
    matrix: Floats = (sums / sizes[:, None]).astype(np.float32)
    return matrix


def links(matrix: Floats, target_words: Sequence[Word], source_words: Sequence[Word]) -> tuple[Link, ...]:
    """For each target word the source word of greatest weight; none where that is `</s>`, and none for `</s>`."""
    found = []
    for target, (word, row) in enumerate(zip(target_words, matrix, strict=True)):
        source = int(row.argmax())
        if not word.special and not source_words[source].special:
            found.append(Link(source, target, float(row[source])))
    return tuple(found)

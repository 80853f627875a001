"""Numbers that sum up one attention map. Pure functions; formulas and sources beside each.

`</s>` (and the padding of a model of fixed length) is taken out of both sides and rows are brought back to a sum of
one; how much was taken out is reported.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.attention.types import Floats
from service.attention.views import Link, word_matrix
from service.attention.words import Word
from service.bundle.tokenizer import PAD_ID, Token


@dataclass(frozen=True)
class Measures:
    """``normalized_entropy`` (target tokens without `</s>`,), ``coverage`` (source words without `</s>`,)."""

    mean_token_log_probability: float
    normalized_entropy: Floats
    coverage: Floats
    coverage_deviation_penalty: float
    absentmindedness_out: float
    absentmindedness_in: float
    end_of_sentence_mass: float
    punctuation_mass: float
    unaligned_source_ratio: float

    @property
    def attention_focus(self) -> float:
        """Rikters and Fishel 2017, "Confidence through Attention" (https://arxiv.org/abs/1710.03743): their sum."""
        return self.coverage_deviation_penalty + self.absentmindedness_out + self.absentmindedness_in


def measure(
    weights: Floats,
    log_probabilities: Floats,
    source: tuple[Sequence[Token], Sequence[Word]],
    target: tuple[Sequence[Token], Sequence[Word]],
    links: Sequence[Link],
) -> Measures:
    """Measure one head of one map: weights (target_length, source_length), `</s>` included on both sides."""
    (source_tokens, source_words), (target_tokens, target_words) = source, target
    rows = np.array([not token.special for token in target_tokens], dtype=bool)
    columns = np.array([not token.special for token in source_tokens], dtype=bool)
    judged = weights[rows]
    plain = _normalized(np.where(columns, weights, np.float32(0)))
    inner = plain[rows][:, columns]
    by_words = word_matrix(plain, target_words, source_words)
    rows_of_words, columns_of_words = (
        np.array([not word.special for word in words], dtype=bool) for words in (target_words, source_words)
    )
    punctuation = np.array(
        [_is_punctuation(word.text) for word in source_words for _ in range(word.begin_token, word.end_token)],
        dtype=bool,
    )
    aligned = {link.source_word for link in links}
    return Measures(
        mean_token_log_probability=_mean(log_probabilities[[token.id != PAD_ID for token in target_tokens]]),
        normalized_entropy=_normalized_entropy(inner),
        coverage=by_words[rows_of_words][:, columns_of_words].sum(axis=0),
        coverage_deviation_penalty=_coverage_deviation_penalty(inner),
        absentmindedness_out=-_mean(_entropy(inner)),
        absentmindedness_in=-_mean(_entropy(_normalized(inner.T))),
        end_of_sentence_mass=_mean(judged[:, ~columns].sum(axis=1)),
        punctuation_mass=_mean(judged[:, punctuation].sum(axis=1)),
        unaligned_source_ratio=1.0 - len(aligned) / max(1, int(columns_of_words.sum())),
    )


def _normalized(weights: Floats) -> Floats:
    """Rows brought to a sum of one; a row of zeros stays one."""
    sums = weights.sum(axis=1, keepdims=True)
    normalized: Floats = np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
    return normalized


def _entropy(weights: Floats) -> Floats:
    """-sum p log p of each row, in nats; 0 log 0 is 0."""
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return np.asarray(-(weights * logs).sum(axis=1), dtype=np.float32)


def _normalized_entropy(weights: Floats) -> Floats:
    """Entropy over the greatest possible, log of the source length; 0 for a single source token."""
    width = weights.shape[1]
    entropy = _entropy(weights)
    # A single token has the entropy 0, whatever it is divided by.
    return np.asarray(entropy / np.log(max(2, width)), dtype=np.float32)


def _coverage_deviation_penalty(weights: Floats) -> float:
    """-1/J sum_j log(1 + (1 - sum_i alpha_ij)^2): Rikters and Fishel 2017, equation 2."""
    coverage = weights.sum(axis=0)
    return -_mean(np.log1p((1.0 - coverage) ** 2))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0


def _is_punctuation(text: str) -> bool:
    return bool(text) and all(unicodedata.category(character)[0] == "P" for character in text)

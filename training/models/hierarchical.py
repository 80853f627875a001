"""Hierarchical attention: to the words of each sentence before this one, then to those sentences.

Miculicich, Ram, Pappas, Henderson 2018, "Document-Level Neural Machine Translation with Hierarchical Attention
Networks" (https://arxiv.org/abs/1809.01576), section 3, after Yang et al. 2016 for the classification of documents. Of
a decoder state q, the words h_i^j of the j-th sentence and the context c that attention to the sentence itself gives:

    beta_j = softmax_i score_word(q, h_i^j)          s^j = sum_i beta_ji h_i^j
    gamma  = softmax_j score_sentence(q, s^j)        d = W_d sum_j gamma_j s^j
    lambda = sigmoid(W_g [c; d])                     c' = lambda c + (1 - lambda) d

The paper's networks have several heads and a feed-forward layer, and mix into the encoder's or decoder's hidden
states; here one head of any score function mixes into the attention's context, so that each token has one weight. Where
there is no sentence before, c' is c.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.models.attention import ScoreFunction

_FAR_BELOW = -1e9


class Remembered(NamedTuple):
    """``context`` (batch, hypotheses, annotation_size), mixed; ``words`` gamma_j beta_ji (batch, hypotheses, sentences,
    context_length), ``sentences`` gamma (batch, hypotheses, sentences): both sum to one, or are 0 without context."""

    context: Tensor
    words: Tensor
    sentences: Tensor


class HierarchicalAttention(nn.Module):
    """See the module's text. ``values`` are annotations of the words, (batch, sentences, context_length, size)."""

    def __init__(self, word_score: ScoreFunction, sentence_score: ScoreFunction, annotation_size: int) -> None:
        super().__init__()
        self.word_score = word_score
        self.sentence_score = sentence_score
        self.summary = nn.Linear(annotation_size, annotation_size)
        self.gate = nn.Linear(2 * annotation_size, annotation_size)

    def keys(self, values: Tensor) -> Tensor:
        """What the words' score needs, computed once: (batch, sentences, context_length, any size)."""
        batch, sentences, length, _ = values.shape
        return self.word_score.keys(values.flatten(0, 1)).reshape(batch, sentences, length, -1)

    def forward(self, queries: Tensor, context: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Remembered:
        """queries (batch, hypotheses, query_size), context (batch, hypotheses, annotation_size), lengths (batch,
        sentences), 0 for a sentence that is not there."""
        batch, hypotheses, size = queries.shape
        _, sentences, length, annotation = values.shape

        of_sentences = queries.unsqueeze(1).expand(-1, sentences, -1, -1).reshape(-1, hypotheses, size)
        scores = self.word_score(of_sentences, keys.flatten(0, 1)).reshape(batch, sentences, hypotheses, length)
        real = torch.arange(length, device=lengths.device) < lengths.unsqueeze(-1)  # (batch, sentences, length)
        beta = _softmax_of_present(scores, real.unsqueeze(2))
        summaries = torch.matmul(beta, values).transpose(1, 2)  # (batch, hypotheses, sentences, annotation)

        keys_of_summaries = self.sentence_score.keys(summaries.reshape(-1, sentences, annotation))
        scores = self.sentence_score(queries.reshape(-1, 1, size), keys_of_summaries)
        there = (lengths > 0).unsqueeze(1)  # (batch, 1, sentences)
        gamma = _softmax_of_present(scores.reshape(batch, hypotheses, sentences), there)

        read = self.summary(torch.matmul(gamma.unsqueeze(2), summaries).squeeze(2))
        share = torch.sigmoid(self.gate(torch.cat([context, read], dim=-1)))
        mixed = share * context + (1.0 - share) * read
        any_there = there.any(-1, keepdim=True)
        return Remembered(torch.where(any_there, mixed, context), gamma.unsqueeze(-1) * beta.transpose(1, 2), gamma)


def _softmax_of_present(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the last axis where ``present``, 0 elsewhere; a row of which nothing is present is 0 all over."""
    weights = torch.softmax(scores.masked_fill(~present, _FAR_BELOW), dim=-1)
    return weights * present.to(weights.dtype)

"""Score functions: how well each source annotation answers a decoder state.

Each is a module with two methods, because keys are computed once for a sentence and queries at every step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Attended(NamedTuple):
    """``context`` (batch, hypotheses, values_size); ``weights`` (batch, hypotheses, source_length), rows sum to one."""

    context: Tensor
    weights: Tensor


class AdditiveAttention(nn.Module):
    """score(s, h) = v' tanh(W_s s + W_h h + b); weights are its softmax over the source.

    Bahdanau, Cho, Bengio 2014, "Neural Machine Translation by Jointly Learning to Align and Translate", equation (6)
    and appendix A.1.2 (https://arxiv.org/abs/1409.0473).
    """

    def __init__(self, query_size: int, annotation_size: int, attention_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, attention_size, bias=False)
        self.key = nn.Linear(annotation_size, attention_size)
        self.score = nn.Linear(attention_size, 1, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        """W_h h + b for every annotation: (batch, source_length, annotation_size) -> (…, attention_size)."""
        projected: Tensor = self.key(annotations)
        return projected

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Attended:
        """Attend from every query to the real tokens.

        queries (batch, hypotheses, query_size), keys (batch, source_length, attention_size), values (batch,
        source_length, values_size), mask (batch, source_length), True for real tokens. A masked position has the
        weight 0, exactly.
        """
        hidden = torch.tanh(self.query(queries).unsqueeze(2) + keys.unsqueeze(1))
        scores = self.score(hidden).squeeze(-1)
        weights = masked_softmax(scores, mask.unsqueeze(1))
        return Attended(torch.matmul(weights, values), weights)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where ``mask`` is True, exactly 0 elsewhere; each row needs one True."""
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """True for real tokens: lengths (batch,) -> (batch, longest)."""
    return torch.arange(longest, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)

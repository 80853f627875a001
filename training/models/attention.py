"""Attention: score functions, and what is made of scores.

A score function says how well each source annotation answers a decoder state. A mechanism makes weights of scores, and
a context of weights. Both are modules with two halves, because keys are computed once for a sentence and queries at
every step: ``keys`` before, ``forward`` at each step.

Shapes: queries (batch, hypotheses, query_size), annotations (batch, source_length, annotation_size), scores (batch,
hypotheses, source_length), weights (batch, hypotheses, heads, source_length). A masked position has the weight 0,
exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.errors import ConfigError


class Attended(NamedTuple):
    """``context`` (batch, hypotheses, annotation_size); ``weights`` (batch, hypotheses, heads, source_length)."""

    context: Tensor
    weights: Tensor


# --- score functions -------------------------------------------------------------------------------------------------


class ScoreFunction(nn.Module, ABC):
    """score(s, h) of every query s and annotation h."""

    def keys(self, annotations: Tensor) -> Tensor:
        """What the score needs of every annotation, computed once: (batch, source_length, any size)."""
        return annotations

    @abstractmethod
    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(batch, hypotheses, query_size), ``keys(annotations)`` -> (batch, hypotheses, source_length)."""


class AdditiveScore(ScoreFunction):
    """score(s, h) = v' tanh(W_s s + W_h h + b).

    Bahdanau, Cho, Bengio 2014, "Neural Machine Translation by Jointly Learning to Align and Translate", equation (6)
    and appendix A.1.2 (https://arxiv.org/abs/1409.0473). The alignment layer as a single linear neuron, score = w_s s +
    w_h h, is of this family without its tanh: there the decoder's term is the same for every h and cancels in the
    softmax, so the weights could not depend on the decoder at all.
    """

    def __init__(self, query_size: int, annotation_size: int, attention_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, attention_size, bias=False)
        self.key = nn.Linear(annotation_size, attention_size)
        self.score = nn.Linear(attention_size, 1, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        """W_h h + b."""
        projected: Tensor = self.key(annotations)
        return projected

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        hidden = torch.tanh(self.query(queries).unsqueeze(2) + keys.unsqueeze(1))
        scores: Tensor = self.score(hidden).squeeze(-1)
        return scores


class ConcatScore(ScoreFunction):
    """score(s, h) = v' tanh(W [s; h]).

    Luong, Pham, Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.1
    (https://arxiv.org/abs/1508.04025). W [s; h] is computed as its two halves, W_s s + W_h h: the additive score
    without its bias.
    """

    def __init__(self, query_size: int, annotation_size: int, attention_size: int) -> None:
        super().__init__()
        self.query_size = query_size
        self.both = nn.Linear(query_size + annotation_size, attention_size, bias=False)
        self.score = nn.Linear(attention_size, 1, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        return nn.functional.linear(annotations, self.both.weight[:, self.query_size :])

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        queries = nn.functional.linear(queries, self.both.weight[:, : self.query_size])
        scores: Tensor = self.score(torch.tanh(queries.unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)
        return scores


class DotScore(ScoreFunction):
    """score(s, h) = s' h (Luong et al. 2015, section 3.1), or s' h / sqrt(d) where ``scaled``.

    Scaled: Vaswani et al. 2017, "Attention Is All You Need", equation (1) (https://arxiv.org/abs/1706.03762). States
    and annotations need one size.
    """

    def __init__(self, query_size: int, annotation_size: int, scaled: bool) -> None:
        super().__init__()
        _check_same_size("scaled_dot" if scaled else "dot", query_size, annotation_size)
        self.scale = query_size**-0.5 if scaled else 1.0

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        return torch.matmul(queries, keys.transpose(1, 2)) * self.scale


class GeneralScore(ScoreFunction):
    """score(s, h) = s' W h, also called bilinear or multiplicative (Luong et al. 2015, section 3.1)."""

    def __init__(self, query_size: int, annotation_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(annotation_size, query_size, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        """W h."""
        projected: Tensor = self.key(annotations)
        return projected

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        return torch.matmul(queries, keys.transpose(1, 2))


_BEYOND = -1e9


class LocationScore(ScoreFunction):
    """score(s, h_j) = (W s)_j: where to look follows from the state alone (Luong et al. 2015, section 3.1).

    W has a row for each of ``positions`` places; a token beyond them is looked at only where there is no other. So by
    nature it says nothing of lengths that it was not trained on.
    """

    def __init__(self, query_size: int, positions: int) -> None:
        super().__init__()
        self.place = nn.Linear(query_size, positions, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        """Which rows of W a sentence has: one-hot (batch, source_length, positions), zeros beyond them."""
        places = torch.arange(annotations.shape[1], device=annotations.device)
        rows = places.unsqueeze(1) == torch.arange(self.place.out_features, device=annotations.device)
        return rows.to(annotations.dtype).unsqueeze(0).expand(annotations.shape[0], -1, -1)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        beyond = keys.sum(-1) == 0
        scores = torch.matmul(self.place(queries), keys.transpose(1, 2))
        # Finite: where a mechanism's window lies wholly beyond the rows of W, -inf everywhere would be no number.
        return scores.masked_fill(beyond.unsqueeze(1), _BEYOND)


class CosineScore(ScoreFunction):
    """score(s, h) = beta cos(s, h), beta > 0 learned: content addressing.

    Graves, Wayne, Danihelka 2014, "Neural Turing Machines", equations (5) and (6) (https://arxiv.org/abs/1410.5401).
    """

    _SMALLEST_NORM = 1e-6

    def __init__(self, query_size: int, annotation_size: int) -> None:
        super().__init__()
        _check_same_size("cosine", query_size, annotation_size)
        self.sharpness = nn.Parameter(torch.tensor(5.0))  # beta = softplus(sharpness)

    def keys(self, annotations: Tensor) -> Tensor:
        """h / |h|."""
        unit: Tensor = annotations / annotations.norm(dim=-1, keepdim=True).clamp_min(self._SMALLEST_NORM)
        return unit

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        beta = nn.functional.softplus(self.sharpness)
        scores: Tensor = beta * torch.matmul(self.keys(queries), keys.transpose(1, 2))
        return scores


class KernelScore(ScoreFunction):
    """Weights of a Gaussian kernel, exp(-|s - h|^2 / 2 sigma^2) over their sum: Nadaraya and Watson 1964.

    The scores are the exponents, so that the softmax of the mechanism is that quotient. ``sigma`` is learned; its
    square starts at the square root of the size, as a scaled dot product has it.
    """

    def __init__(self, query_size: int, annotation_size: int) -> None:
        super().__init__()
        _check_same_size("kernel", query_size, annotation_size)
        self.log_sigma = nn.Parameter(torch.tensor(0.25 * math.log(query_size)))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        # |s - h|^2 in full would be (batch, hypotheses, source_length, size): the three products are the same.
        distances = (
            queries.square().sum(-1, keepdim=True)
            - 2.0 * torch.matmul(queries, keys.transpose(1, 2))
            + keys.square().sum(-1).unsqueeze(1)
        )
        return -0.5 * torch.exp(-2.0 * self.log_sigma) * distances


def _check_same_size(name: str, query_size: int, annotation_size: int) -> None:
    if query_size != annotation_size:
        raise ConfigError(
            f"model.attention or model.score: {name} compares states of decoder_size {query_size} with annotations of "
            f"{annotation_size} (twice encoder_size where bidirectional, and embedding_size): make them equal"
        )


# --- mechanisms ------------------------------------------------------------------------------------------------------


class Attention(nn.Module, ABC):
    """What is made of scores. ``heads`` maps come out; rows sum to one where ``rows_sum_to_one``."""

    heads = 1
    rows_sum_to_one = True

    def keys(self, annotations: Tensor) -> Tensor:
        """What is computed once for a sentence: (batch, source_length, any size)."""
        return annotations

    def carried(self, annotations: Tensor) -> dict[str, Tensor]:
        """What a hypothesis carries from step to step for the attention's sake, at its start: one row a sentence."""
        del annotations
        return {}

    @abstractmethod
    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        positions: Tensor,
        carried: dict[str, Tensor],
    ) -> tuple[Attended, dict[str, Tensor]]:
        """Attend from every query to the real tokens.

        queries (batch, hypotheses, query_size), ``keys(annotations)``, values (batch, source_length, annotation_size),
        mask (batch, source_length), True for real tokens, positions (batch,), how many target tokens came before,
        carried (batch, hypotheses, …). Returns what was attended and what is carried on.
        """


def _attended(weights: Tensor, values: Tensor) -> Attended:
    """One head's weights (batch, hypotheses, source_length), and the values' mean by them."""
    return Attended(torch.matmul(weights, values), weights.unsqueeze(2))


class GlobalAttention(Attention):
    """Soft and global: alpha = softmax_j score(s, h_j) over every real token, c = sum_j alpha_j h_j.

    Bahdanau et al. 2014, equations (5) and (6); Luong et al. 2015, section 3.1.
    """

    def __init__(self, score_function: ScoreFunction) -> None:
        super().__init__()
        self.score_function = score_function

    def keys(self, annotations: Tensor) -> Tensor:
        return self.score_function.keys(annotations)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        positions: Tensor,
        carried: dict[str, Tensor],
    ) -> tuple[Attended, dict[str, Tensor]]:
        scores = self.score_function(queries, keys)
        return _attended(self.weights(scores, queries, mask.unsqueeze(1), positions), values), carried

    def weights(self, scores: Tensor, queries: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """scores (batch, hypotheses, source_length), mask (batch, 1, source_length) -> weights as scores."""
        del queries, positions
        return masked_softmax(scores, mask)


class HardAttention(GlobalAttention):
    """One token alone: the weight is 1 at the greatest score and 0 elsewhere.

    Xu et al. 2015, "Show, Attend and Tell", section 4.1 (https://arxiv.org/abs/1502.03044), trained by the
    straight-through estimator of Bengio, Leonard, Courville 2013 (https://arxiv.org/abs/1308.3432): forward the one-hot
    vector, backward as if it had been the softmax.
    """

    def weights(self, scores: Tensor, queries: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        soft = super().weights(scores, queries, mask, positions)
        places = torch.arange(scores.shape[-1], device=scores.device)
        hard = (places == soft.argmax(-1, keepdim=True)).to(soft.dtype)
        return hard + soft - soft.detach() if self.training else hard


class LocalMonotonicAttention(GlobalAttention):
    """local-m: softmax within the window [t - D, t + D] of the source (Luong et al. 2015, section 3.2).

    Beyond the source's end the window stays at its last token. Made for orders that are alike on both sides; a reversal
    is against its nature.
    """

    def __init__(self, score_function: ScoreFunction, window: int) -> None:
        super().__init__(score_function)
        self.window = window

    def weights(self, scores: Tensor, queries: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        del queries
        places = torch.arange(scores.shape[-1], device=scores.device)
        last = mask.sum(-1) - 1  # (batch, 1)
        centre = torch.minimum(positions.unsqueeze(1), last).unsqueeze(-1)
        return masked_softmax(scores, mask & ((places - centre).abs() <= self.window))


class LocalPredictiveAttention(GlobalAttention):
    """local-p: the window's centre is predicted, p_t = S sigmoid(v' tanh(W s)) (Luong et al. 2015, section 3.2).

    alpha_j = softmax within [p_t - D, p_t + D] times exp(-(j - p_t)^2 / 2 sigma^2), sigma = D / 2. The Gaussian is a
    factor, so rows sum to less than one. p_t lies in 0..S-1 here, where every place is a token.
    """

    rows_sum_to_one = False

    def __init__(self, score_function: ScoreFunction, query_size: int, window: int) -> None:
        super().__init__(score_function)
        self.window = window
        self.hidden = nn.Linear(query_size, query_size, bias=False)
        self.centre = nn.Linear(query_size, 1, bias=False)

    def weights(self, scores: Tensor, queries: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        del positions
        places = torch.arange(scores.shape[-1], device=scores.device)
        last = (mask.sum(-1, keepdim=True) - 1).to(scores.dtype)  # (batch, 1, 1)
        centre = last * torch.sigmoid(self.centre(torch.tanh(self.hidden(queries))))  # (batch, hypotheses, 1)
        distance = places - centre
        # A window of 1 or more has a token: the nearest is never further than a half.
        near = mask & (distance.abs() <= self.window)
        gaussian = torch.exp(-(distance**2) / (2.0 * (self.window / 2.0) ** 2))
        return masked_softmax(scores, near) * gaussian


class MultiHeadAttention(Attention):
    """Scaled dot products of several projections (Vaswani et al. 2017, section 3.2.2).

    head_i = softmax(s W_Q,i (h W_K,i)' / sqrt(d_head)) h W_V,i; the context is their concatenation times W_O.
    """

    def __init__(self, query_size: int, annotation_size: int, attention_size: int, heads: int) -> None:
        super().__init__()
        if attention_size % heads:
            raise ConfigError(f"model.attention_size {attention_size} is not a multiple of attention_heads {heads}")
        self.heads = heads
        self.query = nn.Linear(query_size, attention_size, bias=False)
        self.key = nn.Linear(annotation_size, attention_size, bias=False)
        self.value = nn.Linear(annotation_size, attention_size, bias=False)
        self.output = nn.Linear(attention_size, annotation_size, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        """h W_K and h W_V side by side."""
        return torch.cat([self.key(annotations), self.value(annotations)], dim=-1)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        positions: Tensor,
        carried: dict[str, Tensor],
    ) -> tuple[Attended, dict[str, Tensor]]:
        del values, positions  # it projects values of its own
        projected_keys, projected_values = (self._heads(half) for half in keys.chunk(2, dim=-1))
        projected = self._heads(self.query(queries))  # (batch, heads, hypotheses, d_head)
        scores = torch.matmul(projected, projected_keys.transpose(-1, -2)) * projected.shape[-1] ** -0.5
        weights = masked_softmax(scores, mask[:, None, None])
        heads = torch.matmul(weights, projected_values).transpose(1, 2).flatten(2)
        return Attended(self.output(heads), weights.transpose(1, 2)), carried

    def _heads(self, tensor: Tensor) -> Tensor:
        batch, length, size = tensor.shape
        return tensor.reshape(batch, length, self.heads, size // self.heads).transpose(1, 2)


class AttentionOverAttention(GlobalAttention):
    """Attention over the attention of all steps so far.

    Cui et al. 2017, "Attention-over-Attention Neural Networks", section 3 (https://arxiv.org/abs/1607.04423): of one
    score matrix M of target places by source places, alpha_tau = softmax over the source of each row, beta_j = softmax
    over the target of each column, and weights = sum_tau mean_j(beta_j)_tau alpha_tau. The rows are those of the steps
    so far, tau <= t, so that it stays causal; a hypothesis carries them, up to ``positions``.
    """

    def __init__(self, score_function: ScoreFunction, positions: int) -> None:
        super().__init__(score_function)
        self.positions = positions

    def carried(self, annotations: Tensor) -> dict[str, Tensor]:
        """``scores`` (batch, positions, source_length)."""
        batch, length, _ = annotations.shape
        return {"scores": annotations.new_zeros(1, 1, 1).expand(batch, self.positions, length)}

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        positions: Tensor,
        carried: dict[str, Tensor],
    ) -> tuple[Attended, dict[str, Tensor]]:
        real = mask[:, None, None]
        scores = self.score_function(queries, keys).masked_fill(~mask.unsqueeze(1), 0.0)
        steps = torch.arange(self.positions, device=scores.device)
        now = (steps == positions.unsqueeze(1))[:, None, :, None]  # (batch, 1, positions, 1)
        table = torch.where(now, scores.unsqueeze(2), carried["scores"])  # (batch, hypotheses, positions, source)
        past = (steps <= positions.unsqueeze(1))[:, None, :, None]
        alphas = masked_softmax(table, real)
        betas = torch.softmax(table.masked_fill(~past, float("-inf")), dim=2).masked_fill(~real, 0.0)
        of_steps = betas.sum(-1, keepdim=True) / mask.sum(-1)[:, None, None, None]
        weights = (of_steps * alphas).sum(2)
        return _attended(weights, values), {"scores": table}


class AveragePooling(Attention):
    """The mean of all annotations, without parameters: every real token has the same weight."""

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        positions: Tensor,
        carried: dict[str, Tensor],
    ) -> tuple[Attended, dict[str, Tensor]]:
        del keys, positions
        real = mask.to(values.dtype)
        weights = (real / real.sum(-1, keepdim=True)).unsqueeze(1).expand(-1, queries.shape[1], -1)
        return _attended(weights, values), carried


class MaxPooling(Attention):
    """The greatest value of each channel, without parameters. A token's weight is the share of channels it gave."""

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        positions: Tensor,
        carried: dict[str, Tensor],
    ) -> tuple[Attended, dict[str, Tensor]]:
        del keys, positions
        greatest, tokens = values.masked_fill(~mask.unsqueeze(-1), float("-inf")).max(dim=1)
        places = torch.arange(values.shape[1], device=values.device)
        weights = (tokens.unsqueeze(1) == places.unsqueeze(1)).to(values.dtype).mean(-1)  # (batch, source_length)
        hypotheses = queries.shape[1]
        context = greatest.unsqueeze(1).expand(-1, hypotheses, -1)
        return Attended(context, weights[:, None, None].expand(-1, hypotheses, -1, -1)), carried


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where ``mask`` is True, exactly 0 elsewhere; each row needs one True."""
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """True for real tokens: lengths (batch,) -> (batch, longest)."""
    return torch.arange(longest, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)

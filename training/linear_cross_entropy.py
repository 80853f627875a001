"""Cross-entropy of a linear layer's logits, a block of positions at a time, with its gradient.

A batch's logits are the largest tensor of a translation model's training: 4,000 positions of 8,000 words are 128 MB,
and their gradient as much again. Here a block of them is made, judged and turned into gradients while it is in the
cache; what is kept are the gradients of the layer's input and weights. The formula is that of
``torch.nn.functional.cross_entropy``; the idea is that of Hsu et al. 2024, "Liger Kernel",
https://arxiv.org/abs/2410.10989, section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.models.precision import computing_dtype

_BLOCK = {"cpu": 2**22, "cuda": 2**27}  # logits at a time: what a cache holds; what keeps a GPU busy


def linear_cross_entropy(features: Tensor, layer: nn.Linear, targets: Tensor, smoothing: float) -> Tensor:
    """Summed over positions, in float32: features (positions, size), targets (positions,) of the layer's outputs.

    Matrix products are in autocast's dtype where it is on. It can be differentiated once.
    """
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        features, layer.weight, layer.bias, targets, smoothing, computing_dtype(features)
    )
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        dtype: torch.dtype,
    ) -> Tensor:
        vocabulary, count = len(weight), len(features)
        rows = max(1, min(count, _BLOCK[features.device.type] // vocabulary))
        matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
        of_features = torch.empty_like(features)
        of_weight = torch.zeros_like(weight, dtype=torch.float32)
        of_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            # Smoothing asks for the sum of all logits, and takes an equal share from each of their gradients: both
            # are sums of the layer's, and need no pass over the logits.
            share, of_all, seen = smoothing / vocabulary, weight.float().sum(0), features.float().sum(0)
            loss = -share * (seen @ of_all)
            if bias is not None:
                loss -= share * count * bias.float().sum()
            # Every block has as many rows, zeros in the last, and the same memory: the product of another shape, and
            # pages that nobody has written to, cost as much as what they are for (see training/batches.py).
            inputs = nn.functional.pad(features.to(dtype), (0, 0, 0, -count % rows))
            product = torch.empty(rows, vocabulary, dtype=dtype, device=features.device)
            logits = product if dtype == torch.float32 else torch.empty_like(product, dtype=torch.float32)
            of_block, wide = torch.empty_like(matrix), torch.empty_like(of_weight)
            for begin in range(0, count, rows):
                block, wanted = inputs[begin : begin + rows], targets[begin : begin + rows, None]
                real = len(wanted)
                torch.mm(block, matrix.t(), out=product)
                if offset is not None:
                    product += offset
                if logits is not product:  # softmax's own cast from bfloat16 takes six times as long
                    logits.copy_(product)
                greatest, of_wanted = logits[:real].amax(-1), logits[:real].gather(1, wanted).sum()
                slope = torch.softmax(logits, dim=-1, out=logits)
                # log sum exp = the greatest logit - the logarithm of its probability, which is never small
                loss += (greatest - slope[:real].amax(-1).log()).sum() - (1.0 - smoothing) * of_wanted
                slope[:real].scatter_add_(1, wanted, torch.full_like(wanted, smoothing - 1.0, dtype=torch.float32))
                slope[real:] = 0.0
                if of_bias is not None:
                    of_bias += slope.sum(0)
                if slope is not product:
                    product.copy_(slope)
                of_features[begin : begin + rows] = (product @ matrix)[:real]
                torch.mm(product.t(), block, out=of_block)
                of_weight += of_block if dtype == torch.float32 else wide.copy_(of_block)
            if smoothing:
                of_features -= share * of_all
                of_weight -= share * seen
                if of_bias is not None:
                    of_bias -= share * count
        ctx.save_for_backward(of_features, of_weight, of_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if part is None else part * gradient.to(part.dtype) for part in ctx.saved_tensors)
        return (*scaled, None, None, None)

"""Dropout whose masks are cheap on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 2**8  # of a random number of 8 bits


class Dropout(nn.Module):
    """Zeroes each element with probability ``p`` while training and scales the others by 1 / (1 - p).

    PyTorch draws a random number for each element, which is a fifth of a small model's training on a CPU. Here eight
    elements share one of 64 bits, of NumPy's fastest generator, seeded by PyTorch's. Eight bits know multiples of
    1/256: a tensor drops by one of the two next to ``p``, chosen so that each element is dropped with probability
    ``p``, and scales by its own, so that its mean is kept as well as the dtype can. On other devices it is PyTorch's.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, tensor: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return tensor
        if tensor.device.type != "cpu":
            return functional.dropout(tensor, self.p)
        dropped: Tensor = _CpuDropout.apply(tensor, self.p)  # type: ignore[no-untyped-call]
        return dropped

    def extra_repr(self) -> str:
        return f"p={self.p}"


class ReluDropout(Dropout):
    """``Dropout(relu(tensor))``, in place where it can: the two are the widest tensors of a Transformer's training."""

    def forward(self, tensor: Tensor) -> Tensor:
        if not self.training or self.p == 0.0 or tensor.device.type != "cpu":
            return super().forward(torch.relu(tensor))
        dropped: Tensor = _CpuReluDropout.apply(tensor, self.p)  # type: ignore[no-untyped-call]
        return dropped


class _CpuDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, p: float) -> Tensor:
        mask, _ = _mask(tensor, p)
        ctx.save_for_backward(mask)
        return tensor * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None


class _CpuReluDropout(torch.autograd.Function):
    """The result says all that the gradient needs: it is above zero where the input was, and was kept."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, p: float) -> Tensor:
        mask, ctx.scale = _mask(tensor, p)
        dropped = torch.relu(tensor).mul_(mask)
        ctx.save_for_backward(dropped)
        return dropped

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (dropped,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, dropped, 0.0).mul_(ctx.scale), None


def _mask(tensor: Tensor, p: float) -> tuple[Tensor, float]:
    """0 where an element is dropped, what the others are scaled by elsewhere; and that scale, as the dtype has it."""
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**63 - 1, ()))))
    dropped_levels = min(int(p * _LEVELS + generator.random()), _LEVELS - 1)
    count = tensor.numel()
    bits = generator.integers(0, 2**64, (count + 7) // 8, dtype=np.uint64)
    levels = torch.from_numpy(bits.view(np.int8))[:count].view(tensor.shape)
    # Of levels from -128 to 127 the lowest are dropped; cut to the last of these and the next one, 0 and 1 are near.
    last = dropped_levels - _LEVELS // 2 - 1
    kept = levels.clamp_(last, last + 1).sub_(last) if dropped_levels else torch.ones_like(levels)
    scale = torch.tensor(_LEVELS / (_LEVELS - dropped_levels), dtype=tensor.dtype)
    if (
        tensor.dtype.itemsize == 2
    ):  # of 0 and 1 times the scale's bits: a product of such floats takes five times as long
        return kept.to(torch.int16).mul_(scale.view(torch.int16)).view(tensor.dtype), scale.item()
    return kept.to(tensor.dtype).mul_(scale), scale.item()

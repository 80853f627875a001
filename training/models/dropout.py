"""Dropout whose masks are cheap on a CPU, and the dtype that autocast computes in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 2**16  # of a random number of 16 bits


class Dropout(nn.Module):
    """Zeroes each element with probability ``p`` while training and scales the others by 1 / (1 - p).

    PyTorch draws a random number for each element, which is a fifth of a small model's training on a CPU. Here four
    elements share one of 64 bits, so that p is rounded to a multiple of 2^-16, of NumPy's fastest generator, seeded by
    PyTorch's. The mean is kept exactly. On other devices it is PyTorch's own.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, tensor: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return tensor
        if tensor.device.type != "cpu":
            return functional.dropout(tensor, self.p)
        dropped: Tensor = _CpuDropout.apply(tensor, min(round(self.p * _LEVELS), _LEVELS - 1))  # type: ignore[no-untyped-call]
        return dropped

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _CpuDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, dropped_levels: int) -> Tensor:
        count = tensor.numel()
        seed = int(torch.randint(2**63 - 1, ()))
        bits = np.random.Generator(np.random.SFC64(seed)).integers(0, 2**64, (count + 3) // 4, dtype=np.uint64)
        levels = torch.from_numpy(bits.view(np.int16))[:count].view(tensor.shape)
        first_kept = dropped_levels - _LEVELS // 2
        levels.clamp_(first_kept - 1, first_kept).sub_(first_kept - 1)  # 0 or 1: faster than comparing
        scale = torch.tensor(_LEVELS / (_LEVELS - dropped_levels), dtype=tensor.dtype)
        if tensor.dtype.itemsize == levels.dtype.itemsize:  # the bits of 0 or of the scale
            mask = levels.mul_(scale.view(torch.int16)).view(tensor.dtype)
        else:
            mask = levels.to(tensor.dtype).mul_(scale)
        ctx.save_for_backward(mask)
        return tensor * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None


def computing_dtype(tensor: Tensor) -> torch.dtype:
    """Autocast's, where it is on for the tensor's device, or the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype

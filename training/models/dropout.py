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
    PyTorch's. The mean is kept as well as the dtype can. On other devices it is PyTorch's own.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, tensor: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return tensor
        if tensor.device.type != "cpu":
            return functional.dropout(tensor, self.p)
        dropped: Tensor = _CpuDropout.apply(tensor, self._dropped_levels)  # type: ignore[no-untyped-call]
        return dropped

    @property
    def _dropped_levels(self) -> int:
        return min(round(self.p * _LEVELS), _LEVELS - 1)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class ReluDropout(Dropout):
    """``Dropout(relu(tensor))``, in place where it can: the two are the widest tensors of a Transformer's training."""

    def forward(self, tensor: Tensor) -> Tensor:
        if not self.training or self.p == 0.0 or tensor.device.type != "cpu":
            return super().forward(torch.relu(tensor))
        dropped: Tensor = _CpuReluDropout.apply(tensor, self._dropped_levels)  # type: ignore[no-untyped-call]
        return dropped


class _CpuDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, dropped_levels: int) -> Tensor:
        mask = _mask(tensor, dropped_levels)
        ctx.save_for_backward(mask)
        return tensor * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None


class _CpuReluDropout(torch.autograd.Function):
    """The result says all that the gradient needs: it is above zero where the input was, and was kept."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, dropped_levels: int) -> Tensor:
        dropped = torch.relu(tensor).mul_(_mask(tensor, dropped_levels))
        ctx.save_for_backward(dropped)
        ctx.scale = _scale(tensor.dtype, dropped_levels).item()
        return dropped

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (dropped,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, dropped, 0.0).mul_(ctx.scale), None


def _mask(tensor: Tensor, dropped_levels: int) -> Tensor:
    """0 where an element is dropped, what the others are scaled by elsewhere."""
    count = tensor.numel()
    seed = int(torch.randint(2**63 - 1, ()))
    bits = np.random.Generator(np.random.SFC64(seed)).integers(0, 2**64, (count + 3) // 4, dtype=np.uint64)
    levels = torch.from_numpy(bits.view(np.int16))[:count].view(tensor.shape)
    first_kept = dropped_levels - _LEVELS // 2
    levels.clamp_(first_kept - 1, first_kept).sub_(first_kept - 1)  # 0 or 1: faster than comparing
    scale = _scale(tensor.dtype, dropped_levels)
    if tensor.dtype.itemsize == levels.dtype.itemsize:  # the bits of 0 or of the scale
        return levels.mul_(scale.view(torch.int16)).view(tensor.dtype)
    return levels.to(tensor.dtype).mul_(scale)


def _scale(dtype: torch.dtype, dropped_levels: int) -> Tensor:
    return torch.tensor(_LEVELS / (_LEVELS - dropped_levels), dtype=dtype)


def computing_dtype(tensor: Tensor) -> torch.dtype:
    """Autocast's, where it is on for the tensor's device, or the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype

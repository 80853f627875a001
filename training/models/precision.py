"""Which dtype autocast computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def computing_dtype(tensor: Tensor) -> torch.dtype:
    """Autocast's, where it is on for the tensor's device, or the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype

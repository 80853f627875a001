"""Which dtype autocast computes in, and which a processor computes well in."""

from __future__ import annotations

import torch
from torch import Tensor


def computing_dtype(tensor: Tensor) -> torch.dtype:
    """Autocast's, where it is on for the tensor's device, or the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def cpu_computes_bfloat16() -> bool:
    """Has oneDNN a matrix product of bfloat16 for this processor? Where it has none, as with AVX2 alone, torch's own
    takes a hundred times as long as float32, and there is no LSTM at all."""
    # torch.cpu tells the instructions alone: with AVX-512 oneDNN needs none of bfloat16's.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # None: torch was built without oneDNN
    return supported is not None and bool(supported())

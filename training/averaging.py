"""Means of weights: of several checkpoints, and the moving one that follows a training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Weights = dict[str, Tensor]


def average(checkpoints: Iterable[Weights]) -> Weights:
    """The arithmetic mean of each tensor, summed in float64; of whole numbers, such as counters, the first's.

    Vaswani et al. 2017, section 6.1, average the last 5 checkpoints of their base model. Raises ValueError for none, or
    for tensors that do not match.
    """
    sums: Weights = {}
    dtypes: dict[str, torch.dtype] = {}
    shapes: dict[str, torch.Size] = {}
    count = 0
    for weights in checkpoints:
        if count and shapes != {name: tensor.shape for name, tensor in weights.items()}:
            raise ValueError("the checkpoints to average have other tensors")
        shapes = {name: tensor.shape for name, tensor in weights.items()}
        for name, tensor in weights.items():
            if not count:
                dtypes[name] = tensor.dtype
                sums[name] = tensor.to(torch.float64, copy=True) if tensor.is_floating_point() else tensor.clone()
            elif tensor.is_floating_point():
                sums[name] += tensor.double()
        count += 1
    if not count:
        raise ValueError("no checkpoints to average")
    return {
        name: (total / count).to(dtypes[name]) if dtypes[name].is_floating_point else total
        for name, total in sums.items()
    }


def interpolated(weights: Weights, start: Weights, share: float) -> Weights:
    """(1 - share) weights + share start, of each tensor of real numbers; of others those of ``weights``.

    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", equation 1.
    """
    return {
        name: torch.lerp(tensor, start[name].to(tensor), share) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average: after update t, e_t = decay e_{t-1} + (1 - decay) w_t, and e_1 = w_1.

    Buffers, such as those of batch normalisation, are copied.
    """
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

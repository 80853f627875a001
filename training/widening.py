"""The weights of a Transformer as those of one with wider feed-forward networks, which computes the same at first.

What a network of two layers computes is a sum over its inner units, so that more of them change nothing while their
outer weights are zero (Gesmundo and Maile 2023, "Composable Function-preserving Expansions for Transformer
Architectures", https://arxiv.org/abs/2308.06103, section 3.1). Their inner weights begin as any new model's: with zeros
there too the outer ones would never get a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.models.transformer import FeedForward


def widened(stored: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """``stored`` with its feed-forward networks as wide as those of ``model``; what is so already stays as it is.

    ``model`` is new, on any device: where a network is wider, its own inner weights (wide, size) and biases (wide,)
    stay behind those stored, and of its outer weights (size, wide) the columns behind them are zero. The result lies
    where ``stored`` does.
    """
    found = dict(stored)
    for name, network in model.named_modules():
        if not isinstance(network, FeedForward) or f"{name}.inner.weight" not in stored:
            continue
        narrow = len(stored[f"{name}.inner.weight"])
        if (more := len(network.inner.weight) - narrow) <= 0:
            continue
        for part, own in (("weight", network.inner.weight), ("bias", network.inner.bias)):
            there = stored[f"{name}.inner.{part}"]
            found[f"{name}.inner.{part}"] = torch.cat([there, own.detach()[narrow:].to(there)])
        outer = stored[f"{name}.outer.weight"]
        found[f"{name}.outer.weight"] = torch.cat([outer, outer.new_zeros(len(outer), more)], dim=1)
    return found

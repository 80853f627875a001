"""The processes of one training: one alone, or as many as ``torchrun`` has started.

    torchrun --nproc-per-node 2 -m training.cli train CONFIG.yaml

Every process computes its share of each update's batches; sums over all of them are the same everywhere. Knows nothing
of models. The environment that torchrun sets says how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


class Processes:
    """This process among its fellows: ``rank`` of ``count``, on ``device``."""

    def __init__(self, rank: int, count: int, device: torch.device) -> None:
        self.rank, self.count, self.device = rank, count, device

    @property
    def first(self) -> bool:
        """Validates, saves and speaks for all."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Sums over all processes, in float64."""
        if self.count == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed

    def from_first(self, value: T) -> T:
        """What the first process has; the others' ``value`` is not looked at."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Each process's tensor, in order of rank, on every one of them."""
        if self.count == 1:
            return [tensor]
        box: list[Tensor] = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(box, tensor)
        return box

    def share(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over all processes at each backward pass."""
        if self.count == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did; leave them at the end."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()

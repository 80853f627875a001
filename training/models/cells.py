"""Decoder cells: how a state takes in what was read. Gates of the input come summed: its parts are computed apart."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from training.errors import ConfigError
from training.models.interface import Tensors


class Cell(nn.Module, ABC):
    """``gates``: how many vectors of the state's size the input is turned into, 0 for a cell that takes the context."""

    gates: int
    state_names: tuple[str, ...] = ("hidden",)

    def start(self, hidden: Tensor) -> Tensors:
        """The first state, given its hidden part (batch, size)."""
        return {"hidden": hidden}

    @abstractmethod
    def forward(self, inputs: Tensor, state: Tensors) -> Tensors:
        """inputs (…, gates x size), state (…, size) -> the new state."""


class GRUCell(Cell):
    """r, z = sigmoid, n = tanh(x_n + r * (U h + b)), h' = (1 - z) n + z h: PyTorch's form.

    Cho et al. 2014 (https://arxiv.org/abs/1406.1078), but for the reset gate behind the matrix instead of before it.
    """

    gates = 3

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden_gates = nn.Linear(size, 3 * size)

    def forward(self, inputs: Tensor, state: Tensors) -> Tensors:
        hidden = state["hidden"]
        input_reset, input_update, input_new = inputs.chunk(3, dim=-1)
        state_reset, state_update, state_new = self.hidden_gates(hidden).chunk(3, dim=-1)
        reset = torch.sigmoid(input_reset + state_reset)
        update = torch.sigmoid(input_update + state_update)
        new = torch.tanh(input_new + reset * state_new)
        return {"hidden": (1.0 - update) * new + update * hidden}


class LSTMCell(Cell):
    """i, f, o = sigmoid, g = tanh, c' = f c + i g, h' = o tanh(c').

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber, Cummins 2000.
    """

    gates = 4
    state_names = ("hidden", "cell")

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden_gates = nn.Linear(size, 4 * size)

    def start(self, hidden: Tensor) -> Tensors:
        return {"hidden": hidden, "cell": torch.zeros_like(hidden)}

    def forward(self, inputs: Tensor, state: Tensors) -> Tensors:
        entry, forget, new, output = (inputs + self.hidden_gates(state["hidden"])).chunk(4, dim=-1)
        cell = torch.sigmoid(forget) * state["cell"] + torch.sigmoid(entry) * torch.tanh(new)
        return {"hidden": torch.sigmoid(output) * torch.tanh(cell), "cell": cell}


class AdditiveCell(Cell):
    """s' = s + c: the state is the sum of all that was attended to. No parameters; state and context of one size."""

    gates = 0

    def __init__(self, size: int, annotation_size: int) -> None:
        super().__init__()
        if size != annotation_size:
            raise ConfigError(
                f"model.decoder additive adds contexts of {annotation_size} (twice encoder_size where bidirectional, "
                f"and embedding_size) to a state of decoder_size {size}: make them equal"
            )

    def forward(self, inputs: Tensor, state: Tensors) -> Tensors:
        return {"hidden": state["hidden"] + inputs}

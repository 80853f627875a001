"""Decoder cells against PyTorch's own with the same weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training.errors import ConfigError
from training.models.cells import AdditiveCell, Cell, GRUCell, LSTMCell
from training.models.interface import Tensors

INPUT, SIZE = 5, 4
CELLS: dict[str, tuple[type[GRUCell | LSTMCell], type[nn.GRUCell | nn.LSTMCell]]] = {
    "gru": (GRUCell, nn.GRUCell),
    "lstm": (LSTMCell, nn.LSTMCell),
}


def twins(kind: str, seed: int) -> tuple[GRUCell | LSTMCell, nn.GRUCell | nn.LSTMCell]:
    """A cell and PyTorch's. The input's weights and bias stay PyTorch's: the model keeps them apart."""
    torch.manual_seed(seed)
    own, theirs = CELLS[kind][0](SIZE).double(), CELLS[kind][1](INPUT, SIZE).double()
    with torch.no_grad():
        own.hidden_gates.weight.copy_(theirs.weight_hh)
        own.hidden_gates.bias.copy_(theirs.bias_hh)
    return own, theirs


def run_own(cell: Cell, theirs: nn.GRUCell | nn.LSTMCell, inputs: torch.Tensor, state: Tensors) -> Tensors:
    state_after: Tensors = cell(nn.functional.linear(inputs, theirs.weight_ih, theirs.bias_ih), state)
    return state_after


def run_theirs(cell: nn.GRUCell | nn.LSTMCell, inputs: torch.Tensor, state: Tensors) -> Tensors:
    if isinstance(cell, nn.GRUCell):
        return {"hidden": cell(inputs, state["hidden"])}
    hidden, memory = cell(inputs, (state["hidden"], state["cell"]))
    return {"hidden": hidden, "cell": memory}


@pytest.mark.parametrize("kind", CELLS)
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.floats(0.1, 30.0), st.integers(0, 1000))
def test_a_cell_is_pytorchs(kind: str, rows: int, steps: int, scale: float, seed: int) -> None:
    own, theirs = twins(kind, seed)
    hidden = torch.tanh(torch.randn(rows, SIZE, dtype=torch.float64))
    found, wanted = own.start(hidden), own.start(hidden)
    with torch.no_grad():
        for _ in range(steps):
            inputs = scale * torch.randn(rows, INPUT, dtype=torch.float64)
            found, wanted = run_own(own, theirs, inputs, found), run_theirs(theirs, inputs, wanted)
            assert list(found) == list(wanted) == list(own.state_names)
            for name, tensor in found.items():
                torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
def test_gradients_are_pytorchs(kind: str) -> None:
    own, theirs = twins(kind, seed=1)
    gradients = []
    for run in (lambda *given: run_own(own, theirs, *given), lambda *given: run_theirs(theirs, *given)):
        torch.manual_seed(2)
        inputs = torch.randn(3, INPUT, dtype=torch.float64, requires_grad=True)
        hidden = torch.randn(3, SIZE, dtype=torch.float64, requires_grad=True)
        state = run(inputs, run(inputs, own.start(hidden)))
        loss = torch.cat(list(state.values())).square().sum()
        weights = list(own.parameters()) if not gradients else [theirs.weight_hh, theirs.bias_hh]
        gradients.append(torch.autograd.grad(loss, [inputs, hidden, *weights]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", [GRUCell(SIZE), LSTMCell(SIZE), AdditiveCell(SIZE, SIZE)])
def test_hypotheses_are_rows_of_their_own(cell: Cell) -> None:
    """A cell takes any number of axes before the size."""
    size = max(cell.gates, 1) * SIZE
    inputs, state = torch.randn(2, 3, size), {name: torch.randn(2, 3, SIZE) for name in cell.state_names}
    together = cell(inputs, state)
    flat = cell(inputs.flatten(0, 1), {name: tensor.flatten(0, 1) for name, tensor in state.items()})
    for name in cell.state_names:
        assert together[name].shape == (2, 3, SIZE)
        torch.testing.assert_close(together[name].flatten(0, 1), flat[name])


def test_an_additive_state_is_the_sum_of_what_was_seen() -> None:
    cell = AdditiveCell(SIZE, SIZE)
    contexts = torch.randn(5, 2, SIZE)
    hidden = torch.randn(2, SIZE)
    state = cell.start(hidden)
    for context in contexts:
        state = cell(context, state)
    torch.testing.assert_close(state["hidden"], hidden + contexts.sum(0))
    assert list(cell.parameters()) == []
    assert cell.gates == 0


def test_an_additive_state_has_the_contexts_size() -> None:
    with pytest.raises(ConfigError, match=r"model\.decoder additive adds contexts of 5 .* decoder_size 4: make them"):
        AdditiveCell(4, 5)


def test_a_first_state_is_the_hidden_part_and_an_empty_cell() -> None:
    hidden = torch.randn(2, SIZE)
    assert {name: tensor.tolist() for name, tensor in GRUCell(SIZE).start(hidden).items()} == {
        "hidden": hidden.tolist()
    }
    state = LSTMCell(SIZE).start(hidden)
    assert torch.equal(state["hidden"], hidden)
    assert torch.equal(state["cell"], torch.zeros(2, SIZE))

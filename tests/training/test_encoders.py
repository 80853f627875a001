"""The recurrent layers against PyTorch's own, over packed sequences, and against ONNX's."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.models.encoders import CellKind, OneHotBiLSTMLayer, RecurrentLayer, last_states

INPUT, HIDDEN, PIECES = 5, 4, 6
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=6)
SEEDS = st.integers(0, 1000)
KINDS: dict[CellKind, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}

of_every_kind = pytest.mark.parametrize("kind", KINDS)
both_or_one_way = pytest.mark.parametrize("bidirectional", [True, False], ids=["both ways", "one way"])


def make_layer(kind: CellKind, bidirectional: bool, seed: int) -> RecurrentLayer:
    torch.manual_seed(seed)
    return RecurrentLayer(kind, INPUT, HIDDEN, bidirectional)


def pytorchs(layer: RecurrentLayer) -> nn.LSTM | nn.GRU:
    """PyTorch's layer, of both directions in one, with the weights of ours."""
    theirs = KINDS[layer.kind](INPUT, HIDDEN, batch_first=True, bidirectional=layer.backwards is not None)
    weights = dict(layer.forwards.state_dict())
    if layer.backwards is not None:
        weights |= {f"{name}_reverse": weight for name, weight in layer.backwards.state_dict().items()}
    theirs.load_state_dict(weights)
    return theirs


def run_packed(
    layer: nn.LSTM | nn.GRU, inputs: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (batch, source_length, directions x hidden) and what each direction ended with, side by side."""
    packed = pack_padded_sequence(inputs, lengths.to(torch.int64), batch_first=True, enforce_sorted=False)
    run, ended = layer(packed)
    outputs, _ = pad_packed_sequence(run, batch_first=True, total_length=inputs.shape[1])
    return outputs, torch.cat(list(ended if isinstance(ended, torch.Tensor) else ended[0]), -1)


@of_every_kind
@both_or_one_way
@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 3), SEEDS)
def test_a_layer_is_pytorchs_over_packed_sequences(
    kind: CellKind, bidirectional: bool, lengths: list[int], more: int, seed: int
) -> None:
    layer, counts = make_layer(kind, bidirectional, seed), torch.tensor(lengths, dtype=torch.int32)
    inputs = torch.randn(len(lengths), max(lengths) + more, INPUT)
    with torch.no_grad():
        found, (wanted, ended) = layer(inputs, counts), run_packed(pytorchs(layer), inputs, counts)
    assert layer.output_size == (2 if bidirectional else 1) * HIDDEN
    assert found.shape == (len(lengths), max(lengths) + more, layer.output_size)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert torch.all(found.abs().sum(-1)[:, 0] > 0)
    torch.testing.assert_close(last_states(found, counts, bidirectional), ended, rtol=0, atol=1e-6)


@of_every_kind
@both_or_one_way
@settings(max_examples=20, deadline=None)
@given(LENGTHS, SEEDS)
def test_a_sentence_alone_is_as_in_a_batch_and_0_after_its_end(
    kind: CellKind, bidirectional: bool, lengths: list[int], seed: int
) -> None:
    layer = make_layer(kind, bidirectional, seed)
    inputs = torch.randn(len(lengths), max(lengths), INPUT)
    with torch.no_grad():
        together = layer(inputs, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = layer(inputs[row : row + 1, :length], torch.tensor([length]))
            torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=1e-6)
            assert torch.all(together[row, length:] == 0.0)


@of_every_kind
def test_each_direction_has_read_its_side_of_the_sentence(kind: CellKind) -> None:
    layer, lengths = make_layer(kind, True, 1), torch.tensor([6, 4])
    inputs = torch.randn(2, 6, INPUT)
    other = inputs.clone()
    other[:, 2] += 1.0
    with torch.no_grad():
        changed = (layer(other, lengths) - layer(inputs, lengths)).abs() > 1e-6
    forwards, backwards = changed[..., :HIDDEN].any(-1), changed[..., HIDDEN:].any(-1)
    assert forwards.tolist() == [[False, False, True, True, True, True], [False, False, True, True, False, False]]
    assert backwards.tolist() == [[True, True, True, False, False, False]] * 2


@of_every_kind
def test_one_way_is_the_forward_half_of_both(kind: CellKind) -> None:
    both, one, lengths = make_layer(kind, True, 1), make_layer(kind, False, 2), torch.tensor([6, 4])
    one.forwards.load_state_dict(both.forwards.state_dict())
    assert one.backwards is None
    inputs = torch.randn(2, 6, INPUT)
    with torch.no_grad():
        assert torch.equal(one(inputs, lengths), both(inputs, lengths)[..., :HIDDEN])


@of_every_kind
@both_or_one_way
def test_gradients_are_those_of_pytorchs_layer(kind: CellKind, bidirectional: bool) -> None:
    layer, lengths = make_layer(kind, bidirectional, 2), torch.tensor([7, 1, 4])
    theirs = pytorchs(layer)
    inputs = torch.randn(3, 7, INPUT)
    own, packed = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    layer(own, lengths).square().sum().backward()
    run_packed(theirs, packed, lengths)[0].square().sum().backward()
    assert own.grad is not None
    assert packed.grad is not None
    torch.testing.assert_close(own.grad, packed.grad, rtol=1e-4, atol=1e-5)
    assert torch.all(own.grad[1, 1:] == 0.0)
    for direction, suffix in ((layer.forwards, ""), (layer.backwards, "_reverse")):
        for name, weight in [] if direction is None else direction.named_parameters():
            torch.testing.assert_close(weight.grad, getattr(theirs, name + suffix).grad, rtol=1e-4, atol=1e-5)


def test_last_states_are_those_of_the_ends() -> None:
    """The backward direction is done at the first token, wherever a sentence ends."""
    outputs = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    lengths = torch.tensor([3, 1], dtype=torch.int32)
    assert last_states(outputs, lengths, bidirectional=True).tolist() == [[8, 9, 2, 3], [12, 13, 14, 15]]
    assert last_states(outputs, lengths, bidirectional=False).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]


# --- tokens as one-hot vectors ---------------------------------------------------------------------------------------


def make_one_hot_layer(seed: int) -> OneHotBiLSTMLayer:
    torch.manual_seed(seed)
    return OneHotBiLSTMLayer(PIECES, HIDDEN)


def one_hot_lstm(layer: OneHotBiLSTMLayer) -> nn.LSTM:
    """PyTorch's bidirectional LSTM over one-hot vectors, with the weights of a layer; its second biases are 0."""
    both = nn.LSTM(PIECES, HIDDEN, batch_first=True, bidirectional=True)
    directions = zip(
        ("", "_reverse"), layer.gates.weight.split(4 * HIDDEN, 1), layer.bias, layer.recurrence, strict=True
    )
    with torch.no_grad():
        for suffix, weight, bias, recurrence in directions:
            getattr(both, f"weight_ih_l0{suffix}").copy_(weight.t())
            getattr(both, f"weight_hh_l0{suffix}").copy_(recurrence)
            getattr(both, f"bias_ih_l0{suffix}").copy_(bias)
            getattr(both, f"bias_hh_l0{suffix}").zero_()
    return both


def one_hot(source_ids: torch.Tensor) -> torch.Tensor:
    return nn.functional.one_hot(source_ids, PIECES).to(torch.float32)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(0, 3), SEEDS)
def test_a_one_hot_layer_is_pytorchs_lstm_over_one_hot_vectors(lengths: list[int], more: int, seed: int) -> None:
    layer, counts = make_one_hot_layer(seed), torch.tensor(lengths, dtype=torch.int32)
    source_ids = torch.randint(0, PIECES, (len(lengths), max(lengths) + more))
    with torch.no_grad():
        found = layer(source_ids, counts)
        wanted, _ = run_packed(one_hot_lstm(layer), one_hot(source_ids), counts)
    assert found.shape == (len(lengths), max(lengths) + more, 2 * HIDDEN)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    for row, length in enumerate(lengths):
        assert torch.all(found[row, :length].abs().sum(-1) > 0)
        assert torch.all(found[row, length:] == 0.0)


def test_gradients_of_a_one_hot_layer_are_those_of_the_lstm() -> None:
    """Each row of the embedding is a column of the LSTM's input weights."""
    layer, lengths = make_one_hot_layer(2), torch.tensor([7, 1, 4])
    lstm = one_hot_lstm(layer)
    source_ids = torch.randint(0, PIECES, (3, 7))
    layer(source_ids, lengths).square().sum().backward()
    run_packed(lstm, one_hot(source_ids), lengths)[0].square().sum().backward()
    assert layer.gates.weight.grad is not None
    by_direction = layer.gates.weight.grad.split(4 * HIDDEN, 1)
    for i, suffix in enumerate(("", "_reverse")):
        for found, name in ((by_direction[i].t(), "weight_ih"), (layer.recurrence.grad[i], "weight_hh")):
            torch.testing.assert_close(found, getattr(lstm, f"{name}_l0{suffix}").grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.bias.grad[i], getattr(lstm, f"bias_ih_l0{suffix}").grad, rtol=1e-4, atol=1e-5)


def test_a_one_hot_layer_starts_as_pytorchs_lstm_does() -> None:
    """Within 1 / sqrt(hidden), all of it: not the unit normal of an embedding."""
    torch.manual_seed(1)
    layer = OneHotBiLSTMLayer(50, 16)
    for parameter in layer.parameters():
        assert 0.2 < float(parameter.detach().abs().max()) <= 16**-0.5
        assert abs(float(parameter.detach().mean())) < 0.05


# --- as ONNX's operators ---------------------------------------------------------------------------------------------


def run_in_onnxruntime(
    operator: str,
    inputs: tuple[torch.Tensor, ...],
    *,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    attrs: dict[str, Any] | None = None,
) -> torch.Tensor:
    """``torch.onnx.ops.symbolic``, done at once: a graph of that one operator."""
    slots = [f"input_{number}" for number in range(len(inputs))]
    node = onnx.helper.make_node(operator, slots, ["y"], **(attrs or {}))
    kinds = {
        torch.float32: onnx.TensorProto.FLOAT,
        torch.int64: onnx.TensorProto.INT64,
        torch.int32: onnx.TensorProto.INT32,
    }
    declared = [
        onnx.helper.make_tensor_value_info(name, kinds[tensor.dtype], list(tensor.shape))
        for name, tensor in zip(slots, inputs, strict=True)
    ]
    result = onnx.helper.make_tensor_value_info("y", kinds[dtype], list(shape))
    graph = onnx.helper.make_graph([node], "one", declared, [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = {name: tensor.detach().contiguous().numpy() for name, tensor in zip(slots, inputs, strict=True)}
    return torch.from_numpy(session.run(None, fed)[0])


@pytest.fixture
def _as_if_exporting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's operators, one by one, without the half minute of an export."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    monkeypatch.setattr(torch.onnx.ops, "symbolic", run_in_onnxruntime)


@pytest.mark.usefixtures("_as_if_exporting")
@of_every_kind
@both_or_one_way
def test_a_layer_is_onnxs_operator(kind: CellKind, bidirectional: bool) -> None:
    """Another order of gates, and for the GRU a reset before or behind the matrix."""
    layer, lengths = make_layer(kind, bidirectional, 3), torch.tensor([7, 1, 4], dtype=torch.int32)
    inputs = torch.randn(3, 7, INPUT)
    with torch.no_grad():
        found, (wanted, _) = layer(inputs, lengths), run_packed(pytorchs(layer), inputs, lengths)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("_as_if_exporting")
def test_a_one_hot_layer_is_onnxs_operators() -> None:
    layer, lengths = make_one_hot_layer(3), torch.tensor([7, 1, 4], dtype=torch.int32)
    source_ids = torch.randint(0, PIECES, (3, 7))
    with torch.no_grad():
        found, (wanted, _) = layer(source_ids, lengths), run_packed(one_hot_lstm(layer), one_hot(source_ids), lengths)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)

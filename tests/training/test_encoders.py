"""The bidirectional LSTMs against PyTorch's own, over packed sequences."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.models.encoders import BiLSTMLayer, OneHotBiLSTMLayer

INPUT, HIDDEN, PIECES = 5, 4, 6
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=6)
SEEDS = st.integers(0, 1000)


def make_layer(seed: int) -> BiLSTMLayer:
    torch.manual_seed(seed)
    return BiLSTMLayer(INPUT, HIDDEN)


def packed_lstm(layer: BiLSTMLayer) -> nn.LSTM:
    """PyTorch's bidirectional LSTM with the weights of a layer."""
    both = nn.LSTM(INPUT, HIDDEN, batch_first=True, bidirectional=True)
    forwards = layer.forwards.state_dict()
    backwards = {f"{name}_reverse": weight for name, weight in layer.backwards.state_dict().items()}
    both.load_state_dict(forwards | backwards)
    return both


def run_packed(lstm: nn.LSTM, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    packed = pack_padded_sequence(inputs, lengths.to(torch.int64), batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=inputs.shape[1])
    return outputs


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(0, 3), SEEDS)
def test_a_layer_is_pytorchs_packed_bidirectional_lstm(lengths: list[int], more: int, seed: int) -> None:
    layer, counts = make_layer(seed), torch.tensor(lengths, dtype=torch.int32)
    inputs = torch.randn(len(lengths), max(lengths) + more, INPUT)
    with torch.no_grad():
        found, wanted = layer(inputs, counts), run_packed(packed_lstm(layer), inputs, counts)
    assert found.shape == (len(lengths), max(lengths) + more, 2 * HIDDEN)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert torch.all(found.abs().sum(-1)[:, 0] > 0)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, SEEDS)
def test_a_sentence_alone_is_as_in_a_batch_and_0_after_its_end(lengths: list[int], seed: int) -> None:
    layer = make_layer(seed)
    inputs = torch.randn(len(lengths), max(lengths), INPUT)
    with torch.no_grad():
        together = layer(inputs, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = layer(inputs[row : row + 1, :length], torch.tensor([length]))
            torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=1e-6)
            assert torch.all(together[row, length:] == 0.0)


def test_each_direction_has_read_its_side_of_the_sentence() -> None:
    layer, lengths = make_layer(1), torch.tensor([6, 4])
    inputs = torch.randn(2, 6, INPUT)
    other = inputs.clone()
    other[:, 2] += 1.0
    with torch.no_grad():
        changed = (layer(other, lengths) - layer(inputs, lengths)).abs() > 1e-6
    forwards, backwards = changed[..., :HIDDEN].any(-1), changed[..., HIDDEN:].any(-1)
    assert forwards.tolist() == [[False, False, True, True, True, True], [False, False, True, True, False, False]]
    assert backwards.tolist() == [[True, True, True, False, False, False]] * 2


def test_gradients_are_those_of_the_packed_lstm() -> None:
    layer, lengths = make_layer(2), torch.tensor([7, 1, 4])
    lstm = packed_lstm(layer)
    inputs = torch.randn(3, 7, INPUT)
    own, packed = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    layer(own, lengths).square().sum().backward()
    run_packed(lstm, packed, lengths).square().sum().backward()
    assert own.grad is not None
    assert packed.grad is not None
    torch.testing.assert_close(own.grad, packed.grad, rtol=1e-4, atol=1e-5)
    assert torch.all(own.grad[1, 1:] == 0.0)
    for direction, suffix in ((layer.forwards, ""), (layer.backwards, "_reverse")):
        for name, weight in direction.named_parameters():
            torch.testing.assert_close(weight.grad, getattr(lstm, name + suffix).grad, rtol=1e-4, atol=1e-5)


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
        found, wanted = layer(source_ids, counts), run_packed(one_hot_lstm(layer), one_hot(source_ids), counts)
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
    run_packed(lstm, one_hot(source_ids), lengths).square().sum().backward()
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

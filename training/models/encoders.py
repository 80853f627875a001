"""Recurrent encoders that give the same annotations alone, in a padded batch and in ONNX."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.attention import length_mask


class BiLSTMLayer(nn.Module):
    """One bidirectional LSTM layer over ragged sentences: the backward direction starts at the last real token.

    Two one-way LSTMs, the second over sentences turned round within their own length. That equals PyTorch's packed
    sequences to rounding (a test holds it) and trains faster on a CPU, where packing takes a slow path.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.backwards = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, source_length, input_size), lengths (batch,) -> (batch, source_length, 2 x hidden), 0 after the end.

        Neither turning round nor packing exports well, so while exporting this is ONNX's LSTM with sequence lengths.
        """
        if torch.compiler.is_exporting():
            return self._onnx_lstm(inputs, lengths)
        turned = _mirrored_positions(lengths, inputs.shape[1]).unsqueeze(-1)
        outputs = self.forwards(inputs)[0]
        mirrored = self.backwards(inputs.gather(1, turned.expand_as(inputs)))[0]
        both = torch.cat([outputs, mirrored.gather(1, turned.expand_as(mirrored))], dim=-1)
        return both * length_mask(lengths, inputs.shape[1]).unsqueeze(-1)

    def _onnx_lstm(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        directions = (self.forwards, self.backwards)
        weights = torch.stack([_onnx_gate_order(lstm.weight_ih_l0) for lstm in directions])
        recurrences = torch.stack([_onnx_gate_order(lstm.weight_hh_l0) for lstm in directions])
        biases = [
            torch.cat([_onnx_gate_order(lstm.bias_ih_l0), _onnx_gate_order(lstm.bias_hh_l0)]) for lstm in directions
        ]
        return _onnx_bilstm(inputs, lengths, weights, recurrences, torch.stack(biases))


class OneHotBiLSTMLayer(nn.Module):
    """One bidirectional LSTM layer that reads tokens as one-hot vectors.

    A one-hot vector times the input weights is a row of them, so the weights are an embedding: the same function as a
    BiLSTMLayer over one-hot vectors (a test holds it), without multiplying thousands of zeros for every token.
    """

    def __init__(self, vocabulary: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        bound = hidden_size**-0.5  # PyTorch's own for an LSTM
        #: For each token the gates i, f, g, o of both directions, biases apart.
        self.gates = nn.Embedding(vocabulary, 2 * 4 * hidden_size)
        nn.init.uniform_(self.gates.weight, -bound, bound)
        self.bias = nn.Parameter(torch.empty(2, 4 * hidden_size).uniform_(-bound, bound))
        self.recurrence = nn.Parameter(torch.empty(2, 4 * hidden_size, hidden_size).uniform_(-bound, bound))

    def forward(self, source_ids: Tensor, lengths: Tensor) -> Tensor:
        """(batch, source_length), lengths (batch,) -> (batch, source_length, 2 x hidden), 0 after the end."""
        if torch.compiler.is_exporting():
            return self._onnx_lstm(source_ids, lengths)
        (batch, length), hidden = source_ids.shape, self.hidden_size
        gates = self.gates(source_ids).reshape(batch, length, 2, 4 * hidden) + self.bias
        turned = _mirrored_positions(lengths, length)
        rows = torch.arange(batch, device=turned.device).unsqueeze(1)
        ahead, behind = gates.unbind(2)
        steps = torch.stack([ahead, behind[rows, turned]]).unbind(2)  # each (2, batch, 4 x hidden)
        recurrence = self.recurrence.transpose(1, 2)
        state = cell = gates.new_zeros(2, batch, hidden)
        states = []
        for step in steps:
            entry, forget, new, output = torch.baddbmm(step, state, recurrence).chunk(4, dim=-1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(entry) * torch.tanh(new)
            state = torch.sigmoid(output) * torch.tanh(cell)
            states.append(state)
        outputs, mirrored = torch.stack(states, dim=2).unbind(0)
        both = torch.cat([outputs, mirrored[rows, turned]], dim=-1)
        return both * length_mask(lengths, length).unsqueeze(-1)

    def _onnx_lstm(self, source_ids: Tensor, lengths: Tensor) -> Tensor:
        vocabulary = self.gates.num_embeddings
        one_hot = torch.onnx.ops.symbolic(
            "OneHot",
            (source_ids, torch.tensor(vocabulary), torch.tensor([0.0, 1.0])),
            dtype=self.bias.dtype,
            shape=(*source_ids.shape, vocabulary),
        )
        # chunk, not unbind: that the exporter would compute now, into a constant that is none of the weights.
        weights = torch.stack([_onnx_gate_order(weight) for weight in self.gates.weight.t().chunk(2)])
        recurrences = torch.stack([_onnx_gate_order(weight.squeeze(0)) for weight in self.recurrence.chunk(2)])
        biases = torch.stack([_onnx_gate_order(bias.squeeze(0)) for bias in self.bias.chunk(2)])
        halves = torch.cat([biases / 2, biases / 2], dim=1)  # ONNX adds one of the input and one of the state
        return _onnx_bilstm(one_hot, lengths, weights, recurrences, halves)


def _onnx_bilstm(inputs: Tensor, lengths: Tensor, weights: Tensor, recurrences: Tensor, biases: Tensor) -> Tensor:
    """ONNX LSTM-22: X (time, batch, input) -> Y (time, directions, batch, hidden), gates as i, o, f, c.

    inputs (batch, time, input), weights (2, 4 x hidden, input), recurrences (2, 4 x hidden, hidden), biases
    (2, 8 x hidden) -> (batch, time, 2 x hidden).
    """
    (batch, length, _), hidden = inputs.shape, recurrences.shape[-1]
    outputs = torch.onnx.ops.symbolic(
        "LSTM",
        (inputs.transpose(0, 1), weights, recurrences, biases, lengths.to(torch.int32)),
        attrs={"hidden_size": hidden, "direction": "bidirectional"},
        dtype=inputs.dtype,
        shape=(length, 2, batch, hidden),
    )
    return outputs.permute(2, 0, 1, 3).reshape(batch, length, 2 * hidden)


def _mirrored_positions(lengths: Tensor, longest: int) -> Tensor:
    """Where each position lies in its sentence read backwards; padding stays where it is: (batch, longest) int64."""
    positions = torch.arange(longest, device=lengths.device).unsqueeze(0)
    mirrored = lengths.to(torch.int64).unsqueeze(1) - 1 - positions
    return torch.where(mirrored >= 0, mirrored, positions)


def _onnx_gate_order(weight: Tensor | nn.Module) -> Tensor:
    """PyTorch stacks the gates as i, f, g, o; ONNX as i, o, f, c."""
    if not isinstance(weight, Tensor):
        raise TypeError("an LSTM's weights are tensors")
    input_gate, forget, cell, output = weight.chunk(4)
    return torch.cat([input_gate, output, forget, cell])

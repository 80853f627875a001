"""Recurrent encoders that give the same annotations alone, in a padded batch and in ONNX."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.models.attention import length_mask

CellKind = Literal["lstm", "gru"]
_LAYERS: dict[CellKind, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentLayer(nn.Module):
    """One LSTM or GRU layer over ragged sentences, one way or both: the backward direction starts at the last real
    token.

    Both ways are two one-way layers, the second over sentences turned round within their own length. That equals
    PyTorch's packed sequences to rounding (a test holds it) and trains faster on a CPU, where packing takes a slow
    path.
    """

    def __init__(self, kind: CellKind, input_size: int, hidden_size: int, bidirectional: bool) -> None:
        super().__init__()
        self.kind: CellKind = kind
        self.hidden_size = hidden_size
        self.forwards = _LAYERS[kind](input_size, hidden_size, batch_first=True)
        self.backwards = _LAYERS[kind](input_size, hidden_size, batch_first=True) if bidirectional else None

    @property
    def output_size(self) -> int:
        return self.hidden_size * (1 if self.backwards is None else 2)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, source_length, input_size), lengths (batch,) -> (batch, source_length, output_size), 0 after the end.

        Neither turning round nor packing exports well, so while exporting this is ONNX's LSTM or GRU with sequence
        lengths.
        """
        if torch.compiler.is_exporting():
            return self._onnx_layer(inputs, lengths)
        outputs = self.forwards(inputs)[0]
        if self.backwards is not None:
            turned = _mirrored_positions(lengths, inputs.shape[1]).unsqueeze(-1)
            mirrored = self.backwards(inputs.gather(1, turned.expand_as(inputs)))[0]
            outputs = torch.cat([outputs, mirrored.gather(1, turned.expand_as(mirrored))], dim=-1)
        real: Tensor = outputs * length_mask(lengths, inputs.shape[1]).unsqueeze(-1)
        return real

    def _onnx_layer(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        directions = [layer for layer in (self.forwards, self.backwards) if layer is not None]

        def ordered(weight: Tensor | nn.Module) -> Tensor:
            return _onnx_gate_order(weight, self.kind)

        weights = torch.stack([ordered(layer.weight_ih_l0) for layer in directions])
        recurrences = torch.stack([ordered(layer.weight_hh_l0) for layer in directions])
        biases = [torch.cat([ordered(layer.bias_ih_l0), ordered(layer.bias_hh_l0)]) for layer in directions]
        return _onnx_layer(self.kind, inputs, lengths, weights, recurrences, torch.stack(biases))


def last_states(outputs: Tensor, lengths: Tensor, bidirectional: bool) -> Tensor:
    """What each direction had read when it was done: the forward one at the last real token, the backward one at the
    first. (batch, source_length, output_size) -> (batch, output_size).
    """
    last = (lengths.to(torch.int64) - 1)[:, None, None].expand(-1, 1, outputs.shape[-1])
    at_end = outputs.gather(1, last).squeeze(1)
    if not bidirectional:
        return at_end
    half = outputs.shape[-1] // 2
    return torch.cat([at_end[:, :half], outputs[:, 0, half:]], dim=-1)


class OneHotBiLSTMLayer(nn.Module):
    """One bidirectional LSTM layer that reads tokens as one-hot vectors.

    A one-hot vector times the input weights is a row of them, so the weights are an embedding: the same function as a
    RecurrentLayer over one-hot vectors (a test holds it), without multiplying thousands of zeros for every token.
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
        weights = torch.stack([_onnx_gate_order(weight, "lstm") for weight in self.gates.weight.t().chunk(2)])
        recurrences = torch.stack([_onnx_gate_order(weight.squeeze(0), "lstm") for weight in self.recurrence.chunk(2)])
        biases = torch.stack([_onnx_gate_order(bias.squeeze(0), "lstm") for bias in self.bias.chunk(2)])
        halves = torch.cat([biases / 2, biases / 2], dim=1)  # ONNX adds one of the input and one of the state
        return _onnx_layer("lstm", one_hot, lengths, weights, recurrences, halves)


def _onnx_layer(
    kind: CellKind, inputs: Tensor, lengths: Tensor, weights: Tensor, recurrences: Tensor, biases: Tensor
) -> Tensor:
    """ONNX LSTM-22 or GRU-22: X (time, batch, input) -> Y (time, directions, batch, hidden), gates in ONNX's order.

    inputs (batch, time, input), weights (directions, gates x hidden, input), recurrences (directions, gates x hidden,
    hidden), biases (directions, 2 x gates x hidden) -> (batch, time, directions x hidden).
    """
    (batch, length, _), (directions, _, hidden) = inputs.shape, recurrences.shape
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if directions == 2 else "forward",
    }
    if kind == "gru":
        attributes["linear_before_reset"] = 1  # PyTorch resets behind the matrix
    outputs = torch.onnx.ops.symbolic(
        kind.upper(),
        (inputs.transpose(0, 1), weights, recurrences, biases, lengths.to(torch.int32)),
        attrs=attributes,
        dtype=inputs.dtype,
        shape=(length, directions, batch, hidden),
    )
    return outputs.permute(2, 0, 1, 3).reshape(batch, length, directions * hidden)


def _mirrored_positions(lengths: Tensor, longest: int) -> Tensor:
    """Where each position lies in its sentence read backwards; padding stays where it is: (batch, longest) int64."""
    positions = torch.arange(longest, device=lengths.device).unsqueeze(0)
    mirrored = lengths.to(torch.int64).unsqueeze(1) - 1 - positions
    return torch.where(mirrored >= 0, mirrored, positions)


def _onnx_gate_order(weight: Tensor | nn.Module, kind: CellKind) -> Tensor:
    """PyTorch stacks an LSTM's gates as i, f, g, o and a GRU's as r, z, n; ONNX as i, o, f, c and z, r, h."""
    if not isinstance(weight, Tensor):
        raise TypeError("a layer's weights are tensors")
    if kind == "gru":
        reset, update, new = weight.chunk(3)
        return torch.cat([update, reset, new])
    input_gate, forget, cell, output = weight.chunk(4)
    return torch.cat([input_gate, output, forget, cell])

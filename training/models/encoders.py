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
        """ONNX LSTM-22: X (time, batch, input) -> Y (time, directions, batch, hidden), gates as i, o, f, c."""
        directions = (self.forwards, self.backwards)
        weights = [_onnx_gate_order(lstm.weight_ih_l0) for lstm in directions]
        recurrences = [_onnx_gate_order(lstm.weight_hh_l0) for lstm in directions]
        biases = [
            torch.cat([_onnx_gate_order(lstm.bias_ih_l0), _onnx_gate_order(lstm.bias_hh_l0)]) for lstm in directions
        ]
        (batch, length, _), hidden = inputs.shape, self.forwards.hidden_size
        outputs = torch.onnx.ops.symbolic(
            "LSTM",
            (
                inputs.transpose(0, 1),
                torch.stack(weights),
                torch.stack(recurrences),
                torch.stack(biases),
                lengths.to(torch.int32),
            ),
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

"""SandGlass: a translation in one pass, without recurrence, that attends at five scopes.

After Simple_NN_API v3.02. The encoder narrows a sequence of 24 one-hot tokens to 6 blocks, the decoder widens it
again; at each width the decoder's keys ask the encoder's keys of the same width. Every convolution's output splits into
a value (40 channels) and a key (20); in the encoder only the value goes on, in the decoder the value beside what it
attended to.

    s_ij = d_i . k_j,  alpha = softmax_j s,  D_i = sum_j alpha_ij v_j,  next = BN([u_i ; D_i])

Attention reads tensors after tanh and before batch normalisation. The scope of a map is the receptive field of the
encoder's key: 1 token (map 1), 4 and 1 (2a, 2b), 6 (3), 9 (4, whose 6 columns are blocks of 4 tokens). The decoder ends
in logits for all 24 positions at once. 204,840 parameters in the original's form.

Tensors are (batch, filters, time, channels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

TIME, VOCABULARY = 24, 60
BLOCK = 4  # tokens of a block of the narrowest layer
VALUE, KEY = 40, 20
_WIDTH = VALUE + KEY
_BLOCKS = TIME // BLOCK
#: The encoder keys' receptive fields in tokens, by map.
SCOPES = {"1": 1, "2a": 4, "2b": 1, "3": 6, "4": 9}
LAYERS = ("1", "2", "3", "4")


@dataclass(frozen=True)
class SandGlassConfig:
    """``attention``: the layers that attend, of "1", "2", "3", "4"; ``batch_norm``: on in the original."""

    attention: tuple[str, ...] = LAYERS
    batch_norm: bool = True


class Maps(NamedTuple):
    """The weights, rows summing to one: (batch, 24, 24), for ``attention_4`` (batch, 6, 6); None where switched off."""

    attention_1: Tensor | None
    attention_2a: Tensor | None
    attention_2b: Tensor | None
    attention_3: Tensor | None
    attention_4: Tensor | None


class Output(NamedTuple):
    """``logits`` (batch, 24, vocabulary)."""

    logits: Tensor
    maps: Maps


class FilterConv(nn.Module):
    """A convolution over time that sums over input filters, with a bias for each pair of input and output filter.

    Keeps the length: padding of ceil((k-1)/2) in front and floor((k-1)/2) behind.
    """

    def __init__(self, kernel: int, inputs: int, outputs: int, in_filters: int = 1, out_filters: int = 1) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(in_filters, out_filters, kernel, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(in_filters, out_filters, outputs))
        initialize(self, fan_in=kernel * inputs)

    def forward(self, tensor: Tensor) -> Tensor:
        """(batch, in_filters, time, inputs) -> (batch, out_filters, time, outputs)."""
        front, behind = _padding(self.kernel)
        padded = nn.functional.pad(tensor, (0, 0, front, behind))
        length = tensor.shape[2]
        windows = torch.stack([padded[:, :, shift : shift + length] for shift in range(self.kernel)], dim=3)
        return torch.einsum("bftkc,fgkco->bgto", windows, self.weight) + _bias_of(self.bias)


class FilterTransposedConv(nn.Module):
    """The transpose: scatters x[s] W[k] to s + k and crops what ``FilterConv`` would have padded."""

    def __init__(self, kernel: int, inputs: int, outputs: int, in_filters: int = 1, out_filters: int = 1) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(in_filters, out_filters, kernel, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(in_filters, out_filters, outputs))
        initialize(self, fan_in=kernel * inputs)

    def forward(self, tensor: Tensor) -> Tensor:
        """(batch, in_filters, time, inputs) -> (batch, out_filters, time, outputs)."""
        front, behind = _padding(self.kernel)
        length = tensor.shape[2]
        # Output t gathers x[t + front - k]: so pad x where k runs past either end, and turn the kernel round.
        padded = nn.functional.pad(tensor, (0, 0, behind, front))
        windows = torch.stack([padded[:, :, shift : shift + length] for shift in range(self.kernel)], dim=3)
        return torch.einsum("bftkc,fgkco->bgto", windows, self.weight.flip(2)) + _bias_of(self.bias)


class ReduceConv(nn.Module):
    """A strided convolution whose windows do not overlap: each block of ``stride`` tokens becomes one."""

    def __init__(self, stride: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(stride * inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        initialize(self, fan_in=stride * inputs)

    def forward(self, tensor: Tensor) -> Tensor:
        """(batch, 1, time, inputs) -> (batch, 1, time / stride, outputs)."""
        batch, filters, time, inputs = tensor.shape
        blocks = tensor.reshape(batch, filters, time // self.stride, self.stride * inputs)
        return blocks @ self.weight + self.bias


class ExpandConv(nn.Module):
    """The transpose of ReduceConv: each block becomes ``stride`` tokens."""

    def __init__(self, stride: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(inputs, stride * outputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        initialize(self, fan_in=inputs)

    def forward(self, tensor: Tensor) -> Tensor:
        """(batch, 1, time, inputs) -> (batch, 1, time x stride, outputs)."""
        batch, filters, time, _ = tensor.shape
        return (tensor @ self.weight).reshape(batch, filters, time * self.stride, -1) + self.bias


class Attend(nn.Module):
    """Dot-product attention of decoder keys over encoder keys, filter by filter, then batch normalisation."""

    def __init__(self, attends: bool, batch_norm: bool) -> None:
        super().__init__()
        self.attends = attends
        self.normalize = ChannelNorm(VALUE + VALUE if attends else VALUE, batch_norm)

    def forward(self, decoded: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both (batch, filters, time, 60) -> the decoder's next input, and the weights (batch, filters, time, time)."""
        value, query = decoded.split((VALUE, KEY), dim=-1)  # type: ignore[no-untyped-call]
        if not self.attends:
            return self.normalize(value), None
        values, keys = encoded.split((VALUE, KEY), dim=-1)  # type: ignore[no-untyped-call]
        weights = torch.softmax(query @ keys.transpose(-1, -2), dim=-1)
        return self.normalize(torch.cat([value, weights @ values], dim=-1)), weights


class ChannelNorm(nn.Module):
    """Batch normalisation for each channel, over filters, time and batch; nothing when switched off."""

    def __init__(self, channels: int, enabled: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels) if enabled else None

    def forward(self, tensor: Tensor) -> Tensor:
        if self.norm is None:
            return tensor
        return self.norm(tensor.reshape(-1, tensor.shape[-1])).reshape(tensor.shape)  # type: ignore[no-any-return]


class SandGlass(nn.Module):
    """See the module's text. E are the encoder's layers, D the decoder's, as in the original's drawing."""

    def __init__(self, config: SandGlassConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SandGlassConfig()
        norm = config.batch_norm
        self.e1 = FilterConv(1, VOCABULARY, _WIDTH)
        self.e2a = FilterConv(4, VALUE, _WIDTH)
        self.e2b = FilterConv(1, VALUE, _WIDTH)
        self.e3 = FilterConv(3, VALUE, _WIDTH, in_filters=2)
        self.e4 = ReduceConv(BLOCK, VALUE, _WIDTH)
        self.norms = nn.ModuleList(ChannelNorm(VALUE, norm) for _ in range(4))
        self.centre = nn.Linear(_BLOCKS * VALUE, _BLOCKS * _WIDTH)
        initialize(self.centre, fan_in=_BLOCKS * VALUE)
        attends = [layer in config.attention for layer in LAYERS]
        self.attend1, self.attend2, self.attend3, self.attend4 = (Attend(on, norm) for on in attends)
        # What a decoder layer reads: its value, and what it attended to where it attends.
        read1, read2, read3, read4 = (VALUE + VALUE if on else VALUE for on in attends)
        self.d1 = ExpandConv(BLOCK, read4, _WIDTH)
        self.d2 = FilterTransposedConv(3, read3, _WIDTH, out_filters=2)
        self.d3a = FilterTransposedConv(4, read2, _WIDTH)
        self.d3b = FilterTransposedConv(1, read2, _WIDTH)
        self.d4 = FilterTransposedConv(1, read1, VOCABULARY)

    def forward(self, source_ids: Tensor) -> Output:
        """source_ids (batch, 24) int64, of the original's numbering: 0 padding, 1 end, 2..59 content."""
        one_hot = nn.functional.one_hot(source_ids, VOCABULARY).to(self.e1.weight.dtype).unsqueeze(1)
        e1 = torch.tanh(self.e1(one_hot))
        x = self.norms[0](e1[..., :VALUE])
        e2 = torch.tanh(torch.cat([self.e2a(x), self.e2b(x)], dim=1))
        e3 = torch.tanh(self.e3(self.norms[1](e2[..., :VALUE])))
        e4 = torch.tanh(self.e4(self.norms[2](e3[..., :VALUE])))
        flat = self.norms[3](e4[..., :VALUE]).flatten(1)
        centre = torch.tanh(self.centre(flat)).reshape(-1, 1, _BLOCKS, _WIDTH)
        x, weights4 = self.attend4(centre, e4)
        x, weights3 = self.attend3(torch.tanh(self.d1(x)), e3)
        x, weights2 = self.attend2(torch.tanh(self.d2(x)), e2)
        x, weights1 = self.attend1(torch.tanh(self.d3a(x[:, :1]) + self.d3b(x[:, 1:])), e1)
        maps = Maps(
            attention_1=_filter(weights1, 0),
            attention_2a=_filter(weights2, 0),
            attention_2b=_filter(weights2, 1),
            attention_3=_filter(weights3, 0),
            attention_4=_filter(weights4, 0),
        )
        return Output(self.d4(x).squeeze(1), maps)


def initialize(module: nn.Module, fan_in: int) -> None:
    """Uniform within 0.5 / sqrt(fan-in), the original's."""
    bound = 0.5 / math.sqrt(fan_in)
    for parameter in module.parameters(recurse=False):
        nn.init.uniform_(parameter, -bound, bound)


def _padding(kernel: int) -> tuple[int, int]:
    """In front and behind."""
    return kernel // 2, (kernel - 1) // 2


def _bias_of(bias: Tensor) -> Tensor:
    """(in_filters, out_filters, channels), summed as the convolution sums -> (1, out_filters, 1, channels)."""
    return bias.sum(0)[None, :, None, :]


def _filter(weights: Tensor | None, number: int) -> Tensor | None:
    return None if weights is None else weights[:, number]

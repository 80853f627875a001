"""SandGlass: a translation in one pass, without recurrence, that attends at five scopes.

After Simple_NN_API v3.02. The encoder narrows a sequence of 24 one-hot tokens to 6 blocks, the decoder widens it
again; at each width the decoder's keys ask the encoder's keys of the same width. Every convolution's output splits into
a value (40 channels) and a key (20); in the encoder only the value goes on, in the decoder the value beside what it
attended to.

    s_ij = d_i . k_j,  alpha = softmax_j s,  D_i = sum_j alpha_ij v_j,  next = BN([u_i ; D_i])

Attention reads tensors after tanh and before batch normalisation. The scope of a map is the receptive field of the
encoder's key: 1 token (map 1), 4 and 1 (2a, 2b), 6 (3), 9 (4, whose 6 columns are blocks of 4 tokens). The decoder ends
in logits for all 24 positions at once. 204,840 parameters in the original's form.

The original's options: layers without attention; no batch normalisation; gated units (Dauphin et al. 2016,
https://arxiv.org/abs/1612.08083) instead of tanh, for which each convolution has twice the outputs: GLU a * sigmoid(g),
GTU tanh(a) * sigmoid(g); and "reduce attention", a pooling without parameters in place of the reduce convolution: the
mean of a block by the weights softmax_j(k_j . mean k), of value and key alike (how the original weighs is not known).

Tensors are (batch, filters, time, channels). The original's numbering is 0 padding, 1 end, 2..59 content; a bundle's is
shifted by two from the content on, and the model translates between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from service.bundle.tokenizer import EOS_ID, PAD_ID
from training.config import SandGlassConfig
from training.errors import ConfigError
from training.models.interface import Context, Decoded, OneShotModel

TIME, VOCABULARY = 24, 60
BLOCK = 4  # tokens of a block of the narrowest layer
VALUE, KEY = 40, 20
_WIDTH = VALUE + KEY
_BLOCKS = TIME // BLOCK
#: The encoder keys' receptive fields in tokens, by map.
SCOPES = {"1": 1, "2a": 4, "2b": 1, "3": 6, "4": 9}
LAYERS = ("1", "2", "3", "4")

_SPECIALS = 4  # a bundle's ids 0..3; content comes after
_CONTENT = 2  # the original's first content id
_NEVER = -1e9  # the logit of `<s>` and `<unk>`, which the original does not have


class _OverFilters(nn.Module):
    """The weights of a convolution over filters and their transpose."""

    def __init__(self, kernel: int, inputs: int, outputs: int, in_filters: int = 1, out_filters: int = 1) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(in_filters, out_filters, kernel, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(in_filters, out_filters, outputs))
        initialize(self, fan_in=kernel * inputs)


class FilterConv(_OverFilters):
    """A convolution over time that sums over input filters, with a bias for each pair of input and output filter.

    Keeps the length: padding of ceil((k-1)/2) in front and floor((k-1)/2) behind.
    """

    def forward(self, tensor: Tensor) -> Tensor:
        """(batch, in_filters, time, inputs) -> (batch, out_filters, time, outputs)."""
        front, behind = _padding(self.kernel)
        padded = nn.functional.pad(tensor, (0, 0, front, behind))
        length = tensor.shape[2]
        windows = torch.stack([padded[:, :, shift : shift + length] for shift in range(self.kernel)], dim=3)
        return _convolved(windows, self.weight, self.bias)


class FilterTransposedConv(_OverFilters):
    """The transpose: scatters x[s] W[k] to s + k and crops what ``FilterConv`` would have padded."""

    def forward(self, tensor: Tensor) -> Tensor:
        """(batch, in_filters, time, inputs) -> (batch, out_filters, time, outputs)."""
        front, behind = _padding(self.kernel)
        length = tensor.shape[2]
        # Output t gathers x[t + front - k]: so pad x where k runs past either end, and take the windows backwards.
        padded = nn.functional.pad(tensor, (0, 0, behind, front))
        windows = torch.stack([padded[:, :, shift : shift + length] for shift in reversed(range(self.kernel))], dim=3)
        return _convolved(windows, self.weight, self.bias)


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


class ReduceAttention(nn.Module):
    """Pools each block of ``stride`` tokens by attention to the mean of its keys; has no parameters."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, tensor: Tensor) -> Tensor:
        """(batch, 1, time, 60), value and key -> (batch, 1, time / stride, 60)."""
        batch, filters, time, width = tensor.shape
        blocks = tensor.reshape(batch, filters, time // self.stride, self.stride, width)
        keys = blocks[..., VALUE:]
        weights = torch.softmax((keys * keys.mean(dim=3, keepdim=True)).sum(dim=-1, keepdim=True), dim=3)
        return (weights * blocks).sum(dim=3)


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


class SandGlass(OneShotModel):
    """See the module's text. E are the encoder's layers, D the decoder's, as in the original's drawing."""

    length = TIME

    def __init__(
        self, config: SandGlassConfig, source_vocabulary: int = VOCABULARY + 2, target_vocabulary: int = VOCABULARY + 2
    ) -> None:
        """Raises ConfigError for a vocabulary that is not the original's 58 numbers and a bundle's special tokens."""
        super().__init__(source_vocabulary, target_vocabulary)
        wanted = _SPECIALS + VOCABULARY - _CONTENT
        if (source_vocabulary, target_vocabulary) != (wanted, wanted):
            sizes = f"{source_vocabulary} and {target_vocabulary}"
            raise ConfigError(
                f"SandGlass has {wanted} pieces on either side, this corpus has {sizes}: use its own task"
            )
        self.config = config
        norm = config.batch_norm
        wide = _WIDTH if config.gate == "none" else 2 * _WIDTH
        self.e1 = FilterConv(1, VOCABULARY, wide)
        self.e2a = FilterConv(4, VALUE, wide)
        self.e2b = FilterConv(1, VALUE, wide)
        self.e3 = FilterConv(3, VALUE, wide, in_filters=2)
        self.e4 = ReduceAttention(BLOCK) if config.reduce_attention else ReduceConv(BLOCK, VALUE, wide)
        # Reduce attention pools values and keys as they come.
        self.norms = nn.ModuleList(
            ChannelNorm(VALUE, norm and not (place == 2 and config.reduce_attention)) for place in range(4)
        )
        self.centre = nn.Linear(_BLOCKS * VALUE, _BLOCKS * wide)
        initialize(self.centre, fan_in=_BLOCKS * VALUE)
        attends = [layer in config.attention for layer in LAYERS]
        self.attend1, self.attend2, self.attend3, self.attend4 = (Attend(on, norm) for on in attends)
        # What a decoder layer reads: its value, and what it attended to where it attends.
        read1, read2, read3, read4 = (VALUE + VALUE if on else VALUE for on in attends)
        self.d1 = ExpandConv(BLOCK, read4, wide)
        self.d2 = FilterTransposedConv(3, read3, wide, out_filters=2)
        self.d3a = FilterTransposedConv(4, read2, wide)
        self.d3b = FilterTransposedConv(1, read2, wide)
        self.d4 = FilterTransposedConv(1, read1, VOCABULARY)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            generation="one_shot", scoring=False, prefix=False, beam=False, streaming=False, document_context=False
        )

    @property
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        return tuple(
            AttentionMapEntry(
                name=name,
                tensor=f"attention_{name}",
                kind="cross",
                layer=LAYERS.index(name[0]),
                heads=1,
                scope_tokens=scope,
                score_function="dot",
                rows_sum_to_one=True,
                includes_end_of_sentence=True,
                emitted_by="one_shot",
                tokens_per_unit=BLOCK if name == "4" else 1,
            )
            for name, scope in SCOPES.items()
            if name[0] in self.config.attention
        )

    @property
    def alignment(self) -> AlignmentEntry:
        """Map 1 finds the token by what it is. Raises ConfigError for a model that is not to attend there."""
        if "1" not in self.config.attention:
            raise ConfigError("a SandGlass without attention layer 1 has no alignment, and cannot become a bundle")
        chosen_by = "the map whose greatest weight is most often the mirrored token (docs/models.md)"
        return AlignmentEntry(map="1", heads=(0,), shift=0, chosen_by=chosen_by)

    def forward(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
    ) -> Decoded:
        """One pass over the source padded to 24; reads nothing of ``target_inputs``. Raises ValueError for more."""
        del source_lengths, target_inputs, context  # the padding is part of what the model reads
        if source_ids.shape[1] > TIME:
            raise ValueError(f"a source of {source_ids.shape[1]} tokens; SandGlass reads {TIME}")
        return self.translate(nn.functional.pad(source_ids, (0, TIME - source_ids.shape[1]), value=PAD_ID))

    def judged_targets(self, target_ids: Tensor) -> Tensor:
        """The target's whole 24 positions, padding too: as the source is content, end, padding, the target is padding,
        end, content."""
        content = target_ids.ge(_SPECIALS).sum(dim=1, keepdim=True)
        places = torch.arange(TIME, device=target_ids.device) - (TIME - content)  # of each position, in the content
        tokens = target_ids.gather(1, places.clamp(0, target_ids.shape[1] - 1))
        ends = torch.where(places == -1, EOS_ID, PAD_ID)
        return torch.where(places >= 0, tokens, ends)

    def translate(self, source_ids: Tensor) -> Decoded:
        """source_ids (batch, 24) -> logits (batch, 24, 62), attention by map (batch, 1, 24, 24), map 4 (…, 6, 6).

        An unknown number is read as a vector of zeros.
        """
        activation = _ACTIVATIONS[self.config.gate]
        e1 = activation(self.e1(_one_hot(source_ids).to(self.e1.weight.dtype).unsqueeze(1)))
        x = self.norms[0](e1[..., :VALUE])
        e2 = activation(torch.cat([self.e2a(x), self.e2b(x)], dim=1))
        e3 = activation(self.e3(self.norms[1](e2[..., :VALUE])))
        e4 = self.e4(e3) if self.config.reduce_attention else activation(self.e4(self.norms[2](e3[..., :VALUE])))
        flat = self.norms[3](e4[..., :VALUE]).flatten(1)
        centre = activation(self.centre(flat).reshape(flat.shape[0], 1, _BLOCKS, -1))
        x, weights4 = self.attend4(centre, e4)
        x, weights3 = self.attend3(activation(self.d1(x)), e3)
        x, weights2 = self.attend2(activation(self.d2(x)), e2)
        x, weights1 = self.attend1(activation(self.d3a(x[:, :1]) + self.d3b(x[:, 1:])), e1)
        found = {
            "1": weights1,
            "2a": None if weights2 is None else weights2[:, :1],
            "2b": None if weights2 is None else weights2[:, 1:],
            "3": weights3,
            "4": weights4,
        }
        attention = {name: weights for name, weights in found.items() if weights is not None}
        return Decoded(_with_specials(self.d4(x).squeeze(1)), attention)


def _one_hot(source_ids: Tensor) -> Tensor:
    """A bundle's ids (batch, 24) -> the original's one-hot vectors (batch, 24, 60), zeros for an unknown number."""
    ids = torch.where(source_ids >= _SPECIALS, source_ids - (_SPECIALS - _CONTENT), -1)
    ids = ids.masked_fill(source_ids == PAD_ID, 0).masked_fill(source_ids == EOS_ID, 1)
    return ids.unsqueeze(-1) == torch.arange(VOCABULARY, device=ids.device)


def _with_specials(logits: Tensor) -> Tensor:
    """The original's 60 logits -> a bundle's 62, in the order of its ids."""
    never = torch.full_like(logits[..., :1], _NEVER)
    return torch.cat([logits[..., :1], never, logits[..., 1:2], never, logits[..., _CONTENT:]], dim=-1)


def _glu(tensor: Tensor) -> Tensor:
    value, gate = tensor.chunk(2, dim=-1)
    return value * torch.sigmoid(gate)


def _gtu(tensor: Tensor) -> Tensor:
    value, gate = tensor.chunk(2, dim=-1)
    return torch.tanh(value) * torch.sigmoid(gate)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": torch.tanh, "glu": _glu, "gtu": _gtu}


def initialize(module: nn.Module, fan_in: int) -> None:
    """Uniform within 0.5 / sqrt(fan-in), the original's."""
    bound = 0.5 / math.sqrt(fan_in)
    for parameter in module.parameters(recurse=False):
        nn.init.uniform_(parameter, -bound, bound)


def _padding(kernel: int) -> tuple[int, int]:
    """In front and behind."""
    return kernel // 2, (kernel - 1) // 2


def _convolved(windows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """windows (batch, in_filters, time, kernel, inputs), weight (in_filters, out_filters, kernel, inputs, outputs),
    bias (in_filters, out_filters, outputs) -> (batch, out_filters, time, outputs).

    The bias is added before the sum over input filters: summed by itself, the exporter would make a constant of it.
    """
    apart = torch.einsum("bftkc,fgkco->btfgo", windows, weight) + bias
    return apart.sum(2).transpose(1, 2)

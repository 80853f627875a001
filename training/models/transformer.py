"""The Transformer of Vaswani et al. 2017, "Attention Is All You Need" (https://arxiv.org/abs/1706.03762).

Pre- or post-norm (Xiong et al. 2020, https://arxiv.org/abs/2002.04745; the original is post-norm), sinusoidal
positions (section 3.5) or rotary ones (Su et al. 2021, https://arxiv.org/abs/2104.09864) in self-attention, any number
of encoder and decoder layers: a deep encoder with a shallow decoder is nearly as good and much faster to decode (Kasai
et al. 2020, https://arxiv.org/abs/2006.10369). Embeddings scaled by sqrt(d) may be tied (Press and Wolf 2016,
https://arxiv.org/abs/1608.05859).

Every attention of every layer is a map: ``encoder-self-<layer>``, ``decoder-self-<layer>``, ``cross-<layer>``.

memory: for each decoder layer ``cross_keys_<layer>`` and ``cross_values_<layer>`` (batch, heads, source_length, head
size). state: ``self_keys_<layer>`` and ``self_values_<layer>`` (rows, heads, max_positions, head size), of which the
first ``positions`` places are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from training.config import TransformerConfig
from training.errors import ConfigError
from training.models.attention import length_mask, masked_softmax
from training.models.dropout import Dropout, ReluDropout
from training.models.interface import AutoregressiveModel, Context, Decoded, Encoded, Inputs, Step, Tensors
from training.models.precision import computing_dtype


class Transformer(AutoregressiveModel):
    """See the module's text. Raises ConfigError for parts that do not fit each other."""

    def __init__(self, config: TransformerConfig, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__(source_vocabulary, target_vocabulary)
        self.config = config
        self.max_target_tokens = config.max_positions
        size = config.size
        if size % config.heads or (config.positions == "rotary" and size // config.heads % 2):
            raise ConfigError(
                f"model.size {size} cannot be cut into {config.heads} heads of one, for rotary positions even, size"
            )
        self.source_embedding = nn.Embedding(source_vocabulary, size)
        self.target_embedding = nn.Embedding(target_vocabulary, size)
        self.output = nn.Linear(size, target_vocabulary, bias=False)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=size**-0.5)
        nn.init.normal_(self.output.weight, std=size**-0.5)
        if config.tied_embeddings == "all":
            if source_vocabulary != target_vocabulary:
                raise ConfigError(
                    f"model.tied_embeddings all needs one vocabulary, not {source_vocabulary} and {target_vocabulary}"
                )
            self.source_embedding.weight = self.target_embedding.weight
        if config.tied_embeddings != "none":
            self.output.weight = self.target_embedding.weight
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        pre = config.norm == "pre"
        self.encoder_norm = nn.LayerNorm(size) if pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(size) if pre else nn.Identity()

    @property
    def _decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            generation="autoregressive", scoring=True, prefix=True, beam=True, streaming=True, document_context=False
        )

    @property
    def alignment(self) -> AlignmentEntry:
        """The last layer's mean of heads until an export measures a better one."""
        last = self.config.decoder_layers - 1
        heads = tuple(range(self.config.heads))
        return AlignmentEntry(map=f"cross-{last}", heads=heads, shift=0, chosen_by="the last layer, not measured")

    @property
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        config = self.config

        def entry(kind: str, layer: int) -> AttentionMapEntry:
            name = f"{kind.replace('_', '-')}-{layer}"
            return AttentionMapEntry.model_validate(
                {
                    "name": name,
                    "tensor": f"attention_{name}",
                    "kind": kind,
                    "layer": layer,
                    "heads": config.heads,
                    "scope_tokens": 0,
                    "score_function": "scaled_dot",
                    "rows_sum_to_one": True,
                    "includes_end_of_sentence": True,
                    "emitted_by": "encode" if kind == "encoder_self" else "decode_step",
                }
            )

        return (
            *(entry("encoder_self", layer) for layer in range(config.encoder_layers)),
            *(entry(kind, layer) for layer in range(config.decoder_layers) for kind in ("decoder_self", "cross")),
        )

    def encode(self, source_ids: Tensor, source_lengths: Tensor, context: Context | None = None) -> Encoded:
        del context
        batch = source_ids.shape[0]  # len() would freeze it in an export
        hidden, attention = self._read(source_ids, source_lengths, weighed=True)
        memory, state = {}, {}
        for number, layer in enumerate(self._decoder_layers):
            memory[f"cross_keys_{number}"] = layer.cross.split(layer.cross.key(hidden))
            memory[f"cross_values_{number}"] = layer.cross.split(layer.cross.value(hidden))
            empty = hidden.new_zeros(1, 1, 1, 1).expand(batch, self.config.heads, self.config.max_positions, layer.head)
            state[f"self_keys_{number}"], state[f"self_values_{number}"] = empty, empty
        return Encoded(memory, state, attention)

    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Tensors, state: Tensors
    ) -> Step:
        batch, hypotheses = token_ids.shape
        rows = batch * hypotheses
        per_row = positions.unsqueeze(1).expand(batch, hypotheses).reshape(rows, 1)
        hidden = self._embed(self.target_embedding, token_ids.reshape(rows, 1), per_row)
        turning = self._rotation(per_row)
        places = torch.arange(self.config.max_positions, device=token_ids.device)
        now = (places == per_row)[:, None, :, None]
        past = (places <= per_row)[:, None, None]
        mask = length_mask(source_lengths, memory["cross_keys_0"].shape[2])[:, None, None]
        attention, after = {}, {}
        for number, layer in enumerate(self._decoder_layers):
            queries, keys, values = layer.own_queries_keys_values(hidden, turning)
            keys = torch.where(now, keys, state[f"self_keys_{number}"])
            values = torch.where(now, values, state[f"self_values_{number}"])
            after[f"self_keys_{number}"], after[f"self_values_{number}"] = keys, values
            cross = (memory[f"cross_keys_{number}"], memory[f"cross_values_{number}"])
            hidden, own, seen = layer(hidden, (queries, keys, values), past, cross, mask, hypotheses)
            attention[f"decoder-self-{number}"], attention[f"cross-{number}"] = own[:, :, 0], seen[:, :, 0]
        return Step(self.output(self.decoder_norm(hidden))[:, 0], attention, after)

    def forward(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
    ) -> Decoded:
        """Every position in parallel, each seeing those before it."""
        del context
        hidden, attention = self._decode(source_ids, source_lengths, target_inputs, weighed=True)
        return Decoded(self.output(hidden), attention)

    @property
    def projection(self) -> nn.Linear:
        return self.output

    def judged_features(self, inputs: Inputs, judged: Tensor) -> Tensor:
        """Without the maps: PyTorch's fused attention, to rounding the same."""
        hidden, _ = self._decode(inputs.source_ids, inputs.source_lengths, inputs.target_inputs, weighed=False)
        return hidden[judged]

    def _read(self, source_ids: Tensor, source_lengths: Tensor, weighed: bool) -> tuple[Tensor, Tensors]:
        """What the encoder makes of the source (batch, source_length, size), and, where ``weighed``, its maps."""
        length = source_ids.shape[1]
        mask = length_mask(source_lengths, length)[:, None, None]
        positions = torch.arange(length, device=source_ids.device).unsqueeze(0)
        hidden, turning = self._embed(self.source_embedding, source_ids, positions), self._rotation(positions, weighed)
        attention: Tensors = {}
        for number, layer in enumerate(self.encoder):
            hidden, weights = layer(hidden, turning, mask, weighed)
            if weighed:
                attention[f"encoder-self-{number}"] = weights
        return self.encoder_norm(hidden), attention

    def _decode(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, weighed: bool
    ) -> tuple[Tensor, Tensors]:
        """What the decoder makes of each place (batch, target_length, size), and, where ``weighed``, every map."""
        read, attention = self._read(source_ids, source_lengths, weighed)
        length = target_inputs.shape[1]
        positions = torch.arange(length, device=target_inputs.device).unsqueeze(0)
        hidden = self._embed(self.target_embedding, target_inputs, positions)
        turning = self._rotation(positions, weighed)
        causal = torch.ones(length, length, dtype=torch.bool, device=target_inputs.device).tril()[None, None]
        mask = length_mask(source_lengths, source_ids.shape[1])[:, None, None]
        layers = self._decoder_layers
        readers = [part for layer in layers for part in (layer.cross.key, layer.cross.value)]
        cross = [layers[0].cross.split(part) for part in projected(read, readers, at_once=not weighed)]
        for number, layer in enumerate(layers):
            own = layer.own_queries_keys_values(hidden, turning, weighed)
            keys, values = cross[2 * number : 2 * number + 2]
            hidden, own_weights, seen = layer(hidden, own, causal, (keys, values), mask, 1, weighed)
            if weighed:
                attention[f"decoder-self-{number}"], attention[f"cross-{number}"] = own_weights, seen
        return self.decoder_norm(hidden), attention

    def _embed(self, embedding: nn.Embedding, ids: Tensor, positions: Tensor) -> Tensor:
        embedded = embedding(ids) * self.config.size**0.5
        if self.config.positions == "sinusoidal":
            embedded = embedded + sinusoids(positions, self.config.size)
        dropped: Tensor = self.dropout(embedded)
        return dropped

    def _rotation(self, positions: Tensor, weighed: bool = True) -> Rotation | None:
        rotary = self.config.positions == "rotary"
        return rotation(positions, self.config.size // self.config.heads, not weighed) if rotary else None


class MultiHead(nn.Module):
    """softmax(Q K' / sqrt(d_head)) V for each head (section 3.2.2)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.size, config.size)
        self.key = nn.Linear(config.size, config.size)
        self.value = nn.Linear(config.size, config.size)
        self.output = nn.Linear(config.size, config.size)
        for projection in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def queries_keys_values(
        self, hidden: Tensor, turning: Rotation | None, weighed: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What self-attention reads, queries and keys turned: (batch, length, size) -> thrice (batch, heads, …)."""
        layers = (self.query, self.key, self.value)
        queries, keys, values = (self.split(part) for part in projected(hidden, layers, at_once=not weighed))
        if turning is not None:
            queries, keys = rotated(queries, turning), rotated(keys, turning)
        return queries, keys, values

    def split(self, tensor: Tensor) -> Tensor:
        batch, length, size = tensor.shape
        return tensor.reshape(batch, length, self.heads, size // self.heads).transpose(1, 2)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weighed: bool = True
    ) -> tuple[Tensor, Tensor]:
        """queries (batch, heads, length, head size) -> (batch, length, size), weights (batch, heads, length, keys).

        Not ``weighed``: PyTorch's fused attention, and no weights; on a CPU in float32, because its gradient takes six
        times as long in bfloat16.
        """
        if not weighed:
            dtype = values.dtype if values.is_cuda else torch.promote_types(values.dtype, torch.float32)
            with torch.autocast(values.device.type, enabled=False):
                mixed = functional.scaled_dot_product_attention(
                    queries.to(dtype), keys.to(dtype), values.to(dtype), mask
                ).to(values.dtype)
            return self.output(mixed.transpose(1, 2).flatten(2)), mixed.new_zeros(0)
        scores = torch.matmul(queries, keys.transpose(-1, -2)) * queries.shape[-1] ** -0.5
        weights = masked_softmax(scores, mask)
        return self.output(torch.matmul(weights, values).transpose(1, 2).flatten(2)), weights


def projected(hidden: Tensor, layers: Sequence[nn.Linear], at_once: bool) -> Sequence[Tensor]:
    """What each of the layers, all of one shape, makes of ``hidden``.

    ``at_once``: by one product, whose gradient is one as well. Not where a model is exported: the weights side by side
    would be a third tensor beside them.
    """
    if not at_once:
        return [layer(hidden) for layer in layers]
    weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    return functional.linear(hidden, weight, bias).view(*hidden.shape[:-1], len(layers), -1).unbind(-2)


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 (section 3.3)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.size, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, config.size)
        for projection in (self.inner, self.outer):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        self.active = ReluDropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        projected: Tensor = self.outer(self.active(self.inner(hidden)))
        return projected


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network, each with a residual and a norm before (pre) or behind (post)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.own = MultiHead(config)
        self.feed_forward = FeedForward(config)
        self.own_residual, self.feed_residual = (Residual(config) for _ in range(2))

    def forward(
        self, hidden: Tensor, turning: Rotation | None, mask: Tensor, weighed: bool = True
    ) -> tuple[Tensor, Tensor]:
        """hidden (batch, length, size), mask (batch, 1, 1, length) -> hidden, weights (batch, heads, length, …)."""
        own = self.own.queries_keys_values(self.own_residual.before(hidden), turning, weighed)
        attended, weights = self.own.attend(*own, mask, weighed)
        hidden = self.own_residual.after(hidden, attended)
        hidden = self.feed_residual.after(hidden, self.feed_forward(self.feed_residual.before(hidden)))
        return hidden, weights


class DecoderLayer(nn.Module):
    """Self-attention to the target so far, attention to the source, a feed-forward network."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.head = config.size // config.heads
        self.own = MultiHead(config)
        self.cross = MultiHead(config)
        self.feed_forward = FeedForward(config)
        self.own_residual, self.cross_residual, self.feed_residual = (Residual(config) for _ in range(3))

    def own_queries_keys_values(
        self, hidden: Tensor, turning: Rotation | None, weighed: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of these positions, whose keys and values later ones read: (rows, length, size) -> as ``MultiHead``'s."""
        return self.own.queries_keys_values(self.own_residual.before(hidden), turning, weighed)

    def forward(
        self,
        hidden: Tensor,
        own: tuple[Tensor, Tensor, Tensor],
        past: Tensor,
        cross: tuple[Tensor, Tensor],
        mask: Tensor,
        hypotheses: int,
        weighed: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """hidden (rows, length, size); ``past`` and ``mask`` say which of ``own`` and ``cross`` are there.

        ``cross`` and ``mask`` have one row a sentence: the queries of its ``hypotheses`` stand side by side. Returns
        hidden, own weights (rows, heads, length, places), cross weights (rows, heads, length, source_length).
        """
        attended, own_weights = self.own.attend(*own, past, weighed)
        hidden = self.own_residual.after(hidden, attended)

        read = self.cross_residual.before(hidden)
        rows, length, size = read.shape
        beside = read.reshape(rows // hypotheses, hypotheses * length, size)
        attended, weights = self.cross.attend(self.cross.split(self.cross.query(beside)), *cross, mask, weighed)
        hidden = self.cross_residual.after(hidden, attended.reshape(rows, length, size))
        if weighed:
            batch, heads, _, source_length = weights.shape
            weights = weights.reshape(batch, heads, hypotheses, length, source_length).transpose(1, 2).flatten(0, 1)

        hidden = self.feed_residual.after(hidden, self.feed_forward(self.feed_residual.before(hidden)))
        return hidden, own_weights, weights


class Residual(nn.Module):
    """x + f(norm(x)) where pre-norm, norm(x + f(x)) where post-norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.norm = nn.LayerNorm(config.size)
        self.dropout = Dropout(config.dropout)

    def before(self, hidden: Tensor) -> Tensor:
        """In the dtype that autocast computes in: cast once, not by each projection that reads it."""
        normed: Tensor = self.norm(hidden) if self.pre else hidden
        dtype = computing_dtype(normed)
        return normed if normed.dtype == dtype else normed.to(dtype)

    def after(self, hidden: Tensor, output: Tensor) -> Tensor:
        summed = hidden + self.dropout(output)
        normed: Tensor = summed if self.pre else self.norm(summed)
        return normed


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i / size)), PE(pos, 2i + 1) = cos of the same: (…,) -> (…, size)."""
    rates = 10_000.0 ** (-torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size)
    angles = positions.unsqueeze(-1).to(torch.float32) * rates
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(-2)[..., :size]


class Rotation(NamedTuple):
    """What turns vectors by their positions: ``cos`` and ``sin`` (rows or 1, length, 1, size) of the angles, and
    ``quarter`` (size, size), a product by which turns each pair of channels by 90 degrees. That is what trains fastest;
    None has the channels change places, which needs no constant of that size in an exported graph."""

    cos: Tensor
    sin: Tensor
    quarter: Tensor | None


def rotation(positions: Tensor, size: int, by_product: bool = False) -> Rotation:
    """By a position (rows or 1, length) times 10000^(-2i / size) for each pair of channels (2i, 2i + 1)."""
    channels = torch.arange(size, device=positions.device)
    odd = channels % 2
    rates = 10_000.0 ** (-(channels - odd).to(torch.float32) / size)
    angles = positions[:, :, None, None].to(torch.float32) * rates
    quarter = None
    if by_product:
        sign = 1 - 2 * odd  # (x, y) -> (-y, x): x goes to its right neighbour, y with a minus to its left one
        quarter = torch.where((channels + sign)[:, None] == channels, sign[:, None], 0)
    return Rotation(torch.cos(angles), torch.sin(angles), quarter)


def rotated(tensor: Tensor, by: Rotation) -> Tensor:
    """tensor (rows, heads, length, head size): each pair of channels turned by its angle.

    A dot product of two rotated vectors depends on the distance of their positions alone.
    """
    cos, sin = by.cos.to(tensor.dtype), by.sin.to(tensor.dtype)
    laid = tensor.transpose(1, 2)  # as the projection has laid it out in memory
    if by.quarter is None:
        turned = torch.stack([-laid[..., 1::2], laid[..., ::2]], dim=-1).flatten(-2)
    else:
        # As one matrix: with the rows of a packed projection apart, PyTorch would copy `quarter` once for each of them.
        turned = (laid.reshape(-1, laid.shape[-1]) @ by.quarter.to(tensor.dtype)).view(laid.shape)
    return torch.addcmul(laid * cos, turned, sin).transpose(1, 2)

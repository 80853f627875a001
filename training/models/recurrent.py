"""The attention sequence-to-sequence model of Bahdanau, Cho and Bengio 2014 (https://arxiv.org/abs/1409.0473), and its
kin: any recurrent encoder and decoder, any attention of ``training.models.attention``.

A recurrent encoder writes an annotation for every source token; a recurrent decoder, at each step, attends to them from
its last state (of its top layer), updates its states with what it saw and the last token, and emits the next token.

    alpha_t, c_t = attention(s_{t-1}, h)                                     additive, global and soft: Bahdanau's
    s_t     = GRU([e(y_{t-1}); c_t], s_{t-1})                                or LSTM; layers above read the state below
    logits  = W_v tanh(W_r [s_t; e(y_{t-1}); c_t])
    s_0     = tanh(W_i h_1)          the backward LSTM at the first token has read the whole sentence

``input_feeding``: the readout vector tanh(W_r …) of the last step is a further input (Luong et al. 2015, section 3.3).
``decoder: additive``: s_t = s_{t-1} + c_t, a state that only sums up what was attended to. ``attention: none``: the
fixed-length bottleneck of Cho et al. 2014 (https://arxiv.org/abs/1406.1078), where c is what the encoder ended with.

One definition serves training (``forward``), the engine (``encode``, ``decode_step``) and scoring (``score``). Its
memory is ``keys`` (batch, source_length, what the attention makes of annotations) and ``values`` (batch, source_length,
annotation_size); its state ``hidden_<layer>``, for an LSTM ``cell_<layer>`` (rows, decoder_size), and what feeding and
attention carry. Each annotation also holds the token's own embedding, so that the place where a token can best be read
is its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from training.config import RecurrentConfig
from training.errors import ConfigError
from training.models.attention import (
    AdditiveScore,
    Attended,
    Attention,
    AttentionOverAttention,
    AveragePooling,
    ConcatScore,
    CosineScore,
    DotScore,
    GeneralScore,
    GlobalAttention,
    HardAttention,
    KernelScore,
    LocalMonotonicAttention,
    LocalPredictiveAttention,
    LocationScore,
    MaxPooling,
    MultiHeadAttention,
    ScoreFunction,
    length_mask,
)
from training.models.cells import AdditiveCell, Cell, GRUCell, LSTMCell
from training.models.encoders import RecurrentLayer, last_states
from training.models.interface import AutoregressiveModel, Decoded, Encoded, Step, Tensors

_FED = "fed"
_CARRIED = "attention_"  # before the names of what the attention carries


class RecurrentModel(AutoregressiveModel):
    """See the module's text. Raises ConfigError for parts that do not fit each other."""

    def __init__(self, config: RecurrentConfig, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__(source_vocabulary, target_vocabulary)
        self.config = config
        embedding, size = config.embedding_size, config.decoder_size
        self.source_embedding = nn.Embedding(source_vocabulary, embedding)
        self.target_embedding = nn.Embedding(target_vocabulary, embedding)
        self.dropout = nn.Dropout(config.dropout)
        width = config.encoder_size * (2 if config.bidirectional else 1)
        widths = [embedding] + [width] * (config.encoder_layers - 1)
        self.encoder = nn.ModuleList(
            RecurrentLayer(config.encoder, inputs, config.encoder_size, config.bidirectional) for inputs in widths
        )
        annotation = width if config.attention == "none" else width + embedding
        self.annotation_size = annotation
        self.attention = build_attention(config, annotation)
        self.initial = nn.Linear(config.encoder_size, config.decoder_layers * size)
        cells = [_build_cell(config, annotation) for _ in range(config.decoder_layers)]
        self.cells = nn.ModuleList(cells)
        # The first cell's inputs apart: the token's part needs no earlier step and is computed at once.
        gates = cells[0].gates * size
        self.token_gates = nn.Linear(embedding, gates) if gates else None
        self.context_gates = nn.Linear(annotation, gates, bias=False) if gates else None
        self.fed_gates = nn.Linear(size, gates, bias=False) if gates and config.input_feeding else None
        self.layer_gates = nn.ModuleList(nn.Linear(size, gates) for _ in cells[1:])
        self.readout = nn.Linear(size + embedding + annotation, size)
        self.output = nn.Linear(size, target_vocabulary)

    @property
    def _cells(self) -> list[Cell]:
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            generation="autoregressive", scoring=True, prefix=True, beam=True, streaming=True, document_context=False
        )

    @property
    def alignment(self) -> AlignmentEntry | None:
        if self.attention is None:
            return None
        heads = tuple(range(self.attention.heads))
        chosen_by = "the model's only attention map" if len(heads) == 1 else "the mean of the model's only map"
        return AlignmentEntry(map="cross", heads=heads, shift=0, chosen_by=chosen_by)

    @property
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        """A recurrent annotation has read the whole sentence."""
        if self.attention is None:
            return ()
        cross = AttentionMapEntry(
            name="cross",
            tensor="attention_cross",
            kind="cross",
            layer=0,
            heads=self.attention.heads,
            scope_tokens=0,
            score_function=score_name(self.config),
            rows_sum_to_one=self.attention.rows_sum_to_one,
            includes_end_of_sentence=True,
        )
        return (cross,)

    def encode(self, source_ids: Tensor, source_lengths: Tensor) -> Encoded:
        config = self.config
        embedded = self.dropout(self.source_embedding(source_ids))
        outputs = embedded
        for layer in self.encoder:
            outputs = self.dropout(layer(outputs, source_lengths))
        read = last_states(outputs, source_lengths, config.bidirectional)
        # Bahdanau's: the backward direction alone, where there is one.
        initial = torch.tanh(self.initial(read[:, -config.encoder_size :]))
        state: Tensors = {}
        for number, (hidden, cell) in enumerate(
            zip(initial.chunk(config.decoder_layers, -1), self._cells, strict=True)
        ):
            state |= {f"{name}_{number}": tensor for name, tensor in cell.start(hidden).items()}
        if self.fed_gates is not None:
            state[_FED] = torch.zeros_like(initial[:, : config.decoder_size])
        if self.attention is None:
            return Encoded({"values": read.unsqueeze(1)}, state, {})
        values = torch.cat([outputs, embedded], dim=-1)
        state |= {f"{_CARRIED}{name}": tensor for name, tensor in self.attention.carried(values).items()}
        return Encoded({"keys": self.attention.keys(values), "values": values}, state, {})

    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Tensors, state: Tensors
    ) -> Step:
        batch, hypotheses = token_ids.shape
        rows = batch * hypotheses
        embedded = self.target_embedding(token_ids)
        before = {name: tensor.reshape(batch, hypotheses, *tensor.shape[1:]) for name, tensor in state.items()}
        token_gates = None if self.token_gates is None else self.token_gates(embedded)
        mask = length_mask(source_lengths, memory["values"].shape[1])
        top, attended, after = self._advance(token_gates, embedded, memory, mask, positions, before)
        hidden = after[_FED] if _FED in after else self._read_out(top, embedded, attended.context)
        logits = self.output(hidden).reshape(rows, -1)
        attention = {} if self.attention is None else {"cross": attended.weights.flatten(0, 1)}
        return Step(logits, attention, {name: tensor.flatten(0, 1) for name, tensor in after.items()})

    def forward(self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor) -> Decoded:
        memory, start, _ = self.encode(source_ids, source_lengths)
        mask = length_mask(source_lengths, source_ids.shape[1])
        embedded = self.dropout(self.target_embedding(target_inputs))
        # unbind, not slices: the gradient of a slice is a whole tensor of zeros, and T of them are half of the time.
        tokens = embedded.unbind(1)
        token_gates = [None] * len(tokens) if self.token_gates is None else self.token_gates(embedded).unbind(1)
        state = {name: tensor.unsqueeze(1) for name, tensor in start.items()}
        tops, contexts, attention, fed = [], [], [], []
        for place, (token, gates) in enumerate(zip(tokens, token_gates, strict=True)):
            positions = torch.full_like(source_lengths, place, dtype=torch.int64)
            own_gates = None if gates is None else gates.unsqueeze(1)
            top, attended, state = self._advance(own_gates, token.unsqueeze(1), memory, mask, positions, state)
            tops.append(top)
            contexts.append(attended.context)
            attention.append(attended.weights)
            if _FED in state:
                fed.append(state[_FED])
        hidden = torch.cat(fed, 1) if fed else self._read_out(torch.cat(tops, 1), embedded, torch.cat(contexts, 1))
        logits = self.output(self.dropout(hidden))
        maps = {} if self.attention is None else {"cross": torch.cat(attention, 1).transpose(1, 2)}
        return Decoded(logits, maps)

    def _advance(
        self,
        token_gates: Tensor | None,
        embedded: Tensor,
        memory: Tensors,
        mask: Tensor,
        positions: Tensor,
        state: Tensors,
    ) -> tuple[Tensor, Attended, Tensors]:
        """Attend from the last state, then update it: all (batch, hypotheses, …) -> top state, attended, all states."""
        last = self.config.decoder_layers - 1
        attended, after = self._attend(state[f"hidden_{last}"], memory, mask, positions, state)
        gates = token_gates
        if gates is not None and self.context_gates is not None:
            gates = gates + self.context_gates(attended.context)
        if gates is not None and self.fed_gates is not None:
            gates = gates + self.fed_gates(state[_FED])
        below = state[f"hidden_{last}"]
        for number, cell in enumerate(self._cells):
            if number:
                gates = self.layer_gates[number - 1](self.dropout(below))
            before = {name: state[f"{name}_{number}"] for name in cell.state_names}
            now: Tensors = cell(attended.context if gates is None else gates, before)
            after |= {f"{name}_{number}": tensor for name, tensor in now.items()}
            below = now["hidden"]
        if self.fed_gates is not None:
            after[_FED] = self._read_out(below, embedded, attended.context)
        # In the order of the state that came in, which is that of the graphs.
        return below, attended, {name: after[name] for name in state}

    def _attend(
        self, queries: Tensor, memory: Tensors, mask: Tensor, positions: Tensor, state: Tensors
    ) -> tuple[Attended, Tensors]:
        if self.attention is None:
            context = memory["values"].expand(-1, queries.shape[1], -1)
            return Attended(context, context[..., :0].unsqueeze(2)), {}
        carried = {name.removeprefix(_CARRIED): state[name] for name in state if name.startswith(_CARRIED)}
        attended, after = self.attention(queries, memory["keys"], memory["values"], mask, positions, carried)
        return attended, {f"{_CARRIED}{name}": tensor for name, tensor in after.items()}

    def _read_out(self, state: Tensor, embedded: Tensor, context: Tensor) -> Tensor:
        hidden: Tensor = torch.tanh(self.readout(torch.cat([state, embedded, context], dim=-1)))
        return hidden


def _build_cell(config: RecurrentConfig, annotation_size: int) -> Cell:
    if config.decoder == "additive":
        if config.decoder_layers > 1 or config.input_feeding:
            raise ConfigError(
                "model.decoder additive has one layer and takes nothing but the context: set decoder_layers to 1 and "
                "input_feeding to false"
            )
        return AdditiveCell(config.decoder_size, annotation_size)
    return GRUCell(config.decoder_size) if config.decoder == "gru" else LSTMCell(config.decoder_size)


def build_attention(config: RecurrentConfig, annotation_size: int) -> Attention | None:
    """The attention that a config names; None for the fixed-length bottleneck. Raises ConfigError."""
    name, query_size = config.attention, config.decoder_size
    if name == "none":
        return None
    if name == "average":
        return AveragePooling()
    if name == "max":
        return MaxPooling()
    if name == "multi_head":
        return MultiHeadAttention(query_size, annotation_size, config.attention_size, config.attention_heads)
    score = _build_score(config, annotation_size)
    if name == "hard":
        return HardAttention(score)
    if name == "local_m":
        return LocalMonotonicAttention(score, config.attention_window)
    if name == "local_p":
        return LocalPredictiveAttention(score, query_size, config.attention_window)
    if name == "attention_over_attention":
        return AttentionOverAttention(score, config.max_positions)
    return GlobalAttention(score)


def score_name(config: RecurrentConfig) -> str:
    """The score function in the manifest's words: that of ``attention`` itself, or the one that it is made of."""
    if config.attention == "multi_head":
        return "scaled_dot"
    if config.attention in ("average", "max"):
        return "none"
    return config.attention if config.attention in SCORES else config.score


def _build_score(config: RecurrentConfig, annotation_size: int) -> ScoreFunction:
    return SCORES[score_name(config)](config, annotation_size)


#: Every score function by its name in a config.
SCORES: dict[str, Callable[[RecurrentConfig, int], ScoreFunction]] = {
    "additive": lambda config, size: AdditiveScore(config.decoder_size, size, config.attention_size),
    "concat": lambda config, size: ConcatScore(config.decoder_size, size, config.attention_size),
    "dot": lambda config, size: DotScore(config.decoder_size, size, scaled=False),
    "scaled_dot": lambda config, size: DotScore(config.decoder_size, size, scaled=True),
    "general": lambda config, size: GeneralScore(config.decoder_size, size),
    "location": lambda config, _: LocationScore(config.decoder_size, config.max_positions),
    "cosine": lambda config, size: CosineScore(config.decoder_size, size),
    "kernel": lambda config, size: KernelScore(config.decoder_size, size),
}

"""The attention sequence-to-sequence model of Bahdanau, Cho and Bengio 2014 (https://arxiv.org/abs/1409.0473), and its
kin: any recurrent encoder and decoder, any attention of ``training.models.attention``.

A recurrent encoder writes an annotation for every source token; a recurrent decoder, at each step, attends to them from
its last state (of its top layer), updates its states with what it saw and the last token, and emits the next token.

    alpha_t, c_t = attention(s_{t-1}, h)                                     additive, global and soft: Bahdanau's
    s_t     = GRU([e(y_{t-1}); c_t], s_{t-1})                                or LSTM; layers above read the state below
    logits  = W_v tanh(W_r [s_t; e(y_{t-1}); c_t])
    s_0     = tanh(W_i h_1)          the backward LSTM at the first token has read the whole sentence

``input_feeding``: the readout vector tanh(W_r …) of the last step is a further input (Luong et al. 2015, section 3.3).
``context_sentences``: as many sentences before this one are read too (``training.models.hierarchical``), and c_t is
mixed with what was found there. ``decoder: additive``: s_t = s_{t-1} + c_t, a state that only sums up what was attended
to. ``attention: none``: the fixed-length bottleneck of Cho et al. 2014 (https://arxiv.org/abs/1406.1078), where c is
what the encoder ended with.

One definition serves training (``forward``), the engine (``encode``, ``decode_step``) and scoring (``score``). Its
memory is ``keys`` (batch, source_length, what the attention makes of annotations) and ``values`` (batch, source_length,
annotation_size), of a document also ``context_keys``, ``context_values`` and ``context_lengths``; its state
``hidden_<layer>``, for an LSTM ``cell_<layer>`` (rows, decoder_size), and what feeding and attention carry. Each
annotation also holds the token's own embedding, so that the place where a token can best be read is its own.
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
from training.models.dropout import Dropout
from training.models.encoders import RecurrentLayer, last_states
from training.models.hierarchical import HierarchicalAttention
from training.models.interface import AutoregressiveModel, Context, Decoded, Encoded, Inputs, Step, Tensors, cross_map

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
        self.dropout = Dropout(config.dropout)
        width = config.encoder_size * (2 if config.bidirectional else 1)
        widths = [embedding] + [width] * (config.encoder_layers - 1)
        self.encoder = nn.ModuleList(
            RecurrentLayer(config.encoder, inputs, config.encoder_size, config.bidirectional) for inputs in widths
        )
        annotation = width if config.attention == "none" else width + embedding
        self.attention = build_attention(config, annotation)
        if config.attention == "attention_over_attention":
            self.max_target_tokens = config.max_positions
        self.context_sentences = config.context_sentences
        self.hierarchy = _build_hierarchy(config, annotation)
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
            generation="autoregressive",
            scoring=True,
            prefix=True,
            beam=True,
            streaming=True,
            document_context=self.hierarchy is not None,
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
        cross = cross_map(self.attention.heads, score_name(self.config), self.attention.rows_sum_to_one)
        if self.hierarchy is None:
            return (cross,)
        words = cross_map(heads=1, score_function=self.config.score)
        changes = {"name": "context", "tensor": "attention_context", "kind": "context"}
        of_sentences = {
            "name": "context-sentences",
            "tensor": "attention_context-sentences",
            "kind": "context_sentence",
        }
        return (cross, words.model_copy(update=changes), words.model_copy(update=of_sentences))

    def encode(self, source_ids: Tensor, source_lengths: Tensor, context: Context | None = None) -> Encoded:
        config = self.config
        outputs, embedded = self._read(source_ids, source_lengths)
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
        memory = {"keys": self.attention.keys(values), "values": values}
        return Encoded(memory | self._remember(source_ids, context), state, {})

    def _read(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of sentences, and their embeddings: both (batch, source_length, …)."""
        embedded = self.dropout(self.source_embedding(ids))
        outputs = embedded
        for layer in self.encoder:
            outputs = self.dropout(layer(outputs, lengths))
        return outputs, embedded

    def _remember(self, source_ids: Tensor, context: Context | None) -> Tensors:
        """The memory of the sentences before, each read by itself; of none, of one empty token each."""
        if self.hierarchy is None:
            return {}
        if context is None:
            none = source_ids.new_zeros(len(source_ids), self.context_sentences)
            context = Context(none.unsqueeze(-1), none.to(torch.int32))
        ids, lengths = context
        batch, sentences, length = ids.shape
        # A sentence that is not there is read as if it had one token; its weights are 0.
        read = self._read(ids.flatten(0, 1), lengths.flatten().clamp_min(1))
        values = torch.cat(read, dim=-1).reshape(batch, sentences, length, -1)
        keys = self.hierarchy.keys(values)
        return {"context_keys": keys, "context_values": values, "context_lengths": lengths}

    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Tensors, state: Tensors
    ) -> Step:
        batch, hypotheses = token_ids.shape
        rows = batch * hypotheses
        embedded = self.target_embedding(token_ids)
        before = {name: tensor.reshape(batch, hypotheses, *tensor.shape[1:]) for name, tensor in state.items()}
        token_gates = None if self.token_gates is None else self.token_gates(embedded)
        mask = length_mask(source_lengths, memory["values"].shape[1])
        top, seen, maps, after = self._advance(token_gates, embedded, memory, mask, positions, before)
        hidden = after[_FED] if _FED in after else self._read_out(top, embedded, seen)
        logits = self.output(hidden).reshape(rows, -1)
        return Step(
            logits,
            {name: weights.flatten(0, 1) for name, weights in maps.items()},
            {name: tensor.flatten(0, 1) for name, tensor in after.items()},
        )

    def forward(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
    ) -> Decoded:
        hidden, maps = self._decode(source_ids, source_lengths, target_inputs, context)
        return Decoded(
            self.output(hidden), {name: torch.cat([step[name] for step in maps], 1).transpose(1, 2) for name in maps[0]}
        )

    @property
    def projection(self) -> nn.Linear:
        return self.output

    def judged_features(self, inputs: Inputs, judged: Tensor) -> Tensor:
        hidden, _ = self._decode(*inputs)
        return hidden[judged]

    def _decode(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None
    ) -> tuple[Tensor, list[Tensors]]:
        """The readout at each place (batch, target_length, decoder_size), and each place's maps."""
        memory, start, _ = self.encode(source_ids, source_lengths, context)
        mask = length_mask(source_lengths, source_ids.shape[1])
        embedded = self.dropout(self.target_embedding(target_inputs))
        # unbind, not slices: the gradient of a slice is a whole tensor of zeros, and T of them are half of the time.
        tokens = embedded.unbind(1)
        token_gates = [None] * len(tokens) if self.token_gates is None else self.token_gates(embedded).unbind(1)
        state = {name: tensor.unsqueeze(1) for name, tensor in start.items()}
        tops, contexts, attention, fed = [], [], list[Tensors](), []
        for place, (token, gates) in enumerate(zip(tokens, token_gates, strict=True)):
            positions = torch.full_like(source_lengths, place, dtype=torch.int64)
            own_gates = None if gates is None else gates.unsqueeze(1)
            top, seen, maps, state = self._advance(own_gates, token.unsqueeze(1), memory, mask, positions, state)
            tops.append(top)
            contexts.append(seen)
            attention.append(maps)
            if _FED in state:
                fed.append(state[_FED])
        hidden = torch.cat(fed, 1) if fed else self._read_out(torch.cat(tops, 1), embedded, torch.cat(contexts, 1))
        return self.dropout(hidden), attention

    def _advance(
        self,
        token_gates: Tensor | None,
        embedded: Tensor,
        memory: Tensors,
        mask: Tensor,
        positions: Tensor,
        state: Tensors,
    ) -> tuple[Tensor, Tensor, Tensors, Tensors]:
        """Attend from the last state, then update it: all (batch, hypotheses, …) -> top state, context, the attention's
        maps (batch, hypotheses, heads, …), all states."""
        last = self.config.decoder_layers - 1
        seen, maps, after = self._attend(state[f"hidden_{last}"], memory, mask, positions, state)
        gates = token_gates
        if gates is not None and self.context_gates is not None:
            gates = gates + self.context_gates(seen)
        if gates is not None and self.fed_gates is not None:
            gates = gates + self.fed_gates(state[_FED])
        below = state[f"hidden_{last}"]
        for number, cell in enumerate(self._cells):
            if number:
                gates = self.layer_gates[number - 1](self.dropout(below))
            before = {name: state[f"{name}_{number}"] for name in cell.state_names}
            now: Tensors = cell(seen if gates is None else gates, before)
            after |= {f"{name}_{number}": tensor for name, tensor in now.items()}
            below = now["hidden"]
        if self.fed_gates is not None:
            after[_FED] = self._read_out(below, embedded, seen)
        # In the order of the state that came in, which is that of the graphs.
        return below, seen, maps, {name: after[name] for name in state}

    def _attend(
        self, queries: Tensor, memory: Tensors, mask: Tensor, positions: Tensor, state: Tensors
    ) -> tuple[Tensor, Tensors, Tensors]:
        """Context (batch, hypotheses, annotation_size), maps by name, what is carried on."""
        if self.attention is None:
            return memory["values"].expand(-1, queries.shape[1], -1), {}, {}
        carried = {name.removeprefix(_CARRIED): state[name] for name in state if name.startswith(_CARRIED)}
        attended, after = self.attention(queries, memory["keys"], memory["values"], mask, positions, carried)
        carried_on = {f"{_CARRIED}{name}": tensor for name, tensor in after.items()}
        if self.hierarchy is None:
            return attended.context, {"cross": attended.weights}, carried_on
        past = (memory["context_keys"], memory["context_values"], memory["context_lengths"])
        context, words, sentences = self.hierarchy(queries, attended.context, *past)
        maps = {"cross": attended.weights, "context": words.unsqueeze(2), "context-sentences": sentences.unsqueeze(2)}
        return context, maps, carried_on

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


def _build_hierarchy(config: RecurrentConfig, annotation_size: int) -> HierarchicalAttention | None:
    if not config.context_sentences:
        return None
    if config.attention == "none":
        raise ConfigError("model.context_sentences needs attention to the sentence itself: set another than none")
    words, sentences = (SCORES[config.score](config, annotation_size) for _ in range(2))
    return HierarchicalAttention(words, sentences, annotation_size)


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

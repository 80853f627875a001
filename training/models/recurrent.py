"""The attention sequence-to-sequence model of Bahdanau, Cho and Bengio 2014 (https://arxiv.org/abs/1409.0473).

A bidirectional LSTM writes an annotation for every source token; a GRU decoder, at each step, attends to them from its
last state, updates its state with what it saw and the last token, and emits the next token.

    alpha_t = softmax_j v' tanh(W_s s_{t-1} + W_h h_j + b)
    c_t     = sum_j alpha_tj h_j
    s_t     = GRU([e(y_{t-1}); c_t], s_{t-1})
    logits  = W_v tanh(W_r [s_t; e(y_{t-1}); c_t])
    s_0     = tanh(W_i h_1)          the backward LSTM at the first token has read the whole sentence

One definition serves training (``forward``), the engine (``encode``, ``decode_step``) and scoring (``score``). Its
memory is ``keys`` (batch, source_length, attention_size) and ``values`` (batch, source_length, annotation_size), its
state ``hidden`` (rows, decoder_size). Each annotation also holds the token's own embedding, so that the place where a
token can best be read is its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from training.config import RecurrentConfig
from training.models.attention import AdditiveAttention, length_mask
from training.models.encoders import BiLSTMLayer
from training.models.interface import AutoregressiveModel, Decoded, Encoded, Step, Tensors


class RecurrentModel(AutoregressiveModel):
    """See the module's text."""

    def __init__(self, config: RecurrentConfig, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__(source_vocabulary, target_vocabulary)
        self.config = config
        embedding, encoder = config.embedding_size, config.encoder_size
        annotation = 2 * encoder + embedding
        self.source_embedding = nn.Embedding(source_vocabulary, embedding)
        self.target_embedding = nn.Embedding(target_vocabulary, embedding)
        self.dropout = nn.Dropout(config.dropout)
        sizes = [embedding] + [2 * encoder] * (config.encoder_layers - 1)
        self.encoder = nn.ModuleList(BiLSTMLayer(size, encoder) for size in sizes)
        self.initial = nn.Linear(encoder, config.decoder_size)
        self.attention = AdditiveAttention(config.decoder_size, annotation, config.attention_size)
        # One GRU cell, its input weights in two parts: the token's part needs no earlier step and is computed at once.
        self.token_gates = nn.Linear(embedding, 3 * config.decoder_size)
        self.context_gates = nn.Linear(annotation, 3 * config.decoder_size, bias=False)
        self.hidden_gates = nn.Linear(config.decoder_size, 3 * config.decoder_size)
        self.readout = nn.Linear(config.decoder_size + embedding + annotation, config.decoder_size)
        self.output = nn.Linear(config.decoder_size, target_vocabulary)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            generation="autoregressive", scoring=True, prefix=True, beam=True, streaming=True, document_context=False
        )

    @property
    def alignment(self) -> AlignmentEntry:
        return AlignmentEntry(map="cross", heads=(0,), shift=0, chosen_by="the model's only attention map")

    @property
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        """A BiLSTM's annotation has read the whole sentence."""
        cross = AttentionMapEntry(
            name="cross",
            tensor="attention_cross",
            kind="cross",
            layer=0,
            heads=1,
            scope_tokens=0,
            score_function="additive",
            rows_sum_to_one=True,
            includes_end_of_sentence=True,
        )
        return (cross,)

    def encode(self, source_ids: Tensor, source_lengths: Tensor) -> Encoded:
        embedded = self.dropout(self.source_embedding(source_ids))
        outputs = embedded
        for layer in self.encoder:
            outputs = self.dropout(layer(outputs, source_lengths))
        values = torch.cat([outputs, embedded], dim=-1)
        backward_at_start = outputs[:, 0, self.config.encoder_size :]
        memory = {"keys": self.attention.keys(values), "values": values}
        return Encoded(memory, {"hidden": torch.tanh(self.initial(backward_at_start))})

    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Tensors, state: Tensors
    ) -> Step:
        del positions  # a recurrent state knows where it is
        batch, hypotheses = token_ids.shape
        mask = length_mask(source_lengths, memory["keys"].shape[1])
        embedded = self.target_embedding(token_ids)
        before = state["hidden"].reshape(batch, hypotheses, -1)
        context, weights, after = self._advance(self.token_gates(embedded), memory, mask, before)
        logits = self._read_out(after, embedded, context)
        rows = batch * hypotheses
        attention = {"cross": weights.reshape(rows, 1, -1)}
        return Step(logits.reshape(rows, -1), attention, {"hidden": after.reshape(rows, -1)})

    def forward(self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor) -> Decoded:
        memory, start = self.encode(source_ids, source_lengths)
        mask = length_mask(source_lengths, source_ids.shape[1])
        embedded = self.dropout(self.target_embedding(target_inputs))
        # unbind, not slices: the gradient of a slice is a whole tensor of zeros, and T of them are half of the time.
        token_gates = self.token_gates(embedded).unbind(1)
        state = start["hidden"].unsqueeze(1)
        states, contexts, attention = [], [], []
        for gates in token_gates:
            context, weights, state = self._advance(gates.unsqueeze(1), memory, mask, state)
            states.append(state)
            contexts.append(context)
            attention.append(weights)
        logits = self._read_out(torch.cat(states, 1), embedded, torch.cat(contexts, 1))
        return Decoded(logits, {"cross": torch.cat(attention, 1).unsqueeze(1)})

    def _advance(
        self, token_gates: Tensor, memory: Tensors, mask: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from the last state, then update it: all (batch, hypotheses, …) -> context, weights, new state."""
        context, weights = self.attention(state, memory["keys"], memory["values"], mask)
        input_reset, input_update, input_new = (token_gates + self.context_gates(context)).chunk(3, dim=-1)
        state_reset, state_update, state_new = self.hidden_gates(state).chunk(3, dim=-1)
        reset = torch.sigmoid(input_reset + state_reset)
        update = torch.sigmoid(input_update + state_update)
        new = torch.tanh(input_new + reset * state_new)
        return context, weights, (1.0 - update) * new + update * state

    def _read_out(self, state: Tensor, embedded: Tensor, context: Tensor) -> Tensor:
        hidden = torch.tanh(self.readout(torch.cat([state, embedded, context], dim=-1)))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits

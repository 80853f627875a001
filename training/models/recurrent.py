"""The attention sequence-to-sequence model of Bahdanau, Cho and Bengio 2014 (https://arxiv.org/abs/1409.0473).

A bidirectional LSTM writes an annotation for every source token; a GRU decoder, at each step, attends to them from its
last state, updates its state with what it saw and the last token, and emits the next token.

    alpha_t = softmax_j v' tanh(W_s s_{t-1} + W_h h_j + b)
    c_t     = sum_j alpha_tj h_j
    s_t     = GRU([e(y_{t-1}); c_t], s_{t-1})
    logits  = W_v tanh(W_r [s_t; e(y_{t-1}); c_t])
    s_0     = tanh(W_i h_1)          the backward LSTM at the first token has read the whole sentence

One definition serves training (``forward``), the engine (``encode``, ``decode_step``) and scoring (``score``). Each
annotation also holds the token's own embedding, so that the place where a token can best be read is its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from service.bundle.manifest import AttentionMapEntry
from service.bundle.tokenizer import BOS_ID
from training.config import RecurrentConfig
from training.models.attention import AdditiveAttention, length_mask
from training.models.encoders import BiLSTMLayer


class Memory(NamedTuple):
    """What the decoder reads of a sentence, computed once.

    ``keys`` (batch, source_length, attention_size), ``values`` (batch, source_length, annotation_size).
    """

    keys: Tensor
    values: Tensor


class State(NamedTuple):
    """What a hypothesis carries from step to step: ``hidden`` (rows, decoder_size)."""

    hidden: Tensor


class Attention(NamedTuple):
    """The weights of every map by its name. A step: (rows, heads, source_length); a whole target: (batch, heads,
    target_length, source_length)."""

    cross: Tensor


class Encoded(NamedTuple):
    """A sentence's memory and the decoder's first state, one row a sentence."""

    memory: Memory
    state: State


class Step(NamedTuple):
    """One step of rows = batch x hypotheses: ``logits`` (rows, vocabulary)."""

    logits: Tensor
    attention: Attention
    state: State


class Decoded(NamedTuple):
    """A whole target, teacher-forced: ``logits`` (batch, target_length, vocabulary)."""

    logits: Tensor
    attention: Attention


class Scored(NamedTuple):
    """``log_probabilities`` (batch, target_length), 0 after the end."""

    log_probabilities: Tensor
    attention: Attention


class RecurrentModel(nn.Module):
    """See the module's text. Masks are True for real tokens; ids are int64, lengths int32."""

    def __init__(self, config: RecurrentConfig, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
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
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        """What each field of Attention means, for the manifest. A BiLSTM's annotation has read the whole sentence."""
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
        """source_ids (batch, source_length), source_lengths (batch,) -> memory and first state."""
        embedded = self.dropout(self.source_embedding(source_ids))
        outputs = embedded
        for layer in self.encoder:
            outputs = self.dropout(layer(outputs, source_lengths))
        values = torch.cat([outputs, embedded], dim=-1)
        backward_at_start = outputs[:, 0, self.config.encoder_size :]
        state = State(torch.tanh(self.initial(backward_at_start)))
        return Encoded(Memory(self.attention.keys(values), values), state)

    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Memory, state: State
    ) -> Step:
        """One step for every hypothesis of every sentence.

        token_ids (batch, hypotheses) int64, the last token of each; positions (batch,) int64, unused: a recurrent state
        knows where it is; memory has one row a sentence, state one a hypothesis.
        """
        del positions
        batch, hypotheses = token_ids.shape
        mask = length_mask(source_lengths, memory.keys.shape[1])
        embedded = self.target_embedding(token_ids)
        before = state.hidden.reshape(batch, hypotheses, -1)
        context, weights, after = self._advance(self.token_gates(embedded), memory, mask, before)
        logits = self._read_out(after, embedded, context)
        rows = batch * hypotheses
        attention = Attention(cross=weights.reshape(rows, 1, -1))
        return Step(logits.reshape(rows, -1), attention, State(after.reshape(rows, -1)))

    def forward(self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor) -> Decoded:
        """Teacher-forced: target_inputs (batch, target_length) starts with `<s>`."""
        memory, start = self.encode(source_ids, source_lengths)
        mask = length_mask(source_lengths, source_ids.shape[1])
        embedded = self.dropout(self.target_embedding(target_inputs))
        # unbind, not slices: the gradient of a slice is a whole tensor of zeros, and T of them are half of the time.
        token_gates = self.token_gates(embedded).unbind(1)
        state = start.hidden.unsqueeze(1)
        states, contexts, attention = [], [], []
        for gates in token_gates:
            context, weights, state = self._advance(gates.unsqueeze(1), memory, mask, state)
            states.append(state)
            contexts.append(context)
            attention.append(weights)
        logits = self._read_out(torch.cat(states, 1), embedded, torch.cat(contexts, 1))
        return Decoded(logits, Attention(cross=torch.cat(attention, 1).unsqueeze(1)))

    def score(self, source_ids: Tensor, source_lengths: Tensor, target_ids: Tensor, target_lengths: Tensor) -> Scored:
        """Log-probability and attention of a given target: target_ids (batch, target_length) ends in `</s>`."""
        start = torch.full_like(target_ids[:, :1], BOS_ID)
        decoded = self(source_ids, source_lengths, torch.cat([start, target_ids[:, :-1]], dim=1))
        chosen = torch.log_softmax(decoded.logits, dim=-1).gather(-1, target_ids.unsqueeze(-1)).squeeze(-1)
        mask = length_mask(target_lengths, target_ids.shape[1])
        return Scored(chosen.masked_fill(~mask, 0.0), decoded.attention)

    def _advance(
        self, token_gates: Tensor, memory: Memory, mask: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from the last state, then update it: all (batch, hypotheses, …) -> context, weights, new state."""
        context, weights = self.attention(state, memory.keys, memory.values, mask)
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

"""The human-date model as its authors published it: keras-attention, after Bahdanau et al. 2014.

A bidirectional LSTM reads one-hot characters; a GRU-like decoder attends from its last state. What it says goes back
into it as the whole distribution, not as the token that was chosen ("soft feedback"):

    alpha_t = softmax_i v' tanh(W_a s_{t-1} + U_a h_i + b),  c_t = sum_i alpha_ti h_i
    r, z    = sigmoid(W y_{t-1} + U s_{t-1} + C c_t + b)
    s~      = tanh(W_p y_{t-1} + U_p (r * s_{t-1}) + C_p c_t + b)        the reset gate before the matrix, unlike torch
    s_t     = (1 - z) * s_{t-1} + z * s~
    y_t     = softmax(W_o y_{t-1} + U_o s_{t-1} + C_o c_t + b)           from the old state
    s_0     = tanh(W_s h_1),  y_0 = 0

So nobody can tell it what it has said: no scoring, no prefix, no beam. Unlike the original, it masks padding, and the
engine stops at the end of the sentence. Source: https://github.com/datalogue/keras-attention (formulas alone).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from training.config import SoftFeedbackConfig
from training.models.attention import AdditiveScore, length_mask, masked_softmax
from training.models.encoders import OneHotBiLSTMLayer
from training.models.interface import AutoregressiveModel, Context, Decoded, Encoded, Step, Tensors, cross_map


class SoftFeedbackModel(AutoregressiveModel):
    """See the module's text.

    memory: ``keys`` U_a h + b (batch, source_length, decoder_size), ``values`` h (batch, source_length, 2 x
    encoder_size). state: ``hidden`` s (rows, decoder_size), ``distribution`` y (rows, vocabulary).
    """

    def __init__(self, config: SoftFeedbackConfig, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__(source_vocabulary, target_vocabulary)
        annotation, size = 2 * config.encoder_size, config.decoder_size
        self.encoder = OneHotBiLSTMLayer(source_vocabulary, config.encoder_size)
        self.initial = nn.Linear(annotation, size, bias=False)
        self.attention = AdditiveScore(size, annotation, size)
        # Rows of each: the gates r and z, the new state s~, the logits of y.
        self.token = nn.Linear(target_vocabulary, 3 * size + target_vocabulary, bias=False)
        self.context = nn.Linear(annotation, 3 * size + target_vocabulary)
        self.hidden = nn.Linear(size, 2 * size + target_vocabulary, bias=False)
        self.reset_hidden = nn.Linear(size, size, bias=False)
        self._parts = (size, size, size, target_vocabulary)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            generation="autoregressive", scoring=False, prefix=False, beam=False, streaming=True, document_context=False
        )

    @property
    def alignment(self) -> AlignmentEntry:
        return AlignmentEntry(map="cross", heads=(0,), shift=0, chosen_by="the model's only attention map")

    @property
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        return (cross_map(heads=1, score_function="additive"),)

    def encode(self, source_ids: Tensor, source_lengths: Tensor, context: Context | None = None) -> Encoded:
        del context
        values = self.encoder(source_ids, source_lengths)
        hidden = torch.tanh(self.initial(values[:, 0]))
        distribution = hidden.new_zeros(1, self.target_vocabulary).expand(hidden.shape[0], -1)
        memory = {"keys": self.attention.keys(values), "values": values}
        return Encoded(memory, {"hidden": hidden, "distribution": distribution}, {})

    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Tensors, state: Tensors
    ) -> Step:
        """``token_ids`` says no more than how many hypotheses there are: what was chosen does not go back in."""
        del positions
        batch, hypotheses = token_ids.shape
        rows = batch * hypotheses
        mask = length_mask(source_lengths, memory["keys"].shape[1])
        before = {name: tensor.reshape(batch, hypotheses, -1) for name, tensor in state.items()}
        logits, weights, after = self._advance(memory, mask, before)
        return Step(
            logits.reshape(rows, -1),
            {"cross": weights.reshape(rows, 1, -1)},
            {name: tensor.reshape(rows, -1) for name, tensor in after.items()},
        )

    def forward(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
    ) -> Decoded:
        """Says as much as ``target_inputs`` is long, and reads nothing of it."""
        del context
        memory, start, _ = self.encode(source_ids, source_lengths)
        mask = length_mask(source_lengths, source_ids.shape[1])
        state = {name: tensor.unsqueeze(1) for name, tensor in start.items()}
        logits, attention = [], []
        for _ in range(target_inputs.shape[1]):
            said, weights, state = self._advance(memory, mask, state)
            logits.append(said)
            attention.append(weights)
        return Decoded(torch.cat(logits, 1), {"cross": torch.cat(attention, 1).unsqueeze(1)})

    def _advance(self, memory: Tensors, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        """All (batch, hypotheses, …): the last state -> logits, weights, new state."""
        hidden, distribution = state["hidden"], state["distribution"]
        weights = masked_softmax(self.attention(hidden, memory["keys"]), mask.unsqueeze(1))
        context = torch.matmul(weights, memory["values"])
        read = self.token(distribution) + self.context(context)
        reset, update, new, logits = read.split(self._parts, dim=-1)
        hidden_reset, hidden_update, hidden_logits = self.hidden(hidden).split(
            (self._parts[0], self._parts[1], self._parts[3]), dim=-1
        )
        reset = torch.sigmoid(reset + hidden_reset)
        update = torch.sigmoid(update + hidden_update)
        new = torch.tanh(new + self.reset_hidden(reset * hidden))
        logits = logits + hidden_logits
        after = {
            "hidden": (1.0 - update) * hidden + update * new,
            "distribution": torch.softmax(logits, dim=-1),
        }
        return logits, weights, after

"""What every model family gives the trainer, the export and the parity proof.

Tensors go by name, because families differ in what they hold: ``memory`` is what a sentence's encoder gives and every
step reads; ``state`` is what a hypothesis carries from step to step; ``attention`` has the weights of each map of
``attention_maps``. Ids are int64, lengths int32; masks are True for real tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from service.bundle.tokenizer import BOS_ID, PAD_ID

Tensors = dict[str, Tensor]

#: In ``judged_targets``: a position that the loss and the score pass over.
NOT_JUDGED = -100


class Context(NamedTuple):
    """The sentences before each sentence of a batch, in reading order, for models of documents.

    ``ids`` (batch, sentences, context_length), ``lengths`` (batch, sentences), 0 for a sentence that is not there.
    """

    ids: Tensor
    lengths: Tensor

    @classmethod
    def of_one(cls, before: Sequence[Sequence[int]], sentences: int) -> Context:
        """A batch of one: the token ids of the sentences before it, of which a model reads so many ``sentences``."""
        rows = [list(row) for row in before][:sentences] + [[] for _ in range(sentences - len(before))]
        longest = max(1, *map(len, rows))
        ids = torch.tensor([[row + [PAD_ID] * (longest - len(row)) for row in rows]])
        return cls(ids, torch.tensor([[len(row) for row in rows]], dtype=torch.int32))


class Inputs(NamedTuple):
    """What ``TranslationModel.forward`` takes, in its order."""

    source_ids: Tensor
    source_lengths: Tensor
    target_inputs: Tensor
    context: Context | None


class Encoded(NamedTuple):
    """A sentence's memory and the decoder's first state, one row a sentence.

    ``attention``: the encoder's own maps, (batch, heads, source_length, source_length) each.
    """

    memory: Tensors
    state: Tensors
    attention: Tensors


class Step(NamedTuple):
    """One step of rows = batch x hypotheses: ``logits`` (rows, vocabulary), each attention (rows, heads, source), over
    the context (rows, heads, sentences, context_length) and (rows, heads, sentences)."""

    logits: Tensor
    attention: Tensors
    state: Tensors


class Decoded(NamedTuple):
    """A whole target: ``logits`` (batch, target_length, vocabulary), each attention (batch, heads, target, …)."""

    logits: Tensor
    attention: Tensors


class Scored(NamedTuple):
    """``log_probabilities`` (batch, target_length), 0 after the end."""

    log_probabilities: Tensor
    attention: Tensors


class TranslationModel(nn.Module, ABC):
    """A model of any family. ``context_sentences``: how many before a sentence it reads; it is given as many."""

    context_sentences = 0

    def __init__(self, source_vocabulary: int, target_vocabulary: int) -> None:
        super().__init__()
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the service may ask of the model."""

    @property
    @abstractmethod
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        """What each tensor of ``attention`` means."""

    @property
    @abstractmethod
    def alignment(self) -> AlignmentEntry | None:
        """Which of the maps is the alignment; None for a model that attends to nothing."""

    @abstractmethod
    def forward(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
    ) -> Decoded:
        """All positions at once, for training: target_inputs (batch, target_length) starts with `<s>`."""

    @property
    def projection(self) -> nn.Linear | None:
        """What makes logits of ``judged_features``; None where those are the logits."""
        return None

    def judged_features(self, inputs: Inputs, judged: Tensor) -> Tensor:
        """What ``forward``'s logits are made of, where ``judged`` (batch, positions): (judged positions, features).

        Without the maps, which training does not look at, and without the logits, which are much of its work.
        """
        decoded: Decoded = self(*inputs)
        return decoded.logits[judged]

    def judged_logits(self, inputs: Inputs, judged: Tensor) -> Tensor:
        """``forward``'s logits where ``judged``: (judged positions, vocabulary)."""
        features = self.judged_features(inputs, judged)
        logits: Tensor = features if self.projection is None else self.projection(features)
        return logits

    def judged_targets(self, target_ids: Tensor) -> Tensor:
        """What ``forward``'s logits should say: target_ids (batch, target_length), `</s>` last, then padding.

        Returns (batch, positions of the logits), NOT_JUDGED where nothing is asked.
        """
        return target_ids.masked_fill(target_ids == PAD_ID, NOT_JUDGED)


class AutoregressiveModel(TranslationModel):
    """A model that emits a token at a time. ``forward`` equals repeated ``decode_step``."""

    #: The most target tokens that it has places for; None where there is no end.
    max_target_tokens: int | None = None

    @abstractmethod
    def encode(self, source_ids: Tensor, source_lengths: Tensor, context: Context | None = None) -> Encoded:
        """source_ids (batch, source_length), source_lengths (batch,); ``context`` is for models of documents alone."""

    @abstractmethod
    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Tensors, state: Tensors
    ) -> Step:
        """One step for every hypothesis of every sentence.

        token_ids (batch, hypotheses), the last token of each; positions (batch,), how many came before it; memory has
        one row a sentence, state one a hypothesis.
        """

    def score(
        self, source_ids: Tensor, source_lengths: Tensor, target_ids: Tensor, context: Context | None = None
    ) -> Scored:
        """Log-probability and attention of a given target: target_ids (batch, target_length), `</s>` last, padded.

        Raises ValueError for a model that cannot be told what it has said.
        """
        if not self.capabilities.scoring:
            raise ValueError(f"{type(self).__name__} cannot score a given target")
        start = torch.full_like(target_ids[:, :1], BOS_ID)
        decoded = self(source_ids, source_lengths, torch.cat([start, target_ids[:, :-1]], dim=1), context)
        chosen = torch.log_softmax(decoded.logits, dim=-1).gather(-1, target_ids.unsqueeze(-1)).squeeze(-1)
        return Scored(chosen.masked_fill(target_ids == PAD_ID, 0.0), decoded.attention)


def cross_map(heads: int, score_function: str, rows_sum_to_one: bool = True) -> AttentionMapEntry:
    """The one map of a model that attends to its source in one place, over annotations that read the whole sentence."""
    return AttentionMapEntry(
        name="cross",
        tensor="attention_cross",
        kind="cross",
        layer=0,
        heads=heads,
        scope_tokens=0,
        score_function=score_function,
        rows_sum_to_one=rows_sum_to_one,
        includes_end_of_sentence=True,
    )


class OneShotModel(TranslationModel):
    """A model that emits every token in one pass over a source of a fixed length."""

    #: Tokens of the source, padding included, and of the target.
    length: int

    @abstractmethod
    def translate(self, source_ids: Tensor) -> Decoded:
        """source_ids (batch, length), padded."""

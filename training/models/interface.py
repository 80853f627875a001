"""What every model family gives the trainer, the export and the parity proof.

Tensors go by name, because families differ in what they hold: ``memory`` is what a sentence's encoder gives and every
step reads; ``state`` is what a hypothesis carries from step to step; ``attention`` has the weights of each map of
``attention_maps``. Ids are int64, lengths int32; masks are True for real tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from service.bundle.tokenizer import BOS_ID, PAD_ID

Tensors = dict[str, Tensor]

#: In ``judged_targets``: a position that the loss and the score pass over.
NOT_JUDGED = -100


class Encoded(NamedTuple):
    """A sentence's memory and the decoder's first state, one row a sentence.

    ``attention``: the encoder's own maps, (batch, heads, source_length, source_length) each.
    """

    memory: Tensors
    state: Tensors
    attention: Tensors


class Step(NamedTuple):
    """One step of rows = batch x hypotheses: ``logits`` (rows, vocabulary), each attention (rows, heads, source)."""

    logits: Tensor
    attention: Tensors
    state: Tensors


class Decoded(NamedTuple):
    """A whole target: ``logits`` (batch, target_length, vocabulary), each attention (batch, heads, target, source)."""

    logits: Tensor
    attention: Tensors


class Scored(NamedTuple):
    """``log_probabilities`` (batch, target_length), 0 after the end."""

    log_probabilities: Tensor
    attention: Tensors


class TranslationModel(nn.Module, ABC):
    """A model of any family."""

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
    def forward(self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor) -> Decoded:
        """All positions at once, for training: target_inputs (batch, target_length) starts with `<s>`."""

    def judged_targets(self, target_ids: Tensor) -> Tensor:
        """What ``forward``'s logits should say: target_ids (batch, target_length), `</s>` last, then padding.

        Returns (batch, positions of the logits), NOT_JUDGED where nothing is asked.
        """
        return target_ids.masked_fill(target_ids == PAD_ID, NOT_JUDGED)


class AutoregressiveModel(TranslationModel):
    """A model that emits a token at a time. ``forward`` equals repeated ``decode_step``."""

    @abstractmethod
    def encode(self, source_ids: Tensor, source_lengths: Tensor) -> Encoded:
        """source_ids (batch, source_length), source_lengths (batch,)."""

    @abstractmethod
    def decode_step(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: Tensors, state: Tensors
    ) -> Step:
        """One step for every hypothesis of every sentence.

        token_ids (batch, hypotheses), the last token of each; positions (batch,), how many came before it; memory has
        one row a sentence, state one a hypothesis.
        """

    def score(self, source_ids: Tensor, source_lengths: Tensor, target_ids: Tensor) -> Scored:
        """Log-probability and attention of a given target: target_ids (batch, target_length), `</s>` last, padded.

        Raises ValueError for a model that cannot be told what it has said.
        """
        if not self.capabilities.scoring:
            raise ValueError(f"{type(self).__name__} cannot score a given target")
        start = torch.full_like(target_ids[:, :1], BOS_ID)
        decoded = self(source_ids, source_lengths, torch.cat([start, target_ids[:, :-1]], dim=1))
        chosen = torch.log_softmax(decoded.logits, dim=-1).gather(-1, target_ids.unsqueeze(-1)).squeeze(-1)
        return Scored(chosen.masked_fill(target_ids == PAD_ID, 0.0), decoded.attention)


class OneShotModel(TranslationModel):
    """A model that emits every token in one pass over a source of a fixed length."""

    #: Tokens of the source, padding included, and of the target.
    length: int

    @abstractmethod
    def translate(self, source_ids: Tensor) -> Decoded:
        """source_ids (batch, length), padded."""

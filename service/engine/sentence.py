"""What goes into the engine and what comes out: token ids in, token ids and attention out. No text."""

from __future__ import annotations

import enum
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import AttentionVariant

Floats = npt.NDArray[np.float32]


class FinishReason(enum.Enum):
    """Why a hypothesis ended."""

    END_OF_SENTENCE = "end_of_sentence"
    LENGTH = "length"


@dataclass(frozen=True)
class SentenceRequest:
    """One sentence to translate.

    ``source_ids`` end in `</s>`; ``max_target_tokens`` counts the closing `</s>`; ``deadline`` is a time of
    ``time.monotonic``, None for never; ``attention``: nothing, the alignment map, or every map; ``context_ids``: the
    sentences before it, each ending in `</s>`, at most as many as the model reads.
    """

    source_ids: tuple[int, ...]
    max_target_tokens: int
    attention: AttentionVariant = "none"
    deadline: float | None = None
    context_ids: tuple[tuple[int, ...], ...] = ()

    @property
    def source_tokens(self) -> int:
        """Of the sentence and of those before it."""
        return len(self.source_ids) + sum(map(len, self.context_ids))


@dataclass(frozen=True)
class Hypothesis:
    """One translation.

    ``target_ids`` end in `</s>` unless the length limit came first; those of a one-shot model are all of its places,
    `<pad>` and `</s>` wherever it put them. ``log_probabilities`` (target_length,) float32 in nats; ``attention`` by
    map name (target_length, heads, source_length) float32, both in the map's units, empty when it was not asked for;
    over the context (target_length, heads, tokens of its sentences one after another) or (…, sentences).
    """

    target_ids: tuple[int, ...]
    log_probabilities: Floats
    attention: dict[str, Floats]
    finish_reason: FinishReason


@dataclass(frozen=True)
class Timings:
    """Where a sentence's time went, in seconds."""

    queue: float
    encode: float
    decode: float


@dataclass(frozen=True)
class SentenceResult:
    """The hypotheses of one sentence, best first."""

    hypotheses: tuple[Hypothesis, ...]
    timings: Timings


@dataclass(eq=False)
class Sentence:
    """A request's mutable state while the engine owns it: queued, then a row of a running batch.

    Whoever holds ``future`` may cancel it at any time; ``cancelled`` tells the engine before its next step, at the cost
    of a look at an attribute. ``attention`` keeps, for each step, the whole batch's weights and the row that is ours:
    they are copied once, at the end.
    """

    request: SentenceRequest
    future: Future[SentenceResult]
    submitted: float
    cancelled: bool = False
    alone: bool = False  # to be run by itself, because a batch it was in has failed
    started: float = 0.0
    encoded: float = 0.0
    target_ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    attention: list[tuple[dict[str, Floats], int]] = field(default_factory=list)
    encoder_attention: dict[str, Floats] = field(default_factory=dict)

    @property
    def cost_tokens(self) -> int:
        """What the sentence holds of the queue's bound: its source and the most it may emit."""
        return self.request.source_tokens + self.request.max_target_tokens

    def expired(self, now: float) -> bool:
        return self.request.deadline is not None and now >= self.request.deadline

    def restart(self) -> None:
        """Forget what was decoded, to begin again."""
        self.target_ids.clear()
        self.log_probabilities.clear()
        self.attention.clear()
        self.encoder_attention = {}

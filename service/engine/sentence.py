"""What goes into the engine and what comes out: token ids in, token ids and attention out. No text."""

from __future__ import annotations

import enum
from concurrent.futures import Future
from dataclasses import dataclass, field

from service.bundle.manifest import AttentionVariant
from service.engine.characters import NO_BYTES, ByteTokens
from service.engine.decoding import GREEDY, Decoding
from service.engine.hypothesis import Floats, Hypothesis
from service.engine.search import Search


class Priority(enum.Enum):
    """Whose turn it is where calls wait for each other: shares of the engine, so that nobody starves."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def weight(self) -> float:
        return {"low": 1.0, "normal": 4.0, "high": 16.0}[self.value]


def likely_target_tokens(source_tokens: int, most: int) -> int:
    """What a translation of so many tokens takes, with room to spare: hardly one is longer.

    The most that a model may write, 256 tokens for a greeting, would fill a queue with nothing.
    """
    return min(most, 24 + 2 * source_tokens)


@dataclass(frozen=True)
class SentenceRequest:
    """One sentence to translate.

    ``source_ids`` end in `</s>`; ``max_target_tokens`` counts the closing `</s>`; ``deadline`` is a time of
    ``time.monotonic``, None for never; ``attention``: nothing, the alignment map, or every map; ``context_ids``: the
    sentences before it, each ending in `</s>`, at most as many as the model reads. ``spare``: a second try, which
    nobody misses where its deadline is over.
    """

    source_ids: tuple[int, ...]
    max_target_tokens: int
    attention: AttentionVariant = "none"
    deadline: float | None = None
    context_ids: tuple[tuple[int, ...], ...] = ()
    decoding: Decoding = GREEDY
    priority: Priority = Priority.NORMAL  # of a call: that of its first sentence
    spare: bool = False

    @property
    def source_tokens(self) -> int:
        """Of the sentence and of those before it."""
        return len(self.source_ids) + sum(map(len, self.context_ids))

    @property
    def cost_tokens(self) -> int:
        """What it holds of a queue's bound: its source, and what its hypotheses are likely to emit."""
        told = max(len(self.decoding.prefix_ids), self.decoding.min_tokens)
        likely = max(told, likely_target_tokens(len(self.source_ids), self.max_target_tokens))
        return self.source_tokens + self.decoding.rows * likely


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
    """A request's mutable state while the engine owns it: queued, then rows of a running batch.

    Whoever holds ``future`` may cancel it at any time; ``cancelled`` tells the engine before its next step, at the cost
    of a look at an attribute. ``rows`` are those of the hypotheses that ``search`` has under way, in their order.
    """

    request: SentenceRequest
    future: Future[SentenceResult]
    submitted: float
    byte_tokens: ByteTokens = NO_BYTES  # of the model's target vocabulary
    cancelled: bool = False
    alone: bool = False  # to be run by itself, because a batch it was in has failed
    started: float = 0.0
    encoded: float = 0.0
    search: Search = field(init=False)
    rows: list[int] = field(default_factory=list)
    encoder_attention: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    @property
    def cost_tokens(self) -> int:
        return self.request.cost_tokens

    @property
    def wanted_rows(self) -> int:
        """Rows that it may come to take at once."""
        return self.search.rows

    @property
    def steps(self) -> int:
        """Tokens that were written so far, of one hypothesis."""
        return self.search.steps

    def forget(self) -> None:
        """Let go of what its steps left behind: whoever waits for the future keeps the sentence alive."""
        self.rows.clear()
        self.search.forget()
        self.encoder_attention = {}

    def expired(self, now: float) -> bool:
        return self.request.deadline is not None and now >= self.request.deadline

    def restart(self) -> None:
        """Forget what was decoded, to begin again."""
        self.search = Search(self.request.decoding, self.request.max_target_tokens, self.byte_tokens)
        self.rows.clear()
        self.encoder_attention = {}

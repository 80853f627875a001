"""How a sentence is to be decoded: what a request may ask of search, checked where it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Rows of a batch that one sentence may take at most.
MOST_ROWS = 64


@dataclass(frozen=True)
class Sampling:
    """Draw each token from the model's probabilities instead of taking the likeliest.

    ``temperature`` divides the logits; ``top_k`` keeps the likeliest tokens, 0 all of them; ``top_p`` keeps the fewest
    likeliest whose probabilities sum to it or more (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751). ``seed``
    are numbers that decide every draw: the same give the same, whatever the sentence is batched with.
    """

    seed: tuple[int, ...]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Decoding:
    """The options of one sentence. The default is greedy search: a beam of one.

    ``beam_size``: how many partial hypotheses are kept. ``hypotheses``: how many are returned, at most ``beam_size``;
    with ``sampling``, how many are drawn. ``length_penalty`` is alpha and ``coverage_penalty`` beta of the score that
    ranks what has ended (``service.engine.search``). ``prefix_ids`` begin every hypothesis; if they end in `</s>` they
    are all of it: forced decoding. ``min_tokens`` counts `</s>`. ``repetition_penalty`` divides the positive logits of
    tokens that were written and multiplies the negative ones (Keskar et al. 2019, https://arxiv.org/abs/1909.05858,
    section 4.1); ``no_repeat_ngram``: no run of so many tokens is written twice, 0 for no such rule;
    ``suppressed_ids`` are never written, but for bytes that a character which was begun must have. ``phrases`` are
    runs of tokens that must be written before `</s>`, each whole, in any order (``service.engine.phrases``);
    ``space_id`` is the token that is a space by itself, -1 where there is none.
    """

    beam_size: int = 1
    hypotheses: int = 1
    length_penalty: float = 0.0
    coverage_penalty: float = 0.0
    sampling: Sampling | None = None
    prefix_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    suppressed_ids: frozenset[int] = frozenset()
    phrases: tuple[tuple[int, ...], ...] = ()
    space_id: int = -1

    def __post_init__(self) -> None:
        """Raises ValueError for what the service should have refused by the name of its own field."""
        finite = (self.length_penalty, self.coverage_penalty, self.repetition_penalty)
        if not all(map(math.isfinite, finite)) or self.length_penalty < 0 or self.coverage_penalty < 0:
            raise ValueError("penalties are finite, and of length and coverage not negative")
        if (
            self.repetition_penalty <= 0
            or not 1 <= self.hypotheses <= MOST_ROWS
            or not 1 <= self.beam_size <= MOST_ROWS
        ):
            raise ValueError(f"beam_size and hypotheses are 1 to {MOST_ROWS}, repetition_penalty is positive")
        if self.sampling is None and self.hypotheses > self.beam_size:
            raise ValueError("a beam has no more hypotheses than its size")
        if self.sampling is not None and self.beam_size != 1:
            raise ValueError("sampling has no beam")
        if self.phrases and (self.sampling is not None or not all(self.phrases)):
            raise ValueError("phrases have a token or more each, and with sampling there are none")

    @property
    def rows(self) -> int:
        """The hypotheses that are decoded side by side."""
        return self.hypotheses if self.sampling is not None else self.beam_size

    @property
    def is_plain(self) -> bool:
        """Greedy search and nothing else, which a whole batch can do at once."""
        return self == GREEDY


GREEDY = Decoding()

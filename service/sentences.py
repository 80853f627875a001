"""A long text to sentences, each with its place in the text: what models that were trained on sentences can read.

Wraps sentencex, which knows the abbreviations and marks of hundreds of languages. Knows nothing of models.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sentencex import get_sentence_boundaries

_CLAUSE_ENDS = frozenset(",;:–—)]}、，；：")
# What sentencex takes for an end: an initial ("M. Dupont"), and "1." where that says "first" ("am 1. Mai, dem …").
_UNFINISHED = re.compile(r"(?:^|[\s(])[^\W\d_]\.$")
_UNFINISHED_WITH_ORDINALS = re.compile(r"(?:^|[\s(])(?:[^\W\d_]|\d{1,2})\.$")
_ORDINALS = frozenset(["bs", "cs", "da", "de", "et", "eu", "fi", "fo", "hr", "hu", "is", "lb", "lv", "nb", "nn", "no"])
_ORDINALS |= {"pl", "sk", "sl", "sr", "tr"}
_SPACES = re.compile(r"\s+")
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Span:
    """A part of a text: ``begin`` inclusive, ``end`` exclusive, in Unicode code points."""

    begin: int
    end: int

    def of(self, text: str) -> str:
        return text[self.begin : self.end]


def split_sentences(text: str, language: str) -> tuple[Span, ...]:
    """The sentences of ``text`` in order, with nothing but white space before, between and behind them.

    ``language`` is a BCP 47 code; of one that sentencex does not know it takes the rules of a related one, or English.
    """
    spans: list[Span] = []
    unfinished = _UNFINISHED_WITH_ORDINALS if language.split("-")[0].lower() in _ORDINALS else _UNFINISHED
    for begin, end in _boundaries(text, language):
        span = _stripped(text, begin, end)
        if not span.of(text):
            continue
        last = spans[-1] if spans else span
        ends_not = unfinished.search(last.of(text)) and text[last.end : span.begin] == " "
        if ends_not or not (is_visible(span.of(text)) and is_visible(last.of(text))):
            span = Span(spans.pop().begin if spans else span.begin, span.end)
        spans.append(span)
    return tuple(spans)


def is_visible(text: str) -> bool:
    """Is there anything but white space, control characters and marks such as the zero-width space?"""
    return any(not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf") for character in text)


def cut_to_fit(text: str, sentence: Span, fits: Callable[[str], bool]) -> tuple[Span, ...] | None:
    """The sentence in as few pieces as ``fits`` allows, each cut behind a clause if one ends in its last half, or else
    at white space; None where a run without white space does not fit.

    ``fits`` must hold for every beginning of a string that it holds for.
    """
    if sentence.begin == sentence.end:
        return (sentence,)
    pieces: list[Span] = []
    begin = sentence.begin
    breaks = [space.span() for space in _SPACES.finditer(text, begin, sentence.end)]
    breaks.append((sentence.end, sentence.end))
    first = 0  # the break behind which the piece at hand begins
    while begin < sentence.end:
        fits_until = partial(_fits_until, fits, text, begin, breaks[first:])
        count = _greatest(fits_until, len(breaks) - first)
        if count == 0:
            return None
        last = first + count - 1
        if last < len(breaks) - 1:
            clauses = [place for place in range(first + count // 2, last + 1) if _ends_clause(text, breaks[place][0])]
            last = clauses[-1] if clauses else last
        pieces.append(Span(begin, breaks[last][0]))
        begin, first = breaks[last][1], last + 1
    return tuple(pieces)


def _fits_until(
    fits: Callable[[str], bool], text: str, begin: int, breaks: Sequence[tuple[int, int]], count: int
) -> bool:
    return fits(text[begin : breaks[count - 1][0]])


def _ends_clause(text: str, end: int) -> bool:
    return text[end - 1] in _CLAUSE_ENDS


def _greatest(holds: Callable[[int], bool], most: int) -> int:
    """The greatest number up to ``most`` of which it holds, 0 for none: looked for from below, where it is cheap."""
    high = 1
    while high < most and holds(high):
        high *= 2
    low, high = high // 2, min(high, most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def readable_parts(text: str, language: str, fits: Callable[[str], bool]) -> tuple[Span, ...]:
    """The sentences, those that do not fit cut further; one that cannot be cut is left as it is."""
    found = split_sentences(text, language)
    return tuple(piece for sentence in found for piece in cut_to_fit(text, sentence, fits) or (sentence,))


def rejoin(text: str, parts: Sequence[Span], translations: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """The translations with the white space that ``text`` has between its parts, where it has none with a space (of
    Chinese, or of a sentence that was cut), and where each of them stands."""
    written, places = "", list[Span]()
    for number, translation in enumerate(translations):
        if number:
            written += text[parts[number - 1].end : parts[number].begin] or " "
        places.append(Span(len(written), len(written) + len(translation)))
        written += translation
    return written, tuple(places)


def _boundaries(text: str, language: str) -> list[tuple[int, int]]:
    """Those of sentencex, which counts bytes as characters where it looks for a space behind an initial, and panics at
    a wide one. A text that it cannot read is one sentence."""
    try:
        found = get_sentence_boundaries(language, _WIDE_SPACE.sub(" ", text))
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust: no Exception, and in no module to import it from
            raise
        _log.exception("a text of %d characters was not split", len(text))
        return [(0, len(text))]
    return [(sentence["start_index"], sentence["end_index"]) for sentence in found]


def _stripped(text: str, begin: int, end: int) -> Span:
    part = text[begin:end]
    return Span(begin + len(part) - len(part.lstrip()), begin + len(part.rstrip()))

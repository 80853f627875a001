"""Numbers in words and the digits that they stand for: a model may write another, and it reads well.

"Siebenundzwanzig" and "twenty-seven" are the same number as "27", and neither is like the other letter by letter, so
that a small model confuses them. Numbers are found by text2num (rules, no model), in the languages that it knows. Pure
functions of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from text_to_num import find_numbers, text2num

from service.sentences import Span

_LANGUAGES = frozenset(("da", "de", "en", "es", "fr", "it", "nl", "pt"))
_WORD = re.compile(r"[^\W\d_]+")
# What each language says its own way: "um achtzehn Uhr" is "at six p.m.", "fünf vor halb drei" "twenty-five past two",
# "ein Meter fünfzig" "one and a half meters", "Mitte vierzig" "in her mid-forties", "vierzehn Tage" "a fortnight".
_OWN_WAY_BEFORE = re.compile(
    r"\b(?:uhr|halb|viertel|half|quarter|past|to|meter|euro|dollar|franken|anfang|mitte|ende|round of)[\s-]+$",
    re.IGNORECASE,
)
_OWN_WAY_BEHIND = re.compile(
    r"[\s-]+(?:(?:minuten|minutes)\s+)?(?:uhr|o|past|to|nach|vor|p\.?m|a\.?m)\b|\s+(?:und|bis)\s+\w+\s+uhr\b",
    re.IGNORECASE,
)
_SPANS_OF_TIME = {14: re.compile(r"[\s-]+(?:tag|day)", re.IGNORECASE)} | dict.fromkeys(
    (15, 30, 45), re.compile(r"[\s-]+(?:more\s+)?minut", re.IGNORECASE)
)
_LEAST_VALUE = 13  # "ein" is an article; twelve are a dozen
_LEAST_OF_COMPOUND = 5  # letters of a number at the beginning of a word: "acht" of "Achtung" stands for nothing
_MOST_VALUE = 1_000_000  # "2 million" is digits and words


@dataclass(frozen=True)
class Numeral:
    """A number in words, at ``span`` of a text. ``digits``: "120" for "one hundred and twenty", "1984" for "nineteen
    eighty-four". ``cardinal``: a whole number, and none that each language says its own way."""

    span: Span
    digits: str
    cardinal: bool

    @property
    def tells(self) -> bool:
        """Do translations have it, too, in words or digits? Articles, dozens, and hundreds are let alone."""
        value = int(self.digits)
        return self.cardinal and _LEAST_VALUE <= value < _MOST_VALUE and not re.fullmatch("10+", self.digits)


def numerals(text: str, language: str) -> tuple[Numeral, ...]:
    """All of ``text`` in its order; none of a language that is not known. ``language``: a code, of which the first part
    counts ("de" of "de-AT")."""
    code = _code(language)
    if not code:
        return ()
    words = [_Word(found, code) for found in _WORD.finditer(text)]
    numbers: list[Numeral] = []
    for found in find_numbers(words, code, threshold=0):
        span = Span(words[found.start].begin, words[found.end - 1].end)
        digits = "".join(filter(str.isdecimal, found.text))
        if not digits:
            continue
        whole = not found.is_ordinal and float(found.value).is_integer() and digits == str(int(found.value))
        number = Numeral(span, digits, whole and not _is_said_its_own_way(text, span, int(digits)))
        beside = numbers and not text[numbers[-1].span.end : span.begin].strip(" -")
        numbers += _together(numbers.pop(), number) if beside else [number]
    return tuple(numbers)


def _together(first: Numeral, second: Numeral) -> list[Numeral]:
    """Two numbers side by side: "nineteen eighty-four" is a year, any others are a time of day or the like."""
    if len(first.digits) == len(second.digits) == 2 and int(first.digits) >= _LEAST_VALUE:
        span = Span(first.span.begin, second.span.end)
        return [Numeral(span, first.digits + second.digits, first.cardinal and second.cardinal)]
    return [replace(first, cardinal=False), replace(second, cardinal=False)]


def _is_said_its_own_way(text: str, span: Span, value: int) -> bool:
    of_time = _SPANS_OF_TIME.get(value)
    return bool(
        _OWN_WAY_BEFORE.search(text, max(0, span.begin - 20), span.begin)
        or _OWN_WAY_BEHIND.match(text, span.end)
        or (of_time is not None and of_time.match(text, span.end))
    )


def knows(language: str) -> bool:
    """Are the numbers of this language found?"""
    return bool(_code(language))


def begins_a_word(digits: str, text: str, language: str) -> bool:
    """Is there a word that begins with this number? "Zwanzigjährige" does, and "Hundertmeterlauf"."""
    code = _code(language)
    return bool(code) and any(
        digits == str(value) for word in _WORD.finditer(text) for value in _beginnings(word.group().lower(), code)
    )


def _beginnings(word: str, code: str) -> Iterator[int]:
    for end in range(len(word) - 1, _LEAST_OF_COMPOUND - 1, -1):
        try:
            yield text2num(word[:end], code)
        except ValueError:
            continue
        return


def _code(language: str) -> str:
    code = language.partition("-")[0].lower()
    return code if code in _LANGUAGES else ""


class _Word:
    """What ``find_numbers`` asks of a token."""

    def __init__(self, found: re.Match[str], code: str) -> None:
        self.begin, self.end = found.span()
        self._text, self._found, self._code = found.string, found.group().lower(), code

    def text(self) -> str:
        return self._found

    def nt_separated(self, previous: _Word) -> bool:
        return self._text[previous.end : self.begin].strip(" -\u00a0") != ""

    def not_a_number_part(self) -> bool:
        return self._code == "de" and self._found == "und"  # "zwischen fünf und fünfzig": 55 is one word

"""Numbers in words and the digits that they stand for: a model may write another, and it reads well.

"Siebenundzwanzig" and "twenty-seven" are the same number as "27", and neither is like the other letter by letter, so
that a small model confuses them. Numbers are found by text2num (rules, no model). Pure functions of text.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from text_to_num import find_numbers, text2num

from service.sentences import Span

_LANGUAGES = frozenset(("de", "en"))  # text2num knows more, and nobody has written here what those say their own way
_WORD = re.compile(r"[^\W\d_]+")
_BETWEEN = " -\u00a0\u2011"  # parts of a number
_HOUR = (
    r"(?:halb|eins?|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|mitternacht|"
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|noon|midnight)\b"
)
# What each language says its own way: "um achtzehn Uhr" is "at six p.m.", "fünf vor halb drei" "twenty-five past two",
# "ein Meter fünfzig" "one and a half meters", "Mitte vierzig" "in her mid-forties", "vierzehn Tage" "a fortnight".
_OWN_WAY_BEFORE = re.compile(
    r"\b(?:uhr|halb|viertel|anfang|mitte|(?<!am )ende|round of|komma|point|"
    r"(?:meter|euro|dollars?|pounds?|pfund|franken)(?:\s+(?:und|and))?)[\s-]+$",
    re.IGNORECASE,
)
_OWN_WAY_BEHIND = re.compile(
    rf"[\s-]+(?:(?:minuten|minutes)\s+)?(?:(?:past|after|to|till|before|of|nach|vor)\s+{_HOUR}|uhr\b|o\b|oh\b|[ap]\.?m\b)|"
    r"[\s-]+(?:\w+ies|cents?|tausend)\b|(?:,\s*\w+)*,?\s+(?:und|oder|bis|spätestens)\s+\w+\s+uhr\b",
    re.IGNORECASE,
)
_SPANS_OF_TIME = {14: re.compile(r"[\s-]+(?:\w+\s+)?(?:tag|day)", re.IGNORECASE)} | dict.fromkeys(
    (15, 30, 45), re.compile(r"[\s-]+(?:more\s+)?minut", re.IGNORECASE)
)
_FIRST_OF_YEAR = range(13, 21)  # of "nineteen eighty-four"
_LEAST_VALUE = 13  # "ein" is an article; twelve are a dozen
_MOST_DIGITS = 6  # "2 million" is digits and words
_COMPOUND = re.compile(r"[^\W\d_]{7,40}")  # "fünfzigste": a shorter word begins with no number and goes on
_LEAST_OF_COMPOUND = 5  # letters of its number: "acht" of "Achtung" stands for nothing
_HUNDREDS = frozenset(("hundred", "thousand", "million", "billion"))


@dataclass(frozen=True)
class Numeral:
    """A number in words, at ``span`` of a text. ``digits``: "120" for "one hundred and twenty", "1984" for "nineteen
    eighty-four". ``cardinal``: a whole number, and none that each language says its own way. ``ordinal``: "zehnter"."""

    span: Span
    digits: str
    cardinal: bool
    ordinal: bool = False

    @property
    def tells(self) -> bool:
        """Do translations have it, too, in words or digits? Articles, dozens, and hundreds are let alone."""
        few = self.cardinal and len(self.digits) <= _MOST_DIGITS
        return few and int(self.digits) >= _LEAST_VALUE and re.fullmatch("10+", self.digits) is None


def numerals(text: str, language: str) -> tuple[Numeral, ...]:
    """All of ``text`` in its order; none of a language that is not known. ``language``: a code, of which the first part
    counts ("de" of "de-AT")."""
    code = code_of(language)
    if not code:
        return ()
    words = _words(text, code)
    numbers: list[Numeral] = []
    for found in find_numbers(words, code, threshold=0):
        span = Span(words[found.start].begin, words[found.end - 1].end)
        digits = "".join(filter(str.isdecimal, found.text))
        if not digits:
            continue
        whole = not found.is_ordinal and found.text.isdecimal() and digits[0] != "0"
        number = Numeral(span, digits, whole and not _is_said_its_own_way(text, span, digits), found.is_ordinal)
        beside = numbers and not text[numbers[-1].span.end : span.begin].strip(_BETWEEN)
        numbers += _together(text, numbers.pop(), number) if beside else [number]
    return tuple(numbers)


def _together(text: str, first: Numeral, second: Numeral) -> list[Numeral]:
    """Two numbers side by side: "nineteen eighty-four" is a year, any others are a time of day or the like."""
    two_digits = len(first.digits) == len(second.digits) == 2 and first.digits != second.digits
    goes_on = re.match(r"-\w", text[second.span.end : second.span.end + 2])  # twenty fifty-dollar bills
    if two_digits and int(first.digits) in _FIRST_OF_YEAR and not goes_on:
        span = Span(first.span.begin, second.span.end)
        at = text[max(0, span.begin - 3) : span.begin].lower().startswith("at")  # fifteen thirty
        return [Numeral(span, first.digits + second.digits, first.cardinal and second.cardinal and not at)]
    return [replace(first, cardinal=False), replace(second, cardinal=False)]


def _is_said_its_own_way(text: str, span: Span, digits: str) -> bool:
    of_time = _SPANS_OF_TIME.get(int(digits)) if len(digits) == 2 else None
    return bool(
        _OWN_WAY_BEFORE.search(text, max(0, span.begin - 20), span.begin)
        or _OWN_WAY_BEHIND.match(text, span.end, span.end + 60)
        or (of_time is not None and of_time.match(text, span.end, span.end + 60))
    )


def knows(language: str) -> bool:
    """Are the numbers of this language found?"""
    return bool(code_of(language))


def beginnings(text: str, language: str) -> Counter[str]:
    """The digits of numbers that words begin with: "20" of "zwanzigjährig", "100" of "Hundertmeterlauf"."""
    code = code_of(language)
    found = Counter[str]()
    for word in _COMPOUND.findall(text.lower()) if code else ():
        for end in range(len(word) - 1, _LEAST_OF_COMPOUND - 1, -1):
            try:
                found[str(text2num(word[:end], code))] += 1
            except ValueError:
                continue
            break
    return found


def code_of(language: str) -> str:
    code = language.partition("-")[0].lower()
    return code if code in _LANGUAGES else ""


class _Word:
    """What ``find_numbers`` asks of a token. ``joins``: it is no "and" between two numbers."""

    def __init__(self, found: re.Match[str], joins: bool) -> None:
        self.begin, self.end = found.span()
        self._text, self._found, self._joins = found.string, found.group().lower(), joins

    def text(self) -> str:
        return self._found

    def nt_separated(self, previous: _Word) -> bool:
        return self._text[previous.end : self.begin].strip(_BETWEEN) != ""

    def not_a_number_part(self) -> bool:
        return not self._joins


def _words(text: str, code: str) -> list[_Word]:
    """Those of ``text``, and whether each may be part of a number: "fünf und fünfzig" is none, nor is what is between
    "two hundred and three hundred"."""
    found = list(_WORD.finditer(text))
    plain = [one.group().lower() for one in found]
    words = []
    for place, (one, word) in enumerate(zip(found, plain, strict=True)):
        joins = True
        if code == "de" and word == "und":
            joins = False
        elif code == "en" and word == "and":
            before, behind = plain[max(0, place - 1) : place], plain[place + 2 : place + 4]
            joins = not _HUNDREDS.isdisjoint(before) and set(before).isdisjoint(behind)
        words.append(_Word(one, joins))
    return words

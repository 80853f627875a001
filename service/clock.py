"""Times of day that are said by the hour beside them: of "half past seven" a small model makes "halb sieben".

That is half past six, and reads well. Such times are found here in German and English, and so is whatever else may
stand for them: 7:30, 19.30 Uhr, "sieben Uhr dreißig", "seven thirty". Pure functions of text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from service.numerals import code_of, numerals
from service.sentences import Span

_HALF_DAY = 12 * 60  # minutes: nobody says "half past nineteen"
_MOST_HOURS = 24
_HALF_HOUR = 30
_HOUR = r"(?P<hour>\d{1,2})(?!\d|[.,:]\d)"
# Of texts whose numbers are in digits. A time is told where no other reading of it is likely.
_BESIDE_AN_HOUR = {
    "de": re.compile(
        r"\b(?:(?:(?P<minutes>5|10|20|25)(?: minuten)?|(?P<quarter>viertel)) "
        rf"(?P<side>vor|nach) )?(?P<half>halb )?{_HOUR}",
        re.IGNORECASE,
    ),
    "en": re.compile(
        r"\b(?:(?P<half>half)|(?:a )?(?P<quarter>quarter)|(?P<minutes>5|10|20|25)(?: minutes)?) "
        rf"(?P<side>past|after|to|till|before) {_HOUR}",
        re.IGNORECASE,
    ),
}
_SINCE = frozenset(("nach", "past", "after"))
_IN_FULL = re.compile(r"\b(\d{1,2})(?:[:.]|-| uhr | )([0-5]\d)\b(?![.,:]\d)", re.IGNORECASE)
# "Ten to twelve" is a time behind these, and a number of people elsewhere.
_AT = re.compile(r"(?:\b(?:at|is|until|till|by|about|around|almost|nearly|just|only|already)|['’]s) $", re.IGNORECASE)
_A_NOUN = re.compile(r" (?!Uhr\b)[A-ZÄÖÜ]")  # German: "zehn nach acht Spielen"


@dataclass(frozen=True)
class TimeOfDay:
    """One at ``span`` of a text. ``minute``: of a half day, 450 for "half past seven"."""

    span: Span
    minute: int


def times_beside_hours(text: str, language: str) -> tuple[TimeOfDay, ...]:
    """Those of ``text`` that are said by an hour before or behind them; none of a language that is not known.
    ``language``: a code, of which the first part counts ("de" of "de-AT")."""
    code = code_of(language)
    if not code:
        return ()
    reading = _Reading(text, language)
    return tuple(
        TimeOfDay(reading.span(found), minute)
        for found, minute in _beside_hours(reading.text, code)
        if _is_surely_one(found, code)
    )


def minutes(text: str, language: str) -> Counter[int]:
    """How often each minute of a half day may be meant, however it is said; none of a language that is not known."""
    code = code_of(language)
    if not code:
        return Counter()
    written = _Reading(text, language).text
    full = ((int(found[1]), int(found[2])) for found in _IN_FULL.finditer(written))
    found = Counter((60 * hour + minute) % _HALF_DAY for hour, minute in full if hour <= _MOST_HOURS)
    found.update(minute for _, minute in _beside_hours(written, code))
    return found


class _Reading:
    """``text`` with the digits of its numbers in words, and where each of its characters was."""

    def __init__(self, original: str, language: str) -> None:
        written, places, end = list[str](), list[int](), 0
        for number in numerals(original, language):
            written += [original[end : number.span.begin], number.digits]
            places += range(end, number.span.begin)
            places += [number.span.begin] * len(number.digits)
            end = number.span.end
        written.append(original[end:])
        places += range(end, len(original) + 1)
        self.text = "".join(written)
        self._places = places
        self._ends = {number.span.begin: number.span.end for number in numerals(original, language)}

    def span(self, found: re.Match[str]) -> Span:
        last = self._places[found.end() - 1]
        return Span(self._places[found.start()], self._ends.get(last, last + 1))


def _beside_hours(text: str, code: str) -> Iterator[tuple[re.Match[str], int]]:
    for found in _BESIDE_AN_HOUR[code].finditer(text):
        parts, hour = found.groupdict(), int(found["hour"])
        away = 15 if parts["quarter"] else int(parts["minutes"] or 0)
        if not 0 < hour <= _MOST_HOURS or not (away or parts["half"]):
            continue
        minute = 60 * hour
        if parts["half"] and code == "de":
            minute -= _HALF_HOUR
        elif parts["half"]:
            away = _HALF_HOUR
        minute += away if _is_behind(found) else -away
        yield found, minute % _HALF_DAY


def _is_behind(found: re.Match[str]) -> bool:
    return (found["side"] or "").lower() in _SINCE


def _is_surely_one(found: re.Match[str], code: str) -> bool:
    """Is it a time, and no numbers of things?"""
    parts = found.groupdict()
    if parts["quarter"]:
        return True
    if parts["half"]:
        return code == "de" or _is_behind(found)
    if code == "de":
        return _A_NOUN.match(found.string, found.end()) is None
    return found["side"].lower() == "past" or _AT.search(found.string, 0, found.start()) is not None

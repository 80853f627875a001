"""Times of day that are said by the hour beside them: of "half past seven" a small model makes "halb sieben".

That is half past six, and reads well. Such times are found here in German and English where they can be nothing else:
"ten to twelve" may be people, "Viertel vor zehn" a part of a town ten years ago. Whatever may stand for them in a
translation is found generously: 7:30, 19.30 Uhr, "sieben Uhr dreißig", "seven thirty". Pure functions of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from service.numerals import code_of, numerals
from service.sentences import Span

_HALF_DAY = 12 * 60  # minutes: nobody says "half past nineteen"
_MOST_HOURS = 24
_FIVE_TO_TWELVE = _HALF_DAY - 5  # that it is high time
# All of these are for texts with the digits of their numbers in words, one space between words (``_Reading``).
_HOUR = r"\d{1,2})(?![\w%]|[.,:]\d|-\w)"  # behind the name of its group
_END = r" ?(?:$|[.,;:!?)\]\"'“”‘’«»…–—]|-(?!\w)"  # of the text or of a part; not closed
_SAID = {
    "de": re.compile(
        r"(?:(?P<minutes>5|10|20|25)(?P<named> minuten)?|(?P<quarter>viertel)) (?P<side>vor|nach) "
        rf"(?P<half>halb )?(?P<hour>{_HOUR}|"
        rf"(?P<only_half>halb) (?P<hour_of_half>{_HOUR}"
    ),
    "en": re.compile(
        rf"(?P<only_half>half)[ -]past (?P<hour_of_half>{_HOUR}|"
        rf"(?:(?P<quarter>(?:a )?quarter)|(?P<minutes>5|10|20|25)(?P<named> minutes)?) (?P<side>past|after|to|till) "
        rf"(?P<hour>{_HOUR}"
    ),
}
_BEFORE_QUARTERS = {
    "de": re.compile(
        r"(?:^|[.,;:!?(\"“„»–] ?|\b(?:um|gegen|ab|bis|seit|es|ist|war|kurz|vor|nach|schon|erst|fast|genau|etwa|jetzt|"
        r"auf|von) )$"
    ),
    "en": re.compile(
        r"(?:^|[.,;:!?(\"“–] ?|\b(?:at|is|was|until|till|by|about|around|almost|nearly|from|since|before|after|for|"
        r"exactly|just|only|already) |['’]s )$"
    ),
}
_BEFORE_MINUTES = {  # which may be numbers of anything
    "de": re.compile(r"\b(?:um|gegen|ab|bis|seit|es (?:ist|war)(?: \w+)?|(?:ist|war) es(?: \w+)?) $"),
    "en": re.compile(r"\b(?:at|until|till|since|it(?: is| was|['’]s)(?: (?:almost|nearly|exactly|already|now))?) $"),
}
_BEHIND = {
    "de": re.compile(
        rf"{_END}|(?:uhr|abends|morgens|nachts|nachmittags|mittags|früh|heute|am|im|in|an|auf|bei|beim|mit|bis|und|oder|da|los|"
        r"statt|aus|wieder|zu|klingelt\w*|begann|beginnt|kam|kommt|ging|geht|war|ist)\b)"
    ),
    "en": re.compile(
        rf"{_END}|(?:o['’]clock|[ap]\.?m|in the|at|on|when|and|or|sharp|now|tonight|today|yesterday|tomorrow|this|"
        r"every|until|till|because|but|so|as|while|if)\b)"
    ),
}
_AT = re.compile(r"\b(?:um|gegen|bis|at|until|till) $")
_A_NOUN = re.compile(r" (?!Uhr\b)[A-ZÄÖÜ][a-zäöüß]")  # German: "halb zehn Leute"
_OF_HALF = re.compile(r"(?:before|after|to|past|till) $")  # five minutes before half past seven
_CONTEXT = 24  # characters before a time that are looked at
# What may stand for a time. A text with more of them than it means lets a mistake pass, and that is all.
_TOLD = {
    "de": re.compile(
        r"(?=\b(?P<minutes>\d{1,2})(?: minuten)? (?P<side>vor|nach) (?P<half>halb )?(?P<hour>\d{1,2})\b)|"
        r"(?=\b(?P<quarter>viertel )(?P<of>vor|nach) (?P<hour_of>\d{1,2})\b)|"
        r"(?=\b(?P<part>halb|viertel|(?:drei|3) ?viertel) (?P<part_of>\d{1,2})\b)"
    ),
    "en": re.compile(
        r"(?=\b(?P<minutes>\d{1,2})(?: minutes?)? (?P<side>past|after|to|till|['’]?til|before|of) "
        r"(?P<half>half[ -]past )?(?P<hour>\d{1,2})\b)|"
        r"(?=\b(?P<quarter>quarter )(?P<of>past|after|to|till|['’]?til|before|of) (?P<hour_of>\d{1,2})\b)|"
        r"(?=\b(?P<part>half)(?:[ -]past)? (?P<part_of>\d{1,2})\b)"
    ),
}
_HALF = {"de": -30, "en": 30}  # minutes: "halb acht" is before eight, "half past seven" behind seven
_PARTS = {"halb": _HALF["de"], "viertel": -45, "half": _HALF["en"]}  # three quarters are 15 minutes to the hour
_IN_FULL = re.compile(r"(?<!\d)(\d{1,2})(?:[:.h-]| uhr | uhr und | oh | )?([0-5]?\d)(?!\d|[.,:]\d)")
_SINCE = frozenset(("nach", "past", "after"))
_TWELVE = re.compile(r"\b(?:noon|midnight|mitternacht|mittag)\b")
_ARTICLE = re.compile(r"ein(?:e|en|em|er|es)?\b(?!\s*uhr\b)", re.IGNORECASE)  # "ein Uhr dreißig" has none


@dataclass(frozen=True)
class TimeOfDay:
    """One at ``span`` of a text. ``minute``: of a half day, 450 for "half past seven"."""

    span: Span
    minute: int


def times_beside_hours(text: str, language: str) -> tuple[TimeOfDay, ...]:
    """Those of ``text`` that are said by an hour before or behind them, and are surely times; none of a language that
    is not known. ``language``: a code, of which the first part counts ("de" of "de-AT")."""
    code = code_of(language)
    if not code:
        return ()
    reading = _Reading(text, language)
    return tuple(TimeOfDay(reading.span(begin, end), minute) for begin, end, minute in _sure_times(reading.text, code))


def minutes(text: str, language: str) -> frozenset[int]:
    """The minutes of a half day that may be meant, however they are said; none of a language that is not known."""
    code = code_of(language)
    if not code:
        return frozenset()
    written = _TWELVE.sub("12", _Reading(text, language).text.lower())
    found = {60 * int(full[1]) + int(full[2]) for full in _IN_FULL.finditer(written) if int(full[1]) <= _MOST_HOURS}
    for told in _TOLD[code].finditer(written):
        if told["part"]:
            found.add(60 * int(told["part_of"]) + _PARTS.get(told["part"], -15))
            continue
        away, hour = (15, told["hour_of"]) if told["quarter"] else (int(told["minutes"]), told["hour"])
        half = _HALF[code] if told["half"] else 0
        side = told["of"] if told["quarter"] else told["side"]
        found.add(60 * int(hour) + half + (away if side in _SINCE else -away))
    return frozenset(minute % _HALF_DAY for minute in found)


class _Reading:
    """``text`` with the digits of its numbers in words, but for articles and ordinals, and one space for each run of
    them; and where each of its characters was."""

    def __init__(self, original: str, language: str) -> None:
        parts, places, ends, end = list[str](), list[int](), dict[int, int](), 0
        for number in numerals(original, language):
            begin, stop = number.span.begin, number.span.end
            article = _ARTICLE.match(original, begin)
            if number.ordinal or (article and article.end() == stop):
                continue
            parts += [original[end:begin], number.digits]
            places += [*range(end, begin), *[begin] * len(number.digits)]
            ends[begin] = end = stop
        written = "".join([*parts, original[end:]])
        places += range(end, len(original))
        kept = [
            place for place in range(len(written)) if not written[max(0, place - 1) : place + 1].isspace() or place == 0
        ]
        self.text = "".join(" " if written[place].isspace() else written[place] for place in kept)
        self._places, self._ends = [places[place] for place in kept], ends

    def span(self, begin: int, end: int) -> Span:
        """In the original, of what is from ``begin`` to ``end`` here."""
        last = self._places[end - 1]
        return Span(self._places[begin], self._ends.get(last, last + 1))


def _sure_times(text: str, code: str) -> Iterator[tuple[int, int, int]]:
    """Where they begin and end in a reading, and their minutes."""
    place, lower = 0, text.lower()
    if len(lower) != len(text):  # İ has two letters there
        lower = text
    while found := _SAID[code].search(lower, place):
        minute = _minute(found, code) if _is_sure(found, text, code) else None
        # What has no sense may have the beginning of what has: from ten to twenty past eleven.
        place = found.start() + 1 if minute is None else found.end()
        if minute is not None:
            yield found.start(), found.end(), minute


def _minute(found: re.Match[str], code: str) -> int | None:
    """None for an hour that is none."""
    parts = found.groupdict()
    hour = int(parts["hour"] or parts["hour_of_half"])
    if not 1 <= hour <= 12:
        return None
    half = _HALF[code] if parts["only_half"] or parts.get("half") else 0
    away = 15 if parts["quarter"] else int(parts["minutes"] or 0)
    return (60 * hour + half + (away if parts["side"] in _SINCE else -away)) % _HALF_DAY


def _is_sure(found: re.Match[str], text: str, code: str) -> bool:
    """Is it a time, and no numbers of things?"""
    lower, parts = found.string, found.groupdict()
    before = lower[max(0, found.start() - _CONTEXT) : found.start()]
    if before[-1:].isalnum() or before.endswith(("-", " and ")):
        return False
    if code == "de" and _A_NOUN.match(text, found.end()):
        return False
    if parts["only_half"]:
        return _OF_HALF.search(before) is None
    if code == "de" and parts["half"]:  # fünf vor halb drei
        return True
    if not _BEHIND[code].match(lower, found.end()):
        return False
    if parts["quarter"]:
        return _BEFORE_QUARTERS[code].search(before) is not None
    if parts["side"] == "past" or (parts["named"] and parts["side"] in ("nach", "vor")):
        return True
    if _minute(found, code) == _FIVE_TO_TWELVE and _AT.search(before) is None:
        return False
    odds = parts["side"] == "to" and parts["hour"] == "1"  # ten to one
    return not odds and _BEFORE_MINUTES[code].search(before) is not None

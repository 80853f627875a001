"""What a translation is to have of its text as it is: emoji, addresses, codes, other scripts, long numbers, units.

A model copies them as it translates, token by token, and may lose or change one. What can be told without knowing the
languages is found here, and looked for in the translation, so that it can be asked for again, or at least named as left
out. What may be written otherwise is no literal: to miss one is better than to look for what no translation has. Pure
functions of text; no model, no tokenizer. Called by ``service.recovery`` and the presenter.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from service.clock import minutes, times_beside_hours
from service.numerals import beginnings, numerals
from service.sentences import Span

IsForeign = Callable[[str], bool]

_RUN = re.compile(r"\S+")
_EDGES = ",.;:!?…()[]{}<>\"'„“”‟«»‚‘’¿¡*"
# Of a domain or a file. What stands without a space behind a full stop has none of them ("Dr.med", "zu Hause.es").
_ENDING = (
    r"(?:de|at|ch|uk|eu|fr|nl|dk|pl|cz|jp|cn|ru|au|br|io|ai|tv|py|js|com|org|net|info|edu|gov|app|dev|shop|pdf|txt|docx?|"
    r"xlsx?|pptx?|csv|json|xml|html?|jpe?g|png|gif|svg|zip|mp[34]|exe)"
)
# An e-mail address, a web address, a name or a tag, a file or a domain. "Schüler_innen" is none.
_ADDRESS = re.compile(
    r"(?<![^\s:,;()\[\]<>\"'])[^\s@:,;()\[\]<>\"']++@[^\s@.]++(?:\.[^\s@.]++)+|(?<!\w)\w++://\S+|(?<!\w)www\.\S+|"
    r"(?<![\w&])[@#]\w+|(?<!\w)[a-z0-9]++(?:_[a-z0-9]++)++(?:\.[a-z0-9]+)?(?![^\W_])|"
    rf"(?<![\w.-])[\w-]{{3,}}(?:\.[\w-]{{2,}})*\.{_ENDING}(?:/\S*)?(?![^\W_])"
)
_POSSESSIVE = re.compile(r"['’]s$")
_LEAST_DIGITS = 3
_MARKED = r"\d++(?:[.,'’\u00a0\u202f]\d++)*+"
# LH454, COVID-19, H1N1, 77-4410-B, 4410-C2; not Typ-2-Diabetes, 24-Stunden-Dienst, 256-GB
_CODE = re.compile(
    rf"[A-ZÄÖÜ]+-?{_MARKED}(?:[A-Z]+\d*+)*+(?![^\W_])|"
    r"(?:\d++(?:-\d++){1,6}+-[A-Z]{1,3}\d*+|\d{3,}+-[A-Z]{1,3}\d++)(?![\w-])"
)
_NUMBER = re.compile(rf"{_MARKED}(?![\w/]|-[^\W\d]|:\d)")
# Thousands: with one mark alone it may be a fraction (1,250 is little more than one in German).
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3}){2,}|\d{1,3}(?:\.\d{3}){2,}")
_GROUP_MARKS = {"de": ".", "en": ","}
_NO_CENTS = re.compile(r"[.,]00$")
_MARK_BETWEEN_DIGITS = re.compile(r"(?<=\d)[.,'’\u00a0\u202f](?=\d)")
# Each language writes these its own way, or in words.
_DATE = r"\d{1,2}\.\d{1,2}\.(?:\d{4}|\d\d)\b"
_DATE_OR_TIME = re.compile(
    rf"{_DATE}|\d{{1,2}}/\d{{1,2}}/(?:\d{{4}}|\d\d)\b|\d{{4}}-\d\d-\d\d\b|"
    r"(?<![$€£¥])\d{1,2}[.:][0-5]\d(?!\d|[.,:]\d)"
)
# Signs of currencies, and what is written for them instead, in small letters.
_CURRENCIES = {
    "€": r"euros?|eur",
    "$": r"dollars?|dólar(?:es)?|usd",
    "£": r"pounds?|pfund|livres?|libras?|gbp",
    "¥": r"yen|yenes|yuan|jpy|cny",
}
# Likewise of units, behind an amount and a space ("500g" is let alone).
_UNITS = {
    "%": r"%ig|prozent|percent|per cent|pour cent|por ciento",
    "mm": r"mill?im(?:etern?|eters?|etres?|ètres?|etros?|ímetros?)",
    "cm": r"[cz]entim(?:etern?|eters?|etres?|ètres?|etros?)|centímetros?",
    "m": r"m(?:etern?|eters?|etres?|ètres?|etros?)",
    "km": r"kilom(?:etern?|eters?|etres?|ètres?|etros?)|kilómetros?",
    "m²": r"quadratmetern?|square[ -]met(?:er|re)s?|sq\.? ?m|mètres? carrés?|metros? cuadrados?",
    "km²": r"quadratkilometern?|square[ -]kilomet(?:er|re)s?|sq\.? ?km|kilomètres? carrés?|kilómetros? cuadrados?",
    "km/h": r"stundenkilometern?|kmh|kph|(?:km|kilomet(?:ern?|ers?|res?))[ -](?:per|an|pro|in der)[ -](?:hour|stunde)"
    r"|kilomètres?(?: à l'|[ -])heure|kilómetros? por hora",
    "mg": r"mill?igram(?:m|s|mes?|os?)?",
    "g": r"gram(?:m|s|mes?|os?)?",
    "kg": r"kilogram(?:m|s|mes?|os?)?|kilos?",
    "ml": r"mill?ilit(?:ern?|ers?|res?|ros?)",
    "l": r"lit(?:ern?|ers?|res?|ros?)",
    "kW": r"kilowatts?|kilovatios?",
    "kWh": r"kilowatt(?:stunden?|[ -]?hours?|heures?)|kilovatios?[ -]hora",
    "MB": r"megabytes?|mégaoctets?",
    "GB": r"gigabytes?|gigaoctets?|gigs?",
    "TB": r"terabytes?|téraoctets?",
}
_UNIT = re.compile(
    rf"(?:(?<=\d[ \u00a0\u202f])(?:{'|'.join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))})|(?<=\d)%)"
    r"(?![\w/²³'’])"
)
_NAMES = {  # by the sign as ``_folded`` leaves it
    unicodedata.normalize("NFKC", sign).casefold(): names for sign, names in (_CURRENCIES | _UNITS).items()
}
_SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
_JOINERS = frozenset("\u200d\ufe0e\ufe0f\u20e3")  # of emoji: no symbols by themselves
# "°" is often a word; the others are the slash of a fraction, and what SentencePiece reads as a space.
_NO_SYMBOLS = frozenset("°\u2044\u2581\ufffd")
_SPACES = re.compile(r"[\s\u200b\u200c\u200e\u200f\ufeff]+")


@dataclass(frozen=True)
class Literal:
    """A part of a text, at ``span``. ``as_it_is``: it is written alike in every language. A number with marks between
    its digits (1,299.99 or 1.299,99) or with a currency is not: only its digits are looked for. Nor is the sign of an
    amount's currency or unit, which may stand elsewhere, or be its name. ``digits``: of a number in words, which may be
    written in digits or in the words of the other language. ``minute``: of a half day, for a time that is said by the
    hour beside it ("half past seven"), which may be said in any way."""

    span: Span
    text: str
    as_it_is: bool = True
    digits: str = ""
    minute: int | None = None


def literals(text: str, is_foreign: IsForeign, language: str = "") -> tuple[Literal, ...]:
    """Those of ``text`` in its order, none within another. ``is_foreign``: is a letter of neither language?
    ``language``: a code; without one there are no numbers in words."""
    found: list[Literal] = []
    for run in _RUN.finditer(text):
        place = run.start()
        for address in _ADDRESS.finditer(text, run.start(), run.end()):
            begin, end = _without_edges(text, *address.span())
            while end < run.end() and unicodedata.combining(text[end]):
                end += 1
            if begin < end and begin >= place:
                found += _within(text, place, begin, is_foreign)
                found.append(Literal(Span(begin, end), text[begin:end]))
                place = end
        found += _within(text, place, run.end(), is_foreign)
    found = list(_joined(text, found, is_foreign))
    found += _apart(
        found,
        (
            Literal(one.span, one.span.of(text), as_it_is=False, minute=one.minute)
            for one in times_beside_hours(text, language)
        ),
    )
    found += _apart(
        found,
        (
            Literal(one.span, one.span.of(text), as_it_is=False, digits=one.digits)
            for one in numerals(text, language)
            if one.tells
        ),
    )
    return tuple(sorted(found, key=lambda literal: literal.span.begin))


def _apart(found: Iterable[Literal], others: Iterable[Literal]) -> list[Literal]:
    """Those of ``others`` that share no character with what is found already."""
    taken = {place for one in found for place in range(one.span.begin, one.span.end)}
    return [one for one in others if taken.isdisjoint(range(one.span.begin, one.span.end))]


def missing(wanted: Sequence[Literal], translation: str, language: str = "") -> tuple[Literal, ...]:
    """Those that ``translation`` has not, or not so often. ``language``: its code; without one it has no numbers in
    words."""
    if not wanted:
        return ()
    numbers, rest, lost = _numbers(translation, language), _folded(translation), list[Literal]()
    compounds: Counter[str] | None = None  # asked for where something seems to be missing
    times = (
        minutes(translation, language) if any(literal.minute is not None for literal in wanted) else frozenset[int]()
    )
    signs = _signs(rest, {_folded(literal.text) for literal in wanted} & _NAMES.keys())
    # What holds another is looked for first: the digits of a code or an address that is there are no number besides.
    for literal in sorted(wanted, key=lambda literal: (_is_number(literal), -len(literal.text))):
        if literal.minute is not None:
            if literal.minute in times:  # once for all: whoever says it twice may mean it once
                continue
        elif _is_number(literal):
            forms = (literal.digits,) if literal.digits else _forms(literal.text)
            there = next((form for form in forms if numbers[form] > 0), None)
            if there is not None:
                numbers[there] -= 1
                continue
            compounds = beginnings(translation, language) if compounds is None else compounds
            there = next((form for form in forms if compounds[form] > 0), None)
            if there is not None:
                compounds[there] -= 1
                continue
        elif (sign := _folded(literal.text)) in signs:
            if signs[sign] > 0:
                signs[sign] -= 1
                continue
        else:
            shorter = _by_itself(_folded(literal.text)).sub(" ", rest, count=1)
            if shorter != rest:
                rest = shorter
                numbers.subtract(_numbers(literal.text))
                continue
        lost.append(literal)
    return tuple(sorted(lost, key=lambda literal: literal.span.begin))


def as_written_in(literal: Literal, language: str) -> str:
    """How a translation is made to write it; empty where nothing says which of several ways is the right one."""
    if literal.as_it_is:
        return literal.text
    if language not in _GROUP_MARKS:
        return ""
    if literal.text in _UNITS and literal.text.isalpha():
        return literal.text  # both languages abbreviate alike
    return re.sub(r"[.,]", _GROUP_MARKS[language], literal.text) if _GROUPED.fullmatch(literal.text) else ""


def added(text: str, translation: str, is_foreign: IsForeign) -> int:
    """How many symbols and foreign letters a translation has that its text has not: hearts and stars are miscounted,
    and bytes make letters of any script."""
    if translation.isascii():
        return 0
    return (_strange(translation, is_foreign) - _strange(text, is_foreign)).total()


def _is_number(literal: Literal) -> bool:
    return bool(literal.digits) or _NUMBER.fullmatch(literal.text) is not None


def _forms(number: str) -> tuple[str, ...]:
    """Its digits, and without its zero cents."""
    return _digits(number), _digits(_NO_CENTS.sub("", number))


def _numbers(text: str, language: str = "") -> Counter[str]:
    """The digits of each number of a text, of those in words too, and of each date those of its year besides."""
    years = (found[-4:] for found in re.findall(_DATE, text))
    in_words = (numeral.digits for numeral in numerals(text, language))
    spaced = re.findall(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)", _SPACES.sub(" ", text))  # 50 000
    return Counter((*map(_digits, (*re.findall(_MARKED, text), *years, *spaced)), *in_words))


def _signs(text: str, signs: Iterable[str]) -> dict[str, int]:
    """How often each of these currencies and units is named, by its sign or in letters."""
    found = {}
    for sign in signs:
        written = re.escape(sign) if sign in _CURRENCIES else rf"(?<=\d)[ -]?{re.escape(sign)}(?![^\W_]|/)"
        # "Zehnmeterbrett" has the name of a unit within.
        named = rf"\b(?:{_NAMES[sign]})\b" if sign in _CURRENCIES else rf"(?:{_NAMES[sign]})"
        found[sign] = len(re.findall(rf"{written}|{named}", text))
    return found


def _strange(text: str, is_foreign: IsForeign) -> Counter[str]:
    """Symbols, letters and digits that are foreign without their accents too, and code points that mean nothing."""
    plain = unicodedata.normalize("NFKD", _folded(text))
    return Counter(
        one
        for one in plain
        if not one.isascii()
        and (
            _is_symbol(one)
            or (category := unicodedata.category(one)) == "Cn"
            or (category[0] in "LN" and is_foreign(one))
        )
    )


def _is_symbol(character: str) -> bool:
    """An emoji or a sign: no punctuation, no currency, no accent, and none of a keyboard."""
    if character.isascii() or character in _NO_SYMBOLS:
        return False
    return unicodedata.category(character) in ("So", "Sm") or character in _SKIN_TONES


def _without_edges(text: str, begin: int, end: int) -> tuple[int, int]:
    """An address without the punctuation around it, and the "'s" behind it."""
    while end > begin and text[end - 1] in _EDGES:
        end -= 1
    while begin < end and text[begin] in _EDGES:
        begin += 1
    if possessive := _POSSESSIVE.search(text, begin, end):
        end = possessive.start()
    return begin, end


def _within(text: str, begin: int, end: int, is_foreign: IsForeign) -> Iterator[Literal]:
    """Of a run without white space: its symbols, its words with foreign letters, its codes and long numbers."""
    place = begin
    while place < end:
        stop = place + 1
        if _is_symbol(text[place]):
            while stop < end and (_is_symbol(text[stop]) or text[stop] in _JOINERS):
                stop += 1
            yield Literal(Span(place, stop), text[place:stop])
        elif unit := _UNIT.match(text, place, end):
            stop = unit.end()
            yield Literal(Span(place, stop), unit.group(), as_it_is=False)
        elif text[place] in _CURRENCIES:
            if _is_of_amount(text, place):
                yield Literal(Span(place, stop), text[place:stop], as_it_is=False)
        elif _is_of_word(text[place]):
            stop = _end_of_word(text, place, end)
            if _has_foreign(text[place:stop], is_foreign):
                yield Literal(Span(place, stop), text[place:stop])
            elif dated := _DATE_OR_TIME.match(text, place):
                stop = max(stop, min(end, dated.end()))
            elif found := _CODE.match(text, place, end) or _NUMBER.match(text, place, end):
                is_code, digits = found.re is _CODE, _digits(found.group())
                if is_code or len(digits) >= _LEAST_DIGITS:
                    plain = digits == _folded(found.group()) and not _has_currency(text, *found.span())
                    yield Literal(Span(place, found.end()), found.group(), is_code or plain)
                stop = max(stop, found.end())  # of COVID-19 the word ends before the hyphen
        place = stop


def _end_of_word(text: str, place: int, end: int) -> int:
    """Behind letters, digits, and marks between digits."""
    while place < end:
        if not _is_of_word(text[place]) and not _MARK_BETWEEN_DIGITS.match(text, place, end):
            break
        place += 1
    return place


def _joined(text: str, found: Sequence[Literal], is_foreign: IsForeign) -> Iterator[Literal]:
    """Words in other scripts with nothing but spaces and punctuation between them are one."""
    last: Literal | None = None
    for literal in found:
        if last is not None and all(_has_foreign(one.text, is_foreign) for one in (last, literal)):
            between = text[last.span.end : literal.span.begin]
            if not any(map(str.isalnum, between)) and len(between.split()) < 2:
                span = Span(last.span.begin, literal.span.end)
                last = Literal(span, span.of(text))
                continue
        if last is not None:
            yield last
        last = literal
    if last is not None:
        yield last


def _has_foreign(text: str, is_foreign: IsForeign) -> bool:
    """Has it a letter that is foreign without its accents, too? Those of borrowed words (café, façade) are let go."""
    return any(letter.isalpha() and is_foreign(letter) for letter in unicodedata.normalize("NFKD", text))


def _has_currency(text: str, begin: int, end: int) -> bool:
    """Is there a sign of a currency beside it, which each language puts where it likes?"""
    beside = text[begin - 1 : begin], text[end : end + 2].strip()[:1]
    return any(sign and unicodedata.category(sign) == "Sc" for sign in beside)


def _is_of_amount(text: str, place: int) -> bool:
    """Is there a digit beside what stands there, or behind a space?"""
    before, behind = text[max(0, place - 2) : place].rstrip()[-1:], text[place + 1 : place + 3].lstrip()[:1]
    return before.isdecimal() or behind.isdecimal()


def _is_of_word(character: str) -> bool:
    """A letter, a digit, or a mark on one."""
    return character.isalnum() or (unicodedata.category(character)[0] == "M" and character not in _JOINERS)


def _digits(number: str) -> str:
    return "".join(filter(str.isdecimal, _folded(number)))


def _by_itself(text: str) -> re.Pattern[str]:
    """Where a text stands that is no part of a longer word, code or number."""
    before = r"(?<![^\W_])" if text[0].isascii() and text[0].isalnum() else ""
    behind = r"(?![^\W_])" if text[-1].isascii() and text[-1].isalnum() else ""
    return re.compile(before + re.escape(text) + behind)


def _folded(text: str) -> str:
    """As SentencePiece's normalisation, and a raised translation, leave it."""
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text)).casefold()

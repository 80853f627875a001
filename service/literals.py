"""What a translation is to have of its text as it is: emoji, addresses, codes, words in other scripts, long numbers.

A model copies them as it translates, token by token, and may lose or change one. What can be told without knowing the
languages is found here, and looked for in the translation, so that it can be asked for again, or at least named as left
out. Pure functions of text; no model, no tokenizer. Called by the translator.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from service.sentences import Span

IsForeign = Callable[[str], bool]

_RUN = re.compile(r"\S+")
_EDGES = ",.;:!?…()[]{}<>\"'„“”‟«»‚‘’¿¡*"
# A domain or a file by its ending: what is written without a space behind a full stop ("Dr.med", "gut.Dann") is none.
_ENDING = (
    r"(?:[a-z]{2}|com|org|net|info|edu|gov|app|dev|shop|pdf|txt|docx?|xlsx?|pptx?|csv|json|xml|html?|jpe?g|png|gif|svg|zip|"
    r"mp[34]|exe)"
)
# An e-mail address, a web address, a name or a tag, a file or a domain.
_ADDRESS = re.compile(
    r"[^\s@]+@[^\s@]+\.[^\s@]+|\w+://\S+|www\.\S+|[@#]\w+|\w+_\w+\S*|"
    rf"[\w-]{{3,}}(?:\.[\w-]{{2,}})*\.{_ENDING}(?:/\S*)?"
)
_MARKED = r"\d++(?:[.,'’]\d++)*+"
_CODE = re.compile(rf"[A-ZÄÖÜ]+-?{_MARKED}(?![^\W_])")  # LH454, COVID-19; not Typ-2-Diabetes
_NUMBER = re.compile(rf"{_MARKED}(?![\w/-]|:\d)")
_MARK_BETWEEN_DIGITS = re.compile(r"(?<=\d)[.,'’](?=\d)")
# Each language writes these its own way, or in words.
_DATE_OR_TIME = re.compile(
    r"\d{1,2}\.\d{1,2}\.(?:\d{4}|\d\d)\b|\d{1,2}/\d{1,2}/(?:\d{4}|\d\d)\b|\d{4}-\d\d-\d\d\b|\d{1,2}[.:][0-5]\d(?!\d|[.,:]\d)"
)
_LEAST_DIGITS = 3
_JOINERS = "\u200d\ufe0e\ufe0f\u20e3"  # of emoji: no symbols by themselves


@dataclass(frozen=True)
class Literal:
    """A part of a text, at ``span``. ``as_it_is``: it is written alike in every language. A number with marks between
    its digits is not (1,299.99 or 1.299,99): only its digits are looked for."""

    span: Span
    text: str
    as_it_is: bool = True


def literals(text: str, is_foreign: IsForeign) -> tuple[Literal, ...]:
    """Those of ``text`` in its order, none within another. ``is_foreign``: is a letter of neither language?"""
    found: list[Literal] = []
    for run in _RUN.finditer(text):
        begin, end = _without_edges(text, run.start(), run.end())
        if _ADDRESS.fullmatch(text, begin, end):
            found.append(Literal(Span(begin, end), text[begin:end]))
        else:
            found += _within(text, run.start(), run.end(), is_foreign)
    return tuple(_joined(text, found, is_foreign))


def missing(wanted: Sequence[Literal], translation: str) -> tuple[Literal, ...]:
    """Those that ``translation`` has not, or not so often."""
    if not wanted:
        return ()
    found = re.findall(_MARKED, translation)
    parts = (part for number in found if not number.isdecimal() for part in re.findall(r"\d{3,}", number))
    numbers = Counter(map(_digits, (*found, *parts)))
    rest, lost = _folded(translation), list[Literal]()
    for literal in sorted(wanted, key=lambda literal: -len(literal.text)):  # what holds another is looked for first
        folded, digits = _folded(literal.text), _digits(literal.text)
        is_number = _NUMBER.fullmatch(literal.text) is not None
        if is_number and numbers[digits]:
            numbers[digits] -= 1
        elif not is_number and folded in rest:
            rest = rest.replace(folded, " ", 1)
        else:
            lost.append(literal)
    return tuple(sorted(lost, key=lambda literal: literal.span.begin))


def added(text: str, translation: str, is_foreign: IsForeign) -> int:
    """How many symbols and foreign letters a translation has that its text has not: hearts and stars are miscounted,
    and bytes make letters of any script."""
    if translation.isascii():
        return 0
    return (_strange(translation, is_foreign) - _strange(text, is_foreign)).total()


def _strange(text: str, is_foreign: IsForeign) -> Counter[str]:
    """Symbols, foreign letters and digits, and code points that mean nothing."""
    others = filter(lambda one: not one.isascii(), _folded(text))
    return Counter(
        one
        for one in others
        if _is_symbol(one)
        or (category := unicodedata.category(one)) == "Cn"
        or (category[0] in "LN" and is_foreign(one))
    )


def _is_symbol(character: str) -> bool:
    """An emoji or a sign: no punctuation, no currency, no degree, and none of a keyboard."""
    return not character.isascii() and character != "°" and unicodedata.category(character) in ("So", "Sk", "Sm")


def _without_edges(text: str, begin: int, end: int) -> tuple[int, int]:
    while end > begin and text[end - 1] in _EDGES:
        end -= 1
    while begin < end and text[begin] in _EDGES:
        begin += 1
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
        elif _is_of_word(text[place]):
            stop = _end_of_word(text, place, end)
            if _has_foreign(text[place:stop], is_foreign):
                yield Literal(Span(place, stop), text[place:stop])
            elif dated := _DATE_OR_TIME.match(text, place):
                stop = max(stop, dated.end())
            elif found := _CODE.match(text, place, end) or _NUMBER.match(text, place, end):
                is_code, digits = found.re is _CODE, _digits(found.group())
                if is_code or len(digits) >= _LEAST_DIGITS:
                    yield Literal(Span(place, found.end()), found.group(), is_code or digits == _folded(found.group()))
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


def _is_of_word(character: str) -> bool:
    """A letter, a digit, or a mark on one."""
    return character.isalnum() or (unicodedata.category(character)[0] == "M" and character not in _JOINERS)


def _digits(number: str) -> str:
    return "".join(filter(str.isdecimal, _folded(number)))


def _folded(text: str) -> str:
    """As SentencePiece's normalisation, and a raised translation, leave it."""
    return unicodedata.normalize("NFKC", text).casefold()

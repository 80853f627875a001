"""Names that a translation has with a letter or two changed: a small model spells them piece by piece, and slips.

"Wolfgang Amadeus Mozart" comes back as "Wolfgang Adeus Mozart". What is much like a name and not the same is either
such a slip or the other language's own form (Athen, Athens); which of them, the model tells: of a slip, the name as it
stands in the text is about as likely. Pure functions of words; no model. Called by ``service.recovery``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from service.attention.words import Word

_LEAST_LETTERS = 4
_LEAST_LIKENESS = 0.75  # 2 M / T, by difflib: Jaws and Jaus have 0.75, Belgien and Belgium 0.71


def respelled_names(source: Sequence[Word], translation: Sequence[Word]) -> list[Word]:
    """Words of ``source`` with a capital that ``translation`` has not, and in their place one much like them, of
    several tokens: what is one token the model has read often, and does not misspell. Beside a number it may be a
    month, and is let alone."""
    there = {word.text.casefold() for word in translation}
    read = {word.text.casefold() for word in source}
    written = [
        word
        for word in translation
        if _may_be_name(word) and word.end_token - word.begin_token > 1 and word.text.casefold() not in read
    ]
    numbered = {place + step for place, word in enumerate(source) if word.text.isdecimal() for step in (-2, -1, 1, 2)}
    return [
        word
        for place, word in enumerate(source)
        if place not in numbered
        and _may_be_name(word)
        and not _is_there(word.text.casefold(), there)
        and any(_are_alike(word.text, one.text) for one in written)
    ]


def unread_names(source: Sequence[Word], translation: Sequence[Word], is_foreign: Callable[[str], bool]) -> list[Word]:
    """Words of ``source`` with a capital and a letter that no word of the vocabulary has (the "ễ" of Nguyễn), which
    ``translation`` has neither so nor without its accents: of such a letter the model makes any, byte by byte.
    """
    there = {_without_accents(word.text) for word in translation}
    return [
        word
        for word in source
        if _may_be_name(word)
        and any(map(is_foreign, unicodedata.normalize("NFC", word.text)))
        and not _is_there(_without_accents(word.text), there)
    ]


def _without_accents(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one)).casefold()


def _may_be_name(word: Word) -> bool:
    """One capital, and it is the first: what is all capitals is read in another form."""
    text = word.text
    return not word.special and len(text) >= _LEAST_LETTERS and text.isalpha() and text.istitle()


def _is_there(text: str, there: set[str]) -> bool:
    """As it is, or with the "s" of a genitive more or less."""
    return bool({text, f"{text}s", text.removesuffix("s"), f"{text}'s"} & there)


def _are_alike(name: str, other: str) -> bool:
    return (
        name[0] == other[0]
        and name != other
        and SequenceMatcher(None, name.casefold(), other.casefold(), autojunk=False).ratio() >= _LEAST_LIKENESS
    )

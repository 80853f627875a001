"""Words of a text, made of its tokens: the units that people look at.

A word is a run of letters, marks and digits; any other character that is no white space is a word by itself. In scripts
without spaces between words a unit is one token and says so. Pure functions of a text and the places of its tokens.
"""

from __future__ import annotations

import itertools
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from service.bundle.tokenizer import Token

_APOSTROPHES = "'’"
_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")
# Scripts written without spaces between words: Thai, Lao, Tibetan, Myanmar, Khmer, kana, Han.
_UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x0F00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x20000, 0x323AF),
)


@dataclass(frozen=True)
class Word:
    """``begin`` and ``end`` count code points; the tokens are ``begin_token`` up to, not with, ``end_token``."""

    text: str
    begin: int
    end: int
    begin_token: int
    end_token: int
    special: bool = False
    is_piece: bool = False


def segment(text: str) -> list[tuple[int, int]]:
    """The spans of the words of a text by its characters alone; white space lies between them."""
    spans: list[tuple[int, int]] = []
    for place, character in enumerate(text):
        if character.isspace():
            continue
        follows = bool(spans) and spans[-1][1] == place
        if follows and _continues(text, spans[-1][0], place):
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
    return spans


def _continues(text: str, begin: int, place: int) -> bool:
    """Does the character at ``place`` belong to the word that began at ``begin`` and ends just before it?"""
    character, before = text[place], text[place - 1]
    if unicodedata.category(character)[0] == "M" or character == _ZERO_WIDTH_JOINER or before == _ZERO_WIDTH_JOINER:
        return True
    if _SKIN_TONES[0] <= character <= _SKIN_TONES[1]:
        return True
    if _unspaced(character) or _unspaced(text[begin]):
        return False
    if _is_word_character(character):
        return _is_word_character(text[begin]) and (_is_word_character(before) or before in _APOSTROPHES)
    within = place + 1 < len(text) and text[place + 1].isalpha() and not _unspaced(text[place + 1])
    return character in _APOSTROPHES and before.isalpha() and within


def _is_word_character(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" and not _unspaced(character)


def _unspaced(character: str) -> bool:
    code = ord(character)
    return any(first <= code <= last for first, last in _UNSPACED) and not character.isdigit()


def words_of(text: str, tokens: Sequence[Token]) -> tuple[Word, ...]:
    """Words that share no token: each token is in exactly one, in order.

    Words that one token spans become one. White space that is a token of its own goes with the word after it, at the
    end with the word before it. A special token is a unit by itself. A word of which no token tells has no unit.
    """
    spans = segment(text)
    units: list[Word] = []
    for special, run in itertools.groupby(enumerate(tokens), key=lambda placed: placed[1].special):
        placed = list(run)
        if special:
            units += [Word(token.piece, token.begin, token.end, at, at + 1, special=True) for at, token in placed]
        else:
            units += _words_of_run(text, spans, placed)
    return tuple(units)


def _words_of_run(text: str, spans: list[tuple[int, int]], run: list[tuple[int, Token]]) -> list[Word]:
    """Words of tokens without a special one among them; ``run`` has each token's place in the whole."""
    begins, ends = [begin for begin, _ in spans], [end for _, end in spans]
    groups: list[tuple[int, int, int, int]] = []  # first span, last span, first token, token after the last
    next_token = run[0][0]
    for place, token in run:
        first, last = bisect_right(ends, token.begin), bisect_left(begins, token.end) - 1
        if first > last:  # nothing but white space
            continue
        if groups and first <= groups[-1][1]:  # goes on with the word before it, perhaps into the next ones
            groups[-1] = (groups[-1][0], max(groups[-1][1], last), groups[-1][2], place + 1)
        else:
            groups.append((first, last, next_token, place + 1))
        next_token = place + 1
    end_token = run[-1][0] + 1
    if not groups:
        return [_unit(text, run[0][1].begin, run[-1][1].end, run[0][0], end_token)]
    groups[-1] = (*groups[-1][:3], end_token)
    return [
        _unit(text, spans[first][0], spans[last][1], begin_token, end_token)
        for first, last, begin_token, end_token in groups
    ]


def _unit(text: str, begin: int, end: int, begin_token: int, end_token: int) -> Word:
    is_piece = any(_unspaced(character) for character in text[begin:end])
    return Word(text[begin:end], begin, end, begin_token, end_token, is_piece=is_piece)

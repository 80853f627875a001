"""What a model reads of a text whose form its vocabulary does not have: capitals and quotation marks.

A vocabulary learned from ordinary sentences has whole words in lower case and single letters in capitals, words behind
a space and letters behind a quotation mark, so that a model reads "WICHTIG" and "„Komm" letter by letter and guesses.
For a bundle whose manifest says ``reads_plainly`` capitals are read in lower case, and the translation of a sentence
that is all capitals is raised again; every double quotation mark is read as the plain one, with a space on its inner
side. The tokens are those that the model read and wrote; their offsets count the text as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from service.bundle.tokenizer import TokenizedText, Tokenizer

_WORD_SIGN = "▁"
_WORD = re.compile(r"[^\W\d_]+")
_SHORT = 3  # letters: so short a word may be an abbreviation that is another word in lower case (US, IT, WHO)
_MIDDLE = 6  # up to so many, a word that the vocabulary does not know is taken for an abbreviation (UNESCO)
_PLAIN_MARKS = str.maketrans({**dict.fromkeys("„“”‟«»", '"'), **dict.fromkeys("‘’‚‛", "'")})
_OPENING, _CLOSING = re.compile(r'(?<!\w)"(?=\w)'), re.compile(r'(?<=\S)"(?!\w)')


def in_capitals(text: str) -> bool:
    """Two or more capitals and no small letter. One capital alone, "I" or "A", is a word of ordinary text."""
    return sum(map(str.isupper, text)) > 1 and not has_small_letters(text)


def has_small_letters(text: str) -> bool:
    return any(map(str.islower, text))


def lowered(text: str) -> str:
    """In lower case, of the same length: a letter that becomes two stays as it is."""
    return "".join(lower if len(lower := letter.lower()) == 1 else letter for letter in text)


def without_capitals(text: str, tokenizer: Tokenizer) -> str:
    """Of the same length: a sentence of several words in capitals in lower case; elsewhere each word in capitals that
    is too long for an abbreviation, or a word of the vocabulary only as ordinary text has it."""
    if in_capitals(text) and len(_WORD.findall(text)) > 1:
        return lowered(text)
    return _WORD.sub(lambda word: _without_capitals(word.group(), tokenizer), text)


def _without_capitals(word: str, tokenizer: Tokenizer) -> str:
    if len(word) <= _SHORT or not word.isupper() or tokenizer.piece_id(_WORD_SIGN + word) is not None:
        return word
    lower = lowered(word)
    ids = {form: tokenizer.piece_id(_WORD_SIGN + form) for form in (lower, word[0] + lower[1:])}
    known = {form: identity for form, identity in ids.items() if identity is not None}
    if not known:
        return lower if len(word) > _MIDDLE else word
    return min(known, key=lambda form: known[form])  # the more frequent has the lower number


def plain_marks(text: str) -> str:
    """Quotation marks of any style as plain ones, a character for a character."""
    return text.translate(_PLAIN_MARKS)


def with_spaced_marks(text: str) -> str:
    """Plain double quotation marks, each with a space on its inner side."""
    return _CLOSING.sub(' "', _OPENING.sub('" ', plain_marks(text)))


def read(text: str, tokenizer: Tokenizer, first: str = "") -> TokenizedText:
    """The tokens of what a model that ``reads_plainly`` reads of ``text``, at their places in ``text``."""
    plain = _plain(text, tokenizer)
    return _moved(tokenizer.encode(plain, first), text, _places(text, plain))


def read_ids(text: str, tokenizer: Tokenizer, first: str = "") -> list[int]:
    """The ids that ``read`` gives, without the offsets."""
    return tokenizer.encode_ids(_plain(text, tokenizer), first)


def _plain(text: str, tokenizer: Tokenizer) -> str:
    return with_spaced_marks(without_capitals(text, tokenizer))


def _places(text: str, spaced: str) -> list[int]:
    """Where in ``text`` each place of ``spaced``, the same but for spaces put in beside quotation marks, is."""
    places, place = [0], 0
    for character in spaced:
        place += character != " " or text[place] == " "
        places.append(place)
    return places


def raised(target: TokenizedText) -> TokenizedText:
    """A translation in capitals: ß is SS, and the tokens' places move with it."""
    letters = [letter.upper() for letter in target.text]
    return _moved(target, "".join(letters), [0, *accumulate(map(len, letters))])


def _moved(tokenized: TokenizedText, text: str, places: Sequence[int]) -> TokenizedText:
    tokens = (replace(token, begin=places[token.begin], end=places[token.end]) for token in tokenized.tokens)
    return TokenizedText(text, tuple(tokens))

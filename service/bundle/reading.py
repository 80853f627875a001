"""What a model reads of a text whose form its vocabulary does not have: capitals and quotation marks.

A vocabulary learned from ordinary sentences has whole words in lower case and single letters in capitals, words behind
a space and letters behind a quotation mark, so that a model reads "WICHTIG" and "„Komm" letter by letter and guesses.
For a bundle whose manifest says ``reads_plainly`` words in capitals are truecased: read as the vocabulary most often
has them (the baseline of Lita et al. 2003, "tRuEcasIng"), and the translation of a sentence that is all capitals is
raised again; quotation marks are read as plain double ones with a space on their inner side. The tokens are those that
the model read and wrote; their offsets count the text as it was sent.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from service.bundle.tokenizer import TokenizedText, Tokenizer

_WORD_SIGN = "▁"
_LETTER = "[^\\W\\d_][\u0300-\u036f]*"
_WORD = re.compile(rf"(?:{_LETTER})+(?:['’](?:{_LETTER})+)*")
_CODE = re.compile(r"[\d_@/\\%{}#=<>~|]|\.\w")  # an address, a file, a placeholder: what no sentence is made of
_RUN = re.compile(r"\S+")
_SHORT = 3  # letters: so short a word may be an abbreviation that is another word in lower case (US, IT, WHO)
_MIDDLE = 6  # up to so many, a word that the vocabulary does not know is taken for an abbreviation (UNESCO)
_NAME = 2  # how much lower its number must be with a capital than without for a word to be a name within a sentence
_PLAIN_MARKS = str.maketrans({**dict.fromkeys("„“”‟«»❝❞＂", '"'), **dict.fromkeys("‘’‚‛", "'")})
_MARK = re.compile(r'["„“”‟«»❝❞＂]')
# 'cause, rock 'n' roll, 'ne, 'rein, '99: of a word something is left out.
_ELIDED = (
    r"(?:cause|em|tis|twas|till?|round|bout|fore|gainst|nuff|ello|kay|member|nother|n(?:e[mnrs]?)?|[sdm]|was|"
    r"r(?:ein|aus|auf|unter|über|an|um)|\d\d(?:er|s)?)\b"
)
# Two single marks around words, each outside of a word; those between are apostrophes within words.
_SINGLE_MARKS = re.compile(
    rf"(?<![^\s([{{–—:;,/-])(?:‚|[‘'’‛](?!{_ELIDED}))(?=[^\W_]|[¿¡…(])"
    rf"((?:[^'‘’‚‛\"„“”‟«»❝❞＂]|(?<=\w)['’](?=\w)){{1,200}}?)(?<!\s)['’‘‛](?!\w)",
    re.IGNORECASE,
)
# One that is no apostrophe within a word, and of none that begins so.
_FREE_SINGLE_MARK = re.compile(rf"(?<!\w)[‘'’‛‚](?!{_ELIDED})|(?<=\w)['’‘‛](?!\w)", re.IGNORECASE)
_BEFORE_OPENING = frozenset("([{-–—/:;,¿¡'‘‚")
_BEHIND_CLOSING = re.compile(r"[\s,;:!?)\]}–—]|\.(?!\.)|$")


def in_capitals(text: str) -> bool:
    """Two capitals or more, and no other letter: one by itself, "I" or "A", is a word of ordinary text, and scripts
    without capitals are in none. A letter that has no capital of one letter (ß) may stand among them."""
    others = (letter for letter in text if letter.isalpha() and not letter.isupper() and letter not in "ªº")
    return sum(map(str.isupper, text)) > 1 and all(len(letter.upper()) > 1 for letter in others)


def truecased(text: str, tokenizer: Tokenizer) -> str:
    """Words in capitals as the vocabulary most often has them; of the same length.

    A sentence of nothing else is truecased whole, if one word of it is known. In any other only words that are too long
    for an abbreviation, or known otherwise; USA, WHO and UNESCO stay as they are.
    """
    words = [word for word in _WORD.findall(text) if _all_capitals(word)]
    sentence = in_capitals(text) and any(_known(_head(word), tokenizer) not in (None, _head(word)) for word in words)
    if not sentence and all(_letters(word) <= _SHORT for word in words):
        return text

    def of_word(found: re.Match[str]) -> str:
        word = found.group()
        return _truecased(word, tokenizer, sentence) if _all_capitals(word) else word

    def of_run(found: re.Match[str]) -> str:
        run = found.group()
        return run if _CODE.search(run) else _WORD.sub(of_word, run)

    read = _RUN.sub(of_run, text)
    if not sentence:
        return read
    first = next(place for place, letter in enumerate(text) if letter.isalpha())
    return read[:first] + text[first] + read[first + 1 :]


def _truecased(word: str, tokenizer: Tokenizer, sentence: bool) -> str:
    if not sentence and _letters(word) <= _SHORT:
        return word
    head = _head(word)
    if (known := _known(head, tokenizer)) is not None:
        return word if known == head else known + _lowered(word[len(head) :])
    return word if _letters(word) <= (_SHORT if sentence else _MIDDLE) else _lowered(word)


def _known(word: str, tokenizer: Tokenizer) -> str | None:
    """The form of a word in capitals that the vocabulary has; of several the more frequent, which has the lower number.

    A form with one capital is a name or a noun, or stood at the beginning of sentences: it must be much more frequent.
    """
    lower = _lowered(word)
    ids = dict[str, int]()
    for form in (lower, word[0] + lower[1:], word):
        if (number := tokenizer.piece_id(_WORD_SIGN + unicodedata.normalize("NFKC", form))) is not None:
            ids.setdefault(form, number * (1 if form in (lower, word) else _NAME))
    return min(ids, key=lambda form: ids[form], default=None)


def _head(word: str) -> str:
    """What is before an apostrophe."""
    return re.split("['’]", word, maxsplit=1)[0]


def _letters(word: str) -> int:
    return len(unicodedata.normalize("NFC", word))


def _all_capitals(word: str) -> bool:
    return in_capitals(word) or (len(word) == 1 and word.isupper())


def _lowered(text: str) -> str:
    """A letter that becomes two stays as it is, so that every other keeps its place."""
    return "".join(lower if len(lower := letter.lower()) == 1 else letter for letter in text)


def plain_marks(text: str) -> str:
    """Quotation marks of any style as plain double ones, a character for a character; apostrophes, and single marks
    within double ones, as plain single ones."""
    return _doubled(text).translate(_PLAIN_MARKS)


def _doubled(text: str) -> str:
    """Single quotation marks as double ones: a model takes them for apostrophes. Where one of them stands alone, as
    behind "the boys'", nothing says which, and all are apostrophes."""
    if len(_FREE_SINGLE_MARK.findall(text)) % 2:
        return text
    double = [found.start() for found in _MARK.finditer(text)]

    def in_double(found: re.Match[str]) -> str:
        quoted = bisect_left(double, found.start()) % 2
        return found.group() if quoted else f'"{found.group(1)}"'

    return _SINGLE_MARKS.sub(in_double, text)


def with_spaced_marks(text: str) -> str:
    """Plain double quotation marks, each with a space on its inner side; one between two letters has none."""
    text = _doubled(text)

    def spaced(found: re.Match[str]) -> str:
        before = text[found.start() - 1 : found.start()].strip()
        begins = not before or before in _BEFORE_OPENING or found.group() == "„"
        if begins and not _BEHIND_CLOSING.match(text, found.end()):
            return '" '
        ends = before and not text[found.end() : found.end() + 1].isalnum()
        return ' "' if ends and not begins else '"'

    return _MARK.sub(spaced, text).translate(_PLAIN_MARKS)


def read(text: str, tokenizer: Tokenizer, first: str = "") -> TokenizedText:
    """The tokens of what a model that ``reads_plainly`` reads of ``text``, at their places in ``text``.

    ``first``: a control piece to put before them.
    """
    plain = _plain(text, tokenizer)
    return _moved(tokenizer.encode(plain, first), text, _places(text, plain))


def read_ids(text: str, tokenizer: Tokenizer, first: str = "") -> list[int]:
    """The ids that ``read`` gives, without the offsets."""
    return tokenizer.encode_ids(_plain(text, tokenizer), first)


def _plain(text: str, tokenizer: Tokenizer) -> str:
    return with_spaced_marks(truecased(text, tokenizer))


def _places(text: str, spaced: str) -> list[int]:
    """Where in ``text`` each place of ``spaced``, the same but for spaces put in beside quotation marks, is."""
    places, place = [0], 0
    for character in spaced:
        place += character != " " or text[place : place + 1] == " "
        places.append(place)
    return places


def raised(target: TokenizedText) -> TokenizedText:
    """A translation in capitals: ß is SS, and the tokens' places move with it."""
    letters = [letter.upper() for letter in target.text]
    return _moved(target, "".join(letters), [0, *accumulate(map(len, letters))])


def _moved(tokenized: TokenizedText, text: str, places: Sequence[int]) -> TokenizedText:
    tokens = (replace(token, begin=places[token.begin], end=places[token.end]) for token in tokenized.tokens)
    return TokenizedText(text, tuple(tokens))

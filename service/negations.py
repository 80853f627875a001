"""Words that turn a sentence round: to lose one says the opposite, and reads well.

Such words are often not looked at, for it is the "do" of "don't" or the verb beside "nicht" that the translation looks
at. So they are doubted wherever the translation denies nothing, whatever it looks at (``service.recovery``). A closed
class of few words in each language; of a language that is not here nothing is known. Pure functions of text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from service.attention.words import Word
from service.coverage import plain_form

_DENIES = {
    "de": re.compile(
        r"nichts?|nie(?:mals|mand(?:e[nms])?)?|nirgend(?:s|wo(?:hin)?)|kein(?:e[nmrs]?|s|eswegs|esfalls)?|ohne|weder"
    ),
    "en": re.compile(r"no|not|never|nothing|nobody|none|nowhere|neither|nor|without|cannot|[a-z]+n't"),
}
# ", isn't it?" and ", nicht wahr?" ask, and deny nothing.
_TAG = re.compile(r",\s+(?:\w+n['’]t\s+\w+|nicht(?:\s+wahr)?)\s*\?", re.IGNORECASE)


def negations(text: str, words: Sequence[Word], language: str) -> list[Word]:
    """Those of ``words`` of ``text`` that deny, in its order. ``language``: a code, of which the first part counts
    ("de" of "de-AT")."""
    asked = [found.span() for found in _TAG.finditer(text)]
    return [
        word
        for word in words
        if denies(word.text, language)
        and text[word.begin - 1 : word.begin] != "-"  # a good-for-nothing
        and not any(begin <= word.begin < end for begin, end in asked)
    ]


def denies(word: str, language: str) -> bool:
    """Is it a word of negation? False for a language that is not known here."""
    known = _DENIES.get(language.partition("-")[0].lower())
    return known is not None and known.fullmatch(plain_form(word)) is not None

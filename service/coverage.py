"""Words of a text that its translation does not rest on: told by what it looked at, and by whether it changes without
them.

A model that leaves a word out says nothing of it (under-translation; Tu et al. 2016, "Modeling Coverage for Neural
Machine Translation", https://arxiv.org/abs/1601.04811). Two things show it. Hardly any target word looks at it; and the
translation is hardly less likely where the word is taken out of the text (contrastive conditioning: Vamvas and Sennrich
2022, https://arxiv.org/abs/2203.01927, who try every word; here the attention says which are worth it). Neither is
enough by itself: articles are looked at by nothing and lost by nobody, and what can be guessed from the rest is likely
without its word. Pure functions of weights and text; no queue, no model. Called by ``service.recovery``
and ``training.omissions``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from service.attention.types import Floats
from service.attention.words import Word
from service.sentences import Span

LEAST_WEIGHT = 0.25  # of one target token's: a word that gets more from any is looked at,
_SURE_WEIGHT = 0.5  # if there is a token that looks at no other word more, or if it is so much
MOST_NATS = 1.5  # that a translation may become less likely without a word that it does not rest on
_NAME_BEGINS = 3  # letters: a capital behind the first of them is of a name (eBay, McDonald), later of a compound


def hardly_looked_at(weights: Floats, words: Sequence[Word]) -> list[tuple[float, Word]]:
    """Those at which no target token looks more than a little, or which all look at less than at another word, each
    with the greatest weight that it has, in order; special ones and punctuation are none.

    ``weights`` (target_length, source_length): the alignment, without the row of `</s>`.
    """
    if not len(weights) or not words:
        return []
    columns = np.add.reduceat(weights, [word.begin_token for word in words], axis=1)
    first = set(columns.argmax(axis=1).tolist())
    return [
        (most, word)
        for place, (word, most) in enumerate(zip(words, columns.max(axis=0).tolist(), strict=True))
        if most < (LEAST_WEIGHT if place in first else _SURE_WEIGHT) and _is_word(word)
    ]


def run_around(word: Word, hardly: Collection[Word], words: Sequence[Word]) -> Span:
    """``word`` and those beside it that are of ``hardly`` too, up to punctuation. The "nach" of "nach Verlängerung"
    goes with it: without the noun alone the text is no longer one that could be translated so."""
    first = last = words.index(word)
    while first > 0 and words[first - 1] in hardly:
        first -= 1
    while last + 1 < len(words) and words[last + 1] in hardly:
        last += 1
    return Span(words[first].begin, words[last].end)


def _is_word(word: Word) -> bool:
    return not word.special and any(map(str.isalnum, word.text))


def tells_something(word: str, unaligned: Collection[str]) -> bool:
    """Is it a number, or a word of two letters or more that is not among those that good translations often do not look
    at? ``unaligned``: those, as ``plain_form`` has them."""
    return any(map(str.isdigit, word)) or (len(word) > 1 and plain_form(word) not in unaligned)


def plain_form(word: str) -> str:
    """A word as it is counted: whether it begins a sentence, and which apostrophe it has, is all the same."""
    return word.replace("’", "'").casefold()


def without(text: str, span: Span) -> str:
    """``text`` without a part of it, and without a space beside it; empty where no letter is left."""
    before, behind = text[: span.begin], text[span.end :]
    if behind[:1].isspace() and (before[-1:].isspace() or not before):
        behind = behind[1:]
    rest = before + behind
    return rest if any(map(str.isalnum, rest)) else ""


def is_written_alike(word: Word, text: str, pieces: Sequence[str]) -> bool:
    """Is a word of ``text`` most likely a name, which every language has as it is: in capitals where the rest is not,
    or with one after the first letter (IKEA, eBay)?

    ``pieces``: those of its tokens. What is read in lower case (``service.bundle.reading``) is stressed, and no name.
    """
    inner = any(map(str.isupper, word.text[1:_NAME_BEGINS]))
    rest = text[: word.begin] + text[word.end :]
    return inner and any(map(str.isupper, "".join(pieces))) and any(map(str.islower, rest))

"""Words of a text that its translation does not rest on: told by what it looked at, and by whether it changes without
them.

A model that leaves a word out says nothing of it (under-translation; Tu et al. 2016, "Modeling Coverage for Neural
Machine Translation", https://arxiv.org/abs/1601.04811). Two things show it. No target word looks at it; and the
translation is hardly less likely where the word is taken out of the text (contrastive conditioning: Vamvas and Sennrich
2022, https://arxiv.org/abs/2203.01927, who try every word; here the attention says which are worth it). Neither is
enough by itself: articles are looked at by nothing and lost by nobody, and what can be guessed from the rest is likely
without its word. Pure functions of weights and text; no queue, no model. Called by ``service.recovery``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from service.attention.types import Floats
from service.attention.words import Word
from service.bundle.tokenizer import Tokenizer
from service.sentences import Span

LEAST_WEIGHT = 0.25  # of one target token's: a word that gets more from any is looked at
MOST_NATS = 2.5  # that a translation may become less likely without a word that it does not rest on
_GRAMMAR = 900  # so many of the likeliest pieces are mostly words that another language has no word for
_LONGEST_OF_GRAMMAR = 2  # pieces of an inflected form of one ("viel|en"); what has more is a word by itself


def hardly_looked_at(weights: Floats, words: Sequence[Word]) -> list[Word]:
    """Those of which no target token looks at more than a little; special ones and punctuation are none.

    ``weights`` (target_length, source_length): the alignment, without the row of `</s>`.
    """
    if not len(weights) or not words:
        return []
    columns = np.add.reduceat(weights, [word.begin_token for word in words], axis=1)
    greatest = columns.max(axis=0)
    return [
        word
        for word, most in zip(words, greatest, strict=True)
        if most < LEAST_WEIGHT and not word.special and any(map(str.isalnum, word.text))
    ]


def tells_something(word: str, tokenizer: Tokenizer) -> bool:
    """Is it a number, or a word that is not among the most frequent ones of the vocabulary?

    The pieces of a unigram vocabulary are numbered by their frequency (Kudo 2018, https://arxiv.org/abs/1804.10959), so
    that articles, pronouns and auxiliaries come first in any language.
    """
    head = word.replace("’", "'").split("'")[0].lower()
    if any(map(str.isdigit, head)):
        return True
    return len(head) > 1 and _is_rare(head, tokenizer)


@lru_cache(maxsize=4096)
def _is_rare(word: str, tokenizer: Tokenizer) -> bool:
    ids = tokenizer.encode_ids(word)[:-1]
    return bool(ids) and (ids[0] >= _GRAMMAR or len(ids) > _LONGEST_OF_GRAMMAR)


def without(text: str, span: Span) -> str:
    """``text`` without a part of it, and without one of the spaces around it; empty where no letter is left."""
    before, behind = text[: span.begin], text[span.end :]
    if not before.strip() or (before[-1:].isspace() and behind[:1].isspace()):
        behind = behind.lstrip()
    rest = before + behind
    return rest if any(map(str.isalnum, rest)) else ""


def is_written_alike(word: str, text: str) -> bool:
    """Is a word of ``text`` most likely a name, which every language has as it is: in capitals where the rest is not,
    or with one inside it (IKEA, eBay)?"""
    inner = any(map(str.isupper, word[1:]))
    return inner and any(map(str.islower, text))

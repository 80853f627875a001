"""Subword regularisation: text cut into pieces anew each time it is read, the same way from the same seed.

A unigram model's cuts are drawn with P(x)^alpha (Kudo 2018, https://arxiv.org/abs/1804.10959, equation 8, over all
cuts: forward filtering, backward sampling); BPE leaves out each merge with probability p (Provilkov et al. 2020,
https://arxiv.org/abs/1910.13267). SentencePiece can do both, but mixes numbers of the process into its seed, so that a
run that continues would read other pieces; here SentencePiece normalises, and the cut is ours.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol

import sentencepiece

from service.bundle.tokenizer import EOS_ID

_SPACE = "▁"  # SentencePiece's sign for a space: pieces may begin with it, none crosses it
_RARE = 10.0  # how much less likely than the least likely piece SentencePiece takes a character without a piece to be
_REMEMBERED_WORDS = 50_000


class SubwordSampler:
    """Cuts texts by a trained SentencePiece model of the kind unigram or bpe."""

    def __init__(self, model: Path, kind: str, strength: float) -> None:
        """``strength``: alpha of unigram, above 0, which takes the likelier cuts the greater it is; p of BPE."""
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        pieces = _Pieces(self._processor)
        self._cutter: _Cutter = _UnigramCutter(pieces, strength) if kind == "unigram" else _BpeCutter(pieces, strength)

    def encode(self, texts: Iterable[str], seed: int, first_pieces: Iterable[str] | None = None) -> list[list[int]]:
        """Token ids, `</s>` last; ``first_pieces``: for each text the control piece before it, "" for none."""
        generator = random.Random(seed)
        cut = [[*self._cut(text, generator), EOS_ID] for text in texts]
        if first_pieces is None:
            return cut
        before = ([self._processor.piece_to_id(piece)] if piece else [] for piece in first_pieces)
        return [[*first, *ids] for first, ids in zip(before, cut, strict=True)]

    def _cut(self, text: str, generator: random.Random) -> Iterator[int]:
        for word in _words(self._processor.normalize(text)):
            yield from self._cutter.cut(word, generator)


def _words(text: str) -> list[str]:
    """Each with the sign for a space that is before it."""
    first, *others = text.split(_SPACE)
    return [word for word in (first, *(_SPACE + other for other in others)) if word]


class _Pieces:
    """The vocabulary: what may stand in a cut, with its logarithm of a probability (of BPE, minus the merge's rank)."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        numbers = range(processor.get_piece_size())
        special = (processor.is_control, processor.is_unknown, processor.is_byte, processor.is_unused)
        usual = [number for number in numbers if not any(kind(number) for kind in special)]
        self.ids: dict[str, int] = {processor.id_to_piece(number): number for number in usual}
        self.scores: list[float] = [processor.get_score(number) for number in numbers]
        self.longest = max(map(len, self.ids))
        self.rare_score = min(self.scores[number] for number in usual) - _RARE
        self._alone = [(number,) for number in numbers]  # made once: remembered words hold many
        self._bytes = [processor.piece_to_id(f"<0x{value:02X}>") for value in range(256)]

    def spelt(self, text: str) -> tuple[int, ...]:
        """A piece, or the bytes of what is none."""
        number = self.ids.get(text)
        return tuple(self._bytes[value] for value in text.encode()) if number is None else self._alone[number]


class _Cutter(Protocol):
    def cut(self, word: str, generator: random.Random) -> list[int]: ...


class _Ends(NamedTuple):
    """The pieces that may end at a place of a word: where they begin, their ids, their weights summed up."""

    begins: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    weights: array[float]


class _UnigramCutter:
    """Words, not texts, are cut and remembered: no piece crosses a space, so that they are independent."""

    def __init__(self, pieces: _Pieces, alpha: float) -> None:
        self._pieces, self._alpha = pieces, alpha
        self._lattice = lru_cache(_REMEMBERED_WORDS)(self._make_lattice)

    def cut(self, word: str, generator: random.Random) -> list[int]:
        """From the last piece to the first, each drawn by all that may stand before it."""
        lattice = self._lattice(word)
        place, found = len(word), list[tuple[int, ...]]()
        while place:
            ends = lattice[place - 1]
            drawn = min(bisect(ends.weights, generator.random() * ends.weights[-1]), len(ends.begins) - 1)
            found.append(ends.tokens[drawn])
            place = ends.begins[drawn]
        return [token for tokens in reversed(found) for token in tokens]

    def _make_lattice(self, word: str) -> list[_Ends]:
        pieces, alpha = self._pieces, self._alpha
        forward = [0.0]  # log of the summed weights of all cuts of the first characters
        lattice = []
        for end in range(1, len(word) + 1):
            begins = [begin for begin in range(max(0, end - pieces.longest), end) if word[begin:end] in pieces.ids]
            if word[end - 1] not in pieces.ids:
                begins.append(end - 1)
            paths = [forward[begin] + alpha * self._score(word[begin:end]) for begin in begins]
            most = max(paths)
            weights = array("d", accumulate(math.exp(path - most) for path in paths))
            forward.append(most + math.log(weights[-1]))
            lattice.append(_Ends(tuple(begins), tuple(pieces.spelt(word[begin:end]) for begin in begins), weights))
        return lattice

    def _score(self, piece: str) -> float:
        number = self._pieces.ids.get(piece)
        return self._pieces.rare_score if number is None else self._pieces.scores[number]


class _BpeCutter:
    def __init__(self, pieces: _Pieces, dropout: float) -> None:
        self._pieces, self._dropout = pieces, dropout

    def cut(self, word: str, generator: random.Random) -> list[int]:
        """Before each merge, each that is possible is left out with probability p (algorithm 1)."""
        pieces, symbols = self._pieces, list(word)
        while True:
            merges = [
                (-pieces.scores[number], place)
                for place in range(len(symbols) - 1)
                if (number := pieces.ids.get(symbols[place] + symbols[place + 1])) is not None
                and generator.random() >= self._dropout
            ]
            if not merges:
                return [token for symbol in symbols for token in pieces.spelt(symbol)]
            _, place = min(merges)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]

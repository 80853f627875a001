"""Links between words, and between the tokens of these words, for a head that is told where to look.

Words are what stands between spaces in a corpus's text. Tokens are assigned to words by their pieces: a piece that
begins with a space begins a word.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece
import torch
from torch import Tensor

from training.aer import Link, parse_links
from training.batches import Batch
from training.corpus import SIDES, Corpus, Lines, line_begins
from training.errors import CorpusError

_SPACE = "▁"


class WordNumbers:
    """Which word each token of a sentence belongs to."""

    def __init__(self, tokenizer: Path) -> None:
        """``tokenizer``: a SentencePiece model."""
        processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
        tokens = range(processor.get_piece_size())
        self._begins = np.array([processor.id_to_piece(token).startswith(_SPACE) for token in tokens])
        self._control = np.array([processor.is_control(token) for token in tokens])

    def of(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Word numbers from 0 of token ids (…, length); -1 for `</s>`, padding and the piece of a target language."""
        begins, control = self._begins[ids], self._control[ids]
        first = control.argmin(axis=-1, keepdims=True)
        np.put_along_axis(begins, first, True, axis=-1)
        numbers = np.cumsum(begins & ~control, axis=-1) - 1
        return np.where(control, -1, numbers)


class TrainingLinks:
    """The links of a training corpus, read a line at a time."""

    def __init__(self, path: Path, corpus: Corpus, pairs: int) -> None:
        """Raises CorpusError for a file that cannot be read or has not a line for each pair."""
        try:
            self._lines = Lines(path, line_begins(path))
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise CorpusError(f"cannot read the links {path}: {error}") from error
        if len(self._lines) != pairs:
            raise CorpusError(f"{path} has {len(self._lines)} lines, and the corpus {pairs} training pairs")
        self._path = path
        self._source, self._target = (WordNumbers(corpus.tokenizer_path(side)) for side in SIDES)

    def of_batch(self, sentences: npt.NDArray[np.int64], batch: Batch) -> Tensor:
        """``Batch.links``: (batch, target_length, source_length) float32."""
        words = self._source.of(batch.source_ids.numpy()), self._target.of(batch.target_ids.numpy())
        rows = [self._of_pair(int(pair), *sides) for pair, *sides in zip(sentences, *words, strict=True)]
        return torch.from_numpy(np.stack(rows))

    def _of_pair(
        self, pair: int, source: npt.NDArray[np.int64], target: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        links = parse_links(self._lines[pair], f"{self._path}:{pair + 1}")
        return token_weights(links, source, target)


def token_weights(
    links: list[Link], source: npt.NDArray[np.int64], target: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Links of words as weights of tokens: of each target token all source tokens of all its words, equal shares.

    ``source`` (source_length,) and ``target`` (target_length,) are word numbers. Returns (target_length,
    source_length), whose rows sum to one, or to zero where a word has no link. A link to a word that is not there is
    passed over.
    """
    weights = np.zeros((len(target), len(source)), dtype=np.float32)
    for source_word, target_word in links:
        weights[np.ix_(target == target_word, source == source_word)] = 1.0
    shares: npt.NDArray[np.float32] = weights / np.maximum(1.0, weights.sum(axis=-1, keepdims=True))
    return shares


def word_links(
    weights: npt.NDArray[np.float32], source: npt.NDArray[np.int64], target: npt.NDArray[np.int64]
) -> list[Link]:
    """For each target word the source word with the most weight, none where that is `</s>`.

    weights (target_length, source_length), word numbers as in ``token_weights``.
    """
    words = int(source.max()) + 1
    matrix = np.zeros((int(target.max()) + 1, words + 1), dtype=np.float32)
    written = target >= 0
    columns = np.where(source >= 0, source, words)
    np.add.at(matrix, (target[written][:, None], columns[None, :]), weights[written])
    return [(int(place), word) for word, place in enumerate(matrix.argmax(axis=-1)) if place < words]

"""Token ids to padded batches: which sentences go together, in an order that a seed and an epoch decide.

Sentences of like length share a batch of at most ``batch_tokens`` padded tokens, so little padding is computed; or a
batch is ``batch_sentences`` of any length. The order is a pure function of (seed, epoch), so a run continues exactly
where it stopped.

Batches of many sentences come in few shapes: sixteen sentences more or less, lengths that are even. oneDNN, which
multiplies matrices of bfloat16 on a CPU, makes a program for every shape that it has not seen, at 3 to 9 ms each: a
third of an update. An epoch's batches had 190 numbers of rows and now have 53, for 2 % more padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.bundle.tokenizer import BOS_ID, PAD_ID
from training.corpus import ContextArrays, ParallelArrays
from training.models.interface import Context, Inputs

Rows = Sequence[npt.NDArray[np.int32] | list[int]]
_MANY, _SENTENCES = 32, 16  # from how many sentences on shapes are few, and of how many sentences each is a multiple
_POOL = 20_000  # sentences sorted by length together: enough for even batches, few enough to stay random


@dataclass(frozen=True)
class Batch:
    """Padded sentence pairs, each side ending in `</s>`.

    ``source_ids`` (batch, source_length) and ``target_ids`` (batch, target_length) int64; lengths (batch,) int32;
    ``context`` for a task of documents; ``links`` (batch, target_length, source_length) float32 for guided alignment,
    the share of each source token in what a target token is linked to, rows of zeros where that is nothing.
    """

    source_ids: Tensor
    source_lengths: Tensor
    target_ids: Tensor
    target_lengths: Tensor
    context: Context | None = None
    links: Tensor | None = None

    @property
    def target_inputs(self) -> Tensor:
        """What the decoder reads while it writes ``target_ids``: `<s>` and all but the last (batch, target_length)."""
        start = torch.full_like(self.target_ids[:, :1], BOS_ID)
        return torch.cat([start, self.target_ids[:, :-1]], dim=1)

    @property
    def inputs(self) -> Inputs:
        """What a model's ``forward`` takes."""
        return Inputs(self.source_ids, self.source_lengths, self.target_inputs, self.context)

    @property
    def target_tokens(self) -> int:
        return int(self.target_lengths.sum())

    @property
    def source_tokens(self) -> int:
        return int(self.source_lengths.sum())

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        return self._of(lambda tensor: tensor.to(device, non_blocking=True))

    def twice(self) -> Batch:
        """Every pair, and then every pair again."""
        return self._of(lambda tensor: torch.cat([tensor, tensor]))

    def _of(self, change: Callable[[Tensor], Tensor]) -> Batch:
        context = None if self.context is None else Context(*map(change, self.context))
        return Batch(
            change(self.source_ids),
            change(self.source_lengths),
            change(self.target_ids),
            change(self.target_lengths),
            context,
            None if self.links is None else change(self.links),
        )


def plan_epoch(corpus: ParallelArrays, batch_tokens: int, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """The sentence numbers of each batch of one epoch; every sentence is in exactly one batch."""
    generator = np.random.default_rng([seed, epoch])
    source_lengths, target_lengths = corpus.source.lengths, corpus.target.lengths
    order = generator.permutation(len(corpus))
    batches: list[npt.NDArray[np.int64]] = []
    for begin in range(0, len(order), _POOL):
        pool = order[begin : begin + _POOL]
        pool = pool[np.lexsort((target_lengths[pool], source_lengths[pool]))]
        batches += _cut(pool, source_lengths, target_lengths, batch_tokens)
    return [batches[i] for i in generator.permutation(len(batches))]


def plan_epoch_of_any_length(
    sentences: int, batch_sentences: int, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """The same of ``batch_sentences`` each, the last perhaps smaller: what batch normalisation has to see."""
    order = np.random.default_rng([seed, epoch]).permutation(sentences)
    return np.split(order, range(batch_sentences, sentences, batch_sentences))


def _cut(
    pool: npt.NDArray[np.int64],
    source_lengths: npt.NDArray[np.int64],
    target_lengths: npt.NDArray[np.int64],
    batch_tokens: int,
) -> list[npt.NDArray[np.int64]]:
    batches: list[npt.NDArray[np.int64]] = []
    begin, longest = 0, (0, 0)
    for i, sentence in enumerate(pool):
        longest = (max(longest[0], int(source_lengths[sentence])), max(longest[1], int(target_lengths[sentence])))
        while i > begin and _padded_tokens(longest, i + 1 - begin) > batch_tokens:
            many = i - begin >= _MANY
            end = begin + (i - begin) // _SENTENCES * _SENTENCES if many else i
            batches.append(pool[begin:end])
            begin, rest = end, pool[end : i + 1]
            longest = (int(source_lengths[rest].max()), int(target_lengths[rest].max()))
    batches.append(pool[begin:])
    return batches


def _padded_tokens(longest: tuple[int, int], sentences: int) -> int:
    return sentences * sum(_padded(length, even=sentences >= _MANY) for length in longest)


def _padded(longest: int, even: bool) -> int:
    return longest + longest % 2 if even else longest


def make_batch(
    corpus: ParallelArrays, sentences: npt.NDArray[np.int64], resampled: Mapping[str, Rows] | None = None
) -> Batch:
    """Gather and pad the sentences of one batch; ``resampled``: the rows of a side that was cut into tokens anew."""
    sides = {"source": corpus.source, "target": corpus.target}
    rows: dict[str, Rows] = {name: [side[int(i)] for i in sentences] for name, side in sides.items()}
    rows |= resampled or {}
    source_ids, source_lengths = _pad_rows(rows["source"], even=len(sentences) >= _MANY)
    target_ids, target_lengths = _pad_rows(rows["target"], even=len(sentences) >= _MANY)
    context = None if corpus.context is None else _pad_context(corpus.context, sentences)
    return Batch(source_ids, source_lengths, target_ids, target_lengths, context)


def _pad_context(context: ContextArrays, sentences: npt.NDArray[np.int64]) -> Context:
    nothing = np.empty(0, dtype=np.int32)
    rows = [(context[int(i)] + [nothing] * context.most)[: context.most] for i in sentences]
    ids, lengths = _pad_rows([sentence for row in rows for sentence in row])
    shape = (len(sentences), context.most)
    return Context(ids.reshape(*shape, -1), lengths.reshape(shape))


def _pad_rows(rows: Rows, even: bool = False) -> tuple[Tensor, Tensor]:
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    padded = np.full((len(rows), _padded(max(1, int(lengths.max())), even)), PAD_ID, dtype=np.int64)
    for padded_row, row in zip(padded, rows, strict=True):
        padded_row[: len(row)] = row
    return torch.from_numpy(padded), torch.from_numpy(lengths)

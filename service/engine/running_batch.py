"""The rows that are being decoded together: they join and leave at any step.

Hypotheses are rows 0..n-1 of buffers allocated for ``max_rows``. A join writes the encoder's rows behind the last one,
one for each sentence; a fork copies a row that search goes on from twice behind the last one; a leave moves the last
row into the hole. So the rows in use are always a prefix, and a step runs on plain views, without a copy. A sentence
reserves as many rows as its search may yet need, so that a fork always finds one.

Sentences of a batch share the width of their memory: the longest source, rounded up to a bucket, so that a join seldom
reallocates; those of documents likewise share the longest of the sentences before. What lies beyond a sentence's length
is finite and masked: the graphs give it the weight 0, exactly.

Knows arrays and rows; nothing of queues, deadlines or search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from service.bundle.tokenizer import BOS_ID
from service.engine.onnx_model import Array, EncodeOutput, GrowingAxis, StepOutput
from service.engine.sentence import Sentence

_WIDTH_STEP = 8  # source tokens; small, because width that nobody needs is computed all the same


class RunningBatch:
    """Up to ``max_rows`` hypotheses. ``owners`` has the sentence of each row, whose ``rows`` are kept true."""

    def __init__(self, max_rows: int, growing_axes: Mapping[str, GrowingAxis | None]) -> None:
        """``growing_axes``: which axis of each tensor of memory and state has a place for each token, None for none."""
        self._growing_axes = growing_axes
        self.owners: list[Sentence] = []
        self._max_rows = max_rows
        self._widths = dict.fromkeys((axis.name for axis in growing_axes.values() if axis), 0)
        self._memory: dict[str, Array] = {}
        self._state: dict[str, Array] = {}
        self._tokens = np.zeros((max_rows, 1), dtype=np.int64)
        self._positions = np.zeros(max_rows, dtype=np.int64)
        self._lengths = np.zeros(max_rows, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def sentences(self) -> list[Sentence]:
        """Each once, in the order of their first rows."""
        return list(dict.fromkeys(self.owners))

    @property
    def free_rows(self) -> int:
        """Rows that nobody has or may come to need."""
        return self._max_rows - sum(sentence.wanted_rows for sentence in self.sentences)

    @property
    def width(self) -> int:
        """Source tokens computed for each row, padding included."""
        return self._widths.get("source", 0)

    def join(self, sentences: Sequence[Sentence], encoded: EncodeOutput) -> None:
        """Add sentences, whose encoder outputs are the rows of ``encoded`` in the same order."""
        lengths = [len(sentence.request.source_ids) for sentence in sentences]
        self._reserve(encoded)
        begin, end = len(self), len(self) + len(sentences)
        for name, rows in encoded.memory.items():
            buffer = self._memory[name][begin:end]
            buffer[...] = 0  # a row before may have left a NaN, and 0 x NaN is NaN
            buffer[self._up_to_width_of(name, rows)] = rows
        for name, rows in encoded.state.items():
            buffer = self._state[name][begin:end]
            buffer[...] = 0
            buffer[self._up_to_width_of(name, rows)] = rows
        self._tokens[begin:end] = BOS_ID
        self._positions[begin:end] = 0
        self._lengths[begin:end] = lengths
        for row, sentence in enumerate(sentences, start=begin):
            sentence.rows = [row]
        self.owners.extend(sentences)

    def _reserve(self, encoded: EncodeOutput) -> None:
        """Make the buffers wide enough; an empty batch also becomes as narrow as its first sentences allow."""
        wanted = {name: self._wanted_width(name, encoded) for name in self._widths}
        for buffers, tensors in ((self._memory, encoded.memory), (self._state, encoded.state)):
            for name, rows in tensors.items():
                axis = self._growing_axes[name]
                if name in buffers and (axis is None or wanted[axis.name] == self._widths[axis.name]):
                    continue
                width = 0 if axis is None else wanted[axis.name]
                buffers[name] = self._widened(name, rows, buffers.get(name), width)
        self._widths = wanted

    def _wanted_width(self, name: str, encoded: EncodeOutput) -> int:
        tensors = encoded.memory | encoded.state
        axes = {tensor: axis.place for tensor, axis in self._growing_axes.items() if axis and axis.name == name}
        longest: int = max(tensors[tensor].shape[place] for tensor, place in axes.items())
        return max(-(-longest // _WIDTH_STEP) * _WIDTH_STEP, self._widths[name] if self.owners else 0)

    def _widened(self, name: str, rows: Array, held: Array | None, width: int) -> Array:
        """A buffer like ``rows``, of this width where it has a growing axis, with what the rows in use hold."""
        shape, axis = [self._max_rows, *rows.shape[1:]], self._growing_axes[name]
        if axis is not None:
            shape[axis.place] = width
        buffer = np.zeros(shape, rows.dtype)
        if held is not None and self.owners:
            kept = held[: len(self)]
            buffer[: len(self)][self._up_to_width_of(name, kept)] = kept
        return buffer

    def _up_to_width_of(self, name: str, rows: Array) -> tuple[slice, ...]:
        """The part of a buffer that ``rows``, perhaps narrower on their growing axis, fill."""
        axis = self._growing_axes[name]
        return () if axis is None else (*[slice(None)] * axis.place, slice(rows.shape[axis.place]))

    def leave(self, sentence: Sentence) -> None:
        """Remove every row of a sentence."""
        for row in sorted(sentence.rows, reverse=True):
            self._remove(row)
        sentence.rows = []

    def _remove(self, row: int) -> None:
        """The last row takes its number."""
        last = len(self) - 1
        if row != last:
            self._copy(last, row)
            for buffer in self._state.values():
                buffer[row] = buffer[last]
            self._tokens[row] = self._tokens[last]
            owner = self.owners[row] = self.owners[last]
            owner.rows[owner.rows.index(last)] = row
        self.owners.pop()

    def _copy(self, row: int, to: int) -> None:
        """What a row has from its sentence, and its place in the target."""
        for buffer in self._memory.values():
            buffer[to] = buffer[row]
        for numbers in (self._positions, self._lengths):
            numbers[to] = numbers[row]

    def feeds(self) -> dict[str, Array]:
        """The inputs of ``decode_step`` for the rows in use: views, no copies."""
        rows = len(self)
        feeds: dict[str, Array] = {
            "token_ids": self._tokens[:rows],
            "positions": self._positions[:rows],
            "source_lengths": self._lengths[:rows],
        }
        for name, buffer in (*self._memory.items(), *self._state.items()):
            feeds[name] = buffer[:rows]
        return feeds

    def advance(self, tokens: npt.NDArray[np.int64], output: StepOutput) -> None:
        """Take the step's states, and ``tokens`` (rows,) as the rows' last tokens.

        Then ``go_on`` for every sentence whose search chose otherwise, and ``settle``.
        """
        rows = len(self)
        for name, values in output.state.items():
            self._state[name][:rows] = values
        self._positions[:rows] += 1
        self._tokens[:rows, 0] = tokens

    def go_on(self, sentence: Sentence, parents: Sequence[int], tokens: Sequence[int], output: StepOutput) -> list[int]:
        """Give the hypotheses of a sentence their rows: number i goes on from the one that was ``parents[i]`` and has
        written ``tokens[i]``. Returns the rows that are no longer needed, for ``settle``.

        The first that goes on from a row stays in it; others take the rows of those that nothing goes on from.
        """
        before, spare = sentence.rows, list(sentence.rows)
        rows = [-1] * len(parents)
        for number, parent in enumerate(parents):
            if before[parent] in spare:
                rows[number] = before[parent]
                spare.remove(before[parent])
        for number, parent in enumerate(parents):
            if rows[number] < 0:
                rows[number] = spare.pop() if spare else self._fork(sentence, before[parent])
                for name, values in output.state.items():
                    self._state[name][rows[number]] = values[before[parent]]
        self._tokens[rows, 0] = tokens
        sentence.rows = rows
        return spare

    def _fork(self, sentence: Sentence, row: int) -> int:
        new = len(self)
        self._copy(row, new)
        self.owners.append(sentence)
        return new

    def settle(self, spare: Sequence[int]) -> None:
        """Remove the rows that ``go_on`` gave back, of all sentences together."""
        for row in sorted(spare, reverse=True):
            self._remove(row)

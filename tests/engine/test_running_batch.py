from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import BOS_ID
from service.engine.decoding import Decoding
from service.engine.onnx_model import EncodeOutput, GrowingAxis, StepOutput
from service.engine.running_batch import RunningBatch
from service.engine.sentence import Sentence
from tests.engine.fake_model import copying

# A memory with the source on axis 1, one with it on axis 2 (heads before it), one with the context on axis 2 (sentences
# before it), and one without (a fixed-length vector); a plain state, and one each along the source and the context.
AXES = {
    "memory_m": GrowingAxis(1, "source"),
    "memory_h": GrowingAxis(2, "source"),
    "memory_c": GrowingAxis(2, "context"),
    "memory_v": None,
    "state_s": None,
    "state_w": GrowingAxis(2, "source"),
    "state_c": GrowingAxis(1, "context"),
}
SENTENCES = 2  # before each


def _sentence(number: int, length: int, *context: int) -> Sentence:
    """Of so many tokens, the sentences before it of so many each; all its tokens are ``number``, and theirs -number."""
    before = tuple((-number,) * tokens for tokens in context)
    return Sentence(copying(*[number] * (length - 1), context_ids=before), Future(), submitted=0.0)


def _encoded(sentences: list[Sentence]) -> EncodeOutput:
    longest = max(len(sentence.request.source_ids) for sentence in sentences)
    longest_before = max((len(ids) for sentence in sentences for ids in sentence.request.context_ids), default=1)
    memory = np.full((len(sentences), longest, 2), -1.0, np.float32)
    heads = np.full((len(sentences), 2, longest), -1.0, np.float32)
    context = np.full((len(sentences), SENTENCES, longest_before, 2), 1.0, np.float32)
    along = np.full((len(sentences), longest_before), 1.0, np.float32)
    vector = np.empty((len(sentences), 4), np.float32)
    state = np.empty((len(sentences), 3), np.float32)
    for row, sentence in enumerate(sentences):
        memory[row, : len(sentence.request.source_ids)] = sentence.request.source_ids[0]
        heads[row, :, : len(sentence.request.source_ids)] = sentence.request.source_ids[0]
        for place, ids in enumerate(sentence.request.context_ids):
            context[row, place, : len(ids)] = ids[0]
            along[row, : len(ids)] = ids[0]
        vector[row] = state[row] = sentence.request.source_ids[0]
    states = {"state_s": state, "state_w": heads.copy(), "state_c": along}
    return EncodeOutput({"memory_m": memory, "memory_h": heads, "memory_c": context, "memory_v": vector}, states, {})


def _widths(batch: RunningBatch) -> tuple[int, int]:
    """Of the source and of the context, the same in every tensor that has them."""
    found: dict[str, set[int]] = {"source": set(), "context": set()}
    for name, axis in AXES.items():
        if axis is not None:
            found[axis.name].add(batch.feeds()[name].shape[axis.place])
    (source,), (context,) = found["source"], found["context"]
    return source, context


@dataclass
class _Hypothesis:
    """What the rows of the state should hold, beside what they began with; and the token that was written last."""

    added: float = 0.0
    token: int = BOS_ID


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_hypotheses_keep_their_own_memory_and_state_through_joins_forks_and_leaves(seed: int) -> None:
    batch, number, generator = RunningBatch(12, AXES), 4, random.Random(seed)
    expected: dict[Sentence, list[_Hypothesis]] = {}
    steps: Counter[Sentence] = Counter()
    for _ in range(40):
        newcomers: list[Sentence] = []
        while generator.random() < 0.5:
            number += 1
            context = (generator.randint(1, 40) for _ in range(generator.randint(0, SENTENCES)))
            sentence = _sentence(number, generator.randint(2, 40), *context)
            beam = Decoding(beam_size=generator.randint(1, 4))
            sentence.request = replace(sentence.request, decoding=beam)
            if sum(newcomer.wanted_rows for newcomer in [*newcomers, sentence]) > batch.free_rows:
                break
            newcomers.append(sentence)
        if newcomers:
            batch.join(newcomers, _encoded(newcomers))
            expected |= {sentence: [_Hypothesis()] for sentence in newcomers}
        if len(batch):
            noise = np.array([generator.randrange(1, 1000) for _ in range(len(batch))], np.float32)
            after = {name: _plus(batch.feeds()[name], noise) for name in ("state_s", "state_w", "state_c")}
            output = StepOutput(np.zeros((len(batch), 1), np.float32), {}, after)
            batch.advance(np.full(len(batch), 63), output)
            spare = []
            for sentence in batch.sentences:
                steps[sentence] += 1
                before, rows = expected[sentence], list(sentence.rows)
                count = generator.randint(0, sentence.wanted_rows) if generator.random() < 0.9 else len(before)
                parents = [generator.randrange(len(before)) for _ in range(count)]
                tokens = [generator.randrange(4, 60) for _ in range(count)]
                expected[sentence] = [
                    _Hypothesis(before[parent].added + float(noise[rows[parent]]), token)
                    for parent, token in zip(parents, tokens, strict=True)
                ]
                spare += batch.go_on(sentence, parents, tokens, output)
            batch.settle(spare)
        for sentence in batch.sentences:
            if generator.random() < 0.1:
                batch.leave(sentence)
        feeds = batch.feeds()
        assert sorted(row for sentence in batch.sentences for row in sentence.rows) == list(range(len(batch)))
        for sentence in batch.sentences:
            own, length = sentence.request.source_ids[0], len(sentence.request.source_ids)
            assert len(sentence.rows) == len(expected[sentence]) <= sentence.request.decoding.beam_size
            for row, hypothesis in zip(sentence.rows, expected[sentence], strict=True):
                assert batch.owners[row] is sentence
                assert feeds["source_lengths"][row] == length
                assert feeds["positions"][row] == steps[sentence]
                assert feeds["token_ids"][row, 0] == hypothesis.token
                assert (feeds["memory_m"][row, :length] == own).all()
                assert (feeds["memory_h"][row, :, :length] == own).all()
                assert (feeds["memory_v"][row] == own).all()
                assert (feeds["state_s"][row] == own + hypothesis.added).all()
                assert feeds["state_w"].shape[2] == feeds["memory_h"].shape[2]
                assert (feeds["state_w"][row, :, :length] == own + hypothesis.added).all()
                for place, ids in enumerate(sentence.request.context_ids):
                    assert (feeds["memory_c"][row, place, : len(ids)] == -own).all()
                    assert (feeds["state_c"][row, : len(ids)] == -own + hypothesis.added).all()


def _plus(rows: npt.NDArray[np.float32], noise: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return rows + noise.reshape(-1, *[1] * (rows.ndim - 1))


@pytest.mark.parametrize("name", ["memory_m", "memory_c"])
def test_what_a_poisoned_row_leaves_behind_is_cleared(name: str) -> None:
    batch = RunningBatch(2, AXES)
    poisoned = [_sentence(5, 20, 20)]
    output = _encoded(poisoned)
    output.memory[name][:] = np.nan
    batch.join(poisoned, output)
    batch.leave(poisoned[0])
    longer, shorter = _sentence(6, 18, 18), _sentence(7, 3)
    batch.join([longer], _encoded([longer]))
    batch.join([shorter], _encoded([shorter]))
    assert np.isfinite(batch.feeds()[name]).all()


def test_width_follows_the_longest_and_shrinks_when_the_batch_is_new() -> None:
    batch = RunningBatch(2, AXES)
    long, short = _sentence(5, 33), _sentence(6, 3)
    batch.join([short], _encoded([short]))
    assert batch.width == 8
    batch.join([long], _encoded([long]))
    assert batch.width == 40
    batch.leave(long)
    batch.leave(short)
    batch.join([short], _encoded([short]))
    assert batch.width == 8


def test_source_and_context_are_each_as_wide_as_their_own_longest() -> None:
    batch = RunningBatch(4, AXES)
    for newcomer, widths in (
        (_sentence(5, 3, 4), (8, 8)),
        (_sentence(6, 3, 2, 17), (8, 24)),
        (_sentence(7, 33), (40, 24)),
        (_sentence(8, 9, 1), (40, 24)),
    ):
        batch.join([newcomer], _encoded([newcomer]))
        assert _widths(batch) == widths
    for sentence in batch.sentences[:3]:
        batch.leave(sentence)
    assert _widths(batch) == (40, 24)  # as long as anyone is there
    batch.leave(batch.sentences[0])
    alone = _sentence(9, 12, 3, 5)
    batch.join([alone], _encoded([alone]))
    assert _widths(batch) == (16, 8)
    batch.leave(alone)
    without = _sentence(10, 3)
    batch.join([without], _encoded([without]))
    assert _widths(batch) == (8, 8)


def test_feeds_are_views_of_the_rows_in_use() -> None:
    batch = RunningBatch(4, AXES)
    sentence = _sentence(5, 3)
    batch.join([sentence], _encoded([sentence]))
    memory = batch.feeds()["memory_m"]
    assert memory.flags.c_contiguous
    assert memory.base is not None
    assert len(memory) == 1

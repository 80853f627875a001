from __future__ import annotations

import random
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import BOS_ID
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


@given(st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_rows_keep_their_own_memory_and_state_through_joins_and_leaves(generator: random.Random) -> None:
    batch, number = RunningBatch(6, AXES), 4
    steps: dict[int, int] = {}
    for _ in range(60):
        if batch.free_rows and generator.random() < 0.5:
            count = generator.randint(1, batch.free_rows)
            newcomers = [
                _sentence(
                    number + i,
                    generator.randint(2, 40),
                    *(generator.randint(1, 40) for _ in range(generator.randint(0, SENTENCES))),
                )
                for i in range(count)
            ]
            number += count
            steps |= {id(sentence): 0 for sentence in newcomers}
            batch.join(newcomers, _encoded(newcomers))
        if len(batch):
            rows = len(batch)
            tokens = np.array([sentence.request.source_ids[0] for sentence in batch.sentences])
            after = {name: batch.feeds()[name] + 1000 for name in ("state_s", "state_w", "state_c")}
            batch.advance(tokens, StepOutput(np.zeros((rows, 1), np.float32), {}, after))
            for sentence in batch.sentences:
                steps[id(sentence)] += 1
        for row in reversed(range(len(batch))):
            if generator.random() < 0.2:
                batch.leave(row)
        feeds = batch.feeds()
        for row, sentence in enumerate(batch.sentences):
            own, taken = sentence.request.source_ids[0], steps[id(sentence)]
            length = len(sentence.request.source_ids)
            assert feeds["source_lengths"][row] == length
            assert feeds["positions"][row] == taken
            assert feeds["token_ids"][row, 0] == (own if taken else BOS_ID)
            assert (feeds["memory_m"][row, :length] == own).all()
            assert (feeds["memory_h"][row, :, :length] == own).all()
            assert (feeds["memory_v"][row] == own).all()
            assert (feeds["state_s"][row] == own + 1000 * taken).all()
            assert feeds["state_w"].shape[2] == feeds["memory_h"].shape[2]
            assert (feeds["state_w"][row, :, :length] == own + 1000 * taken).all()
            for place, ids in enumerate(sentence.request.context_ids):
                assert (feeds["memory_c"][row, place, : len(ids)] == -own).all()
                assert (feeds["state_c"][row, : len(ids)] == -own + 1000 * taken).all()


@pytest.mark.parametrize("name", ["memory_m", "memory_c"])
def test_what_a_poisoned_row_leaves_behind_is_cleared(name: str) -> None:
    batch = RunningBatch(2, AXES)
    poisoned = [_sentence(5, 20, 20)]
    output = _encoded(poisoned)
    output.memory[name][:] = np.nan
    batch.join(poisoned, output)
    batch.leave(0)
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
    batch.leave(1)
    batch.leave(0)
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
    for _ in range(3):
        batch.leave(0)
    assert _widths(batch) == (40, 24)  # as long as anyone is there
    batch.leave(0)
    alone = _sentence(9, 12, 3, 5)
    batch.join([alone], _encoded([alone]))
    assert _widths(batch) == (16, 8)
    batch.leave(0)
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

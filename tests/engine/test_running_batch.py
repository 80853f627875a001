from __future__ import annotations

import random
from concurrent.futures import Future

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.tokenizer import BOS_ID
from service.engine.onnx_model import EncodeOutput, StepOutput
from service.engine.running_batch import RunningBatch
from service.engine.sentence import Sentence
from tests.engine.fake_model import copying

# A memory with the source on axis 1, one with it on axis 2 (heads before it), and one without (a fixed-length vector);
# a plain state, and one that is carried along the source.
AXES = {"memory_m": 1, "memory_h": 2, "memory_v": None, "state_s": None, "state_w": 2}


def _sentence(number: int, length: int) -> Sentence:
    return Sentence(copying(*[number] * (length - 1)), Future(), submitted=0.0)


def _encoded(sentences: list[Sentence]) -> EncodeOutput:
    longest = max(len(sentence.request.source_ids) for sentence in sentences)
    memory = np.full((len(sentences), longest, 2), -1.0, np.float32)
    heads = np.full((len(sentences), 2, longest), -1.0, np.float32)
    vector = np.empty((len(sentences), 4), np.float32)
    state = np.empty((len(sentences), 3), np.float32)
    for row, sentence in enumerate(sentences):
        memory[row, : len(sentence.request.source_ids)] = sentence.request.source_ids[0]
        heads[row, :, : len(sentence.request.source_ids)] = sentence.request.source_ids[0]
        vector[row] = state[row] = sentence.request.source_ids[0]
    states = {"state_s": state, "state_w": heads.copy()}
    return EncodeOutput({"memory_m": memory, "memory_h": heads, "memory_v": vector}, states, {})


@given(st.randoms(use_true_random=False))
def test_rows_keep_their_own_memory_and_state_through_joins_and_leaves(generator: random.Random) -> None:
    batch, number, steps = RunningBatch(6, AXES), 4, {}
    for _ in range(60):
        if batch.free_rows and generator.random() < 0.5:
            count = generator.randint(1, batch.free_rows)
            newcomers = [_sentence(number + i, generator.randint(2, 40)) for i in range(count)]
            number += count
            steps |= {id(sentence): 0 for sentence in newcomers}
            batch.join(newcomers, _encoded(newcomers))
        if len(batch):
            rows = len(batch)
            tokens = np.array([sentence.request.source_ids[0] for sentence in batch.sentences])
            after = {name: batch.feeds()[name] + 1000 for name in ("state_s", "state_w")}
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


def test_what_a_poisoned_row_leaves_behind_is_cleared() -> None:
    batch = RunningBatch(2, AXES)
    poisoned = [_sentence(5, 20)]
    output = _encoded(poisoned)
    output.memory["memory_m"][:] = np.nan
    batch.join(poisoned, output)
    batch.leave(0)
    longer, shorter = _sentence(6, 18), _sentence(7, 3)
    batch.join([longer], _encoded([longer]))
    batch.join([shorter], _encoded([shorter]))
    assert np.isfinite(batch.feeds()["memory_m"]).all()


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


def test_feeds_are_views_of_the_rows_in_use() -> None:
    batch = RunningBatch(4, AXES)
    sentence = _sentence(5, 3)
    batch.join([sentence], _encoded([sentence]))
    memory = batch.feeds()["memory_m"]
    assert memory.flags.c_contiguous
    assert memory.base is not None
    assert len(memory) == 1

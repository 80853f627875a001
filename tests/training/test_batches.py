"""Batches: every sentence once, a seed and an epoch decide, and no batch is larger than it may be."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID
from training import batches
from training.batches import make_batch, plan_epoch, plan_epoch_of_any_length
from training.corpus import ContextArrays, ParallelArrays, TokenArrays

LENGTHS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=120)
SEEDS = st.integers(0, 2**32)


def arrays(lengths: list[int]) -> TokenArrays:
    """Sentences of these lengths; every token differs, but for `</s>` at each end."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    ids = np.arange(100, 100 + offsets[-1], dtype=np.int32)
    ids[offsets[1:] - 1] = EOS_ID
    return TokenArrays(ids, offsets)


def parallel(lengths: list[tuple[int, int]]) -> ParallelArrays:
    return ParallelArrays(arrays([source for source, _ in lengths]), arrays([target for _, target in lengths]))


def in_context(before: list[list[int]], most: int) -> ParallelArrays:
    """Pairs of one length each; ``before`` has the lengths of the sentences before each."""
    pairs = parallel([(2, 2)] * len(before))
    counts = np.cumsum([0, *map(len, before)], dtype=np.int64)
    sentences = arrays([length for lengths in before for length in lengths])
    return ParallelArrays(pairs.source, pairs.target, ContextArrays(sentences, counts, most))


def as_lists(plan: list[np.ndarray]) -> list[list[int]]:
    return [batch.tolist() for batch in plan]


# --- the plan --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 400), SEEDS, st.integers(0, 1000), st.integers(1, 150))
def test_every_sentence_is_in_one_batch_and_no_batch_is_too_large(
    lengths: list[tuple[int, int]], batch_tokens: int, seed: int, epoch: int, pool: int
) -> None:
    corpus = parallel(lengths)
    with patch.object(batches, "_POOL", pool):
        plan = as_lists(plan_epoch(corpus, batch_tokens, seed, epoch))
    assert sorted(sentence for batch in plan for sentence in batch) == list(range(len(lengths)))
    for batch in plan:
        longest = [max(lengths[i][side] for i in batch) for side in (0, 1)]
        padded = len(batch) * sum(length + length % 2 if len(batch) >= 32 else length for length in longest)
        assert batch
        assert padded <= batch_tokens or len(batch) == 1


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 400), SEEDS, st.integers(0, 1000))
def test_seed_and_epoch_alone_decide_the_plan(
    lengths: list[tuple[int, int]], batch_tokens: int, seed: int, epoch: int
) -> None:
    plan = as_lists(plan_epoch(parallel(lengths), batch_tokens, seed, epoch))
    np.random.seed(0)
    torch.manual_seed(0)
    assert as_lists(plan_epoch(parallel(lengths), batch_tokens, seed, epoch)) == plan


def test_each_epoch_and_each_seed_has_an_order_of_its_own() -> None:
    corpus = parallel([(1 + i % 25, 1 + i % 25) for i in range(500)])
    plans = [as_lists(plan_epoch(corpus, 300, seed, epoch)) for seed, epoch in ((1, 0), (1, 1), (2, 0), (0, 1))]
    assert all(one != other for i, one in enumerate(plans) for other in plans[:i])
    # Sentences of one length are shuffled too: the batches are others, not only their order.
    assert len({frozenset(map(frozenset, plan)) for plan in plans}) == len(plans)


def test_sentences_of_like_length_share_a_batch_and_batches_come_in_no_order_of_length() -> None:
    generator = np.random.default_rng(1)
    lengths = [(int(length), int(length)) for length in generator.integers(1, 26, 4000)]
    plan = as_lists(plan_epoch(parallel(lengths), 600, seed=1, epoch=0))
    padded = sum(2 * len(batch) * max(lengths[i][0] for i in batch) for batch in plan)
    assert padded < 1.03 * sum(2 * length for length, _ in lengths)
    longest = [max(lengths[i][0] for i in batch) for batch in plan]
    assert abs(float(np.corrcoef(longest, np.arange(len(longest)))[0, 1])) < 0.2


def test_batches_are_filled() -> None:
    plan = plan_epoch(parallel([(5, 5)] * 100), batch_tokens=80, seed=1, epoch=0)
    assert sorted(len(batch) for batch in plan) == [4] + [8] * 12


def test_a_long_target_makes_its_own_batch_small_and_no_other() -> None:
    plan = plan_epoch(parallel([(1, 30)] + [(5, 5)] * 97), batch_tokens=80, seed=1, epoch=0)
    assert sorted(len(batch) for batch in plan) == [2] + [8] * 12


def test_batches_of_many_sentences_come_in_few_shapes() -> None:
    """oneDNN makes a program for every number of rows: where many, lengths are even, sentences a multiple of 16."""
    generator = np.random.default_rng(2)
    corpus = parallel([(int(length), int(length) + int(more)) for length, more in generator.integers(1, 26, (4000, 2))])
    plan = plan_epoch(corpus, 2000, seed=1, epoch=0)
    made = [make_batch(corpus, sentences) for sentences in plan]
    many = [batch for batch in made if len(batch.source_ids) >= 32]
    assert len(many) > 50
    for batch in many:
        assert batch.source_ids.shape[1] % 2 == batch.target_ids.shape[1] % 2 == 0
    assert sum(len(batch.source_ids) % 16 > 0 for batch in many) <= 1, "but for the last of the pool"
    assert any(len(batch.source_ids) < 32 and batch.source_ids.shape[1] % 2 for batch in made)
    assert any(len(batch.source_ids) < 32 and len(batch.source_ids) % 16 for batch in made)
    for batch in many:
        sentences, padded = len(batch.source_ids), batch.source_ids.shape[1] + batch.target_ids.shape[1]
        assert sentences * padded <= 2000


def test_a_sentence_longer_than_a_batch_is_a_batch_of_its_own() -> None:
    plan = as_lists(plan_epoch(parallel([(2, 2), (40, 40), (2, 2)]), batch_tokens=8, seed=1, epoch=0))
    assert sorted(map(sorted, plan)) == [[0, 2], [1]]


# --- the plan of any length ------------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 600), SEEDS, st.integers(0, 1000))
def test_batches_of_any_length_hold_every_sentence_once_and_are_full_but_the_last(
    sentences: int, batch_sentences: int, seed: int, epoch: int
) -> None:
    plan = as_lists(plan_epoch_of_any_length(sentences, batch_sentences, seed, epoch))
    assert sorted(sentence for batch in plan for sentence in batch) == list(range(sentences))
    assert [len(batch) for batch in plan[:-1]] == [batch_sentences] * (len(plan) - 1)
    assert 1 <= len(plan[-1]) <= batch_sentences


@given(st.integers(1, 500), st.integers(1, 600), SEEDS, st.integers(0, 1000))
def test_seed_and_epoch_alone_decide_the_plan_of_any_length(
    sentences: int, batch_sentences: int, seed: int, epoch: int
) -> None:
    plan = as_lists(plan_epoch_of_any_length(sentences, batch_sentences, seed, epoch))
    np.random.seed(0)
    torch.manual_seed(0)
    assert as_lists(plan_epoch_of_any_length(sentences, batch_sentences, seed, epoch)) == plan


def test_each_epoch_and_each_seed_mixes_the_sentences_anew() -> None:
    runs = ((1, 0), (1, 1), (2, 0), (0, 1))
    plans = [as_lists(plan_epoch_of_any_length(500, 20, seed, epoch)) for seed, epoch in runs]
    assert len({frozenset(map(frozenset, plan)) for plan in plans}) == len(plans)
    for plan in plans:
        order = [sentence for batch in plan for sentence in batch]
        assert abs(float(np.corrcoef(order, np.arange(500))[0, 1])) < 0.15


# --- one batch -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(LENGTHS, st.data())
def test_a_batch_holds_its_sentences_and_padding(lengths: list[tuple[int, int]], data: st.DataObject) -> None:
    corpus = parallel(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=10))
    batch = make_batch(corpus, np.array(chosen))
    for side, ids, counts in (
        (corpus.source, batch.source_ids, batch.source_lengths),
        (corpus.target, batch.target_ids, batch.target_lengths),
    ):
        assert (ids.dtype, counts.dtype) == (torch.int64, torch.int32)
        assert counts.tolist() == [len(side[i]) for i in chosen]
        assert ids.shape == (len(chosen), max(counts.tolist()))
        for row, count, i in zip(ids.tolist(), counts.tolist(), chosen, strict=True):
            assert row[:count] == side[i].tolist()
            assert row[count:] == [PAD_ID] * (len(row) - count)
    assert batch.target_tokens == sum(lengths[i][1] for i in chosen)


@settings(deadline=None)
@given(LENGTHS)
def test_the_decoder_reads_the_target_one_step_late(lengths: list[tuple[int, int]]) -> None:
    batch = make_batch(parallel(lengths), np.arange(len(lengths)))
    assert batch.target_inputs.shape == batch.target_ids.shape
    assert batch.target_inputs[:, 0].tolist() == [BOS_ID] * len(lengths)
    assert torch.equal(batch.target_inputs[:, 1:], batch.target_ids[:, :-1])


def test_one_small_batch_to_the_letter() -> None:
    corpus = ParallelArrays(
        TokenArrays(np.array([7, 8, 2, 9, 2], dtype=np.int32), np.array([0, 3, 5])),
        TokenArrays(np.array([2, 5, 6, 2], dtype=np.int32), np.array([0, 1, 4])),
    )
    batch = make_batch(corpus, np.array([1, 0]))
    assert batch.source_ids.tolist() == [[9, 2, 0], [7, 8, 2]]
    assert batch.target_ids.tolist() == [[5, 6, 2], [2, 0, 0]]
    assert batch.target_inputs.tolist() == [[1, 5, 6], [1, 2, 0]]


def test_a_sentence_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError):
        make_batch(parallel([(1, 1)]), np.array([5]))


# --- the sentences before --------------------------------------------------------------------------------------------

BEFORE = st.integers(1, 4).flatmap(
    lambda most: st.tuples(st.just(most), st.lists(st.lists(st.integers(1, 9), max_size=most), min_size=1, max_size=20))
)


@settings(deadline=None)
@given(BEFORE, st.data())
def test_a_batch_holds_the_sentences_before_each_and_padding(
    before: tuple[int, list[list[int]]], data: st.DataObject
) -> None:
    most, lengths = before
    corpus = in_context(lengths, most)
    assert corpus.context is not None
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=10))
    context = make_batch(corpus, np.array(chosen)).context
    assert context is not None
    assert (context.ids.dtype, context.lengths.dtype) == (torch.int64, torch.int32)
    longest = max((length for i in chosen for length in lengths[i]), default=0)
    assert context.ids.shape == (len(chosen), most, max(1, longest))
    assert context.lengths.tolist() == [lengths[i] + [0] * (most - len(lengths[i])) for i in chosen]
    for rows, i in zip(context.ids.tolist(), chosen, strict=True):
        wanted = [sentence.tolist() for sentence in corpus.context[i]] + [[]] * (most - len(lengths[i]))
        assert rows == [ids + [PAD_ID] * (context.ids.shape[-1] - len(ids)) for ids in wanted]


def test_one_small_batch_in_context_to_the_letter() -> None:
    """A sentence after two, one after none, one after one."""
    sentences = TokenArrays(np.array([7, 8, 2, 9, 2, 5, 2], dtype=np.int32), np.array([0, 3, 5, 7]))
    pairs = parallel([(1, 1)] * 3)
    corpus = ParallelArrays(pairs.source, pairs.target, ContextArrays(sentences, np.array([0, 2, 2, 3]), most=2))
    context = make_batch(corpus, np.array([1, 0, 2])).context
    assert context is not None
    assert context.ids.tolist() == [[[0, 0, 0], [0, 0, 0]], [[7, 8, 2], [9, 2, 0]], [[5, 2, 0], [0, 0, 0]]]
    assert context.lengths.tolist() == [[0, 0], [3, 2], [2, 0]]


def test_where_nothing_stands_before_a_context_is_one_place_wide() -> None:
    context = make_batch(in_context([[], [4], []], most=3), np.array([0, 2])).context
    assert context is not None
    assert context.ids.tolist() == [[[PAD_ID]] * 3] * 2
    assert context.lengths.tolist() == [[0] * 3] * 2


def test_a_corpus_of_single_sentences_has_no_context() -> None:
    assert make_batch(parallel([(2, 3), (1, 1)]), np.array([0, 1])).context is None


def test_the_context_does_not_change_the_plan() -> None:
    """Sentences go by their own length."""
    lengths = [[5] * (i % 4) for i in range(60)]
    with_context = in_context(lengths, most=3)
    alone = ParallelArrays(with_context.source, with_context.target)
    one, other = (as_lists(plan_epoch(corpus, 40, seed=1, epoch=0)) for corpus in (with_context, alone))
    assert one == other

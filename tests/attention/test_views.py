from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.attention.views import Link, aligned, links, word_matrix
from service.attention.words import Word
from service.bundle.manifest import AlignmentEntry


def _words(sizes: list[int], ends: bool = True) -> list[Word]:
    """Words of the given numbers of tokens; the last is `</s>` when ``ends``."""
    words, place = [], 0
    for number, size in enumerate(sizes):
        special = ends and number == len(sizes) - 1
        words.append(Word(f"w{number}", place, place + size, place, place + size, special))
        place += size
    return words


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@given(SIZES, SIZES, st.integers(0, 2**32))
def test_rows_of_words_still_sum_to_one(targets: list[int], sources: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(sum(sources)), size=sum(targets)).astype(np.float32)
    matrix = word_matrix(weights, _words(targets), _words(sources))
    assert matrix.shape == (len(targets), len(sources))
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-5)


def test_columns_are_summed_and_rows_averaged() -> None:
    weights = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.0, 0.0, 1.0]], np.float32)
    matrix = word_matrix(weights, _words([2, 1]), _words([2, 1]))
    np.testing.assert_allclose(matrix, [[0.55, 0.45], [0.0, 1.0]], atol=1e-7)


def test_merging_comes_before_the_argmax() -> None:
    # No token of the first word is the greatest; together they are.
    weights = np.array([[0.3, 0.3, 0.4, 0.0]], np.float32)
    sources = _words([2, 1, 1])
    found = links(word_matrix(weights, _words([1], ends=False), sources), _words([1], ends=False), sources)
    assert found == (Link(0, 0, np.float32(0.6)),)


def test_a_word_that_looks_at_the_end_has_no_link_and_the_end_has_none() -> None:
    weights = np.array([[0.2, 0.8], [0.9, 0.1]], np.float32)
    words = _words([1, 1])
    assert links(weights, words, words) == ()


def test_weights_read_at_the_input_belong_to_the_step_before() -> None:
    weights = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    heads = np.stack([weights, np.zeros_like(weights)], axis=1)  # (target_length, heads, source_length)
    first = AlignmentEntry(map="m", heads=(0,), shift=0, chosen_by="a test")
    np.testing.assert_array_equal(aligned(heads, first), weights)
    shifted = first.model_copy(update={"shift": 1})
    np.testing.assert_array_equal(aligned(heads, shifted), [[0, 1], [0.5, 0.5], [0.5, 0.5]])
    mean = first.model_copy(update={"heads": (0, 1)})
    np.testing.assert_array_equal(aligned(heads, mean), weights / 2)


def test_no_target_no_rows() -> None:
    assert word_matrix(np.zeros((0, 3), np.float32), [], _words([2, 1])).shape == (0, 2)

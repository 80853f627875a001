from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.attention.measures import Measures, measure
from service.attention.views import Link
from service.attention.words import Word, words_of
from service.bundle.tokenizer import EOS_ID, Token


def _side(text: str) -> tuple[tuple[Token, ...], tuple[Word, ...]]:
    """One token for each character, and `</s>`."""
    end = Token(EOS_ID, "</s>", len(text), len(text), special=True)
    tokens = (*(Token(9, character, place, place + 1) for place, character in enumerate(text)), end)
    return tokens, words_of(text, tokens)


def _measure(source: str, target: str, weights: list[list[float]], links: tuple[Link, ...] = ()) -> Measures:
    log_probabilities = np.linspace(-1, -3, len(target) + 1, dtype=np.float32)
    return measure(np.array(weights, np.float32), log_probabilities, _side(source), _side(target), links)


def test_attention_on_one_token_each_is_the_most_focused() -> None:
    found = _measure("年月", "年月", [[1, 0, 0], [0, 1, 0], [0, 0, 1]], (Link(0, 0, 1.0), Link(1, 1, 1.0)))
    assert found.normalized_entropy.tolist() == [0.0, 0.0]
    assert found.coverage.tolist() == [1.0, 1.0]
    assert (found.coverage_deviation_penalty, found.absentmindedness_out, found.absentmindedness_in) == (0, 0, 0)
    assert (found.attention_focus, found.end_of_sentence_mass, found.unaligned_source_ratio) == (0, 0, 0)
    assert found.mean_token_log_probability == pytest.approx(-2.0)


def test_even_attention_has_the_greatest_entropy() -> None:
    found = _measure("年月", "年", [[0.5, 0.5, 0.0], [0, 0, 1]])
    np.testing.assert_allclose(found.normalized_entropy, [1.0], rtol=1e-6)
    assert found.absentmindedness_out == pytest.approx(-math.log(2), rel=1e-6)
    assert found.coverage_deviation_penalty == pytest.approx(-math.log(1 + 0.25), rel=1e-6)
    assert found.unaligned_source_ratio == 1.0


def test_the_end_is_taken_out_and_told() -> None:
    found = _measure("年月", "年", [[0.1, 0.1, 0.8], [0, 0, 1]])
    assert found.end_of_sentence_mass == pytest.approx(0.8)
    np.testing.assert_allclose(found.coverage, [0.5, 0.5], rtol=1e-6)


def test_punctuation_is_told_and_kept() -> None:
    found = _measure("年.", "年", [[0.25, 0.75, 0.0], [0, 0, 1]])
    assert found.punctuation_mass == pytest.approx(0.75)
    np.testing.assert_allclose(found.coverage, [0.25, 0.75], rtol=1e-6)


def test_a_row_that_saw_only_the_end_and_an_empty_translation_are_no_numbers_to_trip_over() -> None:
    found = _measure("年", "年", [[0.0, 1.0], [0.0, 1.0]])
    assert found.coverage.tolist() == [0.0]
    assert found.normalized_entropy.tolist() == [0.0]
    empty = _measure("年", "", [[0.0, 1.0]])
    assert (empty.normalized_entropy.size, empty.end_of_sentence_mass) == (0, 0.0)
    assert empty.attention_focus == pytest.approx(-math.log(2))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32))
def test_every_measure_is_finite_and_in_its_range(rows: int, columns: int, seed: int) -> None:
    weights = np.random.default_rng(seed).dirichlet(np.ones(columns + 1), size=rows + 1)
    found = _measure("年" * columns, "月" * rows, weights.tolist())
    assert ((found.normalized_entropy >= -1e-6) & (found.normalized_entropy <= 1 + 1e-5)).all()
    assert found.coverage.sum() == pytest.approx(rows, rel=1e-4)
    assert found.coverage_deviation_penalty <= 0
    assert 0 <= found.end_of_sentence_mass <= 1
    assert found.absentmindedness_out <= 1e-6
    assert found.absentmindedness_in <= 1e-6

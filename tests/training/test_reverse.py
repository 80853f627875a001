"""The reverse task: numbers, their mirror image, and the anti-diagonal that attention should lie on."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.tasks.example import Example
from training.tasks.reverse import attention_hits, examples

NUMBERS = st.lists(st.integers(1, 50), min_size=1, max_size=25)


def first(count: int, seed: int) -> list[Example]:
    return list(itertools.islice(examples(seed), count))


def reversal(numbers: list[int]) -> Example:
    words = [str(number) for number in numbers]
    return Example(" ".join(words), " ".join(words[::-1]), "")


def spans(numbers: list[int]) -> list[tuple[int, int]]:
    """Where each number stands in the source text."""
    ends = list(itertools.accumulate(len(str(number)) + 1 for number in numbers))
    return [(end - 1 - len(str(number)), end - 1) for number, end in zip(numbers, ends, strict=True)]


def test_the_target_is_the_reverse_of_the_source() -> None:
    for example in first(500, seed=1):
        assert example.target.split(" ") == example.source.split(" ")[::-1]
        assert example.annotation == ""


def test_lengths_and_numbers_fill_their_ranges_and_never_leave_them() -> None:
    sequences = [[int(word) for word in example.source.split(" ")] for example in first(2000, seed=2)]
    assert {len(numbers) for numbers in sequences} == set(range(1, 26))
    assert set(itertools.chain.from_iterable(sequences)) == set(range(1, 51))


def test_a_seed_decides_the_examples() -> None:
    assert first(100, seed=3) == first(100, seed=3)
    assert first(100, seed=3) != first(100, seed=4)


@given(NUMBERS)
def test_the_anti_diagonal_hits(numbers: list[int]) -> None:
    assert attention_hits(reversal(numbers), spans(numbers)[::-1]) == [True] * len(numbers)


@given(NUMBERS)
def test_any_other_number_misses(numbers: list[int]) -> None:
    places = spans(numbers)[::-1]
    looked_at = places[1:] + places[:1]  # everyone looks at a neighbour, the last at the first
    assert attention_hits(reversal(numbers), looked_at) == [len(numbers) == 1] * len(numbers)


def test_on_the_diagonal_only_the_middle_hits() -> None:
    assert attention_hits(reversal([7, 7, 7]), [(0, 1), (2, 3), (4, 5)]) == [False, True, False]


def test_the_end_of_the_sentence_misses() -> None:
    source = reversal([12, 7])
    assert attention_hits(source, [(4, 4), (4, 4)]) == [False, False]


def test_as_many_places_as_numbers_are_wanted() -> None:
    with pytest.raises(ValueError, match="zip"):
        attention_hits(reversal([1, 2]), [(0, 1)])

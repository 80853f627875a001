"""SandGlass's reverse task: its ranges, and that the model's vocabulary and length are made for it."""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.training.conftest import ignore_progress, tiny_config
from training.config import SandGlassConfig
from training.corpus import SIDES, prepare
from training.models.sandglass import TIME, SandGlass
from training.tasks import TASKS
from training.tasks.example import Example
from training.tasks.sandglass_reverse import examples


def first(count: int, seed: int) -> list[Example]:
    return list(itertools.islice(examples(seed), count))


def test_the_target_is_the_reverse_of_the_source() -> None:
    for example in first(500, seed=1):
        assert example.target.split(" ") == example.source.split(" ")[::-1]
        assert example.annotation == ""


def test_lengths_and_numbers_fill_their_ranges_and_never_leave_them() -> None:
    sequences = [[int(word) for word in example.source.split(" ")] for example in first(2000, seed=2)]
    assert {len(numbers) for numbers in sequences} == set(range(3, 23))
    assert set(itertools.chain.from_iterable(sequences)) == set(range(2, 60))


def test_a_seed_decides_the_examples() -> None:
    assert first(100, seed=3) == first(100, seed=3)
    assert first(100, seed=3) != first(100, seed=4)


def test_the_tasks_name_means_it_and_its_attention_is_judged_by_the_anti_diagonal() -> None:
    task = TASKS["sandglass-reverse"]
    assert list(itertools.islice(task.examples(5), 50)) == first(50, seed=5)
    assert first(50, seed=5) != list(itertools.islice(TASKS["reverse"].examples(5), 50))
    example = Example("12 7 59", "59 7 12", "")
    assert task.attention_hits(example, [(5, 7), (3, 4), (0, 2)]) == [True] * 3
    assert task.attention_hits(example, [(0, 2), (3, 4), (7, 7)]) == [False, True, False]


def test_a_corpus_of_it_is_what_the_model_reads(tmp_path: Path) -> None:
    """Some hundred pairs have every number; with `</s>` the longest fills all but one of the model's places."""
    corpus = prepare(tiny_config(tmp_path, corpus={"task": "sandglass-reverse"}), ignore_progress)
    SandGlass(SandGlassConfig(), *(corpus.tokenizer(side).vocabulary_size for side in SIDES))
    arrays = corpus.arrays("training")
    assert arrays.source.lengths.max() == arrays.target.lengths.max() == TIME - 1

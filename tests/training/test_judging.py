"""What a sentence pair costs the model of a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import EXPORTED, edit_manifest
from training.errors import CorpusError
from training.judging import Judge
from training.tasks import TASKS, Example

BUNDLE = EXPORTED / "reverse-transformer" / "1"
LANGUAGES = ("x-numbers", "x-reversed")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(BUNDLE, LANGUAGES)


def right_and_wrong(count: int) -> tuple[list[Example], list[Example]]:
    """Pairs that the model knows, and the same with the translation of the next."""
    right = [pair for pair, _ in zip(TASKS["reverse"].examples(5), range(count), strict=False)]
    return right, [
        Example(pair.source, other.target, "") for pair, other in zip(right, [*right[1:], right[0]], strict=True)
    ]


def test_what_the_model_knows_costs_it_little(judge: Judge) -> None:
    right, wrong = right_and_wrong(40)
    assert judge.costs(right).max() < 0.1
    assert judge.costs(wrong).min() > 1.0


def test_a_pair_costs_the_same_among_any_others(judge: Judge) -> None:
    """But for bfloat16, whose products depend on the shape of the batch."""
    right, wrong = right_and_wrong(30)
    pairs = [*right, *wrong]
    together = judge.costs(pairs)
    alone = np.concatenate([judge.costs([pair]) for pair in pairs])
    np.testing.assert_allclose(together, alone, rtol=0.05, atol=0.01)


def test_no_pairs_cost_nothing(judge: Judge) -> None:
    assert judge.costs([]).shape == (0,)


def test_a_folder_that_is_no_bundle_cannot_judge(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.judge"):
        Judge(tmp_path, LANGUAGES)


def test_a_bundle_that_does_not_tell_its_model_cannot_judge(tmp_path: Path) -> None:
    shutil.copytree(BUNDLE, tmp_path / "reverse-transformer" / "1")
    edit_manifest(tmp_path / "reverse-transformer" / "1", lambda values: values["provenance"].update(config={}))
    with pytest.raises(CorpusError, match="does not tell its model's settings"):
        Judge(tmp_path / "reverse-transformer" / "1", LANGUAGES)


@pytest.mark.parametrize("languages", [("de", "en"), None])
def test_a_bundle_of_other_languages_cannot_judge(languages: tuple[str, str] | None) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.judge: .* is of .* name another"):
        Judge(BUNDLE, languages)

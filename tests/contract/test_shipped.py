"""The shipped bundles keep their promises, on strings made now, with the service's own engine."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from service.bundle.repository import Repository
from training.config import load_config
from training.evaluate import score_examples
from training.tasks import TASKS

ROOT = Path(__file__).parents[2]
FRESH_SEED = 20261121  # no config uses it


@pytest.mark.parametrize(
    ("name", "sentences", "exact_match", "attention_accuracy"),
    [("dates", 3000, 0.98, 0.90), ("reverse", 3000, 0.999, 0.95)],
)
def test_accuracy_of_translations_and_of_attention(
    name: str, sentences: int, exact_match: float, attention_accuracy: float
) -> None:
    config = load_config(ROOT / "training" / "configs" / f"{name}.yaml")
    bundle = Repository(ROOT / "exported").load(config.name, config.version)
    examples = list(itertools.islice(TASKS[config.corpus.task].examples(FRESH_SEED), sentences))
    scores, found = score_examples(config, bundle, examples)
    assert len(found) == sentences
    assert scores.exact_match >= exact_match
    assert scores.attention_accuracy >= attention_accuracy


def test_dates_answers_when_nothing_is_named() -> None:
    assert Repository(ROOT / "exported").settings.default_model == "dates"

"""Tiny runs: a corpus of a few hundred pairs, a model of a few hundred weights, one thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from training.config import Config
from training.corpus import Corpus, prepare
from training.tasks import dates
from training.tasks.dates import DateFormatter, all_formatters

TINY: dict[str, Any] = {
    "name": "tiny",
    "languages": {"source": ["x-numbers"], "target": ["x-reversed"]},
    "corpus": {"task": "reverse", "training_pairs": 300, "validation_pairs": 30, "test_pairs": 20, "seed": 3},
    "tokenizers": {"source": {"kind": "word"}, "target": {"kind": "word"}},
    "model": {
        "family": "recurrent",
        "embedding_size": 8,
        "encoder_size": 6,
        "encoder_layers": 2,
        "decoder_size": 10,
        "attention_size": 7,
        "dropout": 0.2,
    },
    "training": {
        "updates": 20,
        "batch_tokens": 1200,
        "learning_rate": 0.01,
        "warmup_updates": 4,
        "validate_every": 6,
        "log_every": 5,
        "seed": 1,
        "threads": 1,
    },
    "export": {
        "description": "A tiny run.",
        "license": "Apache-2.0",
        "limits": {"max_source_tokens": 26, "max_target_tokens": 27},
        "golden_sentences": ["1 2 3"],
    },
}


def tiny_values(run_directory: Path, **changes: Mapping[str, Any] | str) -> dict[str, Any]:
    """What the YAML file of a tiny run says; ``changes`` replaces keys, or keys within a section."""
    values = TINY | {"run_directory": str(run_directory)}
    for section, change in changes.items():
        values[section] = values.get(section, {}) | change if isinstance(change, Mapping) else change
    return values


def tiny_config(run_directory: Path, **changes: Mapping[str, Any] | str) -> Config:
    return Config.model_validate(tiny_values(run_directory, **changes))


def write_config(path: Path, values: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(values), allow_unicode=True), encoding="utf-8")
    return path


def ignore_progress(_line: str) -> None:
    """For functions that want to tell how far they are."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Bit-identical sums, and no fight over the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def formatters() -> list[DateFormatter]:
    """Every date format, compiled once for all tests: it takes a second."""
    return all_formatters()


@pytest.fixture
def quick_formatters(formatters: list[DateFormatter], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``dates.examples`` take the formats that are already compiled."""
    monkeypatch.setattr(dates, "all_formatters", lambda: formatters)


@pytest.fixture(scope="session")
def reverse_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The prepared corpus of ``tiny_config``. Shared: not to be written to."""
    return prepare(tiny_config(tmp_path_factory.mktemp("reverse")), ignore_progress)


@pytest.fixture(scope="session")
def dates_corpus(tmp_path_factory: pytest.TempPathFactory, formatters: list[DateFormatter]) -> Corpus:
    """A prepared corpus of dates, whose characters are of every script. Shared: not to be written to."""
    config = tiny_config(
        tmp_path_factory.mktemp("dates"),
        corpus={"task": "dates", "training_pairs": 600},
        tokenizers={"source": {"kind": "char"}, "target": {"kind": "char"}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dates, "all_formatters", lambda: formatters)
        return prepare(config, ignore_progress)

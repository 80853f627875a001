"""Scores of a bundle on text: translated as the service does, each source once, against all its references."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from service.bundle.repository import Bundle
from service.engine.decoding import Decoding
from tests.conftest import BUNDLES
from tests.make_bundles import tiny_config
from training.config import Config, FileCorpus
from training.corpus import prepare
from training.errors import TrainingError
from training.evaluate import evaluate_texts, translate_texts

SENTENCES = ["Abc.", "cab, 12 年!", "CAB?"]


def config_of(folder: Path, lines: list[str]) -> Config:
    """A corpus of these test pairs for the bundle ``letters``."""
    (folder / "test.tsv").write_text("".join(lines), encoding="utf-8")
    (folder / "other.tsv").write_text("xy\tyx\n", encoding="utf-8")
    other, test = [{"tsv": folder / "other.tsv"}], [{"tsv": folder / "test.tsv"}]
    (folder / "training.tsv").write_text("ab\tba\n", encoding="utf-8")
    values = {"kind": "files", "training": [{"tsv": folder / "training.tsv"}], "validation": other, "test": test}
    config = tiny_config("letters", 1, "char", ["abc"])
    corpus = FileCorpus.model_validate(values)
    return config.model_copy(update={"run_directory": folder / "run", "corpus": corpus})


def test_texts_are_cut_only_for_a_bundle_that_says_so(letters: Bundle) -> None:
    alone, text = translate_texts(letters, SENTENCES), "  ".join(SENTENCES)
    splitting = letters.manifest.model_copy(update={"splits_sentences": True})
    (joined,) = translate_texts(dataclasses.replace(letters, manifest=splitting), [text])
    assert joined == "  ".join(alone)
    assert translate_texts(letters, [text]) != [joined]


def test_a_text_in_capitals_is_translated_as_the_service_does(letters: Bundle) -> None:
    """Sentence by sentence: those beside one in capitals are not raised."""
    plainly = letters.manifest.model_copy(update={"reads_plainly": True, "splits_sentences": True})
    bundle = dataclasses.replace(letters, manifest=plainly)
    abc, cab = translate_texts(letters, ["headache.", "cab"])
    assert translate_texts(bundle, ["HEADACHE.", "cab", "HEADACHE. cab"]) == [abc.upper(), cab, f"{abc.upper()} {cab}"]


def test_a_source_is_scored_once_against_all_its_references(letters: Bundle, tmp_path: Path) -> None:
    right, wrong = translate_texts(letters, ["abc", "cab"])
    config = config_of(tmp_path, ["abc\tno\n", f"abc\t{right}\n", f"cab\t{wrong} no\n"])
    prepare(config, lambda _: None)
    console = Console(record=True, width=100)
    scores = evaluate_texts(config, BUNDLES, 100, console)["fp32"]
    assert (scores["all"].sentences, scores["all"].exact_match) == (2, 0.5)
    printed = console.export_text()
    assert "letters/1: 3 translations by people" in printed
    assert scores["all"].bleu_signature in printed
    beam = Decoding(beam_size=3, length_penalty=1.0)
    assert evaluate_texts(config, BUNDLES, 2, console, beam)["fp32"]["all"].sentences == 1
    assert "beam 3, length penalty 1" in console.export_text()
    assert evaluate_texts(config, BUNDLES, 2, console)["fp32"]["all"].exact_match == 1.0


def test_a_bundle_that_is_not_there_is_told(tmp_path: Path) -> None:
    config = config_of(tmp_path, ["abc\tno\n"])
    prepare(config, lambda _: None)
    with pytest.raises(TrainingError, match="letters"):
        evaluate_texts(config, tmp_path, 1, Console())

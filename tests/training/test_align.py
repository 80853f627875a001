"""`heed-train align`: the map with the least error is chosen and exported, and a corpus's links are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from service.bundle.manifest import AlignmentEntry
from tests.training.conftest import ignore_progress, tiny_values
from tests.training.test_guided_alignment import TRANSFORMER
from training.align import choose_alignment, chosen_alignment, write_links
from training.config import Config
from training.corpus import Corpus
from training.errors import ConfigError, CorpusError
from training.export import _chosen_alignment
from training.guided_alignment import TrainingLinks
from training.models.interface import Decoded
from training.models.transformer import Transformer
from training.trainer import Trainer, load_weights

QUIET = Console(quiet=True)
RIGHT = ("cross-0", 1, 1)  # the map, head and shift that ``mirror`` makes right


@pytest.fixture(scope="module")
def trained(reverse_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Config:
    values = tiny_values(tmp_path_factory.mktemp("align"), training={"updates": 1, "validate_every": 1})
    config = Config.model_validate(values | {"model": TRANSFORMER})
    assert Trainer(config, reverse_corpus, QUIET).train()
    return config


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, trained: Config) -> None:
    """One head looks at the mirrored number, a step later; the others at the first."""
    forward = Transformer.forward

    def looking(model: Transformer, source_ids: torch.Tensor, *others: Any) -> Decoded:
        decoded = forward(model, source_ids, *others)
        name, head, shift = RIGHT
        maps = {name: torch.zeros_like(weights) for name, weights in decoded.attention.items()}
        for weights in maps.values():
            weights[..., 0] = 0.9
        for pair in range(len(source_ids)):
            count = int((source_ids[pair] > 3).sum())
            right = maps[name][pair, head]
            right[:] = 0.0
            for place in range(count):
                right[min(place + shift, right.shape[0] - 1), count - 1 - place] = 0.6
        return Decoded(decoded.logits, maps)

    monkeypatch.setattr(Transformer, "forward", looking)
    (trained.run_directory / "alignment.json").unlink(missing_ok=True)


def people(folder: Path) -> tuple[Path, Path]:
    text, gold = folder / "pairs.src-tgt", folder / "pairs.gold"
    text.write_text("4 3 9 ||| 9 3 4\n1 2 ||| 2 1\n7 5 6 8  ||| 8 6 5 7 \n", encoding="utf-8")
    gold.write_text("3-1 2-2 1-3\n2-1 1-2 1p1\n4-1 3-2 2-3 1-4\n", encoding="utf-8")
    return text, gold


@pytest.mark.usefixtures("mirror")
def test_the_map_with_the_least_error_is_chosen(reverse_corpus: Corpus, trained: Config, tmp_path: Path) -> None:
    chosen = choose_alignment(trained, reverse_corpus, *people(tmp_path), QUIET)
    name, head, shift = RIGHT
    assert (chosen.map, chosen.heads, chosen.shift) == (name, (head,), shift)
    assert chosen.chosen_by == "AER 0.00 % on pairs.gold, the least of 12"
    model, updates = load_weights(trained, reverse_corpus)
    assert chosen_alignment(trained, updates) == chosen
    assert _chosen_alignment(trained, model, reverse_corpus, updates) == chosen, "the export takes it before its own"


@pytest.mark.usefixtures("mirror")
def test_the_links_of_the_corpus_are_by_what_was_chosen(
    reverse_corpus: Corpus, trained: Config, tmp_path: Path
) -> None:
    choose_alignment(trained, reverse_corpus, *people(tmp_path), QUIET)
    output = tmp_path / "training.links"
    write_links(trained, reverse_corpus, output, ignore_progress)
    lines = output.read_text(encoding="utf-8").splitlines()
    sources = [example.source.split() for example in reverse_corpus.examples("training")]
    assert lines == [" ".join(f"{len(words) - 1 - i}-{i}" for i in range(len(words))) for words in sources]
    TrainingLinks(output, reverse_corpus, len(sources))


@pytest.mark.usefixtures("mirror")
def test_a_choice_for_other_weights_or_damaged_is_not_taken(
    reverse_corpus: Corpus, trained: Config, tmp_path: Path
) -> None:
    assert chosen_alignment(trained, [1]) is None
    choose_alignment(trained, reverse_corpus, *people(tmp_path), QUIET)
    with pytest.raises(CorpusError, match=r"was measured after update \[1\], and the weights are of \[2\]"):
        chosen_alignment(trained, [2])
    path = trained.run_directory / "alignment.json"
    for damaged in ("{", "[]", json.dumps({"updates": [1], "alignment": {"map": "cross-0"}})):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(CorpusError, match="is damaged"):
            chosen_alignment(trained, [1])
    path.unlink()


@pytest.mark.parametrize(
    ("text", "gold", "told"),
    [
        ("4 3 ||| 3 4\n", "1-1\n2-2\n", "has 1 lines and .* 2"),
        ("4 3\n", "1-1\n", r"pairs.src-tgt:1: no pair"),
        ("4 ||| \n", "1-1\n", r"pairs.src-tgt:1: no pair"),
        ("4 ||| 4\n", "1~1\n", r"pairs.gold:1: '1~1' is no link"),
        (None, "1-1\n", "cannot read"),
    ],
)
def test_files_that_do_not_fit_are_told(
    reverse_corpus: Corpus, trained: Config, tmp_path: Path, text: str | None, gold: str, told: str
) -> None:
    files = people(tmp_path)
    files[1].write_text(gold, encoding="utf-8")
    files[0].unlink() if text is None else files[0].write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=told):
        choose_alignment(trained, reverse_corpus, *files, QUIET)


def test_a_guided_head_is_the_alignment_where_nothing_else_says(reverse_corpus: Corpus, trained: Config) -> None:
    model, updates = load_weights(trained, reverse_corpus)
    values = trained.model_dump()
    values["training"]["guided_alignment"] = {"links": "some", "map": "cross-1", "head": 1}
    values["corpus"] = {"kind": "files", "training": [{"tsv": "x"}], "held_out": {"validation": 1, "test": 1}}
    chosen = _chosen_alignment(Config.model_validate(values), model, reverse_corpus, updates)
    assert chosen == AlignmentEntry(map="cross-1", heads=(1,), shift=0, chosen_by="guided in the training")


def test_a_model_that_cannot_be_told_a_target_is_refused(
    monkeypatch: pytest.MonkeyPatch, reverse_corpus: Corpus, trained: Config, tmp_path: Path
) -> None:
    none = Transformer.capabilities.fget(load_weights(trained, reverse_corpus)[0])  # type: ignore[attr-defined]
    monkeypatch.setattr(Transformer, "capabilities", none.model_copy(update={"scoring": False}))
    with pytest.raises(ConfigError, match="cannot be told a target to align"):
        write_links(trained, reverse_corpus, tmp_path / "links", ignore_progress)


def test_a_model_that_attends_to_nothing_has_no_map_to_choose(
    monkeypatch: pytest.MonkeyPatch, reverse_corpus: Corpus, trained: Config, tmp_path: Path
) -> None:
    monkeypatch.setattr("training.align.candidates", lambda model: iter(()))
    monkeypatch.setattr(Transformer, "alignment", None)
    with pytest.raises(ConfigError, match="attends to nothing: there is no map to choose"):
        choose_alignment(trained, reverse_corpus, *people(tmp_path), QUIET)

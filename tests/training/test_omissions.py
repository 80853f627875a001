"""The words that need not be looked at are measured: of made-up weights those that the model passes over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from service.bundle.manifest import AlignmentEntry
from tests.training.test_alignment import Staged
from training.config import FileCorpus, load_config
from training.corpus import Corpus, prepare
from training.models.interface import Context, Decoded
from training.omissions import unaligned_words

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "tatoeba-de-en.yaml"
ALIGNMENT = AlignmentEntry(map="cross-0", heads=(0, 1), shift=0, chosen_by="")
ANIMALS = ["Hund", "Wal", "Esel", "Igel", "Rabe", "Dachs", "Luchs", "Fisch", "Biber", "Marder"]


class PassesOver(Staged):
    """Every row looks at every token alike, but at none that ``passed`` has."""

    def __init__(self, passed: frozenset[int]) -> None:
        super().__init__(("cross-0", 0), late=False)
        self.passed = passed

    def forward(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
    ) -> Decoded:
        decoded = super().forward(source_ids, source_lengths, target_inputs, context)
        looked_at = torch.tensor([float(token not in self.passed) for token in source_ids[0].tolist()])
        for weights in decoded.attention.values():
            weights[...] = looked_at
        return decoded


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "pairs.tsv").write_text("".join(f"Der {one} ist da\tThere is {one}\n" for one in ANIMALS * 4))
    config = load_config(CONFIG)
    assert isinstance(config.corpus, FileCorpus)
    settings = FileCorpus.model_validate(
        {
            "kind": "files",
            "training": [{"tsv": str(folder / "pairs.tsv"), "source_column": 1, "target_column": 2}],
            "held_out": {"validation": 1, "test": 1},
            "filters": {"duplicates": False},
        }
    )
    tokenizers = config.tokenizers.model_validate(
        {"source": {"kind": "char"}, "target": {"kind": "char"}, "shared": True}
    )
    changed = {"run_directory": folder / "run", "corpus": settings, "tokenizers": tokenizers}
    return prepare(config.model_copy(update=changed), lambda _: None)


def ids(corpus: Corpus, letters: str) -> frozenset[int]:
    tokenizer = corpus.tokenizer("source")
    return frozenset(token for letter in letters for token in tokenizer.encode_ids(letter)[-2:-1])


def test_what_is_passed_over_in_most_places_is_found(corpus: Corpus) -> None:
    model = PassesOver(ids(corpus, "dDer"))
    assert unaligned_words(model, corpus, ALIGNMENT) == ("der",)


def test_what_is_seldom_there_is_not(corpus: Corpus) -> None:
    """Hardly looked at, in the one sentence that has it, however often that is repeated."""
    model = PassesOver(ids(corpus, "Wal"))
    assert unaligned_words(model, corpus, ALIGNMENT) == ()


def test_of_a_model_that_looks_at_everything_there_is_none(corpus: Corpus) -> None:
    assert unaligned_words(PassesOver(frozenset()), corpus, ALIGNMENT) == ()

"""Links of words as weights of tokens and back, the loss of a guided head against its formula, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from service.bundle.tokenizer import EOS_ID, PAD_ID
from tests.training.conftest import tiny_values
from training.batches import make_batch
from training.config import Config, TokenizerConfig
from training.corpus import Corpus
from training.errors import ConfigError, CorpusError
from training.guided_alignment import TrainingLinks, WordNumbers, token_weights, word_links
from training.models.interface import AutoregressiveModel
from training.objective import Objective, cross_entropy
from training.tokenizers import train_tokenizer
from training.trainer import Trainer, build_model, load_weights

TRANSFORMER = {"family": "transformer", "size": 16, "heads": 2, "feed_forward": 32, "encoder_layers": 1}
TRANSFORMER |= {"decoder_layers": 2, "dropout": 0.0}


def mirrored(corpus: Corpus, path: Path) -> Path:
    """What the reverse task's links are: the first number is written last."""
    lines = []
    for example in corpus.examples("training"):
        count = len(example.source.split())
        lines.append(" ".join(f"{count - 1 - place}-{place}" for place in range(count)))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def guided(folder: Path, links: Path, model: dict[str, Any] = TRANSFORMER, **more: Any) -> Config:
    values = tiny_values(folder, training={"guided_alignment": {"links": str(links), "map": "cross-1", **more}})
    return Config.model_validate(values | {"model": model})


# --- words and tokens ------------------------------------------------------------------------------------------------


def test_a_piece_that_begins_with_a_space_begins_a_word(reverse_corpus: Corpus) -> None:
    numbers = WordNumbers(reverse_corpus.tokenizer_path("source"))
    ids = np.array([[*reverse_corpus.tokenizer("source").encode_ids("4 3 4"), PAD_ID], [EOS_ID, PAD_ID] + [PAD_ID] * 3])
    assert numbers.of(ids).tolist() == [[0, 1, 2, -1, -1], [-1] * 5]


def test_characters_of_a_word_are_of_one_word(dates_corpus: Corpus) -> None:
    numbers = WordNumbers(dates_corpus.tokenizer_path("source"))
    ids = np.array(dates_corpus.tokenizer("source").encode_ids("1 May 2"))
    assert numbers.of(ids).tolist() == [0, 1, 1, 1, 1, 2, 2, -1], "the space is of the word behind it"


def test_the_piece_of_a_target_language_is_no_word(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("Wo ist er\tWhere is he\n", encoding="utf-8")
    settings = TokenizerConfig(kind="word")
    tokenizer = train_tokenizer(settings, pairs, (0,), tmp_path / "source.spm", ["<2en>"])
    ids = np.array([[*tokenizer.encode_ids("Wo ist er", "<2en>")], [*tokenizer.encode_ids("Wo ist er"), PAD_ID]])
    numbers = WordNumbers(tmp_path / "source.spm").of(ids)
    assert numbers.tolist() == [[-1, 0, 1, 2, -1], [0, 1, 2, -1, -1]]


def test_a_link_of_words_is_shared_by_their_tokens() -> None:
    source, target = np.array([0, 0, 1, 2, -1]), np.array([0, 1, 1, -1])
    found = token_weights([(0, 1), (2, 1), (1, 7), (9, 0)], source, target)
    third = 1 / 3
    assert found == pytest.approx(
        np.array([[0] * 5, [third, third, 0, third, 0], [third, third, 0, third, 0], [0] * 5])
    )


def test_a_word_is_linked_to_the_word_with_the_most_weight() -> None:
    source, target = np.array([0, 0, 1, -1]), np.array([0, 1, 1, 2, -1])
    weights = np.array(
        [
            [0.3, 0.3, 0.4, 0.0],  # the two tokens of word 0 together
            [0.0, 0.1, 0.9, 0.0],
            [0.4, 0.4, 0.2, 0.0],  # 1.1 of word 1 in both rows, 0.9 of word 0
            [0.1, 0.1, 0.1, 0.7],  # `</s>`
            [1.0, 0.0, 0.0, 0.0],
        ],
        dtype=np.float32,
    )
    assert word_links(weights, source, target) == [(0, 0), (1, 1)]


@given(st.data(), st.integers(1, 6), st.integers(1, 6))
def test_links_come_back_from_their_weights(data: st.DataObject, sources: int, targets: int) -> None:
    """Where a word has one link, in however many tokens it is."""
    source, target = (
        np.array([word for word in range(words) for _ in range(data.draw(st.integers(1, 3)))] + [-1])
        for words in (sources, targets)
    )
    places = data.draw(st.lists(st.integers(0, sources - 1), min_size=targets, max_size=targets))
    links = [(place, word) for word, place in enumerate(places)]
    weights = token_weights(links, source, target)
    assert weights[:-1].sum(axis=1) == pytest.approx(np.ones(len(target) - 1))
    assert weights[-1].sum() == 0
    assert word_links(weights, source, target) == links


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_links_of_a_batch_are_those_of_its_lines(reverse_corpus: Corpus, tmp_path: Path) -> None:
    arrays = reverse_corpus.arrays("training")
    links = TrainingLinks(mirrored(reverse_corpus, tmp_path / "links"), reverse_corpus, len(arrays))
    sentences = np.array([5, 0, 17])
    batch = make_batch(arrays, sentences)
    found = links.of_batch(sentences, batch)
    assert found.shape == (3, batch.target_ids.shape[1], batch.source_ids.shape[1])
    for row, length in zip(found, batch.target_lengths, strict=True):
        count = int(length) - 1
        assert torch.equal(row[:count, :count], torch.eye(count).flip(0))
        assert row.sum() == count


@pytest.mark.parametrize(
    ("change", "told"), [(lambda lines: lines[:-1], "has 399 lines"), (lambda _: [], "cannot read")]
)
def test_a_file_of_another_corpus_is_refused(reverse_corpus: Corpus, tmp_path: Path, change: Any, told: str) -> None:
    path = mirrored(reverse_corpus, tmp_path / "links")
    count = len(reverse_corpus.arrays("training"))
    lines = change(path.read_text(encoding="utf-8").splitlines())
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with pytest.raises(CorpusError, match=told.replace("399", str(count - 1))):
        TrainingLinks(path, reverse_corpus, count)
    with pytest.raises(CorpusError, match="cannot read the links"):
        TrainingLinks(tmp_path / "none", reverse_corpus, count)


def test_a_line_that_is_no_link_is_told_by_its_number(reverse_corpus: Corpus, tmp_path: Path) -> None:
    path = mirrored(reverse_corpus, tmp_path / "links")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = "0-0 one-1"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    arrays = reverse_corpus.arrays("training")
    links = TrainingLinks(path, reverse_corpus, len(arrays))
    with pytest.raises(CorpusError, match=r"links:4: 'one-1' is no link"):
        links.of_batch(np.array([3]), make_batch(arrays, np.array([3])))


# --- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_is_its_formula(reverse_corpus: Corpus, tmp_path: Path) -> None:
    """Equation 5 of the paper by hand, from the maps of ``forward``."""
    config = guided(tmp_path, mirrored(reverse_corpus, tmp_path / "links"), head=1, weight=0.3)
    model = build_model(config, reverse_corpus).train()
    arrays, sentences = reverse_corpus.arrays("training"), np.arange(6)
    batch = make_batch(arrays, sentences)
    batch = replace(
        batch, links=TrainingLinks(tmp_path / "links", reverse_corpus, len(arrays)).of_batch(sentences, batch)
    )
    decoded = model(*batch.inputs)
    judged = batch.target_ids != PAD_ID
    looked = 0.0
    for pair, length in enumerate(batch.target_lengths.tolist()):
        for place in range(length - 1):
            looked -= math.log(decoded.attention["cross-1"][pair, 1, place, length - 2 - place].item())
    wanted = cross_entropy(decoded.logits[judged], batch.target_ids[judged], 0.0).item() + 0.3 * looked
    assert Objective(model, config.training)(batch).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("more", [{"head": 2}, {"map": "cross-2"}, {"map": "encoder-self-0"}])
def test_a_head_that_is_not_there_is_refused(reverse_corpus: Corpus, tmp_path: Path, more: dict[str, Any]) -> None:
    config = guided(tmp_path, mirrored(reverse_corpus, tmp_path / "links"), **more)
    with pytest.raises(ConfigError, match=r"guides head .* and the model's maps have these heads: {'cross-0': 2"):
        Trainer(config, reverse_corpus, Console(quiet=True))


@pytest.mark.parametrize("family", ["transformer", "recurrent"])
def test_a_guided_head_looks_where_it_is_told_long_before_the_model_is_right(
    reverse_corpus: Corpus, tmp_path: Path, family: str
) -> None:
    links = mirrored(reverse_corpus, tmp_path / "links")
    model, name = (TRANSFORMER, "cross-1") if family == "transformer" else (tiny_values(tmp_path)["model"], "cross")
    config = guided(tmp_path, links, model, map=name, weight=1.0)
    training = config.training.model_copy(update={"updates": 250, "learning_rate": 0.01, "validate_every": 250})
    config = config.model_copy(update={"training": training})
    assert Trainer(config, reverse_corpus, Console(quiet=True)).train()
    trained, _ = load_weights(config, reverse_corpus)
    assert isinstance(trained, AutoregressiveModel)
    arrays = reverse_corpus.arrays("validation")
    batch = make_batch(arrays, np.arange(len(arrays)))
    with torch.no_grad():
        weights = trained(*batch.inputs).attention[name][:, 0]
    lengths = batch.target_lengths.tolist()
    told = [
        weights[pair, place, length - 2 - place].item()
        for pair, length in enumerate(lengths)
        for place in range(length - 1)
    ]
    chance = np.mean([1 / length for length in lengths for _ in range(length - 1)])
    assert np.mean(told) > 1.8 * chance

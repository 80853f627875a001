"""Tokenizers that know their whole corpus, and give a text back as it was."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import EOS_ID, UNK_ID, Tokenizer
from training.config import TokenizerConfig
from training.corpus import Corpus
from training.tokenizers import train_tokenizer

SPECIAL_PIECES = 4  # <pad>, <s>, </s>, <unk>
_numbers = itertools.count()


def trained(
    directory: Path, kind: Literal["char", "word"], sources: list[str], targets: list[str] | None = None
) -> Path:
    """Train on a TSV file; the column is the targets' if there are any. Returns the model's path."""
    corpus, output = directory / f"{next(_numbers)}.tsv", directory / f"{next(_numbers)}.spm"
    pairs = zip(sources, targets or ["?"] * len(sources), strict=True)
    corpus.write_text("".join(f"{source}\t{target}\t.\n" for source, target in pairs), encoding="utf-8", newline="\n")
    train_tokenizer(TokenizerConfig(kind=kind), corpus, 1 if targets else 0, output)
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


# --- characters ------------------------------------------------------------------------------------------------------


def test_every_date_comes_back_as_it_was_sent(dates_corpus: Corpus) -> None:
    tokenizer = Tokenizer.load(dates_corpus.tokenizer_path("source"))
    for example in dates_corpus.examples("training"):
        ids = tokenizer.encode_ids(example.source)
        assert len(ids) == len(example.source) + 1
        assert ids[-1] == EOS_ID
        assert UNK_ID not in ids
        assert tokenizer.decode(ids).text == example.source


def test_a_character_is_a_piece_and_no_other_is(dates_corpus: Corpus) -> None:
    characters = set("".join(example.source for example in dates_corpus.examples("training")))
    tokenizer = Tokenizer.load(dates_corpus.tokenizer_path("source"))
    assert len(characters) > 200
    assert " " in characters
    assert tokenizer.vocabulary_size == len(characters) + SPECIAL_PIECES
    assert len({tokenizer.encode_ids(character)[0] for character in characters}) == len(characters)


# No line break or tab can stand in a TSV file. The others SentencePiece keeps for itself: the end of a text, a
# separator, its sign for a space and its sign for the unknown. None of them is in a date.
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\t\r\n\0\x1f▁▅")
LETTERS = CHARACTERS.filter(lambda character: character != " ")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(CHARACTERS, max_size=30), max_size=4), LETTERS, st.text(st.sampled_from(" \u00a0\u3000 e\u0301"))
)
def test_characters_of_any_script_and_spaces_anywhere_come_back(
    folder: Path, texts: list[str], letter: str, spaces: str
) -> None:
    texts = [*texts, letter, spaces]  # at least one character that is no space
    tokenizer = Tokenizer.load(trained(folder, "char", texts))
    assert tokenizer.vocabulary_size == len(set("".join(texts))) + SPECIAL_PIECES
    for text in texts:
        ids = tokenizer.encode_ids(text)
        assert len(ids) == len(text) + 1
        assert UNK_ID not in ids
        assert tokenizer.decode(ids).text == text


def test_a_large_alphabet_is_known_whole(tmp_path: Path) -> None:
    """More than one sentence of SentencePiece's training, which drops sentences that are too long."""
    alphabet = [chr(0x4E00 + i) for i in range(2500)] + [" "]
    tokenizer = Tokenizer.load(trained(tmp_path, "char", ["".join(alphabet)]))
    assert tokenizer.vocabulary_size == len(alphabet) + SPECIAL_PIECES
    assert UNK_ID not in tokenizer.encode_ids("".join(alphabet))


def test_a_character_of_the_held_out_text_may_be_unknown(tmp_path: Path) -> None:
    ids = Tokenizer.load(trained(tmp_path, "char", ["ab"])).encode_ids("aΩb")
    assert [identity == UNK_ID for identity in ids] == [False, True, False, False]


# --- words -----------------------------------------------------------------------------------------------------------


def test_a_word_is_a_piece_and_no_other_is(reverse_corpus: Corpus) -> None:
    for side in ("source", "target"):
        tokenizer = Tokenizer.load(reverse_corpus.tokenizer_path(side))
        assert tokenizer.vocabulary_size == 50 + SPECIAL_PIECES
        for example in reverse_corpus.examples("training"):
            text = getattr(example, side)
            ids = tokenizer.encode_ids(text)
            assert len(ids) == len(text.split(" ")) + 1
            assert UNK_ID not in ids
            assert tokenizer.decode(ids).text == text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab1é日"), min_size=1, max_size=20), min_size=1, max_size=8))
def test_words_of_any_length_come_back(folder: Path, words: list[str]) -> None:
    tokenizer = Tokenizer.load(trained(folder, "word", [" ".join(words)]))
    ids = tokenizer.encode_ids(" ".join(words))
    assert tokenizer.vocabulary_size == len(set(words)) + SPECIAL_PIECES
    assert len(set(ids[:-1])) == len(set(words))
    assert tokenizer.decode(ids).text == " ".join(words)


def test_a_word_that_was_never_seen_is_unknown(tmp_path: Path) -> None:
    ids = Tokenizer.load(trained(tmp_path, "word", ["1 2 3"])).encode_ids("1 23 3")
    assert [identity == UNK_ID for identity in ids] == [False, True, False, False]


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["char", "word"])
def test_order_and_frequency_play_no_part(tmp_path: Path, kind: Literal["char", "word"]) -> None:
    once = trained(tmp_path, kind, ["b a", "c"])
    often = trained(tmp_path, kind, ["c c", "a b", "b", "c a"])
    other = trained(tmp_path, kind, ["c c", "a b", "b", "c d"])
    assert once.read_bytes() == often.read_bytes()
    assert once.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("kind", ["char", "word"])
def test_the_column_decides_the_side(tmp_path: Path, kind: Literal["char", "word"]) -> None:
    tokenizer = Tokenizer.load(trained(tmp_path, kind, ["a b"], targets=["x y"]))
    assert UNK_ID not in tokenizer.encode_ids("x y")
    assert UNK_ID in tokenizer.encode_ids("a")

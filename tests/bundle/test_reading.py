"""Capitals and quotation marks: what is read, where it stands in the text, and what is raised again."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.reading import in_capitals, lowered, plain_marks, raised, read, read_ids, with_spaced_marks
from service.bundle.repository import Bundle
from service.bundle.tokenizer import EOS_PIECE, Token, TokenizedText, Tokenizer
from training.config import TokenizerConfig
from training.tokenizers import train_tokenizer

WORDS = "das ist wichtig Wichtig Haus USA who sehr und"
# Capitals, letters that become two in the other case, marks of every style, spaces of several kinds.
TEXTS = st.text(alphabet=st.sampled_from("abc ABCDÄÉ ßİŉΣ „“”«»\"'’‘ ,.!\u00a0👍🏽"), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Its vocabulary is ``WORDS``."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "text.tsv").write_text(f"{WORDS}\t{WORDS}\t\n", encoding="utf-8")
    return train_tokenizer(TokenizerConfig(kind="word"), folder / "text.tsv", [0], folder / "words.spm")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("DAS IST WICHTIG!", True),
        ("USA", True),
        ("OK.", True),
        ("I", False),
        ("A 1", False),
        ("Das", False),
        ("12", False),
    ],
)
def test_a_text_is_in_capitals_with_two_of_them_and_no_small_letter(text: str, found: bool) -> None:
    assert in_capitals(text) is found


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("DAS IST SEHR LANG", "das ist sehr lang"),
        ("Das ist SEHR WICHTIG", "Das ist sehr Wichtig"),  # the form with the lower number, the more frequent one
        ("ein HAUS", "ein Haus"),  # the one that there is
        ("die USA", "die USA"),  # a word of the vocabulary
        ("die WHO", "die WHO"),  # short: "who" is another word
        ("die UNICEF", "die UNICEF"),  # unknown
        ("die LEBENSGEFAHR", "die lebensgefahr"),  # unknown, and too long for an abbreviation
        ("UNICEF", "UNICEF"),
        ("SEHR!", "sehr!"),
        ("„Haus“", '" Haus "'),
        ("Das «Haus», sehr", 'Das " Haus ", sehr'),
        ('5" und', '5 " und'),
        ('sehr"wichtig', 'sehr"wichtig'),
        ("“", '"'),
        ("Tom’s", "Tom's"),
    ],
)
def test_what_is_read(words: Tokenizer, text: str, plain: str) -> None:
    *tokens, end = read(text, words).tokens
    assert "".join(token.piece for token in tokens).replace("▁", " ").strip() == plain
    assert end.piece == EOS_PIECE
    assert read_ids(text, words) == words.encode_ids(plain)


@given(TEXTS)
def test_offsets_count_the_text_as_it_was_sent(letters: Bundle, text: str) -> None:
    tokenized = read(text, letters.source_tokenizer)
    *tokens, end = tokenized.tokens
    assert tokenized.text == text
    assert "".join(text[token.begin : token.end] for token in tokens) == text
    assert (end.begin, end.end) == (len(text), len(text))
    for token in tokens:
        if text[token.begin : token.end].isalnum() and token.piece not in ("<unk>", "▁"):
            assert text[token.begin : token.end] in (token.piece, token.piece.upper())


@given(TEXTS)
def test_words_do_not_overlap(words: Tokenizer, text: str) -> None:
    tokens = read(text, words).tokens
    assert all(before.end <= after.begin for before, after in itertools.pairwise(tokens))
    assert read_ids(text, words) == [token.id for token in tokens]


@given(TEXTS)
def test_lower_case_and_plain_marks_keep_every_place(text: str) -> None:
    assert len(lowered(text)) == len(plain_marks(text)) == len(text)
    assert plain_marks(text).translate(dict.fromkeys(map(ord, "\"'"))) == "".join(
        letter for letter in text if letter not in "„“”«»\"'’‘"
    )


@given(TEXTS)
def test_spaces_beside_marks_are_all_that_comes_in(text: str) -> None:
    assert with_spaced_marks(text).replace(" ", "") == plain_marks(text).replace(" ", "")


@given(st.lists(st.text(alphabet="ab ßŉ.é", min_size=1, max_size=4), max_size=6))
def test_a_raised_translation_has_every_token_raised_in_its_place(pieces: list[str]) -> None:
    ends = [0, *itertools.accumulate(map(len, pieces))]
    tokens = [Token(7, piece, begin, begin + len(piece)) for piece, begin in zip(pieces, ends, strict=False)]
    found = raised(TokenizedText("".join(pieces), tuple(tokens)))
    assert found.text == "".join(pieces).upper()
    assert [found.text[token.begin : token.end] for token in found.tokens] == [piece.upper() for piece in pieces]
    assert [token.piece for token in found.tokens] == pieces


def test_a_bundle_reads_as_its_manifest_says(letters: Bundle) -> None:
    plainly = replace(letters, manifest=letters.manifest.model_copy(update={"reads_plainly": True}))
    assert plainly.encode("ABC CAB").ids == plainly.encode_ids("ABC CAB") == letters.encode_ids("abc cab")
    assert letters.encode("ABC CAB").ids == letters.encode_ids("ABC CAB") != letters.encode_ids("abc cab")
    assert (plainly.raises("ABC"), plainly.raises("Abc"), letters.raises("ABC")) == (True, False, False)
    ids = letters.target_tokenizer.encode_ids("abc")
    assert (plainly.decode(ids).text, plainly.decode(ids, raise_it=True).text) == ("abc", "ABC")


def test_a_piece_before_the_text_stays_before_it(words: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "text.tsv").write_text(f"{WORDS}\t{WORDS}\t\n", encoding="utf-8")
    config = TokenizerConfig(kind="word")
    told = train_tokenizer(config, tmp_path / "text.tsv", [0], tmp_path / "told.spm", ["<2de>"])
    first, das, *_ = read("DAS IST", told, "<2de>").tokens
    assert (first.piece, first.special, first.begin, first.end) == ("<2de>", True, 0, 0)
    assert (das.piece.removeprefix("▁"), das.begin, das.end) == ("das", 0, 3)

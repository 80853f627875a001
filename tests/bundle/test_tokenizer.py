from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.errors import BundleError
from service.bundle.repository import Bundle, Repository
from service.bundle.tokenizer import EOS_ID, PAD_ID, UNK_ID, Tokenizer
from tests.conftest import EXPORTED, FAMILIES

# White space at the ends, combining marks, emoji of several code points, right-to-left, characters nobody has seen.
TEXTS = st.text(alphabet=st.sampled_from("ab c  äe\u0301👍🏽👩‍💻א年Z\u00a0\u202f."), min_size=1, max_size=40)


@given(TEXTS)
def test_offsets_of_characters_round_trip(letters: Bundle, text: str) -> None:
    tokenized = letters.source_tokenizer.encode(text)
    *tokens, end = tokenized.tokens
    assert "".join(text[token.begin : token.end] for token in tokens) == text
    assert (end.id, end.special, end.begin, end.end) == (EOS_ID, True, len(text), len(text))


@given(TEXTS)
def test_offsets_of_words_never_overlap_and_hold_no_space(numbers: Bundle, text: str) -> None:
    tokens = numbers.source_tokenizer.encode(text).tokens
    places = [(token.begin, token.end) for token in tokens]
    assert all(0 <= begin <= end <= len(text) for begin, end in places)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(places))
    for token in tokens[:-1]:
        assert not text[token.begin : token.end].startswith(" ")


@given(TEXTS)
def test_ids_are_those_of_the_tokens(letters: Bundle, text: str) -> None:
    assert letters.source_tokenizer.encode_ids(text) == letters.source_tokenizer.encode(text).ids


def test_words_carry_their_place_without_the_space_before(numbers: Bundle) -> None:
    text = "  12  7 "
    found = [
        (text[token.begin : token.end], token.begin) for token in numbers.source_tokenizer.encode(text).tokens[:-1]
    ]
    assert found == [("12", 2), ("7", 6)]


def test_decoding_gives_text_and_the_place_of_each_token(numbers: Bundle) -> None:
    ids = numbers.target_tokenizer.encode_ids("3 14 15")
    decoded = numbers.target_tokenizer.decode(ids)
    assert decoded.text == "3 14 15"
    assert [decoded.text[token.begin : token.end] for token in decoded.tokens] == ["3", "14", "15", ""]
    assert [token.special for token in decoded.tokens] == [False, False, False, True]
    unended = numbers.target_tokenizer.decode(ids[:-1])
    assert (unended.text, unended.tokens) == (decoded.text, decoded.tokens[:-1])


def test_special_tokens_give_no_text_and_keep_their_places(numbers: Bundle) -> None:
    """As a one-shot model writes them: padding and `</s>` before, between and behind the words."""
    three, four, _ = numbers.target_tokenizer.encode_ids("3 14")
    decoded = numbers.target_tokenizer.decode([PAD_ID, EOS_ID, three, PAD_ID, four, PAD_ID])
    assert decoded.text == "3 14"
    assert [(token.piece.strip("▁"), token.begin, token.end) for token in decoded.tokens] == [
        ("<pad>", 0, 0),
        ("</s>", 0, 0),
        ("3", 0, 1),
        ("<pad>", 1, 1),
        ("14", 2, 4),
        ("<pad>", 4, 4),
    ]
    assert [token.special for token in decoded.tokens] == [True, True, False, True, False, True]


def test_padding_stands_behind_the_text(numbers: Bundle) -> None:
    padded = numbers.source_tokenizer.encode("3 14").padded(5)
    assert [token.piece for token in padded.tokens[2:]] == ["</s>", "<pad>", "<pad>"]
    assert {(token.begin, token.end, token.special) for token in padded.tokens[2:]} == {(4, 4, True)}
    assert padded.padded(2) == padded


def test_an_unknown_character_is_unknown_at_its_own_place(letters: Bundle) -> None:
    tokens = letters.source_tokenizer.encode("aΩb").tokens
    assert [(token.id == UNK_ID, token.begin, token.end) for token in tokens[:-1]] == [
        (False, 0, 1),
        (True, 1, 2),
        (False, 2, 3),
    ]


def test_the_bytes_of_a_vocabulary_are_those_that_write_what_it_does_not_have(letters: Bundle) -> None:
    shipped = Tokenizer.load(max((EXPORTED / "tatoeba-de-en").glob("*/target.spm")))
    values = shipped.byte_values
    assert sorted(values.values()) == list(range(256))
    written = [values[token] for token in shipped.encode_ids("😀") if token in values]
    assert bytes(written).decode() == "😀"
    assert letters.target_tokenizer.byte_values == {}


def test_no_tokenizer_no_load() -> None:
    with pytest.raises(BundleError, match=r"source\.spm is not a SentencePiece model"):
        Tokenizer(b"something else", "source.spm")


@pytest.fixture(scope="module")
def polyglot() -> Tokenizer:
    return Repository(FAMILIES).load("polyglot", 1).source_tokenizer


def test_a_control_piece_stands_before_the_text_and_comes_from_no_text(polyglot: Tokenizer) -> None:
    tokenized = polyglot.encode("1 2", "<2x-one>")
    first, *others = tokenized.tokens
    assert (first.piece, first.begin, first.end, first.special) == ("<2x-one>", 0, 0, True)
    assert tuple(others) == polyglot.encode("1 2").tokens
    assert tokenized.ids == polyglot.encode_ids("1 2", "<2x-one>")
    assert first.id not in polyglot.encode_ids("<2x-one> 1 2")


def test_a_control_piece_among_the_ids_gives_no_text(polyglot: Tokenizer) -> None:
    ids = polyglot.encode_ids("1 2", "<2x-one>")
    decoded = polyglot.decode(ids)
    assert decoded.text == "1 2"
    assert [(token.piece, token.special) for token in decoded.tokens][::3] == [("<2x-one>", True), ("</s>", True)]


@pytest.mark.parametrize("piece", ["<2x-three>", "1", "<unk>"])
def test_what_is_no_control_piece_is_refused(polyglot: Tokenizer, piece: str) -> None:
    assert not polyglot.is_control(piece)
    with pytest.raises(ValueError, match="no control piece"):
        polyglot.encode("1", piece)

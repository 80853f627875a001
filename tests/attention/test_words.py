from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.attention.words import segment, words_of
from service.bundle.repository import Bundle
from service.bundle.tokenizer import Token

TEXTS = st.text(alphabet=st.sampled_from("ab c  'äe\u0301👍🏽\u200d年月ทZ9.,-\u00a0א"), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Wo ist der Bahnhof?", ["Wo", "ist", "der", "Bahnhof", "?"]),
        ("2018-05-09", ["2018", "-", "05", "-", "09"]),
        ("don't 'quote' rock’n’roll", ["don't", "'", "quote", "'", "rock’n’roll"]),
        ("e\u0301te\u0301 👩‍💻👍🏽 !?", ["e\u0301te\u0301", "👩‍💻", "👍🏽", "!", "?"]),
        ("2018年5月9日", ["2018", "年", "5", "月", "9", "日"]),
        ("สวัสดี", list("ส") + ["วั", "ส", "ดี"]),
        ("  ", []),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert [text[begin:end] for begin, end in segment(text)] == words


@given(TEXTS)
def test_segments_cover_all_but_white_space_in_order(text: str) -> None:
    spans = segment(text)
    assert "".join(text[begin:end] for begin, end in spans) == "".join(text.split())
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


@given(TEXTS)
def test_each_token_is_in_exactly_one_word(letters: Bundle, numbers: Bundle, text: str) -> None:
    for bundle in (letters, numbers):
        tokens = bundle.source_tokenizer.encode(text).tokens
        words = words_of(text, tokens)
        covered = [place for word in words for place in range(word.begin_token, word.end_token)]
        assert covered == list(range(len(tokens)))
        assert [word.special for word in words] == [False] * (len(words) - 1) + [True]
        assert all(word.text == text[word.begin : word.end] for word in words[:-1])


def _tokens(text: str, *pieces: str) -> list[Token]:
    """Tokens of the given pieces, one after the other, found in the text."""
    tokens, place = [], 0
    for number, piece in enumerate(pieces):
        place = text.index(piece, place)
        tokens.append(Token(10 + number, piece, place, place + len(piece)))
        place += len(piece)
    return tokens


def test_a_token_over_two_words_makes_them_one() -> None:
    text = "ab. cd"
    words = words_of(text, _tokens(text, "a", "b.", "cd"))
    assert [(word.text, word.begin_token, word.end_token) for word in words] == [("ab.", 0, 2), ("cd", 2, 3)]


def test_white_space_goes_with_the_word_after_it_and_at_the_end_with_the_word_before() -> None:
    text = " ab  cd "
    words = words_of(text, _tokens(text, " ", "a", "b", " ", " ", "cd", " "))
    assert [(word.text, word.begin, word.begin_token, word.end_token) for word in words] == [
        ("ab", 1, 0, 3),
        ("cd", 5, 3, 7),
    ]


def test_scripts_without_spaces_keep_pieces_and_say_so() -> None:
    text = "我们 ok"
    words = words_of(text, _tokens(text, "我们", "ok"))
    assert [(word.text, word.is_piece) for word in words] == [("我们", True), ("ok", False)]

"""Which words of a text are hardly looked at, which tell something, and what is left of a text without one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.attention.words import Word, words_of
from service.bundle.repository import Bundle, Repository
from service.coverage import LEAST_WEIGHT, hardly_looked_at, is_written_alike, run_around, tells_something, without
from service.sentences import Span
from tests.conftest import EXPORTED


@pytest.fixture(scope="module")
def german() -> Bundle:
    return Repository(EXPORTED).load("tatoeba-de-en", max(Repository(EXPORTED).versions()["tatoeba-de-en"]))


def words(*texts: str) -> list[Word]:
    """One token each."""
    places = np.cumsum([0, *(len(text) + 1 for text in texts)])
    return [
        Word(text, int(place), int(place) + len(text), number, number + 1)
        for number, (text, place) in enumerate(zip(texts, places, strict=False))
    ]


def test_a_word_that_any_target_token_looks_at_is_no_doubt() -> None:
    weights = np.array([[0.9, 0.1, 0.0], [0.2, 0.1, 0.7]], np.float32)
    assert [(round(most, 6), word.text) for most, word in hardly_looked_at(weights, words("a", "b", "c"))] == [
        (0.1, "b")
    ]


def test_the_weights_of_a_words_tokens_are_summed() -> None:
    two = Word("zalando", 0, 7, 0, 2)
    half = np.float32(LEAST_WEIGHT / 2)
    other = Word("in", 8, 10, 2, 3)
    assert hardly_looked_at(np.array([[half, half, half]], np.float32), [two, other]) == [(half, other)]
    ((_, found),) = hardly_looked_at(np.array([[half, 0, 1 - half]], np.float32), [two, other])
    assert found == two


@pytest.mark.parametrize(
    ("second", "doubted"), [([0.3, 0.4, 0.3], True), ([0.55, 0.0, 0.45], False), ([0.4, 0.3, 0.3], False)]
)
def test_a_word_that_no_token_looks_at_the_most_is_a_doubt_up_to_half(second: list[float], doubted: bool) -> None:
    weights = np.array([[0.36, 0.64, 0.0], second], np.float32)
    assert ("a" in [word.text for _, word in hardly_looked_at(weights, words("a", "b", "c"))]) == doubted


@pytest.mark.parametrize(
    ("word", "hardly", "run"),
    [
        ("Ryanair", ["mit", "Ryanair"], "mit Ryanair"),
        ("Ryanair", ["wir", "mit"], "wir mit Ryanair"),
        ("Ryanair", ["Ryanair"], "Ryanair"),
        ("Ryanair", ["wir", "nach", "Bonn"], "Ryanair nach Bonn"),
        ("wir", ["wir", "mit", "Bonn"], "wir mit"),
    ],
)
def test_a_run_is_what_is_hardly_looked_at_on_both_sides(word: str, hardly: list[str], run: str) -> None:
    text = "wir mit Ryanair nach Bonn"
    all_of_it = words(*text.split())
    of = {one.text: one for one in all_of_it}
    assert run_around(of[word], [of[one] for one in hardly], all_of_it).of(text) == run


def test_punctuation_and_special_tokens_are_no_words() -> None:
    end = Word("</s>", 4, 4, 2, 3, special=True)
    weights = np.array([[0.0, 0.0, 1.0]], np.float32)
    assert [word.text for _, word in hardly_looked_at(weights, [*words("ab", "!"), end])] == ["ab"]


def test_of_an_empty_translation_or_text_there_is_nothing_to_say() -> None:
    assert hardly_looked_at(np.zeros((0, 2), np.float32), words("a", "b")) == []
    assert hardly_looked_at(np.zeros((1, 0), np.float32), []) == []


UNALIGNED = frozenset(["der", "mit", "it's", "o'clock", "8"])


@pytest.mark.parametrize("word", ["IKEA", "klein", "65", "8", "XIV", "Wein", "O'Brien", "ab"])
def test_words_and_numbers_tell_something(word: str) -> None:
    assert tells_something(word, UNALIGNED)


@pytest.mark.parametrize("word", ["der", "Der", "DER", "mit", "It's", "It’s", "o'clock", "a", "I"])
def test_letters_and_what_need_not_be_looked_at_do_not(word: str) -> None:
    assert not tells_something(word, UNALIGNED)


@pytest.mark.parametrize(
    ("text", "word", "rest"),
    [
        ("Ich wohne in Bonn.", "wohne", "Ich in Bonn."),
        ("Ich wohne in Bonn.", "Bonn", "Ich wohne in ."),
        ("Gestern war ich krank.", "Gestern", "war ich krank."),
        ("„Gestern“ war", "Gestern", "„“ war"),
        ("Hallo!", "Hallo", ""),
        ("8", "8", ""),
    ],
)
def test_a_word_is_taken_out_with_a_space(text: str, word: str, rest: str) -> None:
    begin = text.index(word)
    assert without(text, Span(begin, begin + len(word))) == rest


@given(st.text(alphabet="aB1 .\t", max_size=30), st.data())
def test_nothing_else_is_taken_out(text: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, len(text)))
    rest = without(text, Span(begin, end))
    if any(map(str.isalnum, text[:begin] + text[end:])):
        assert rest.split() == (text[:begin] + text[end:]).split()
    else:
        assert rest == ""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Bei IKEA und eBay war Anna.", ["IKEA", "eBay"]),
        ("KEIN ZUTRITT!", []),
        ("Alle BürgerInnen", []),
        ("McDonald's schließt.", ["McDonald's"]),
        ("Das ist STRENG verboten.", []),
        ("Das ist NIEMALS wahr.", []),
    ],
)
def test_names_have_a_capital_after_the_first_letter(german: Bundle, text: str, names: list[str]) -> None:
    source = german.encode(text)
    pieces = [token.piece for token in source.tokens]
    found = words_of(text, source.tokens)
    assert [w.text for w in found if is_written_alike(w, text, pieces[w.begin_token : w.end_token])] == names


def test_words_have_their_places_in_the_text(german: Bundle) -> None:
    """As the model reads them: their tokens are columns of its attention."""
    source = german.encode("Bei IKEA gibt's 8 Regale.")
    found = words_of(source.text, source.tokens)
    weights = np.zeros((3, len(source.tokens)), np.float32)
    doubts = hardly_looked_at(weights, found)
    assert [source.text[word.begin : word.end] for _, word in doubts] == ["Bei", "IKEA", "gibt's", "8", "Regale"]

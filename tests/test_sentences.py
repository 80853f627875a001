"""Long texts to sentences: their places, and cutting those that no model could read."""

from __future__ import annotations

import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service import sentences
from service.sentences import Span, cut_to_fit, split_sentences

TEXTS = st.text(st.sampled_from("ab.!?…。 \n\t\u00a0\u2009😀é\u0301,;\"»«'A1中")) | st.text()
LANGUAGES = st.sampled_from(["de", "en", "fr", "es", "zh", "pt-BR", "xx", ""])


def found_in(text: str, language: str) -> list[str]:
    return [span.of(text) for span in split_sentences(text, language)]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("de", ["Hallo Dr. Müller!", "Das war am 1. Mai, z. B. in Köln.", "Wirklich?"]),
        ("en", ["Mr. Smith paid $3.50.", "“Really?” she asked.", "Yes!", "See e.g. page 5."]),
        ("de", ["Der 2. Weltkrieg endete 1945.", "Im 19. Jahrhundert?", "Das war 1999.", "Ja."]),
        ("fr", ["M. Dupont est là.", "Voici M. Dupont.", "Ça va ?", "Très bien !"]),
        ("en", ["J. S. Bach was born in 1685.", "He had 20.", "I saw Mrs. B. Smith."]),
        ("es", ["¿Dónde está el Sr. García?", "¡Allí!", "No lo sé…"]),
    ],
)
def test_abbreviations_end_no_sentence(language: str, expected: list[str]) -> None:
    assert found_in(" ".join(expected), language) == expected


def test_a_line_that_goes_on_is_one_sentence_and_a_paragraph_ends_one() -> None:
    assert found_in("This goes\non here. And\n\nthis is new", "en") == ["This goes\non here.", "And", "this is new"]


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u2003", "\u3000"])
def test_a_wide_space_behind_an_initial_is_a_space(space: str) -> None:
    text = f"Nimm den Plan{space}B{space}. Ja{space}! Nein."
    spans = split_sentences(text, "fr")
    assert len(spans) > 1
    assert spans == split_sentences(text.replace(space, " "), "fr")


@pytest.mark.parametrize("text", ["One. \u200b Two.", "One. Two. \u200b", "\ufeff \u200b One. Two."])
def test_what_cannot_be_seen_is_no_sentence_of_its_own(text: str) -> None:
    found = found_in(text, "en")
    assert len(found) == 2
    assert found[0].strip("\ufeff\u200b ") == "One."


class PanicException(BaseException):  # what Rust's panics are called
    pass


def test_a_text_that_the_splitter_cannot_read_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def panic(language: str, text: str) -> None:
        raise PanicException

    monkeypatch.setattr(sentences, "get_sentence_boundaries", panic)
    with caplog.at_level(logging.CRITICAL):
        assert split_sentences(" One. Two. ", "en") == (Span(1, 10),)


def test_to_stop_is_no_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(language: str, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentences, "get_sentence_boundaries", stop)
    with pytest.raises(KeyboardInterrupt):
        split_sentences("One. Two.", "en")


@example("A\u00a0.", "en")
@given(TEXTS, LANGUAGES)
def test_between_sentences_there_is_white_space_alone(text: str, language: str) -> None:
    end = 0
    for span in split_sentences(text, language):
        between, sentence = text[end : span.begin], span.of(text)
        assert span.begin >= end
        assert not between or between.isspace()
        assert sentence == sentence.strip() != ""
        end = span.end
    assert not text[end:].strip()


@given(TEXTS, st.integers(1, 12))
def test_pieces_fit_and_nothing_is_lost(text: str, most: int) -> None:
    stripped = text.strip()
    begin = text.index(stripped)
    span = Span(begin, begin + len(stripped))
    pieces = cut_to_fit(text, span, lambda part: len(part) <= most)
    words = stripped.split()
    if pieces is None:
        assert any(len(word) > most for word in words)
        return
    assert all(len(piece.of(text)) <= most for piece in pieces)
    assert [word for piece in pieces for word in piece.of(text).split()] == words
    assert (pieces[0].begin, pieces[-1].end) == (span.begin, span.end)


def test_a_cut_is_behind_a_clause_where_one_ends_late_enough() -> None:
    text = "one two three, four five six seven"
    cut = cut_to_fit(text, Span(0, len(text)), lambda part: len(part) <= 20)
    assert cut is not None
    assert [piece.of(text) for piece in cut] == ["one two three,", "four five six seven"]


def test_a_clause_that_ends_early_is_no_place_to_cut() -> None:
    text = "one, two three four five six seven eight"
    cut = cut_to_fit(text, Span(0, len(text)), lambda part: len(part) <= 30)
    assert cut is not None
    assert [piece.of(text) for piece in cut] == ["one, two three four five six", "seven eight"]

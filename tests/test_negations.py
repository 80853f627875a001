"""Which words deny, in the languages that are known."""

from __future__ import annotations

import re

import pytest

from service.attention.words import Word
from service.negations import denies, negations


def found(text: str, language: str) -> list[str]:
    place, words = 0, list[Word]()
    for number, word in enumerate(re.findall(r"[^\s-]+", text)):
        begin = text.index(word, place)
        place = begin + len(word)
        bare = word.strip(".,!?")
        words.append(Word(bare, begin, begin + len(bare), number, number + 1))
    return [word.text for word in negations(text, words, language)]


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        ("Hunde sind hier nicht erlaubt.", "de", ["nicht"]),
        ("KEINE HUNDE AM STRAND, NIEMALS!", "de", ["KEINE", "NIEMALS"]),
        ("Ohne dich kann mir niemand helfen.", "de-AT", ["Ohne", "niemand"]),
        ("Der Knecht vernichtet keinerlei Kleider.", "de", []),
        ("Das ist gut, nicht wahr?", "de", []),
        ("Das ist nicht gut, nicht?", "de", ["nicht"]),
        ("No dogs, we don’t and can't, I cannot.", "en", ["No", "don’t", "can't", "cannot"]),
        ("You do love him, don't you?", "en", []),
        ("You don't love him, do you?", "EN", ["don't"]),
        ("Nothing, you good-for-nothing!", "en", ["Nothing"]),
        ("We know another note about nothingness.", "en", []),
        ("Je ne sais pas, no.", "fr", []),
        ("no", "", []),
    ],
)
def test_what_denies_is_found(text: str, language: str, wanted: list[str]) -> None:
    assert found(text, language) == wanted


@pytest.mark.parametrize("word", ["niemand", "niemandem", "nirgendwo", "keins", "keineswegs", "nichts", "Weder"])
def test_every_form_counts(word: str) -> None:
    assert denies(word, "de")
    assert not denies(word, "en")
    assert not denies(word + "x", "de")

"""Names that come back with a letter or two changed, and what is none of these."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.attention.words import Word, segment
from service.names import respelled_names, unread_names


def words(text: str, tokens: int = 2) -> list[Word]:
    """Those of a text, each of so many tokens."""
    return [
        Word(text[begin:end], begin, end, tokens * place, tokens * (place + 1))
        for place, (begin, end) in enumerate(segment(text))
    ]


@pytest.mark.parametrize(
    ("text", "translation", "found"),
    [
        ("Wolfgang Amadeus Mozart was born.", "Wolfgang Adeus Mozart wurde geboren.", ["Amadeus"]),
        ("Microsoft baut.", "Mikrosoft is building.", ["Microsoft"]),
        ("At Safeway and CVS", "Bei Safway und CVS", ["Safeway"]),
        ("Wolfgang Amadeus Mozart", "Wolfgang Amadeus Mozart", []),
        ("Nolan's movie and Anna", "Nolans Film und Annas", []),
        ("on January 27, on 3 Juni", "am 27. Januar, am 3. June", []),  # beside a number: a month
        ("Belgien", "Belgium", []),  # not alike enough
        ("die Musik", "the music", []),  # no capital
        ("MICROSOFT and IKEA", "MIKROSOFT und IKEO", []),  # read in another form
        ("Jan and Bob", "Jen und Rob", []),  # too short, or with another beginning
        ("Safeway, Safway", "Safway", []),  # the text has it too
    ],
)
def test_names_that_are_respelled(text: str, translation: str, found: list[str]) -> None:
    assert [word.text for word in respelled_names(words(text), words(translation))] == found


def test_what_is_one_token_is_no_slip() -> None:
    assert respelled_names(words("Maria in Amerika"), words("Mary in America", tokens=1)) == []


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_is_found_is_of_the_text_and_not_of_the_translation(text: str, translation: str) -> None:
    found = respelled_names(words(text), words(translation))
    assert all(word.text in text and word.text not in {one.text for one in words(translation)} for word in found)
    assert respelled_names(words(text), words(text)) == []


@pytest.mark.parametrize(
    ("text", "translation", "found"),
    [
        ("Frau Nguyễn wohnt hier.", "Ms. Nguy Writer lives here.", ["Nguyễn"]),
        ("Frau Nguyễn wohnt hier.", "Ms. Nguyễn lives here.", []),
        ("Frau Nguyễn wohnt hier.", "Ms. Nguyen lives here.", []),  # as many write it
        ("Ms. Nguyễn's house", "Frau Nguyễns Haus", []),
        ("Herr Łukasz lacht.", "Mr. Kasz laughs.", ["Łukasz"]),
        ("Herr Jürgens lacht.", "Mr. Juergens laughs.", []),  # the vocabulary has its letters
        ("ein nguyễn", "a nothing", []),  # no capital
        ("NGUYỄN", "nothing", []),  # read in another form
    ],
)
def test_names_with_letters_that_cannot_be_read(text: str, translation: str, found: list[str]) -> None:
    known = frozenset("abcdefghijklmnopqrstuvwxyzäöüABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unread = unread_names(words(text), words(translation), lambda letter: letter not in known)
    assert [word.text for word in unread] == found

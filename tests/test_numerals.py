"""Numbers in words: their digits, their places, and which of them every translation has."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.numerals import begins_a_word, knows, numerals


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        ("siebenundzwanzig Jahre", "de", [("siebenundzwanzig", "27")]),
        ("dreissig und dreißig", "de-CH", [("dreissig", "30"), ("dreißig", "30")]),
        ("Neunzehnhundertvierundachtzig", "de", [("Neunzehnhundertvierundachtzig", "1984")]),
        ("zwischen fünf und fünfzig Euro", "de", [("fünfzig", "50")]),
        ("Sie hat einundvierzig Katzen und ein Haus.", "de", [("einundvierzig", "41")]),
        (
            "twenty-seven years, one hundred and twenty",
            "en",
            [("twenty-seven", "27"), ("one hundred and twenty", "120")],
        ),
        (
            "nineteen eighty-four, a forty-two-minute walk",
            "en",
            [("nineteen eighty-four", "1984"), ("forty-two", "42")],
        ),
        ("vingt et un, quatre-vingt-dix-sept", "fr", [("vingt et un", "21"), ("quatre-vingt-dix-sept", "97")]),
        ("veintidós gatos", "es", [("veintidós", "22")]),
    ],
)
def test_numbers_that_every_translation_has(text: str, language: str, wanted: list[tuple[str, str]]) -> None:
    found = [(one.span.of(text), one.digits) for one in numerals(text, language) if one.tells]
    assert found == wanted


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("ein Haus, zwölf Eier, hundert Jahre, tausend Dank, zwei Millionen Menschen", "de"),
        ("Um achtzehn Uhr dreißig, fünf vor halb drei, zwanzig nach zwei", "de"),
        ("von vierzehn bis neunzehn Uhr, vierzehn Tage, fünfzehn Minuten", "de"),
        ("ein Meter fünfzig, drei Euro neunzig, Mitte vierzig, der dreiundvierzigste, Achtung", "de"),
        ("seven thirty, ten-thirty, twenty past two, fifteen o'clock, at thirteen p.m.", "en"),
        ("the round of sixteen, thirty minutes, forty-five more minutes, the twenty-first, one point five", "en"),
        ("a hundred, a thousand, the twenties, a one-twenty shot", "en"),
        ("siebenundzwanzig", "pl"),
        ("siebenundzwanzig", ""),
    ],
)
def test_what_each_language_says_its_own_way_is_let_alone(text: str, language: str) -> None:
    assert [one for one in numerals(text, language) if one.tells] == []


def test_a_compound_has_the_number_that_it_begins_with() -> None:
    assert begins_a_word("20", "Die Zwanzigjährige", "de")
    assert begins_a_word("20", "ein zwanzigmal so hoher Berg", "de")
    assert not begins_a_word("20", "die siebenundzwanzigjährige", "de")
    assert not begins_a_word("8", "Achtung", "de")
    assert not begins_a_word("20", "Die Zwanzigjährige", "pl")


def test_languages_are_known_by_their_first_part() -> None:
    assert knows("de-AT")
    assert knows("EN")
    assert not knows("pl")
    assert not knows("")


PARTS = "zwei und twenty - hundred hundert and tausend Komma point five million uhr ein trente et mil".split()  # noqa: SIM905
TEXTS = st.text(st.characters(codec="utf-8")) | st.lists(st.sampled_from(PARTS)).map(" ".join)


@given(TEXTS, st.sampled_from(["da", "de", "en", "es", "fr", "it", "nl", "pt"]))
def test_any_text_can_be_looked_through(text: str, language: str) -> None:
    found = numerals(text, language)
    assert all(one.digits.isdecimal() and one.span.of(text).strip() for one in found)
    assert all(one.span.end <= other.span.begin for one, other in itertools.pairwise(found))
    assert all(int(one.digits) >= 13 for one in found if one.tells)
    begins_a_word("27", text, language)

"""Numbers in words: their digits, their places, and which of them every translation has."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.numerals import beginnings, knows, numerals


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
        (
            "over the past twenty years, twenty to thirty people",
            "en",
            [("twenty", "20"), ("twenty", "20"), ("thirty", "30")],
        ),
        ("Am Ende zwanzig Leute, zwanzig vor Gericht", "de", [("zwanzig", "20"), ("zwanzig", "20")]),
        ("a hundred and eighty thousand", "en", [("hundred and eighty thousand", "180000")]),
        ("between thirty and two hundred", "en", [("thirty", "30"), ("two hundred", "200")]),
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
        ("fifty-fifty, twenty fifty-dollar bills, at fifteen thirty, the nineteen-sixties, nineteen oh five", "en"),
        ("three dollars and fifty cents, twenty-five minutes after three", "en"),
        ("drei Komma vierzehn, zwei Euro und fünfzig Cent", "de"),
        ("vingt-sept ans", "fr"),
        ("siebenundzwanzig", "pl"),
        ("siebenundzwanzig", ""),
    ],
)
def test_what_each_language_says_its_own_way_is_let_alone(text: str, language: str) -> None:
    assert [one for one in numerals(text, language) if one.tells] == []


def test_a_compound_has_the_number_that_it_begins_with() -> None:
    assert beginnings("Die Zwanzigjährige, ein zwanzigmal so hoher Berg", "de") == {"20": 2}
    assert beginnings("die siebenundzwanzigjährige", "de") == {"27": 1}
    assert beginnings("Achtung, Zweifel", "de") == {}
    assert beginnings("Die Zwanzigjährige", "pl") == {}


@pytest.mark.parametrize(
    ("text", "translation"),
    [
        ("zwischen zweihundert und dreihundert Leuten", "between two hundred and three hundred people"),
        ("zwischen tausend und zweitausend Euro", "between one thousand and two thousand euros"),
        ("um dreizehn, vierzehn und fünfzehn Uhr", "at one, two and three p.m."),
        ("zwei Euro und fünfzig Cent, drei Komma vierzehn", "€2.50, 3.14"),
        ("Neunzehnhundertvierundachtzig", "nineteen eighty-four"),
        ("vierzehn lange Tage", "two long weeks"),
    ],
)
def test_nothing_is_missed_of_what_is_said_otherwise(text: str, translation: str) -> None:
    for source, target, reads, writes in ((text, translation, "de", "en"), (translation, text, "en", "de")):
        written = {one.digits for one in numerals(target, writes)}
        assert [one.digits for one in numerals(source, reads) if one.tells and one.digits not in written] == []


def test_languages_are_known_by_their_first_part() -> None:
    assert knows("de-AT")
    assert knows("EN")
    assert not knows("pl")
    assert not knows("")


PARTS = "o zwei und twenty - hundred hundert and tausend Komma point five million uhr ein trente et mil".split()  # noqa: SIM905
TEXTS = st.text(st.characters(codec="utf-8")) | st.lists(st.sampled_from(PARTS)).map(" ".join)


@given(TEXTS, st.sampled_from(["de", "en"]))
def test_any_text_can_be_looked_through(text: str, language: str) -> None:
    found = numerals(text, language)
    assert all(one.digits.isdecimal() and one.span.of(text).strip() for one in found)
    assert all(one.span.end <= other.span.begin for one, other in itertools.pairwise(found))
    assert all(int(one.digits) >= 13 for one in found if one.tells)
    assert all(digits.isdecimal() for digits in beginnings(text, language))


def test_numbers_as_long_as_a_text_are_none() -> None:
    assert not any(one.tells for one in numerals("o " * 9_000, "en"))

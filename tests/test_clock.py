"""Times of day: those that are said by the hour beside them, and whatever else may stand for them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clock import minutes, times_beside_hours


def found(text: str, language: str) -> list[tuple[str, str]]:
    return [
        (one.span.of(text), f"{one.minute // 60}:{one.minute % 60:02}") for one in times_beside_hours(text, language)
    ]


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        ("We meet at half past seven.", "en", [("half past seven", "7:30")]),
        ("Half past twelve, please.", "en-GB", [("Half past twelve", "0:30")]),
        (
            "from a quarter to nine until twenty past ten",
            "en",
            [("a quarter to nine", "8:45"), ("twenty past ten", "10:20")],
        ),
        (
            "It's ten to twelve, or 25 minutes past 7.",
            "en",
            [("ten to twelve", "11:50"), ("25 minutes past 7", "7:25")],
        ),
        ("at twenty-five past two", "en", [("twenty-five past two", "2:25")]),
        ("Wir treffen uns um halb acht.", "de", [("halb acht", "7:30")]),
        ("HALB EINS!", "de-AT", [("HALB EINS", "0:30")]),
        (
            "Um Viertel vor sieben und um Viertel nach 9",
            "de",
            [("Viertel vor sieben", "6:45"), ("Viertel nach 9", "9:15")],
        ),
        ("kurz vor fünf vor halb drei", "de", [("fünf vor halb drei", "2:25")]),
        ("Es ist zehn Minuten nach acht.", "de", [("zehn Minuten nach acht", "8:10")]),
        ("um zwanzig nach zwei Uhr", "de", [("zwanzig nach zwei", "2:20")]),
    ],
)
def test_times_said_by_the_hour_beside_them(text: str, language: str, wanted: list[tuple[str, str]]) -> None:
    assert found(text, language) == wanted


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("ten to twelve people, five to ten dollars, twenty after eight years", "en"),
        ("half to one, half past, a quarter of three, at seven thirty, at 7:30", "en"),
        ("half past thirty, quarter to 7:30, a quarter to 3.5", "en"),
        ("zehn nach acht Spielen, zwanzig vor drei Jahren, drei nach acht", "de"),
        ("um acht, um acht Uhr dreißig, um 7.30 Uhr, eine halbe Stunde, halb voll", "de"),
        ("halb acht", "nl"),
        ("half past seven", ""),
    ],
)
def test_numbers_of_things_and_times_in_full_are_none(text: str, language: str) -> None:
    assert found(text, language) == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("half past seven", "en"),
        ("seven thirty", "en"),
        ("seven-thirty", "en"),
        ("at 7:30 p.m.", "en"),
        ("halb acht", "de"),
        ("um sieben Uhr dreißig", "de"),
        ("um neunzehn Uhr dreißig", "de"),
        ("um 19.30 Uhr", "de"),
        ("7 Uhr 30", "de"),
    ],
)
def test_one_time_in_many_ways(text: str, language: str) -> None:
    assert minutes(text, language) == {7 * 60 + 30: 1}


def test_a_language_that_is_not_known_has_no_times() -> None:
    assert minutes("half past seven, 7:30", "pl") == {}


WORDS = "half past quarter viertel vor nach halb ten zehn five to uhr sieben seven twenty-five 7 12 : . a at".split()  # noqa: SIM905


@given(
    st.text(st.characters(codec="utf-8")) | st.lists(st.sampled_from(WORDS)).map(" ".join),
    st.sampled_from(["de", "en"]),
)
def test_any_text_can_be_looked_through(text: str, language: str) -> None:
    times = times_beside_hours(text, language)
    assert all(one.span.of(text).strip() == one.span.of(text) != "" for one in times)
    assert all(one.span.end <= other.span.begin for one, other in itertools.pairwise(times))
    there = minutes(text, language)
    assert all(there[one.minute] for one in times)
    assert all(0 <= minute < 720 for minute in there)

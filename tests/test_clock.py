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
        ("um fünf vor halb drei", "de", [("fünf vor halb drei", "2:25")]),
        ("Fünf nach halb zwei rief sie an.", "de", [("Fünf nach halb zwei", "1:35")]),
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
        ("half past thirty, half past 7th, half past two-thirds, quarter to 7:30, a quarter to 3.5", "en"),
        ("It takes about five to ten minutes. It's only five to ten minutes away.", "en"),
        ("The score is 20 to 12. We lost by 20 to 10. It's ten to one. The odds stood at twenty to one.", "en"),
        ("He is about ten to twelve years old, at five and twenty past seven", "en"),
        ("Inflation slowed in the third quarter to 2 percent. Shares rose a quarter to 20 dollars.", "en"),
        ("He gave a quarter to one child. A quarter to one third of all people", "en"),
        ("We met five minutes before half past seven.", "en"),
        ("zehn nach acht Spielen, zwanzig vor drei Jahren, drei nach acht", "de"),
        ("um acht, um acht Uhr dreißig, um 7.30 Uhr, eine halbe Stunde, halb voll", "de"),
        ("Ich kannte das Viertel vor zehn Jahren. Im Viertel vor ein paar Jahren.", "de"),
        ("Er ist halb ein Kind. Es kostet halb 10 Euro. Halb zehn Leute.", "de"),
        ("Platz 5 vor 12 anderen. Linie 5 nach 22 Uhr. Es sank auf 20 nach 24 %. Als Zehnter vor zwei anderen", "de"),
        ("Es ist fünf vor zwölf für das Klima.", "de"),
        ("halb acht", "nl"),
        ("half past seven", ""),
    ],
)
def test_numbers_of_things_and_times_in_full_are_none(text: str, language: str) -> None:
    assert found(text, language) == []


def test_what_has_no_sense_hides_no_time() -> None:
    assert found("Open from ten to twenty past eleven.", "en") == [("twenty past eleven", "11:20")]
    assert found("Geöffnet von zehn bis zwanzig nach elf.", "de") == [("zwanzig nach elf", "11:20")]


def test_spaces_of_any_kind_are_one() -> None:
    assert found("um  halb\u00a0acht\n", "de") == [("halb\u00a0acht", "7:30")]


@pytest.mark.parametrize(
    ("minute", "language", "text"),
    [
        ("7:30", "en", "half past seven|half-past seven|half seven|seven thirty|seven-thirty|at 7:30 p.m.|at 7:30pm"),
        ("7:30", "de", "halb acht|um sieben Uhr dreißig|um neunzehn Uhr dreißig|um 19.30 Uhr|7.30Uhr|7 Uhr 30|7h30"),
        ("7:15", "de", "Viertel nach sieben|viertel acht|fünfzehn Minuten nach sieben|sieben Uhr fünfzehn|19.15"),
        (
            "7:45",
            "de",
            "Viertel vor acht|dreiviertel acht|drei viertel acht|drei Viertel acht|sieben Uhr fünfundvierzig",
        ),
        ("7:45", "en", "a quarter to eight|quarter of eight|quarter 'til eight|fifteen minutes before eight|7.45am"),
        ("7:25", "de", "fünf vor halb acht|fünf Minuten vor halb acht|sieben Uhr fünfundzwanzig"),
        ("7:25", "en", "twenty-five past seven|five minutes before half past seven|25 minutes after seven"),
        ("0:30", "en", "half past twelve|half past midnight|twelve thirty|12:30"),
        ("0:30", "de", "halb eins|zwölf Uhr dreißig|0.30 Uhr"),
        ("1:30", "de", "halb zwei|ein Uhr dreißig|dreizehn Uhr dreißig"),
        ("8:05", "en", "five past eight|eight oh five|8:05"),
        ("8:05", "de", "fünf nach acht|acht Uhr fünf|acht Uhr und fünf Minuten|20 Uhr 5"),
    ],
)
def test_one_time_in_many_ways(minute: str, language: str, text: str) -> None:
    hour, _, rest = minute.partition(":")
    assert [way for way in text.split("|") if 60 * int(hour) + int(rest) not in minutes(way, language)] == []


def test_another_time_is_another() -> None:
    assert 7 * 60 + 30 not in minutes("um halb sieben", "de")
    assert 7 * 60 + 30 not in minutes("at half past eight", "en")
    assert 6 * 60 + 45 not in minutes("um Viertel nach sieben", "de")


def test_a_language_that_is_not_known_has_no_times() -> None:
    assert minutes("half past seven, 7:30", "pl") == frozenset()


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
    assert all(one.minute in there for one in times)
    assert all(0 <= minute < 720 for minute in there)

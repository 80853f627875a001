"""The stories tell their date, once: in the sentence itself, or its year in exactly one sentence before."""

from __future__ import annotations

import calendar
import datetime
import itertools
import re

import pytest

from training.tasks import TASKS
from training.tasks.dates import FIRST_DAY, LAST_DAY
from training.tasks.dates_in_context import (
    SENTENCES,
    attention_hits,
    context_hits,
    examples,
    year_sentence,
)
from training.tasks.example import Example

MONTHS = {name: month for names in (calendar.month_name, calendar.month_abbr) for month, name in enumerate(names)}
FOUR_DIGITS = re.compile(r"(?<!\d)\d{4}(?!\d)")


def first(count: int, seed: int) -> list[Example]:
    return list(itertools.islice(examples(seed), count))


@pytest.fixture(scope="module")
def stories() -> list[Example]:
    return first(3000, seed=11)


def masks(story: Example) -> list[str]:
    """Of the sentences before and, last, of the sentence itself."""
    return story.annotation.split("/")


def sentences(story: Example) -> list[str]:
    return [*story.context, story.source]


def shown(text: str, mask: str, field: str) -> str:
    """The characters that a mask gives to one field, which stand together."""
    runs = [name for name, _ in itertools.groupby(mask)]
    assert runs.count(field) <= 1
    return "".join(character for character, name in zip(text, mask, strict=True) if name == field)


# --- the stream ------------------------------------------------------------------------------------------------------


def test_a_seed_decides_the_stories(stories: list[Example]) -> None:
    again = examples(11)
    assert list(itertools.islice(again, 300)) == stories[:300]
    assert list(itertools.islice(again, 300)) == stories[300:600]
    assert not set(first(300, seed=12)) & set(stories)


def test_every_sentence_has_a_mask_of_its_length(stories: list[Example]) -> None:
    for story in stories:
        assert len(masks(story)) == len(story.context) + 1
        assert [len(mask) for mask in masks(story)] == [len(text) for text in sentences(story)]
        assert set(story.annotation) <= set("ymd./")


def test_up_to_three_sentences_come_before(stories: list[Example]) -> None:
    assert {len(story.context) for story in stories} == {0, 1, 2, 3}
    assert SENTENCES == TASKS["dates-in-context"].context_sentences == 3


def test_a_story_can_stand_in_a_line_of_a_tsv_file(stories: list[Example]) -> None:
    for story in stories:
        for text in (*sentences(story), story.target, story.annotation):
            assert text.strip() == text != ""
            assert not set(text) & set("\t\r\n")


def test_every_decade_and_both_orders_come(stories: list[Example]) -> None:
    days = [datetime.date.fromisoformat(story.target) for story in stories]
    assert all(FIRST_DAY <= day <= LAST_DAY for day in days)
    assert {day.year // 10 for day in days} == set(range(195, 205))
    assert {story.source.startswith("On ") for story in stories} == {True, False}


# --- where the date is told ------------------------------------------------------------------------------------------


def test_day_and_month_are_in_the_sentence_itself(stories: list[Example]) -> None:
    for story in stories:
        date = datetime.date.fromisoformat(story.target)
        own = masks(story)[-1]
        assert int(shown(story.source, own, "d")) == date.day
        month = shown(story.source, own, "m")
        assert (int(month) if month.isdecimal() else MONTHS[month]) == date.month


def test_a_weekday_in_the_sentence_itself_is_the_dates(stories: list[Example]) -> None:
    """It would tell of another year."""
    told = 0
    for story in stories:
        for weekday, name in enumerate(calendar.day_name):
            if name in story.source:
                told += 1
                assert datetime.date.fromisoformat(story.target).weekday() == weekday
    assert told > 100


def test_the_year_is_in_the_sentence_itself_or_in_one_before(stories: list[Example]) -> None:
    for story in stories:
        *before, own = masks(story)
        with_year = [place for place, mask in enumerate(before) if "y" in mask]
        if "y" in own:
            assert year_sentence(story) is None
            assert len(with_year) <= 1
            assert shown(story.source, own, "y") == story.target[:4]
        else:
            assert with_year == [year_sentence(story)]
            (place,) = with_year
            assert shown(story.context[place], before[place], "y") == story.target[:4]
            assert not FOUR_DIGITS.search(story.source)


def test_three_stories_in_four_tell_their_year_before(stories: list[Example]) -> None:
    """In every place, and with as many sentences around it as there may be."""
    places = [(year_sentence(story), len(story.context)) for story in stories]
    share = sum(place is not None for place, _ in places) / len(stories)
    assert 0.72 < share < 0.78
    with_year = {(place, count) for place, count in places if place is not None}
    assert with_year == {(place, count) for count in (1, 2, 3) for place in range(count)}


def test_what_comes_before_can_mislead(stories: list[Example]) -> None:
    """Another year where the sentence has its own; elsewhere a number like a year, and a day without one."""
    another_year, number, another_day = 0, 0, 0
    for story in stories:
        wanted = year_sentence(story)
        for place, (text, mask) in enumerate(zip(story.context, masks(story), strict=False)):
            if wanted is None and "y" in mask:
                another_year += shown(text, mask, "y") != story.target[:4]
            if wanted is not None and place != wanted:
                number += bool(FOUR_DIGITS.search(text))
                another_day += "d" in mask
            if "d" in mask:
                assert 1 <= int(shown(text, mask, "d")) <= 31
    assert another_year > len(stories) / 20
    assert number > len(stories) / 20
    assert another_day > len(stories) / 20


# --- where attention should be ---------------------------------------------------------------------------------------

#: The year stands in the second of two sentences before.
TOLD_BEFORE = Example(
    source="He left on 3 June.",
    target="1998-06-03",
    annotation="/".join(["." * 15, "...yyyy........", "...........d.mmmm."]),
    context=("Room 2031 fell.", "In 1998 we met."),
)
#: The sentence has its own year, and one before has another.
TOLD_ITSELF = Example(
    source="Go 3 May 2018.",
    target="2018-05-03",
    annotation="...yyyy./...d.mmm.yyyy.",
    context=("In 1998.",),
)
BY_HAND = pytest.mark.parametrize(("story", "place"), [(TOLD_BEFORE, 1), (TOLD_ITSELF, None)])
#: Of the source of each: a character of a field, and the end of the sentence.
DAY, MONTH, END = (11, 12), (13, 14), (18, 18)
OWN_DAY, OWN_MONTH, OWN_YEAR = (3, 4), (5, 6), (9, 10)
#: Of the context of the first: sentence, begin and end.
YEAR, NOT_THE_YEAR, NUMBER = (1, 3, 4), (1, 2, 3), (0, 5, 6)


@BY_HAND
def test_the_examples_by_hand_are_stories(story: Example, place: int | None) -> None:
    assert [len(mask) for mask in masks(story)] == [len(text) for text in sentences(story)]
    assert year_sentence(story) == place
    of_year = -1 if place is None else place
    assert shown(sentences(story)[of_year], masks(story)[of_year], "y") == story.target[:4]


def test_digits_that_the_sentence_tells_are_judged_there() -> None:
    """All eight where it has its year, and else those of month and day."""
    right = [OWN_YEAR] * 4 + [END] + [OWN_MONTH] * 2 + [END] + [OWN_DAY] * 2
    assert attention_hits(TOLD_ITSELF, right) == [True] * 8
    right = [END] * 5 + [MONTH] * 2 + [END] + [DAY] * 2
    assert attention_hits(TOLD_BEFORE, right) == [True] * 4


def test_a_digit_that_looks_elsewhere_in_the_sentence_is_a_miss() -> None:
    looked_at = [OWN_YEAR, OWN_DAY, END, OWN_YEAR, OWN_YEAR, OWN_MONTH, OWN_DAY, END, OWN_MONTH, OWN_DAY]
    assert attention_hits(TOLD_ITSELF, looked_at) == [True, False, False, True, True, False, False, True]
    looked_at = [END] * 5 + [DAY, MONTH] + [END] + [DAY, END]
    assert attention_hits(TOLD_BEFORE, looked_at) == [False, True, True, False]


def test_a_span_that_reaches_into_the_field_is_a_hit() -> None:
    """A token may be longer than a character."""
    looked_at = [(8, 10)] * 5 + [(4, 6)] * 3 + [(0, 3), (0, 4)]
    assert attention_hits(TOLD_ITSELF, looked_at) == [True] * 6 + [False, True]
    spans = [(1, 0, 4), (1, 0, 3), (1, 6, 15), (1, 7, 15)]
    assert context_hits(TOLD_BEFORE, spans + [YEAR] * 6) == [True, False, True, False]


def test_digits_of_a_year_told_before_are_judged_in_the_context() -> None:
    assert context_hits(TOLD_BEFORE, [YEAR] * 4 + [NUMBER] * 6) == [True] * 4


def test_a_digit_that_looks_elsewhere_in_the_context_is_a_miss() -> None:
    """At what is beside the year, at a number that is none, or at its place in another sentence."""
    looked_at = [YEAR, NOT_THE_YEAR, NUMBER, (0, 3, 4)] + [YEAR] * 6
    assert context_hits(TOLD_BEFORE, looked_at) == [True, False, False, False]


def test_a_year_that_the_sentence_tells_is_not_looked_for_before() -> None:
    assert context_hits(TOLD_ITSELF, [(0, 3, 4)] * 10) == []

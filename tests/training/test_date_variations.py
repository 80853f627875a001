"""Dates as people write them: every promised variation occurs, the mask still tells the truth, and no order flips."""

from __future__ import annotations

import calendar
import datetime
import itertools
import os
import random
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.tasks import TASKS, date_variations
from training.tasks.date_variations import _WIDESPREAD, _ZEROS, _Writer, variations
from training.tasks.dates import FIRST_DAY, LAST_DAY, DateFormatter
from training.tasks.example import Example

COUNT = 5000
NUMBERS = st.integers(0, 10**6)  # taken modulo the number of locales
SEEDS = st.integers(0, 2**32)
BUDDHIST_ERA = 543
WEEKDAYS = [name.casefold() for name in calendar.day_name]
MONTHS = "|".join(name.casefold() for name in calendar.month_name[1:])

Writers = dict[str, _Writer]


@pytest.fixture(scope="module")
def writers(formatters: list[DateFormatter]) -> Writers:
    """One for each locale."""
    found: Writers = {}
    for formatter in formatters:
        found.setdefault(str(formatter.locale), _Writer(formatter.locale))
    return found


@pytest.fixture(scope="module")
def found(formatters: list[DateFormatter]) -> list[Example]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(date_variations, "all_formatters", lambda: formatters)
        return list(itertools.islice(variations(1), COUNT))


@pytest.fixture(scope="module")
def dated(found: list[Example]) -> list[Example]:
    return [example for example in found if not is_nonsense(example)]


@pytest.fixture(scope="module")
def nonsense(found: list[Example]) -> list[Example]:
    return [example for example in found if is_nonsense(example)]


def is_nonsense(example: Example) -> bool:
    """A date has a year; what is none has no field at all."""
    return "y" not in example.annotation


def shown(text: str, fields: str, field: str) -> str:
    """The characters of a text that its mask gives to one field."""
    return "".join(character for character, name in zip(text, fields, strict=True) if name == field)


def in_ascii(text: str) -> str:
    """The decimal digits of a text, of whatever script."""
    values = [unicodedata.decimal(character, None) for character in text]
    return "".join(str(value) for value in values if value is not None)


def all_digits(text: str, fields: str) -> bool:
    """Is the month a number too?"""
    month = shown(text, fields, "m")
    return len(in_ascii(month)) == len(month)


def order(fields: str) -> str:
    return "".join(name for name, _ in itertools.groupby(fields) if name != ".")


def separators(text: str, fields: str) -> str:
    """What stands between the fields of a date, but for spaces and marks of direction."""
    begin = min(fields.index(name) for name in "dmy")
    end = max(fields.rindex(name) for name in "dmy")
    between = shown(text[begin:end], fields[begin:end], ".")
    return "".join(c for c in between if not c.isspace() and unicodedata.category(c) != "Cf")


def assert_shows(text: str, fields: str, target: str) -> None:
    """One run each of day, month and year; day, year, and a month in digits, are the target's."""
    date = datetime.date.fromisoformat(target)
    assert FIRST_DAY <= date <= LAST_DAY
    assert sorted(order(fields)) == ["d", "m", "y"]
    assert int(in_ascii(shown(text, fields, "d"))) == date.day
    year = in_ascii(shown(text, fields, "y"))
    assert len(year) == len(shown(text, fields, "y"))
    allowed = {(4, date.year), (2, date.year % 100), (4, date.year + BUDDHIST_ERA)}
    assert (len(year), int(year)) in allowed
    if all_digits(text, fields):
        assert int(in_ascii(shown(text, fields, "m"))) == date.month


# --- the stream ------------------------------------------------------------------------------------------------------


def test_a_seed_decides_the_examples(
    formatters: list[DateFormatter], found: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(date_variations, "all_formatters", lambda: formatters)
    assert list(itertools.islice(variations(1), 500)) == found[:500]
    assert not set(itertools.islice(variations(2), 200)) & set(found[:200])


def test_a_seed_decides_the_examples_in_every_process() -> None:
    """Python's order of a set of characters differs from process to process."""
    code = (
        "import hashlib, itertools\n"
        "from babel import Locale\n"
        "from training.tasks import date_variations as task\n"
        "from training.tasks.dates import DateFormatter\n"
        "some = [DateFormatter(Locale.parse(name), 'y') for name in sorted(set(task._WIDESPREAD))]\n"
        "task.all_formatters = lambda: some\n"
        "examples = list(itertools.islice(task.variations(1), 3000))\n"
        "print(hashlib.sha256(repr(examples).encode()).hexdigest())\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_the_task_of_dates_has_them_and_no_other() -> None:
    assert {name for name, task in TASKS.items() if task.variations is not None} == {"dates"}
    assert TASKS["dates"].variations is variations


def test_masks_are_as_long_as_their_texts_and_show_the_target(found: list[Example], dated: list[Example]) -> None:
    assert all(len(example.annotation) == len(example.source) > 0 for example in found)
    for example in dated:
        assert_shows(example.source, example.annotation, example.target)


def test_every_text_can_stand_in_a_line_of_a_file(found: list[Example]) -> None:
    for example in found:
        assert example.source.splitlines() == [example.source]
        assert "\t" not in example.source


def test_the_dates_are_of_every_decade_and_in_every_case(dated: list[Example]) -> None:
    assert {example.target[:3] for example in dated} == {str(decade) for decade in range(195, 205)}
    changeable = [example.source for example in dated if example.source.lower() != example.source.upper()]
    lower, upper = (sum(text == change(text) for text in changeable) for change in (str.lower, str.upper))
    assert lower > len(changeable) / 7
    assert upper > len(changeable) / 7
    assert lower + upper < len(changeable) * 0.8


# --- what varies -----------------------------------------------------------------------------------------------------


def matches(pattern: str) -> Callable[[Example], bool]:
    return lambda example: re.search(pattern, example.source.casefold()) is not None


def has_digits_from(zero: str) -> Callable[[Example], bool]:
    native = {chr(ord(zero) + value) for value in range(10)}
    return lambda example: bool(native & set(example.source))


def has_weekday_beside_digits(example: Example) -> bool:
    """Which no format of CLDR has."""
    others = shown(example.source, example.annotation, ".")
    return all_digits(example.source, example.annotation) and any(name in others.casefold() for name in WEEKDAYS)


def is_of_the_buddhist_era(example: Example) -> bool:
    year = in_ascii(shown(example.source, example.annotation, "y"))
    return int(year) > LAST_DAY.year


PROMISED: dict[str, Callable[[Example], bool]] = {
    "English ordinal": matches(r"\d(st|nd|rd|th)\b"),
    "ordinal sign": matches(r"\d\.?º"),
    "of": matches(rf"\d(st|nd|rd|th)? of ({MONTHS})"),
    "the": matches(r"\bthe \d"),
    "de left out": matches(r"\d de [a-z]+ \d{4}"),
    "del": matches(r" del \d{4}"),
    "shortened month": matches(r"\b(janu|febr|octo|nove|dece)\b"),
    "shortened month with a full stop": matches(r"\b(jan|oct|sept|nov|dec|janu|octo|nove|dece)\. "),
    "Thai digits": has_digits_from("๐"),
    "Arabic digits": has_digits_from("٠"),
    "Persian digits": has_digits_from("۰"),
    "Devanagari digits": has_digits_from("०"),
    "Bengali digits": has_digits_from("০"),
    "full-width digits": has_digits_from("０"),
    "Buddhist year": is_of_the_buddhist_era,
    "weekday beside digits": has_weekday_beside_digits,
    "weekday behind the date": matches(rf"\d{{4}}[ ,.]+({'|'.join(WEEKDAYS)})"),
    "doubled space": matches(r"\S  \S"),
    "space in front": matches(r"^ "),
    "space behind": matches(r" $"),
    "full stop behind": matches(r"\d{4}\.$"),
    "comma behind": matches(r",$"),
    "comma behind the day": matches(rf"\d, ({MONTHS})"),
    "no space behind a comma": matches(r"\d,\d{4}"),
    "spaces around a separator": matches(r"\d - \d|\d / \d"),
    "month between hyphens": matches(rf"\d-({MONTHS})-\d"),
    "apostrophe before the year": matches(r"'\d\d\b"),
    "no separators": matches(r"\b(19[5-9]|20[0-4])\d[01]\d[0-3]\d\b"),
}


@pytest.mark.parametrize("name", PROMISED)
def test_each_promised_variation_occurs(dated: list[Example], name: str) -> None:
    assert sum(map(PROMISED[name], dated)) >= 3


def test_most_weekdays_are_wrong_and_some_are_right(dated: list[Example]) -> None:
    """So that a model learns to pass over them."""
    right = []
    for example in dated:
        named = [day for day, name in enumerate(WEEKDAYS) if name in example.source.casefold()]
        if len(named) == 1:
            right.append(named[0] == datetime.date.fromisoformat(example.target).weekday())
    assert len(right) > 50
    assert len(right) / 10 < sum(right) < len(right) * 0.6


@pytest.mark.parametrize("name", ["en", "fr"])
def test_a_shortened_month_is_no_other_months_beginning(writers: Writers, name: str) -> None:
    """In French "jui" would be June or July; "mar" and "mai" tell each other apart."""
    generator, names = random.Random(5), writers[name].locale.months["format"]["wide"]
    months = set()
    for _ in range(2000):
        text, fields, target = writers[name].write(generator)
        if not all_digits(text, fields):
            months.add((shown(text, fields, "m").casefold().rstrip("."), int(target[5:7])))
    for month, number in months:
        assert [i for i, whole in names.items() if whole.casefold().startswith(month)] == [number]
    assert {len(month) for month, _ in months} >= {3, 4}


#: Of the days that have one: what may stand behind the number.
ORDINALS: dict[str, dict[int, set[str]]] = {
    "en": {day: {"th"} for day in range(1, 32)}
    | {1: {"st"}, 2: {"nd"}, 3: {"rd"}, 21: {"st"}, 22: {"nd"}, 23: {"rd"}, 31: {"st"}},
    "fr": {1: {"er"}},
    "es": {day: {"º", ".º", "°"} for day in range(1, 32)},
    "nl": {day: {"e", "ste", "de"} for day in range(1, 32)},  # this "de" is not the Spanish one, to be left out
}


@pytest.mark.parametrize("name", ORDINALS)
def test_an_ordinal_is_the_days_own(writers: Writers, name: str) -> None:
    """And its letters are the day's in the mask."""
    generator, wanted = random.Random(6), ORDINALS[name]
    endings: dict[int, set[str]] = {}
    for _ in range(6000):
        text, fields, target = writers[name].write(generator)
        day = shown(text, fields, "d").casefold()
        if ending := day.lstrip("0123456789"):
            endings.setdefault(int(target[8:]), set()).add(ending)
    assert endings.keys() == wanted.keys()
    assert all(endings[day] <= wanted[day] for day in wanted)
    assert endings[1] == wanted[1]


def test_only_thailand_counts_from_the_buddha(writers: Writers) -> None:
    for name in ("th", "en", "de", "km", "lo"):
        generator, eras = random.Random(7), set()
        for _ in range(300):
            text, fields, target = writers[name].write(generator)
            year = in_ascii(shown(text, fields, "y"))
            if len(year) == 4:
                eras.add(int(year) - int(target[:4]))
        assert eras == ({0, BUDDHIST_ERA} if name == "th" else {0})


def test_native_digits_are_digits() -> None:
    for zero in _ZEROS.values():
        assert [unicodedata.decimal(chr(zero + value)) for value in range(10)] == list(range(10))


def test_the_widespread_locales_are_locales(writers: Writers) -> None:
    assert writers.keys() >= set(_WIDESPREAD)


# --- what does not vary ----------------------------------------------------------------------------------------------


def writer_of(writers: Writers, number: int) -> _Writer:
    """Any but Dzongkha's, whose short names of months are numerals."""
    names = [name for name in writers if not name.startswith("dz")]
    return writers[names[number % len(names)]]


def own_numbers(writer: _Writer) -> list[tuple[str, str]]:
    """A date in the locale's own formats of digits alone."""
    rendered = [formatter.render(datetime.date(2018, 5, 9)) for formatter in writer._formatters["own"]]
    return [(text, fields) for text, fields in rendered if all_digits(text, fields)]


@settings(max_examples=200, deadline=None)
@given(NUMBERS, SEEDS)
def test_masks_show_the_target_in_every_locale(writers: Writers, number: int, seed: int) -> None:
    writer, generator = writer_of(writers, number), random.Random(seed)
    for _ in range(5):
        text, fields, target = writer.write(generator)
        assert len(fields) == len(text)
        assert_shows(text, fields, target)


@settings(max_examples=200, deadline=None)
@given(NUMBERS, SEEDS)
def test_day_and_month_never_change_places(writers: Writers, number: int, seed: int) -> None:
    """Digits alone keep the order of the locale's own, or have the year in front: else 9/5 would mean two days."""
    writer, generator = writer_of(writers, number), random.Random(seed)
    own = {order(fields) for _, fields in own_numbers(writer)}
    for _ in range(10):
        text, fields, _ = writer.write(generator)
        if all_digits(text, fields):
            assert order(fields) in own | {"ymd"}, (text, own)


@settings(max_examples=200, deadline=None)
@given(NUMBERS, SEEDS)
def test_a_two_digit_year_among_digits_keeps_the_separators(writers: Writers, number: int, seed: int) -> None:
    """They alone say where it was written, and so what is the month."""
    writer, generator = writer_of(writers, number), random.Random(seed)
    own = {separators(text, fields) for text, fields in own_numbers(writer) if fields.count("y") == 2}
    for _ in range(10):
        text, fields, _ = writer.write(generator)
        if all_digits(text, fields) and fields.count("y") == 2:
            assert separators(text, fields) in own, text


@pytest.mark.parametrize(
    ("name", "orders", "separator"),
    [("de", {"dmy", "ymd"}, ".."), ("en", {"mdy", "ymd"}, "//"), ("ko", {"ymd"}, "..")],
)
def test_germans_and_americans_do_not_write_alike(
    writers: Writers, name: str, orders: set[str], separator: str
) -> None:
    """Long years come with any separator, short ones with the locale's; both in the locale's order."""
    generator = random.Random(8)
    long, short = set(), set()
    for _ in range(2000):
        text, fields, _ = writers[name].write(generator)
        if all_digits(text, fields):
            (long if fields.count("y") == 4 else short).add((order(fields), separators(text, fields)))
    assert {found for found, _ in long} == orders
    assert {found for _, found in long} >= {"--", "//", "..", ""}
    assert {found for found, _ in short} <= orders
    assert {found for _, found in short} == {separator}


# --- what is no date -------------------------------------------------------------------------------------------------


def test_about_one_text_in_twenty_is_no_date(nonsense: list[Example]) -> None:
    assert 0.04 < len(nonsense) / COUNT < 0.06
    assert all(set(example.annotation) == {"."} for example in nonsense)


NO_DATES = {
    "impossible numbers": r"\d{2,4}([-/. ])\d{2,4}\1\d{2,4}",
    "impossible day": r"[3-9]\d [A-Z][a-z]+ \d{4}",
    "signs": r"[-/.,: 0-9]{1,12}",
    "words": r"[A-Za-z]+( [A-Za-z]+)*",
    "letters and digits in disorder": r"(?=.*[^\W\d])(?=.*\d.*\d.*\d)(?!.*\d [A-Z][a-z]+ \d{4}).{8,}",
}


@pytest.mark.parametrize("kind", NO_DATES)
def test_each_kind_of_no_date_occurs(nonsense: list[Example], kind: str) -> None:
    assert sum(re.fullmatch(NO_DATES[kind], example.source) is not None for example in nonsense) >= 10


def test_what_is_no_date_means_any_date(nonsense: list[Example]) -> None:
    """So that no answer can be likely: not even what the text seems to say."""
    assert {example.target[:3] for example in nonsense} == {str(decade) for decade in range(195, 205)}
    assert {example.target[5:7] for example in nonsense} == {f"{month:02d}" for month in range(1, 13)}
    assert len({example.target[8:] for example in nonsense}) > 25
    # Of texts in disorder the numbers are left: they would tell the year, were the target that of the text.
    shuffled = [e for e in nonsense if re.fullmatch(NO_DATES["letters and digits in disorder"], e.source)]
    told = [not Counter(example.target[:4]) - Counter(in_ascii(example.source)) for example in shuffled]
    assert sum(told) < len(told) * 0.4
    impossible = [example for example in nonsense if re.fullmatch(NO_DATES["impossible day"], example.source)]
    assert len(impossible) > 25
    assert all(int(example.source[:2]) > 31 for example in impossible)
    assert sum(example.source[-4:] == example.target[:4] for example in impossible) <= 3
    assert len({example.target[:3] for example in impossible}) >= 7
    assert len({example.target[5:7] for example in impossible}) >= 9

"""Places in sentences: each filled, the same on both sides or as each language writes it, and the same each time."""

from __future__ import annotations

import random
import re
from datetime import datetime, time
from pathlib import Path

import pytest

from training.augmentation import augmented
from training.config import AugmentConfig, TsvFile
from training.tasks import Example
from training.templates import Values, wrong_places

SHIPPED = Path("training/texts/templates.de-en.tsv")
TEMPLATES = [Example(*line.split("\t"), "") for line in SHIPPED.read_text(encoding="utf-8").splitlines()]


def fill(source: str, target: str, count: int = 200, languages: tuple[str, str] = ("de", "en")) -> list[Example]:
    values = Values(languages, random.Random(1))
    return [values.fill(Example(source, target, "")) for _ in range(count)]


def test_every_place_of_the_shipped_templates_is_filled_and_no_line_is_there_twice() -> None:
    values = Values(("de", "en"), random.Random(3))
    assert len({template.source for template in TEMPLATES}) == len(TEMPLATES) > 150
    for template in TEMPLATES:
        assert not wrong_places(template)
        pair = values.fill(template)
        assert not re.search(r"[{}\t\n]|\.\.$|  ", pair.source + pair.target)
        assert pair.source.strip() == pair.source != ""
        assert pair.target.strip() == pair.target != ""


@pytest.mark.parametrize(
    "kind",
    [
        "first",
        "last",
        "street",
        "company",
        "phone",
        "mail",
        "address",
        "tag",
        "emoji",
        "sum",
        "man",
        "woman",
        "file",
        "foreign",
    ],
)
def test_what_is_copied_is_the_same_on_both_sides_and_another_each_time(kind: str) -> None:
    found = fill(f"Das ist {{{kind}}}", f"This is {{{kind}}}")
    drawn = {pair.source.removeprefix("Das ist ") for pair in found}
    assert {pair.target.removeprefix("This is ") for pair in found} == drawn
    assert len(drawn) > 60


def test_a_place_may_be_there_twice_with_the_same_value_and_a_second_has_its_own() -> None:
    for pair in fill("{number} {number.2} {number}", "{number.2} {number}"):
        first, second, again = pair.source.split()
        assert first == again
        assert pair.target == f"{second} {first}"
    assert sum(len(set(pair.source.split())) > 1 for pair in fill("{year} {year.2}", "{year.2}")) > 190


def moment(text: str) -> time:
    """As either language has it."""
    text = text.replace(".", "").upper() if text[-1] in ".mM" else text.removesuffix(" Uhr").replace(".", ":")
    forms = ["%I:%M%p", "%I%p"] if text.endswith("M") else ["%H:%M", "%H"]
    for form in forms:
        try:
            return datetime.strptime(text.replace(" ", ""), form).time()  # noqa: DTZ007
        except ValueError:
            continue
    raise AssertionError(text)


@pytest.mark.parametrize("languages", [("de", "en"), ("en", "de")])
def test_a_time_of_day_is_the_same_one_in_all_its_forms(languages: tuple[str, str]) -> None:
    found = fill("{time}", "{time}", 500, languages)
    assert all(moment(pair.source) == moment(pair.target) for pair in found)
    written = {pair.target[-4:] if languages[1] == "en" else pair.target[-3:] for pair in found}
    assert written == ({"a.m.", "p.m."} if languages[1] == "en" else {"Uhr"})
    assert {moment(pair.target).hour for pair in found} == set(range(24))


@pytest.mark.parametrize(
    ("german", "english"),
    [
        ("halb acht", "half past seven"),
        ("Viertel nach zwölf", "a quarter past twelve"),
        ("Viertel vor eins", "a quarter to one"),
        ("ein Uhr", "one o'clock"),
    ],
)
def test_times_in_words_are_the_same_on_both_sides(german: str, english: str) -> None:
    found = {pair.source: pair.target for pair in fill("{spoken}", "{spoken}", 600)}
    assert len(found) == 48
    assert found[german] == english
    assert {pair.target for pair in fill("{spoken}", "{spoken}", 600, ("en", "de"))} == found.keys()


def test_streets_are_such_as_their_articles_fit() -> None:
    streets = {pair.source for pair in fill("{street}", "{street}", 500)}
    assert all(re.search("(straße|allee|gasse| Street| Road| Avenue)$", street) for street in streets)


def test_days_are_as_each_language_writes_them_and_regions_as_their_language() -> None:
    assert all(re.fullmatch(r"\d+\. \S+", pair.source) for pair in fill("{day}", "{day}", 50))
    assert all(re.fullmatch(r"\d+(er)? \S+", pair.source) for pair in fill("{day}", "{day}", 50, ("fr", "en")))
    assert all(pair.source.endswith(" Uhr") for pair in fill("{time}", "{time}", 50, ("de-AT", "en-GB")))


def test_other_languages_write_times_as_babel_does() -> None:
    assert {pair.source for pair in fill("{time}", "{time}", 20, ("fr", "en"))} <= {
        f"{hour:02}:{minute:02}" for hour in range(24) for minute in range(60)
    }


def test_amounts_have_the_marks_of_each_language_and_all_of_their_digits() -> None:
    for pair in fill("{amount}", "{amount}", 500):
        number, sign = pair.source.rsplit(" ", 1)
        assert pair.target[0] == sign
        assert number.translate(str.maketrans(",.", ".,")) == pair.target[1:]


def test_a_sentence_that_ends_in_an_abbreviation_has_one_full_stop() -> None:
    for pair in fill("Er kommt um {time}.", "He comes at {time}."):
        assert re.fullmatch(r"He comes at \d+(:\d\d)? [ap]\.m\.", pair.target)
        assert re.fullmatch(r"Er kommt um \d+([:.]\d\d)? Uhr\.", pair.source)


def test_a_place_that_there_is_not_is_named() -> None:
    told = wrong_places(Example("{first} {place} {last.2} {} {last.12} {First} {day", "{last.2} {year}", ""))
    assert told == {"{first}", "{place}", "{}", "{last.12}", "{First}", "{day", "{year}"}


def test_templates_come_after_their_share_of_the_pairs_and_the_same_each_time() -> None:
    pairs = [Example(f"Satz {number}.", f"Sentence {number}.", "") for number in range(1000)]
    templates = [Example("{first} ist da.", "{first} is here.", "")]
    settings = AugmentConfig(templated=0.2, templates=TsvFile(tsv=Path("unread")))
    found = list(augmented(pairs, settings, ("de", "en"), templates=templates))
    assert [pair for pair in found if pair in set(pairs)] == pairs
    assert 160 < len(found) - len(pairs) < 240
    assert found == list(augmented(pairs, settings, ("de", "en"), templates=templates))
    with pytest.raises(ValueError, match="none are named"):
        list(augmented(pairs, settings, templates=templates))


def test_with_templates_names_of_people_stand_in_other_pairs_too() -> None:
    pair = Example("Tom rief.", "Tom called.", "")
    settings = AugmentConfig(renamed=1.0, templated=0.01, templates=TsvFile(tsv=Path("unread")))
    templates = [Example("{first}", "{first}", "")]
    found = [
        one for one in augmented([pair] * 300, settings, ("de", "en"), templates=templates) if "rief" in one.source
    ]
    full = [one for one in found if re.fullmatch(r"\S+ \S+ rief\.", one.source)]
    assert len(full) > 30
    assert all(one.source.replace("rief", "called") == one.target for one in found)

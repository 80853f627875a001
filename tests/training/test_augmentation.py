"""Pairs made of pairs: how many, of what, the same on both sides where they should be, and the same each time."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.training.conftest import ignore_progress, tiny_values
from training.augmentation import augmented
from training.config import AugmentConfig, Config, TsvFile
from training.corpus import prepare
from training.tasks import Example

PAIRS = [Example(f"Satz Nummer {number}.", f"Sentence number {number}.", "") for number in range(2000)]


def made(settings: AugmentConfig, pairs: list[Example] = PAIRS) -> list[Example]:
    """What was made, without what it was made of."""
    known = set(pairs)
    return [pair for pair in augmented(pairs, settings) if pair not in known]


def test_without_a_share_nothing_is_made() -> None:
    assert list(augmented(PAIRS, AugmentConfig())) == PAIRS


@pytest.mark.parametrize("kind", ["upper_case", "unpunctuated", "joined", "copied"])
def test_a_share_is_made_and_every_pair_stays_in_order(kind: str) -> None:
    settings = AugmentConfig.model_validate({kind: 0.25})
    found = list(augmented(PAIRS, settings))
    assert [pair for pair in found if pair in set(PAIRS)] == PAIRS
    assert 0.2 < (len(found) - len(PAIRS)) / len(PAIRS) < 0.3
    assert found == list(augmented(PAIRS, settings))
    assert found != list(augmented(PAIRS, settings.model_copy(update={"seed": 2})))


def test_upper_case_is_of_both_sides() -> None:
    assert made(AugmentConfig(upper_case=1.0), PAIRS[:1]) == [Example("SATZ NUMMER 0.", "SENTENCE NUMBER 0.", "")]


def test_a_respelled_source_has_no_eszett_and_half_of_them_no_umlauts() -> None:
    pair = Example("Ärger in der Straße", "Trouble in the street", "")
    swiss, ascii_only = ("Ärger in der Strasse", "Aerger in der Strasse")
    found = [made(AugmentConfig(respelled=1.0, seed=seed), [pair]) for seed in range(20)]
    assert {one.source for (one,) in found} == {swiss, ascii_only}
    assert {one.target for (one,) in found} == {pair.target}
    capitals = made(AugmentConfig(respelled=1.0, seed=1), [Example("MÜNCHEN", "MUNICH", "")] * 20)
    assert {one.source for one in capitals} == {"MUENCHEN"}
    assert made(AugmentConfig(respelled=1.0), PAIRS) == []  # there is nothing to respell


def test_a_source_typed_carelessly_has_a_target_with_its_capitals() -> None:
    found = made(AugmentConfig(unpunctuated=1.0))
    lower = 0
    for pair, plain in zip(found, PAIRS, strict=True):
        without = plain.source.rstrip(".")
        assert pair.source in (without, without.lower())
        assert pair.target == plain.target.rstrip(".")
        lower += pair.source.islower()
    assert 0.4 < lower / len(found) < 0.6
    question = Example("Wo bist du?", "Where are you?", "")
    assert {pair.target for pair in made(AugmentConfig(unpunctuated=1.0), [question])} == {"Where are you?"}
    assert made(AugmentConfig(unpunctuated=1.0), [Example("...", "...", "")]) == []


def test_joined_pairs_are_of_earlier_ones_and_keep_their_places() -> None:
    seen, lengths = 0, set()
    for pair in augmented(PAIRS, AugmentConfig(joined=1.0)):
        numbers = [part.removeprefix("Satz Nummer ") for part in pair.source.split(". ")]
        assert pair.target == " ".join(f"Sentence number {number.rstrip('.')}." for number in numbers)
        assert max(int(number.rstrip(".")) for number in numbers) <= seen
        seen += len(numbers) == 1
        lengths.add(len(numbers))
    assert lengths == {1, 2, 3, 4}


def test_what_is_made_keeps_the_target_language_and_joins_none_with_another() -> None:
    pairs = [
        Example(f"Satz {language} {number}.", f"Sentence {language} {number}.", language)
        for number in range(100)
        for language in ("de", "fr")
    ]
    settings = AugmentConfig(upper_case=0.5, unpunctuated=0.5, joined=1.0, copied=0.5)
    found = list(augmented(pairs, settings))
    assert any(example.source.count("Satz") > 1 for example in found)
    for example in found:
        other = {"de": "fr", "fr": "de"}[example.annotation]
        assert f" {other} " not in f"{example.source} {example.target}".lower()


def test_a_name_or_a_number_of_both_sides_becomes_another_on_both() -> None:
    pair = Example(
        "Tom kaufte am 3.10. in Boston 12 Brote für Maria.", "Tom bought 12 loaves for Mary in Boston on 3.10.", ""
    )
    names, cities = [], []
    for example in made(AugmentConfig(renamed=1.0), [pair] * 100):
        found = re.fullmatch(r"(.+) kaufte am (\d\.\d\d)\. in (.+) ([1-9]\d) Brote für Maria\.", example.source)
        assert found is not None
        name, date, city, count = found.groups()
        assert example.target == f"{name} bought {count} loaves for Mary in {city} on {date}."
        names.append(name)
        cities.append(city)
    assert len(set(names)) > 25
    assert len(set(cities)) > 25
    assert {"Tom", "Boston"} < {*names, *cities}  # now and then a name of the corpus


def test_a_word_that_stands_twice_or_on_one_side_keeps_its_name() -> None:
    pairs = [Example("Tom rief Tom.", "Tom called Tom.", ""), Example("Maria rief.", "Mary called.", "")]
    assert made(AugmentConfig(renamed=1.0), pairs) == []


def test_quotation_marks_of_any_style_become_plain_ones() -> None:
    found = made(AugmentConfig(quoted=1.0))
    same = {"(": ")", "[": "]", "*": "*", "<b>": "</b>", "<p>": "</p>"}
    marks = set()
    for example, plain in zip(found, PAIRS, strict=True):
        begin, end = example.source.split(plain.source)
        assert example.target == (f"{begin}{plain.target}{end}" if begin in same else f'"{plain.target}"')
        assert end == same.get(begin, end)
        marks.add(begin)
    assert marks == set('„“»«‚‘"([*') | {"<b>", "<p>"}


def test_what_is_copied_stands_in_the_same_place_of_both_sides() -> None:
    found = made(AugmentConfig(copied=1.0))
    places: Counter[str] = Counter()
    for pair, plain in zip(found, PAIRS, strict=True):
        if pair.source.endswith(plain.source):
            places["before"] += 1
            text = pair.source.removesuffix(f" {plain.source}")
            assert pair.target == f"{text} {plain.target}"
        elif pair.source.startswith(plain.source):
            places["after"] += 1
            text = pair.source.removeprefix(f"{plain.source} ")
            assert pair.target == f"{plain.target} {text}"
        else:
            places["alone"] += 1
            text = pair.source
            assert pair.target == text
        assert text.strip()
    assert all(0.2 < places[place] / len(found) < 0.5 for place in ("before", "after", "alone"))
    letters = "".join(pair.source for pair in found)
    assert all(any(first <= letter <= last for letter in letters) for first, last in ("09", "αω", "ая", "一龥", "😀🙏"))


def test_a_name_is_copied_beside_a_sentence_and_never_alone() -> None:
    """A word by itself is a word to translate."""
    sources = {pair.source for pair in PAIRS}
    alone = [pair.source for pair in made(AugmentConfig(copied=1.0)) if not any(s in pair.source for s in sources)]
    assert len(alone) > 100
    assert not any(re.fullmatch(r"[A-ZÄÖÜÉ][a-zäöüßé]{4,}", text) for text in alone)


def test_dates_and_numbers_are_as_each_language_writes_them() -> None:
    settings = AugmentConfig(formatted=1.0)
    plain = Example("Ja.", "Yes.", "")
    found = {
        (pair.source.replace("Ja.", "").strip(), pair.target.replace("Yes.", "").strip())
        for pair in augmented([plain] * 3000, settings, ("de", "en"))
        if pair != plain
    }
    dates = {source: target for source, target in found if re.fullmatch(r"\d+\. [A-Z][a-zä]+ \d{4}", source)}
    assert len(dates) > 300
    for source, target in dates.items():
        day, month, year = source.replace(".", "").split()
        assert re.fullmatch(rf"[A-Z][a-z]+ {day}, {year}", target)
        assert month[0] == target[0] or {month, target.split()[0]} in ({"Dezember", "December"}, {"Oktober", "October"})
    amounts = [(source, target) for source, target in found if source.endswith("€")]
    assert len(amounts) > 50
    for source, target in amounts:
        number = source.removesuffix(" €").replace(".", "").replace(",", ".")
        assert target.removeprefix("€").replace(",", "") == number
    assert any(re.fullmatch(r"1\d:\d\d", source) and target.endswith("PM") for source, target in found)
    with pytest.raises(ValueError, match="none are named"):
        list(augmented([plain], settings))


def test_a_source_in_lower_case_is_as_capitals_are_read() -> None:
    pair = Example("Die Straße in Übersee.", "The road overseas.", "")
    assert made(AugmentConfig(lower_case=1.0), [pair]) == [Example("die strasse in übersee.", "The road overseas.", "")]
    assert made(AugmentConfig(lower_case=1.0), [Example("12.", "12.", "")]) == []


FRAMES = [Example('"{}", sagte er.', '"{,}" he said.', ""), Example('Er sagte: "{.}"', 'He said, "{.}"', "")]


@pytest.mark.parametrize(
    ("source", "target", "spoken"),
    [
        ("Ich bin da.", "I'm here.", [('"Ich bin da", sagte er.', '"I\'m here," he said.')]),
        ("Bist du da?", "Are you here?", [('"Bist du da?", sagte er.', '"Are you here?" he said.')]),
        ("Ja", "Yes", [('"Ja", sagte er.', '"Yes," he said.')]),
        ("Ja...", "Yes...", [('"Ja...", sagte er.', '"Yes..." he said.')]),
        ("Was ist {}?", "What's {.}?", [('"Was ist {}?", sagte er.', '"What\'s {.}?" he said.')]),
    ],
)
def test_direct_speech_has_the_marks_of_its_frame(source: str, target: str, spoken: list[tuple[str, str]]) -> None:
    pair, found = Example(source, target, ""), set[tuple[str, str]]()
    for seed in range(20):
        settings = AugmentConfig(framed=1.0, frames=TsvFile(tsv=Path("unread")), seed=seed)
        (_, one) = augmented([pair], settings, frames=FRAMES)
        found.add((one.source, one.target))
    assert found == {*spoken, (f'Er sagte: "{source}"', f'He said, "{target}"')}


def test_what_is_in_quotation_marks_is_not_framed() -> None:
    pair = Example("„Ja“, sagte er.", '"Yes," he said.', "")
    settings = AugmentConfig(framed=1.0, frames=TsvFile(tsv=Path("unread")))
    assert list(augmented([pair], settings, frames=FRAMES)) == [pair]


@pytest.mark.parametrize(("share", "files"), [("framed", "frames"), ("templated", "templates")])
def test_a_share_without_its_file_is_refused(share: str, files: str) -> None:
    with pytest.raises(ValueError, match=rf"{share} is 0\.5, and no {files} are named"):
        AugmentConfig.model_validate({share: 0.5})


def test_only_training_is_augmented(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in PAIRS[:300]), encoding="utf-8")
    held_out = {"validation": 10, "test": 10}
    sizes = {}
    for share in (0.0, 1.0):
        values = tiny_values(tmp_path / str(share))
        values["corpus"] = {"kind": "files", "training": [{"tsv": path}], "held_out": held_out}
        values["corpus"]["augment"] = {"upper_case": share}
        corpus = prepare(Config.model_validate(values), ignore_progress)
        sizes[share] = [len(list(corpus.examples(part))) for part in ("training", "validation", "test")]
        held = itertools.chain(corpus.examples("validation"), corpus.examples("test"))
        assert not any(example.source.isupper() for example in held)
    assert sizes == {0.0: [280, 10, 10], 1.0: [560, 10, 10]}

"""Files to clean pairs: what is read, what is refused and counted, and that nothing of the held-out parts leaks."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from service.bundle.tokenizer import UNK_ID
from tests.training.conftest import ignore_progress, tiny_values
from training.config import Config, FileCorpus
from training.corpus import Corpus, prepare
from training.errors import CorpusError
from training.tasks import Example
from training.text_files import Report, group_key, normalize, split_files

SIDES = ("source", "target")
Pair = tuple[str, str]
Split = dict[str, list[Pair]]
#: Filters that refuse next to nothing.
OPEN = {"max_words": 10**6, "max_characters": 10**9, "max_ratio": 1e9, "duplicates": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For files that one example writes and the next one overwrites."""
    return tmp_path_factory.mktemp("files")


def write(path: Path, lines: list[str]) -> Path:
    """Lines to a file, a .gz packed."""
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def tsv(path: Path, pairs: list[Pair]) -> dict[str, Any]:
    write(path, [f"{source}\t{target}" for source, target in pairs])
    return {"tsv": path}


def side_by_side(folder: Path, sources: list[str], targets: list[str], suffix: str = "") -> dict[str, Any]:
    paths = folder / f"text.source{suffix}", folder / f"text.target{suffix}"
    return {side: write(path, lines) for side, path, lines in zip(SIDES, paths, (sources, targets), strict=True)}


def corpus_of(folder: Path, *training: dict[str, Any], **more: Any) -> FileCorpus:
    """Training files, and a pair for validation and test each, unless told otherwise."""
    values: dict[str, Any] = {"kind": "files", "training": list(training), **more}
    if "held_out" not in more:
        for part in ("validation", "test"):
            if part not in values:
                values[part] = [tsv(folder / f"default.{part}.tsv", [(f"the {part} of it", f"das ist {part}")])]
    return FileCorpus.model_validate(values)


def read(corpus: FileCorpus) -> tuple[Split, Report]:
    """Every part's pairs, and what became of the lines."""
    report = Report()
    found = split_files(corpus, report)
    return {part: [(pair.source, pair.target) for pair in found[part]] for part in found}, report


def training_of(folder: Path, *files: dict[str, Any], **more: Any) -> list[Pair]:
    return read(corpus_of(folder, *files, **more))[0]["training"]


PAIRS = [("good morning", "guten Morgen"), ("thank you", "danke schön"), ("日本", "Japan")]


# --- forms of files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_columns_and_parallel_files_are_read_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    sources, targets = [source for source, _ in PAIRS], [target for _, target in PAIRS]
    for entry in (
        tsv(tmp_path / f"pairs.tsv{suffix}", PAIRS),
        side_by_side(tmp_path, sources, targets, suffix),
    ):
        found, report = read(corpus_of(tmp_path, entry))
        assert found["training"] == PAIRS
        assert report.refused == Counter()
        assert report.malformed == []


def test_files_of_both_forms_are_one_corpus_in_their_order(tmp_path: Path) -> None:
    entries = [
        tsv(tmp_path / "one.tsv", PAIRS[2:]),
        side_by_side(tmp_path, ["good morning"], ["guten Morgen"]),
        tsv(tmp_path / "other.tsv.gz", PAIRS[1:2]),
    ]
    assert training_of(tmp_path, *entries) == [PAIRS[2], PAIRS[0], PAIRS[1]]


def test_the_columns_may_be_any(tmp_path: Path) -> None:
    """Tatoeba's and others' have numbers and sources of their own."""
    path = write(tmp_path / "five.tsv", ["1\tguten Tag\t2\tgood day\tby someone", "3\tja\t4\tyes"])
    entry = {"tsv": path, "source_column": 4, "target_column": 2}
    assert training_of(tmp_path, entry) == [("good day", "guten Tag"), ("yes", "ja")]


def test_lines_may_end_as_anywhere_and_the_last_need_not(tmp_path: Path) -> None:
    path = tmp_path / "windows.tsv"
    path.write_bytes(b"yes\tja\r\nno\tnein")
    assert training_of(tmp_path, {"tsv": path}) == [("yes", "ja"), ("no", "nein")]


def test_named_parts_are_read_as_they_stand(tmp_path: Path) -> None:
    parts = {
        part: [tsv(tmp_path / f"{part}.tsv", [(f"{part} {i}", f"{i} {part}") for i in range(3)])] for part in PARTS
    }
    found, report = read(corpus_of(tmp_path, tsv(tmp_path / "training.tsv", PAIRS), **parts))
    assert found == {"training": PAIRS} | {part: [(f"{part} {i}", f"{i} {part}") for i in range(3)] for part in PARTS}
    assert report.lines == 9


PARTS = ("validation", "test")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes("one\teins\ntwo\tzwei\n".encode("utf-8-sig"))
    assert training_of(tmp_path, {"tsv": path}) == [("one", "eins"), ("two", "zwei")]


def test_what_is_made_is_like_nothing_that_is_held_out(tmp_path: Path) -> None:
    """Of three names that take each other's places sooner or later, one is held out."""
    names = ("Anna", "Ben", "Carla")
    pairs = [(f"{name} kam am {day}.", f"{name} came on day {day}.") for name in names for day in range(9)]
    held = [(f"{name} kam am {day}.", f"{name} came on day {day}.") for name in names for day in range(9, 90, 7)]
    training, validation = tsv(tmp_path / "pairs.tsv", pairs), tsv(tmp_path / "held.tsv", held)
    augment = {"renamed": 1.0}
    found, report = read(corpus_of(tmp_path, *[training] * 20, validation=[validation], augment=augment, filters=OPEN))
    assert report.refused["made, and like one that is held out"] > 0
    for side in SIDES:
        assert not keys(found["training"], side) & keys(found["validation"], side)


def test_a_file_may_be_repeated_and_kept_from_being_held_out(tmp_path: Path) -> None:
    """But for a pair that is like one that is held out; and what is held out is what would be without the file."""
    plain = tsv(tmp_path / "plain.tsv", numbered(50))
    held_out = {"validation": 5, "test": 5}
    alone, _ = read(corpus_of(tmp_path, plain, held_out=held_out))
    few = [("ja", "yes"), ("nein", "no"), alone["test"][0]]
    own = tsv(tmp_path / "own.tsv", few) | {"repeat": 3, "may_be_held_out": False}
    augment = {"upper_case": 1.0}
    found, _ = read(corpus_of(tmp_path, plain, own, held_out=held_out, augment=augment))
    assert {part: found[part] for part in PARTS} == {part: alone[part] for part in PARTS}
    counts = Counter(found["training"])
    assert counts["ja", "yes"] == counts["nein", "no"] == counts["JA", "YES"] == 3
    assert alone["test"][0] not in counts


def test_a_repeated_file_is_read_as_often_whatever_others_have(tmp_path: Path) -> None:
    plain = tsv(tmp_path / "plain.tsv", [("hallo", "hello"), ("ja", "yes"), ("ja", "yes")])
    own = tsv(tmp_path / "own.tsv", [("hallo", "hello"), ("moin", "hello"), ("moin", "hello")]) | {"repeat": 3}
    counts = Counter(training_of(tmp_path, plain, own))
    assert counts == {("hallo", "hello"): 4, ("ja", "yes"): 1, ("moin", "hello"): 3}


def test_a_share_of_a_file_is_chosen_by_what_it_says(tmp_path: Path) -> None:
    """The same pairs wherever they stand, about as many as were asked for, and a larger share holds a smaller one."""
    pairs = numbered(1000)
    few, report = read(corpus_of(tmp_path, tsv(tmp_path / "a.tsv", pairs) | {"share": 0.3}))
    assert 240 < len(few["training"]) < 360
    assert report.refused == {"beyond its file's share": 1000 - len(few["training"])}
    turned = training_of(tmp_path, tsv(tmp_path / "b.tsv", pairs[::-1]) | {"share": 0.3})
    assert turned == few["training"][::-1]
    assert set(few["training"]) < set(training_of(tmp_path, tsv(tmp_path / "a.tsv", pairs) | {"share": 0.6}))


class Longest:
    """A judge to whom the longest source is the hardest."""

    def costs(self, pairs: Sequence[Example]) -> npt.NDArray[np.float64]:
        return np.array([float(len(pair.source)) for pair in pairs])


def test_the_hardest_pairs_of_a_file_are_read_and_no_others(tmp_path: Path) -> None:
    pairs = [("aa", "1"), ("a", "2"), ("aaa", "3"), ("bb", "4"), ("b", "5")]
    judged = tsv(tmp_path / "judged.tsv", pairs) | {"hardest": 0.5, "repeat": 2}
    corpus = corpus_of(tmp_path, tsv(tmp_path / "plain.tsv", [("c", "6")]), judged, judge=tmp_path)
    report = Report()
    training = split_files(corpus, report, judge=Longest())["training"]
    found = Counter((pair.source, pair.target) for pair in training)
    assert found == {("c", "6"): 1, ("aa", "1"): 2, ("aaa", "3"): 2, ("bb", "4"): 2}
    assert report.refused == {"easier than others of its file": 2}


def test_what_is_left_out_of_one_file_may_be_read_from_another(tmp_path: Path) -> None:
    pairs = numbered(200)
    part, judged = tsv(tmp_path / "part.tsv", pairs) | {"share": 0.3}, tsv(tmp_path / "judged.tsv", pairs)
    assert len(training_of(tmp_path, part, tsv(tmp_path / "whole.tsv", pairs))) == 200
    corpus = corpus_of(tmp_path, judged | {"hardest": 0.3}, tsv(tmp_path / "whole.tsv", pairs), judge=tmp_path)
    assert len(list(split_files(corpus, Report(), judge=Longest())["training"])) == 260


def test_a_file_that_is_read_whole_has_no_share(tmp_path: Path) -> None:
    plain = tsv(tmp_path / "plain.tsv", numbered(3))
    with pytest.raises(ValueError, match="share and hardest are of training files"):
        corpus_of(tmp_path, plain, validation=[plain | {"share": 0.5}], test=[plain])


def test_a_judge_and_what_it_judges_are_named_together(tmp_path: Path) -> None:
    plain = tsv(tmp_path / "plain.tsv", numbered(3))
    with pytest.raises(ValueError, match=r"name the bundle that judges it in corpus\.judge"):
        corpus_of(tmp_path, plain | {"hardest": 0.5})
    with pytest.raises(ValueError, match="judge: no training file has `hardest`"):
        corpus_of(tmp_path, plain, judge=tmp_path)


def test_pairs_of_two_files_are_not_joined(tmp_path: Path) -> None:
    """They may be of two source languages."""
    files = [tsv(tmp_path / f"{name}.tsv", [(f"{name} {i}.", f"it {i}.") for i in range(50)]) for name in ("de", "es")]
    found = training_of(tmp_path, *files, augment={"joined": 1.0})
    assert max(source.count(".") for source, _ in found) > 1
    assert not any("de" in source and "es" in source for source, _ in found)


# --- malformed lines -------------------------------------------------------------------------------------------------


def test_a_line_of_too_few_columns_is_told_by_its_number(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.tsv", ["yes\tja", "no columns at all", "no\tnein", "", "\t"])
    found, report = read(corpus_of(tmp_path, {"tsv": path}))
    assert found["training"] == [("yes", "ja"), ("no", "nein")]
    assert report.malformed == ["pairs.tsv:2: 1 columns, 2 needed", "pairs.tsv:4: 1 columns, 2 needed"]
    assert report.refused == {"malformed": 2, "empty": 1}
    assert report.lines == 5 + 2
    entry = {"tsv": path, "target_column": 3}
    found, report = read(corpus_of(tmp_path, entry))
    assert found["training"] == []
    assert report.malformed[0] == "pairs.tsv:1: 2 columns, 3 needed"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_line_that_is_no_utf8_is_told_by_its_number(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs.tsv{suffix}"
    content = b"yes\tja\n\xff\xfe\tx\ngr\xfc\xdfe\tgreetings\nno\tnein\n"
    path.write_bytes(gzip.compress(content) if suffix else content)
    found, report = read(corpus_of(tmp_path, {"tsv": path}))
    assert found["training"] == [("yes", "ja"), ("no", "nein")]
    assert report.malformed == [f"{path.name}:{number}: not valid UTF-8" for number in (2, 3)]
    assert report.refused == {"malformed": 2}


@pytest.mark.parametrize("side", SIDES)
def test_parallel_files_keep_step_over_a_line_that_is_no_utf8(tmp_path: Path, side: str) -> None:
    entry = side_by_side(tmp_path, ["one", "two", "three"], ["eins", "zwei", "drei"])
    lines = entry[side].read_bytes().split(b"\n")
    lines[1] = b"\xc3"
    entry[side].write_bytes(b"\n".join(lines))
    found, report = read(corpus_of(tmp_path, entry))
    assert found["training"] == [("one", "eins"), ("three", "drei")]
    assert report.malformed == [f"text.{side}:2: not valid UTF-8"]
    assert report.refused == {"malformed": 1}


def test_all_malformed_lines_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.tsv", ["yes\tja", *["none"] * 50])
    found, report = read(corpus_of(tmp_path, {"tsv": path}))
    assert found["training"] == [("yes", "ja")]
    assert report.refused == {"malformed": 50}
    assert report.malformed == [f"pairs.tsv:{number}: 1 columns, 2 needed" for number in range(2, 22)]


@pytest.mark.parametrize("part", PARTS)
def test_a_malformed_line_of_a_held_out_file_is_told_too(tmp_path: Path, part: str) -> None:
    path = write(tmp_path / f"held.{part}.tsv", ["a b\tc d", "none"])
    _, report = read(corpus_of(tmp_path, tsv(tmp_path / "pairs.tsv", PAIRS), **{part: [{"tsv": path}]}))
    assert report.malformed == [f"held.{part}.tsv:2: 1 columns, 2 needed"]
    assert report.refused == {f"malformed in {part}": 1}


# --- files that cannot be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("longer", SIDES)
def test_parallel_files_of_unequal_length_are_refused(tmp_path: Path, longer: str) -> None:
    counts = {side: 3 if side == longer else 2 for side in SIDES}
    sources, targets = ([f"{side} {i}" for i in range(counts[side])] for side in SIDES)
    corpus = corpus_of(tmp_path, side_by_side(tmp_path, sources, targets))
    shorter = next(side for side in SIDES if side != longer)
    with pytest.raises(CorpusError, match=rf"text\.{longer} has more lines than .*text\.{shorter}: they"):
        read(corpus)


def missing(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def no_archive(path: Path) -> None:
    path.write_bytes(b"plain text")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def spoilt(path: Path) -> None:
    """A byte of the compressed text is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(bytes(content))


def bad_header(path: Path) -> None:
    """The first block of the compressed text is of a kind that there is not."""
    content = bytearray(path.read_bytes())
    content[10] = 0x07
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [missing, directory, no_archive, cut, spoilt, checksum, bad_header])
def test_a_file_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    generator = random.Random(1)
    pairs = [(str(generator.random()), str(generator.random())) for _ in range(300)]
    entry = tsv(tmp_path / "pairs.tsv.gz", pairs)
    damage(entry["tsv"])
    with pytest.raises(CorpusError, match=r"cannot read .*pairs\.tsv\.gz: \S"):
        read(corpus_of(tmp_path, entry))


# --- normalisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  a \t b  ", "a b"),
        ("a\u00a0b\u202fc\u2009d\u3000e", "a b c d e"),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh", "a b c d e f g h"),
        ("e\u0301", "é"),
        ("\u1100\u1161", "가"),
        ("a\x00b\x07c\x7fd\x9fe", "abcde"),
        ("ﬁne ½ Ａ", "ﬁne ½ Ａ"),
        ("a\u200db", "a\u200db"),
        ("Straße İ", "Straße İ"),
        ("\x00 \t", ""),
        ("", ""),
    ],
)
def test_a_text_is_normalised(text: str, wanted: str) -> None:
    """Canonically alone, no case is folded, and joiners, which Persian and emoji need, stay."""
    assert normalize(text) == wanted


@given(st.text())
@example("e\x00\u0301")
@example("\x1f\u0301")
def test_a_normalised_text_is_composed_and_single_spaced(text: str) -> None:
    found = normalize(text)
    assert unicodedata.is_normalized("NFC", found)
    assert not any(unicodedata.category(character) == "Cc" for character in found)
    assert " ".join(found.split()) == found
    assert normalize(found) == found


LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=12)
#: Lines in which every second character breaks something.
BREAKING = st.text(st.sampled_from("ab\t\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\u00a0\x00 "), max_size=12)


@settings(deadline=None, max_examples=40)
@given(lines=st.lists(st.tuples(LINE | BREAKING, LINE | BREAKING), min_size=1, max_size=6), parallel=st.booleans())
def test_no_tab_and_no_line_break_gets_through(folder: Path, lines: list[Pair], parallel: bool) -> None:
    if parallel:
        entry = side_by_side(folder, [source for source, _ in lines], [target for _, target in lines])
    else:
        entry = tsv(folder / "pairs.tsv", lines)
    for source, target in training_of(folder, entry, filters=OPEN):
        for text in (source, target):
            assert text
            assert "\t" not in text
            assert text.splitlines() == [text]


def test_what_is_read_is_normalised(tmp_path: Path) -> None:
    entry = side_by_side(tmp_path, [" e\u0301a\tb\u00a0", "x\u2028y"], ["c\rd", "z"])
    assert training_of(tmp_path, entry) == [("éa b", "c d"), ("x y", "z")]


# --- filters ---------------------------------------------------------------------------------------------------------


def filtered(folder: Path, pairs: list[Pair], **filters: Any) -> tuple[list[Pair], dict[str, int]]:
    entry = side_by_side(folder, [source for source, _ in pairs], [target for _, target in pairs])
    found, report = read(corpus_of(folder, entry, filters=filters))
    return found["training"], dict(report.refused)


@pytest.mark.parametrize("empty", ["", " ", "\u00a0", "\x00"])
def test_an_empty_side_is_refused(tmp_path: Path, empty: str) -> None:
    """In parallel files as in columns."""
    pairs = [(empty, "a"), ("a", empty), (empty, empty), ("a", "b")]
    found, report = read(corpus_of(tmp_path, tsv(tmp_path / "pairs.tsv", pairs)))
    assert (found["training"], report.refused) == ([("a", "b")], {"empty": 3})
    assert filtered(tmp_path, pairs) == ([("a", "b")], {"empty": 3})


@pytest.mark.parametrize("side", [0, 1])
def test_too_many_words_are_refused(tmp_path: Path, side: int) -> None:
    def pair(words: int) -> Pair:
        texts = ["a b", "a b"]
        texts[side] = " ".join(["w"] * words)
        return texts[0], texts[1]

    assert filtered(tmp_path, [pair(4), pair(5), pair(6)], max_words=5) == ([pair(4), pair(5)], {"too long": 1})


@pytest.mark.parametrize("side", [0, 1])
def test_too_many_characters_are_refused(tmp_path: Path, side: int) -> None:
    """Counted as they are kept: composed, without the space around."""

    def pair(text: str) -> Pair:
        return ("a", text) if side else (text, "a")

    found = filtered(tmp_path, [pair("é" * 9), pair("  " + "e\u0301" * 8 + "x "), pair("é" * 10)], max_characters=9)
    assert found == ([pair("é" * 9), pair("é" * 8 + "x")], {"too long": 1})


def test_sides_of_too_unlike_length_are_refused(tmp_path: Path) -> None:
    """Beyond the ratio and beyond the free words."""

    def pair(source: int, target: int) -> Pair:
        return " ".join(["s"] * source), " ".join(["t"] * target)

    kept = [pair(1, 1), pair(1, 3), pair(3, 1), pair(5, 10), pair(10, 5), pair(10, 20), pair(20, 10)]
    refused = [pair(1, 4), pair(4, 1), pair(5, 11), pair(11, 5), pair(10, 21)]
    assert filtered(tmp_path, kept + refused, max_ratio=2.0, free_words=2) == (kept, {"ratio of lengths": 5})


def test_a_short_sentence_may_be_much_longer_than_the_other(tmp_path: Path) -> None:
    pairs = [("yes", "das ist wohl wahr so"), ("yes", "das ist wohl wahr so es ist")]
    assert filtered(tmp_path, pairs, max_ratio=1.0, free_words=4) == (pairs[:1], {"ratio of lengths": 1})


def test_a_text_of_another_script_is_refused(tmp_path: Path) -> None:
    """Of another script are the most of its letters; digits and signs are of any."""
    kept = [("yes", "да"), ("is it да", "в НАТО NATO"), ("12:30 !", "12:30 !"), ("naïve", "ёж"), ("ab да", "аб yes и")]
    refused = [("да", "да"), ("yes", "yes"), ("ab дав", "да"), ("日本", "да"), ("yes", "abc да")]
    scripts = {"source_script": "LATIN", "target_script": "CYRILLIC"}
    assert filtered(tmp_path, kept + refused, **scripts) == (kept, {"script": 5})


def test_a_pair_that_was_there_before_is_refused(tmp_path: Path) -> None:
    """Also when it only looks the same after it was normalised; not when one side alone is the same."""
    pairs = [("a b", "é"), ("a  b ", "e\u0301"), ("a b", "è"), ("A b", "é"), ("a b", "é")]
    kept = [("a b", "é"), ("a b", "è"), ("A b", "é")]
    assert filtered(tmp_path, pairs) == (kept, {"duplicate": 2})
    assert filtered(tmp_path, pairs, duplicates=False)[1] == {}
    files = [tsv(tmp_path / f"{name}.tsv", [("one", "eins")]) for name in "ab"]
    assert training_of(tmp_path, *files) == [("one", "eins")]


def test_a_duplicate_is_told_by_both_sides_and_not_by_their_join(tmp_path: Path) -> None:
    pairs = [("a", "b c"), ("a b", "c")]
    assert filtered(tmp_path, pairs) == (pairs, {})


def test_every_line_is_kept_or_counted(tmp_path: Path) -> None:
    lines = ["a\tb", "a\tb", "x", "\tb", "a b c\td", "w w w w\tw w w w", "in validation\tx", "y\tда", "z\tq"]
    validation = [tsv(tmp_path / "v.tsv", [("In validation!", "y y")])]
    filters = {"max_words": 3, "max_ratio": 2.0, "free_words": 1, "target_script": "LATIN"}
    entry = {"tsv": write(tmp_path / "pairs.tsv", lines)}
    found, report = read(corpus_of(tmp_path, entry, validation=validation, filters=filters))
    assert found["training"] == [("a", "b"), ("z", "q")]
    assert report.refused == {
        "duplicate": 1,
        "malformed": 1,
        "empty": 1,
        "ratio of lengths": 1,
        "too long": 1,
        "held out, or like one that is": 1,
        "script": 1,
    }
    assert report.lines == len(lines) + 2 == sum(map(len, found.values())) + report.refused.total()


def test_named_parts_are_taken_whole(tmp_path: Path) -> None:
    """A score on a part of a public test set compares with nobody's."""
    validation = [tsv(tmp_path / "v.tsv", [("a b c", "a b c"), ("a b c d", "x"), ("a b c", "a b c")])]
    entry = tsv(tmp_path / "pairs.tsv", PAIRS)
    found, _ = read(corpus_of(tmp_path, entry, validation=validation, filters={"max_words": 3}))
    assert found["validation"] == [("a b c", "a b c"), ("a b c d", "x"), ("a b c", "a b c")]


def test_lower_case_is_for_every_part(tmp_path: Path) -> None:
    entry, validation = tsv(tmp_path / "pairs.tsv", [("ÄB", "C")]), [tsv(tmp_path / "v.tsv", [("D", "É")])]
    found, _ = read(corpus_of(tmp_path, entry, validation=validation, lower_case=True))
    assert (found["training"], found["validation"]) == ([("äb", "c")], [("d", "é")])


def test_plain_marks_are_of_the_training_and_made_pairs_too(tmp_path: Path) -> None:
    frames = tsv(tmp_path / "frames.tsv", [("Er sagte: „{.}“", "He said, “{.}”")])
    entry = tsv(tmp_path / "pairs.tsv", [("„Ja“, Tom’s", "“Yes”"), ("Nein", "No")])
    validation = [tsv(tmp_path / "v.tsv", [("„D“", "“É”")])]
    augment = {"framed": 1.0, "frames": frames}
    corpus = corpus_of(tmp_path, entry, validation=validation, plain_marks=True, augment=augment)
    found, _ = read(corpus)
    assert found["training"] == [
        ('" Ja ", Tom\'s', '"Yes"'),
        ("Nein", "No"),
        ('Er sagte: " Nein "', 'He said, "No"'),
    ]
    assert found["validation"] == [("„D“", "“É”")]


def test_plain_marks_are_in_the_sources_that_validation_reads(tmp_path: Path) -> None:
    entry = tsv(tmp_path / "pairs.tsv", [("„a b“ c", "d"), ("e", "f")])
    corpus = corpus_of(tmp_path, entry, validation=[tsv(tmp_path / "v.tsv", [("„c a“ b", "x")])])
    values = tiny_values(tmp_path / "run") | {"corpus": corpus.model_copy(update={"plain_marks": True}).model_dump()}
    prepared = prepare(Config.model_validate(values), ignore_progress)
    tokenizer = prepared.tokenizer("source")
    for part, read in (("training", '" a b " c'), ("validation", '" c a " b')):
        ids = prepared.arrays(part).source[0].tolist()
        assert ids == tokenizer.encode_ids(read)
        assert UNK_ID not in ids


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        ([("Er sagte: {.}", "He said")], r"each side needs one of \{\}, \{\.\}, \{,\}"),
        ([], "has no frames"),
        ([("{}", "")], "1 empty"),
    ],
)
def test_frames_without_a_place_for_the_sentence_are_refused(tmp_path: Path, frames: list[Pair], told: str) -> None:
    augment = {"framed": 1.0, "frames": tsv(tmp_path / "frames.tsv", frames)}
    with pytest.raises(CorpusError, match=rf"frames\.tsv.*{told}"):
        training_of(tmp_path, tsv(tmp_path / "pairs.tsv", PAIRS), augment=augment)


@pytest.mark.parametrize(
    ("templates", "told"),
    [
        ([("{first} ist {place}", "{first} is {place}")], r"\{place\}: each place has one of the names"),
        ([], "has no templates"),
    ],
)
def test_templates_with_places_that_there_are_not_are_refused(tmp_path: Path, templates: list[Pair], told: str) -> None:
    augment = {"templated": 1.0, "templates": tsv(tmp_path / "templates.tsv", templates)}
    with pytest.raises(CorpusError, match=rf"templates\.tsv.*{told}"):
        training_of(tmp_path, tsv(tmp_path / "pairs.tsv", PAIRS), augment=augment)


def test_a_report_for_a_person(tmp_path: Path) -> None:
    report = Report(lines=9, refused=Counter({"too long": 2, "empty": 1}), kept={"training": 5, "test": 1})
    report.malform(Path("some/pairs.tsv"), 3, "not valid UTF-8")
    assert report.summary() == [
        "9 lines read; kept: 5 training, 1 test; refused: 1 empty, 1 malformed, 2 too long",
        "pairs.tsv:3: not valid UTF-8",
    ]
    assert Report(kept={"training": 0}).summary() == ["0 lines read; kept: 0 training; refused: none"]


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Good morning!", "good morning"),
        ("It's 5 o'clock.", "IT S 5 O CLOCK"),
        ("STRASSE", "straße"),
        ("a_b-c", "A B C"),
        ("«Да»", "да"),
        ("यह, किताब!", "यह किताब"),
        ("...", "..."),
    ],
)
def test_sentences_that_differ_in_case_and_signs_are_one(one: str, other: str) -> None:
    assert group_key(one) == group_key(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a b", "ab"),
        ("1 2", "12"),
        ("cafe", "café"),
        ("a b", "b a"),
        ("日本", "日木"),
        ("किताब", "कुताब"),
        ("กิน", "กัน"),
        ("?", "!"),
    ],
)
def test_other_letters_are_another_sentence(one: str, other: str) -> None:
    assert group_key(one) != group_key(other)


# --- held-out groups -------------------------------------------------------------------------------------------------

WORDS = ["a", "b", "c", "d"]
SENTENCE = st.builds(
    lambda words, upper, end: (" ".join(words).upper() if upper else " ".join(words)) + end,
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=2),
    st.booleans(),
    st.sampled_from(["", "!", " ?"]),
)
SOME_PAIRS = st.lists(st.tuples(SENTENCE, SENTENCE), min_size=4, max_size=40)


def hold_out(folder: Path, pairs: list[Pair], **held_out: Any) -> Split:
    filters = OPEN | {"duplicates": True}
    return read(corpus_of(folder, tsv(folder / "pairs.tsv", pairs), held_out=held_out, filters=filters))[0]


def keys(pairs: list[Pair], side: str) -> set[str]:
    return {group_key(pair[SIDES.index(side)]) for pair in pairs}


@settings(deadline=None, max_examples=50)
@given(SOME_PAIRS, st.integers(1, 3), st.integers(1, 3), st.sampled_from(SIDES))
def test_held_out_groups_are_whole_and_nothing_of_them_is_in_training(
    folder: Path, pairs: list[Pair], validation: int, test: int, by: str
) -> None:
    clean = list(dict.fromkeys((normalize(source), normalize(target)) for source, target in pairs))
    assume(len(keys(clean, by)) >= validation + test)
    found = hold_out(folder, pairs, validation=validation, test=test, by=by)
    held = found["validation"] + found["test"]
    # As many groups as were asked for, each in one part and there whole.
    assert len(keys(found["validation"], by)) == validation
    assert len(keys(found["test"], by)) == test
    assert not keys(found["validation"], by) & keys(found["test"], by)
    for part in PARTS:
        whole = [pair for pair in clean if group_key(pair[SIDES.index(by)]) in keys(found[part], by)]
        assert Counter(found[part]) == Counter(whole)
    # Neither their sources nor their targets are in training, in whatever case and with whatever signs.
    for side in SIDES:
        assert not keys(found["training"], side) & keys(held, side)
    # And what has neither is.
    unlike = [pair for pair in clean if not any(keys([pair], side) & keys(held, side) for side in SIDES)]
    assert found["training"] == unlike


@settings(deadline=None, max_examples=15)
@given(SOME_PAIRS, st.randoms(use_true_random=False), st.sampled_from(SIDES))
def test_what_is_held_out_does_not_depend_on_the_order_of_the_lines(
    folder: Path, pairs: list[Pair], generator: random.Random, by: str
) -> None:
    assume(len(keys(pairs, by)) >= 3)
    found = hold_out(folder, pairs, validation=1, test=2, by=by)
    assert hold_out(folder, pairs, validation=1, test=2, by=by) == found
    generator.shuffle(pairs)
    again = hold_out(folder, pairs, validation=1, test=2, by=by)
    assert {part: Counter(again[part]) for part in again} == {part: Counter(found[part]) for part in found}


def numbered(count: int) -> list[Pair]:
    return [(f"source number {i}", f"target number {i}") for i in range(count)]


def test_more_text_leaves_the_groups_that_were_held_out_nearly_as_they_were(tmp_path: Path) -> None:
    """A group goes by its own hash: of 10 % more lines some are new, and the others stay."""
    before = set(hold_out(tmp_path, numbered(1000), validation=50, test=50)["validation"])
    after = set(hold_out(tmp_path, numbered(1100), validation=50, test=50)["validation"])
    assert len(before & after) > 35


def test_the_held_out_groups_are_from_the_whole_file(tmp_path: Path) -> None:
    found = hold_out(tmp_path, numbered(1000), validation=60, test=60)
    places = sorted(int(source.split()[-1]) for source, _ in found["validation"] + found["test"])
    assert len(places) == 120
    for begin in range(0, 1000, 250):
        assert 15 <= sum(begin <= place < begin + 250 for place in places) <= 45


def test_validation_and_test_are_in_no_order_of_the_file(tmp_path: Path) -> None:
    found = hold_out(tmp_path, numbered(300), validation=40, test=40)
    for part in PARTS:
        places = [int(source.split()[-1]) for source, _ in found[part]]
        assert places != sorted(places)


def test_a_sentence_with_many_translations_is_one_group(tmp_path: Path) -> None:
    pairs = [(f"sentence {i}", f"translation {i} {j}") for i in range(6) for j in range(3)]
    found = hold_out(tmp_path, pairs, validation=1, test=1, by="source")
    assert [len(found[part]) for part in ("training", *PARTS)] == [12, 3, 3]
    found = hold_out(tmp_path, pairs, validation=1, test=1, by="target")
    assert [len(found[part]) for part in PARTS] == [1, 1]
    assert len(found["training"]) in (12, 15)  # what is like them is left out too


def test_what_a_filter_refuses_is_not_held_out(tmp_path: Path) -> None:
    pairs = [*numbered(5), *[(f"much too long a text {i}", "x") for i in range(50)]]
    entry = tsv(tmp_path / "pairs.tsv", pairs)
    corpus = corpus_of(tmp_path, entry, held_out={"validation": 2, "test": 2}, filters={"max_words": 3})
    found, report = read(corpus)
    assert sorted(found["training"] + found["validation"] + found["test"]) == numbered(5)
    assert report.refused == {"too long": 50, "held out, or like one that is": 4}
    assert report.lines == 55, "each line is counted once, however often it was read"


def test_more_groups_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.held_out wants 7 groups, and there are 6 source sentences in all"):
        hold_out(tmp_path, numbered(6), validation=3, test=4)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("like", [("GOOD morning", "something"), ("something", "guten morgen!")])
def test_nothing_of_named_parts_is_in_training(tmp_path: Path, part: str, like: Pair) -> None:
    held = {part: [tsv(tmp_path / "held.tsv", [("Good morning.", "Guten Morgen.")])]}
    found, report = read(corpus_of(tmp_path, tsv(tmp_path / "pairs.tsv", [like, ("other", "anders")]), **held))
    assert found["training"] == [("other", "anders")]
    assert report.refused == {"held out, or like one that is": 1}


# --- prepared --------------------------------------------------------------------------------------------------------


def file_config(folder: Path, corpus: FileCorpus, **changes: Any) -> Config:
    return Config.model_validate(
        tiny_values(folder / "run", **changes) | {"corpus": corpus.model_dump(mode="json")},
    )


def test_a_corpus_of_files_is_prepared(tmp_path: Path) -> None:
    lines = [f"{source}\t{target}" for source, target in numbered(40)]
    entry = {"tsv": write(tmp_path / "pairs.tsv.gz", [*lines, "none", lines[0]])}
    config = file_config(tmp_path, corpus_of(tmp_path, entry, held_out={"validation": 5, "test": 6}))
    told: list[str] = []
    corpus = prepare(config, told.append)
    assert told[0] == (
        "42 lines read; kept: 29 training, 5 validation, 6 test; refused: 1 duplicate, "
        "11 held out, or like one that is, 1 malformed"
    )
    assert told[1] == "pairs.tsv.gz:41: 1 columns, 2 needed"
    report = json.loads((corpus.directory / "report.json").read_text(encoding="utf-8"))
    assert report["lines"] == 42
    assert report["kept"] == {"training": 29, "validation": 5, "test": 6}
    assert report["refused"]["duplicate"] == 1
    parts = {part: list(corpus.examples(part)) for part in ("training", *PARTS)}
    assert {part: len(examples) for part, examples in parts.items()} == report["kept"]
    assert sorted((e.source, e.target) for examples in parts.values() for e in examples) == sorted(numbered(40))
    assert {"report.json", "training.tsv", "source.spm"} <= corpus.hashes.keys()
    arrays, tokenizer = corpus.arrays("training"), corpus.tokenizer("source")
    assert [arrays.source[i].tolist() for i in range(29)] == [tokenizer.encode_ids(e.source) for e in parts["training"]]
    assert UNK_ID not in arrays.source.ids
    corpus.check(config)


def test_a_prepared_corpus_of_files_is_kept_and_one_of_others_is_not(tmp_path: Path) -> None:
    entry = tsv(tmp_path / "pairs.tsv", numbered(40))
    config = file_config(tmp_path, corpus_of(tmp_path, entry, held_out={"validation": 5, "test": 6}))
    hashes = prepare(config, ignore_progress).hashes
    told: list[str] = []
    assert prepare(config, told.append).hashes == hashes
    assert told == [f"{tmp_path / 'run' / 'data'} is already prepared"]
    other = file_config(tmp_path, corpus_of(tmp_path, entry, held_out={"validation": 5, "test": 7}))
    with pytest.raises(CorpusError, match="prepared from another corpus"):
        Corpus(tmp_path / "run" / "data").check(other)
    assert prepare(other, ignore_progress).hashes != hashes


def test_the_same_files_are_prepared_to_the_same_bytes(tmp_path: Path) -> None:
    corpus = corpus_of(
        tmp_path, tsv(tmp_path / "pairs.tsv", numbered(40)), held_out={"validation": 5, "test": 6, "by": "target"}
    )
    first = prepare(file_config(tmp_path, corpus), ignore_progress).hashes
    shutil.rmtree(tmp_path / "run")
    assert prepare(file_config(tmp_path, corpus), ignore_progress).hashes == first


@pytest.mark.parametrize("part", ["training", *PARTS])
def test_a_part_without_a_pair_is_refused(tmp_path: Path, part: str) -> None:
    """All its pairs are too long, or empty."""
    parts = {name: [tsv(tmp_path / f"{name}.tsv", [(f"{name} s", f"{name} t")])] for name in ("training", *PARTS)}
    parts[part] = [tsv(tmp_path / f"{part}.tsv", [("x " * 9, "y " * 9 if part == "training" else " ")])]
    corpus = FileCorpus.model_validate({"kind": "files", **parts, "filters": {"max_words": 5}})
    with pytest.raises(CorpusError, match=rf"no pair is left for {part}: 3 lines read; .* 0 {part}"):
        prepare(file_config(tmp_path, corpus), ignore_progress)
    with pytest.raises(CorpusError, match="no prepared corpus"):
        Corpus(tmp_path / "run" / "data")


def test_when_all_is_held_out_nothing_is_left_to_train_on(tmp_path: Path) -> None:
    pairs = [("one", "same"), ("two", "same"), ("three", "same")]
    corpus = corpus_of(tmp_path, tsv(tmp_path / "pairs.tsv", pairs), held_out={"validation": 1, "test": 1})
    with pytest.raises(CorpusError, match="no pair is left for training"):
        prepare(file_config(tmp_path, corpus), ignore_progress)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"tsv": write(tmp_path / "pairs.tsv", [])})
    with pytest.raises(CorpusError, match="no pair is left for training"):
        prepare(file_config(tmp_path, corpus), ignore_progress)
    with pytest.raises(CorpusError, match="wants 2 groups, and there are 0 source sentences"):
        read(corpus_of(tmp_path, {"tsv": tmp_path / "pairs.tsv"}, held_out={"validation": 1, "test": 1}))


# --- several target languages ----------------------------------------------------------------------------------------


def both_ways(folder: Path) -> list[dict[str, Any]]:
    """One file in both directions."""
    path = write(folder / "pairs.tsv", [f"{source}\t{target}" for source, target in numbered(60)])
    return [
        {"tsv": path, "source_column": 1, "target_column": 2, "target_language": "en"},
        {"tsv": path, "source_column": 2, "target_column": 1, "target_language": "de"},
    ]


def test_nothing_that_is_held_out_in_one_direction_is_trained_in_the_other(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, *both_ways(tmp_path), held_out={"validation": 5, "test": 6, "by": "source"})
    parts = {name: list(pairs) for name, pairs in split_files(corpus, Report()).items()}
    held = {text for name in PARTS for pair in parts[name] for text in (pair.source, pair.target)}
    assert {pair.annotation for pair in parts["training"]} == {"de", "en"}
    assert not held & {text for pair in parts["training"] for text in (pair.source, pair.target)}


def test_the_same_pair_for_two_languages_is_no_duplicate(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.tsv", ["Tom\tTom"])
    files = [{"tsv": path, "target_language": language} for language in ("de", "en")]
    held = {part: [tsv(tmp_path / f"{part}.tsv", [(part, part)]) | {"target_language": "de"}] for part in PARTS}
    corpus = corpus_of(tmp_path, *files, **held)
    report = Report()
    training = split_files(corpus, report)["training"]
    assert [pair.annotation for pair in training] == ["de", "en"]
    assert not report.refused["duplicate"]


def test_sources_begin_with_the_piece_of_their_target_language(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, *both_ways(tmp_path), held_out={"validation": 5, "test": 6})
    golden = [{"source": "1", "target_language": "de"}]
    languages = {"source": ["de", "en"], "target": ["de", "en"]}
    config = file_config(tmp_path, corpus, languages=languages, export={"golden_sentences": golden})
    prepared = prepare(config, ignore_progress)
    tokenizer, arrays = prepared.tokenizer("source"), prepared.arrays("training")
    for number, pair in enumerate(prepared.examples("training")):
        ids = tokenizer.encode_ids(pair.source, f"<2{pair.annotation}>")
        assert arrays.source[number].tolist() == ids
        assert arrays.target[number].tolist() == prepared.tokenizer("target").encode_ids(pair.target)
        assert prepared.encode(pair)[0].ids == ids


def test_a_language_is_named_for_every_file_or_for_none(tmp_path: Path) -> None:
    one, other = both_ways(tmp_path)
    del other["target_language"]
    with pytest.raises(ValueError, match="target_language: name it for every file, or for none"):
        corpus_of(tmp_path, one, other, held_out={"validation": 5, "test": 6})

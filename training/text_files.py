"""Parallel text from files: read in a stream, normalised, filtered, split so that nothing leaks.

A file is a TSV of two or more columns, or two files with as many lines; plain or gzip. A malformed line is reported by
its number and passed over; so is a pair that a filter refuses, each counted by its reason. Held-out pairs are chosen by
groups: all pairs of one source (or target) sentence go together, and no training pair, made ones too, has a source or a
target that the held-out parts have. The annotation of a pair is its target language where the files name it. Called by
``training.corpus``.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from service.bundle.reading import plain_marks, with_spaced_marks
from training.augmentation import augmented, is_frame
from training.config import FileCorpus, FilterConfig, PairFiles, TsvFile
from training.errors import CorpusError
from training.tasks import Example
from training.templates import wrong_places

_SHOWN_LINES = 20
_PARTS = ("validation", "test")
# A file for validation or test is taken as it is: scores on a part of a public test set compare with nobody's.
_ALL = FilterConfig(max_words=10**6, max_characters=10**6, free_words=10**6, duplicates=False)


@dataclass
class Report:
    """What became of every line that was read. ``refused`` by reason; ``malformed`` names the first of them."""

    lines: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    malformed: list[str] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)

    def malform(self, path: Path, line: int, what: str) -> None:
        self.refused["malformed"] += 1
        if len(self.malformed) < _SHOWN_LINES:
            self.malformed.append(f"{path.name}:{line}: {what}")

    def summary(self) -> list[str]:
        """Lines for a person."""
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(self.refused.items())) or "none"
        kept = ", ".join(f"{count} {part}" for part, count in self.kept.items())
        return [f"{self.lines} lines read; kept: {kept}; refused: {refused}", *self.malformed]


def normalize(text: str) -> str:
    """Unicode NFC; every run of white space, no-break and thin spaces too, one space; no control characters."""
    text = "".join(character for character in text if unicodedata.category(character) != "Cc" or character.isspace())
    return " ".join(unicodedata.normalize("NFC", text).split())


class Judging(Protocol):
    """``training.judging.Judge``, which needs a model."""

    def costs(self, pairs: Sequence[Example]) -> npt.NDArray[np.float64]:
        """Nats a target token of each pair: (pairs,)."""


def split_files(
    corpus: FileCorpus, report: Report, languages: tuple[str, str] | None = None, judge: Judging | None = None
) -> dict[str, Iterator[Example]]:
    """The pairs of "training", "validation" and "test", clean; the parts are read one after the other.

    ``languages``: source and target, where there is one of each. ``judge``: for files with ``hardest``. Raises
    CorpusError for a file that cannot be read, pair files of unequal length, or a part without any pair.
    """
    held = _read_held_out(corpus, report) if corpus.held_out is None else _hold_out(corpus)
    seen = tuple({group_key(getattr(pair, side)) for pairs in held.values() for pair in pairs} for side in SIDES)
    if corpus.target_languages:  # what is a target in one direction is a source in another
        seen = (seen[0] | seen[1],) * len(SIDES)
    duplicates: set[int] = set()
    frames, templates = _read_frames(corpus), _read_templates(corpus)

    def of_file(entry: TsvFile | PairFiles) -> Iterator[Example]:
        """What is made of a file's pairs is made of its own: another's may be in other languages."""
        # What is to be read often may be in another file too; what is judged may be left out of this one.
        known = duplicates if entry.repeat == 1 and entry.hardest == 1.0 else set()
        read = _share(_read([entry], report), entry.share, report)
        clean = _clean(read, corpus.filters, report, corpus.lower_case, known)
        own: Iterable[Example] = without(clean, seen, report, "held out, or like one that is")
        if entry.hardest < 1.0:
            own = _hardest(own, entry.hardest, judge, report)
        if entry.repeat > 1:  # few enough to be held
            own = list(own) * entry.repeat
        made = augmented(own, corpus.augment, languages, frames, templates)
        return _with_plain_marks(corpus, without(made, seen, report, "made, and like one that is held out"))

    training = itertools.chain.from_iterable(map(of_file, corpus.training))
    return {"training": training, **{name: iter(pairs) for name, pairs in held.items()}}


def _share(pairs: Iterable[Example], share: float, report: Report) -> Iterator[Example]:
    for pair in pairs:
        if share == 1.0 or _hash(f"{normalize(pair.source)}\t{normalize(pair.target)}") < share * 2**64:
            yield pair
        else:
            report.refused["beyond its file's share"] += 1


def _hardest(pairs: Iterable[Example], share: float, judge: Judging | None, report: Report) -> list[Example]:
    """The share that costs ``judge`` the most, rounded up, in their order; of equal ones the first."""
    if judge is None:
        raise ValueError("a file with `hardest` needs a judge")
    held = list(pairs)  # few enough
    count = math.ceil(share * len(held))
    chosen = set(np.argsort(-judge.costs(held), kind="stable")[:count].tolist())
    report.refused["easier than others of its file"] += len(held) - count
    return [pair for place, pair in enumerate(held) if place in chosen]


def _read_frames(corpus: FileCorpus) -> list[Example]:
    if (file := corpus.augment.frames) is None:
        return []
    frames = _read_whole(file, "frames", corpus.lower_case)
    for frame in frames:
        if not all(is_frame(text) for text in (frame.source, frame.target)):
            raise CorpusError(
                f"{file.tsv}: {frame.source!r}, {frame.target!r}: each side needs one of {{}}, {{.}}, {{,}}"
            )
    return frames


def _read_templates(corpus: FileCorpus) -> list[Example]:
    if (file := corpus.augment.templates) is None:
        return []
    templates = _read_whole(file, "templates", corpus.lower_case)
    for template in templates:
        if wrong := wrong_places(template):
            raise CorpusError(
                f"{file.tsv}: {template.source!r}, {template.target!r}: {', '.join(sorted(wrong))}: each "
                "place has one of the names in training/templates.py, and stands on both sides"
            )
    return templates


def _read_whole(file: TsvFile, of: str, lower_case: bool) -> list[Example]:
    """A file that every line of must be good: it is written for this."""
    report = Report()
    pairs = list(_clean(_read([file], report), _ALL, report, lower_case, set()))
    if report.refused:
        raise CorpusError("; ".join([f"{file.tsv} is a file of {of} that a run reads whole", *report.summary()]))
    if not pairs:
        raise CorpusError(f"{file.tsv} has no {of}")
    return pairs


def _with_plain_marks(corpus: FileCorpus, pairs: Iterator[Example]) -> Iterator[Example]:
    """Sources as the service has them read, for ``plain_marks``."""
    if not corpus.plain_marks:
        return pairs
    return (replace(pair, source=with_spaced_marks(pair.source), target=plain_marks(pair.target)) for pair in pairs)


def _read_held_out(corpus: FileCorpus, report: Report) -> dict[str, list[Example]]:
    """The files that are named for the parts, whole but for what cannot be read, which is counted by part."""
    held: dict[str, list[Example]] = {}
    for name, files in zip(_PARTS, (corpus.validation, corpus.test), strict=True):
        own = Report()
        held[name] = list(_clean(_read(files or [], own), _ALL, own, corpus.lower_case, set()))
        report.lines += own.lines
        report.refused.update({f"{reason} in {name}": count for reason, count in own.refused.items()})
        report.malformed += own.malformed
    return held


SIDES = ("source", "target")


def _hold_out(corpus: FileCorpus) -> dict[str, list[Example]]:
    """The groups whose keys have the least hashes, in the order of those hashes: as good as random, and repeatable."""
    settings = corpus.held_out
    if settings is None:
        raise ValueError("the corpus holds nothing out")
    counts = (settings.validation, settings.test)
    pairs = list(_held_pairs(corpus, sum(counts), settings.by))
    order = sorted({_hash(group_key(getattr(pair, settings.by))) for pair in pairs})
    places = {key: place for place, key in enumerate(order)}
    held: dict[str, list[Example]] = {name: [] for name in _PARTS}
    for pair in sorted(pairs, key=lambda pair: places[_hash(group_key(getattr(pair, settings.by)))]):
        place = places[_hash(group_key(getattr(pair, settings.by)))]
        held[_PARTS[0] if place < counts[0] else _PARTS[1]].append(pair)
    return held


def _held_pairs(corpus: FileCorpus, groups: int, by: str) -> Iterator[Example]:
    files = [entry for entry in corpus.training if entry.may_be_held_out]

    def stream() -> Iterator[Example]:
        return _clean(_read(files, Report()), corpus.filters, Report(), corpus.lower_case, set())

    least = _least_distinct((_hash(group_key(getattr(pair, by))) for pair in stream()), groups)
    if len(least) < groups:
        raise CorpusError(f"corpus.held_out wants {groups} groups, and there are {len(least)} {by} sentences in all")
    wanted = set(least)
    return (pair for pair in stream() if _hash(group_key(getattr(pair, by))) in wanted)


def _least_distinct(numbers: Iterable[int], count: int) -> list[int]:
    """As ``sorted(set(numbers))[:count]``, without holding more than twice as many."""
    least: set[int] = set()
    for number in numbers:
        least.add(number)
        if len(least) >= 2 * count + 1000:
            least = set(sorted(least)[:count])
    return sorted(least)[:count]


def group_key(text: str) -> str:
    """What makes two sentences one for a split: their letters, with their marks, and digits, without case; of a text
    that has none, itself."""
    folded = text.casefold()
    between = _NO_WORD if max(folded, default="") < _FIRST_MARK else _no_word_nor_mark()
    return between.sub(" ", folded).strip() or folded


_NO_WORD = re.compile(r"[\W_]+")
_FIRST_MARK = "\u0300"


@cache
def _no_word_nor_mark() -> re.Pattern[str]:
    """Thirty times slower, for the scripts that write their vowels with marks, which the letters of ``re`` are not."""
    marks = "".join(map(chr, (code for code in range(0x110000) if unicodedata.category(chr(code))[0] == "M")))
    return re.compile(rf"(?:(?![{marks}])[\W_])+")


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])


def without(pairs: Iterable[Example], seen: tuple[set[str], ...], report: Report, reason: str) -> Iterator[Example]:
    """The pairs neither side of which was seen on that side."""
    for pair in pairs:
        if any(group_key(getattr(pair, side)) in keys for side, keys in zip(SIDES, seen, strict=True)):
            report.refused[reason] += 1
        else:
            yield pair


# --- filters ---------------------------------------------------------------------------------------------------------


def _clean(
    pairs: Iterable[Example], filters: FilterConfig, report: Report, lower_case: bool, duplicates: set[int]
) -> Iterator[Example]:
    """``duplicates``: hashes of the pairs that were taken before, which these are put to."""
    for pair in pairs:
        source, target = normalize(pair.source), normalize(pair.target)
        sides = (source.lower(), target.lower()) if lower_case else (source, target)
        clean = Example(*sides, pair.annotation)
        reason = _refusal(clean, filters)
        if reason is None and filters.duplicates:
            key = _hash(f"{clean.source}\t{clean.target}\t{clean.annotation}")
            reason = "duplicate" if key in duplicates else None
            duplicates.add(key)
        if reason is None:
            yield clean
        else:
            report.refused[reason] += 1


def _refusal(pair: Example, filters: FilterConfig) -> str | None:
    """Why a pair is not wanted; None for one that is."""
    words = [len(text.split()) for text in (pair.source, pair.target)]
    if not all(words):
        return "empty"
    if max(words) > filters.max_words or max(len(pair.source), len(pair.target)) > filters.max_characters:
        return "too long"
    # Short sentences differ by a word or two without being wrong.
    if max(words) > filters.max_ratio * min(words) and max(words) - min(words) > filters.free_words:
        return "ratio of lengths"
    for text, script in ((pair.source, filters.source_script), (pair.target, filters.target_script)):
        if script is not None and not _is_of_script(text, script):
            return "script"
    return None


def _is_of_script(text: str, script: str) -> bool:
    """Are half of its letters of a script, by the first word of their Unicode names? A text without letters is."""
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(unicodedata.name(letter, "").startswith(script) for letter in letters) >= len(letters)


# --- files -----------------------------------------------------------------------------------------------------------


def _read(files: Iterable[TsvFile | PairFiles], report: Report) -> Iterator[Example]:
    for entry in files:
        yield from _read_tsv(entry, report) if isinstance(entry, TsvFile) else _read_pair(entry, report)


def _read_tsv(entry: TsvFile, report: Report) -> Iterator[Example]:
    needed = max(entry.source_column, entry.target_column)
    for number, text in _lines(entry.tsv, report):
        if text is None:
            continue
        columns = text.split("\t")
        if len(columns) < needed:
            report.malform(entry.tsv, number, f"{len(columns)} columns, {needed} needed")
        else:
            sides = columns[entry.source_column - 1], columns[entry.target_column - 1]
            yield Example(*sides, entry.target_language or "")


def _read_pair(entry: PairFiles, report: Report) -> Iterator[Example]:
    sides = [_lines(path, report) for path in (entry.source, entry.target)]
    for one, other in itertools.zip_longest(*sides):
        if one is None or other is None:
            longer, shorter = (entry.source, entry.target) if other is None else (entry.target, entry.source)
            raise CorpusError(f"{longer} has more lines than {shorter}: they are not of one corpus")
        if one[1] is not None and other[1] is not None:
            yield Example(one[1], other[1], entry.target_language or "")


def _lines(path: Path, report: Report) -> Iterator[tuple[int, str | None]]:
    """Lines with their numbers from 1; one that is not UTF-8 is reported, and None."""
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                report.lines += 1
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    report.malform(path, number, "not valid UTF-8")
                    text = None
                yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]

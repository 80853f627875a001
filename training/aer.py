"""Alignment error rate: how far links are from those that people drew.

AER = 1 - (|A and S| + |A and P|) / (|A| + |S|) over all sentences: A the links found, S the sure ones, P the possible
ones, which the sure ones are among (Och and Ney 2003, "A Systematic Comparison of Various Statistical Alignment
Models", section 5). Links are (source word, target word), counted from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.errors import CorpusError

Link = tuple[int, int]
_LINK = re.compile(r"(\d+)([-p])(\d+)")


@dataclass(frozen=True)
class Gold:
    """One sentence's links by people; ``possible`` has the sure ones too."""

    sure: frozenset[Link]
    possible: frozenset[Link]


def alignment_error_rate(found: Sequence[Iterable[Link]], gold: Sequence[Gold]) -> float:
    """0 is perfect. Raises ValueError for unequal numbers of sentences, or for no links at all."""
    if len(found) != len(gold):
        raise ValueError(f"links of {len(found)} sentences, {len(gold)} in the gold alignment")
    sure = possible = links = wanted = 0
    for own, people in zip(found, gold, strict=True):
        drawn = frozenset(own)
        sure, possible = sure + len(drawn & people.sure), possible + len(drawn & people.possible)
        links, wanted = links + len(drawn), wanted + len(people.sure)
    if not links + wanted:
        raise ValueError("no links, neither found nor in the gold alignment")
    return 1.0 - (sure + possible) / (links + wanted)


def read_gold(path: Path, first: int = 1) -> list[Gold]:
    """One line a sentence, ``i-j`` sure and ``ipj`` possible, words counted from ``first``. Raises CorpusError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot read {path}: {error}") from error
    parsed = [_parse(line, first, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
    return [
        Gold(
            frozenset(link for link, mark in links if mark == "-"),
            frozenset(link for link, _ in links),
        )
        for links in parsed
    ]


def parse_links(line: str, place: str) -> list[Link]:
    """One line of links from 0; ``place`` is where it stands. Raises CorpusError."""
    return [link for link, _ in _parse(line, 0, place)]


def _parse(line: str, first: int, place: str) -> list[tuple[Link, str]]:
    links = []
    for part in line.split():
        match = _LINK.fullmatch(part)
        if match is None or min(int(match[1]), int(match[3])) < first:
            raise CorpusError(f"{place}: {part!r} is no link: i-j or ipj, counted from {first}")
        links.append(((int(match[1]) - first, int(match[3]) - first), match[2]))
    return links

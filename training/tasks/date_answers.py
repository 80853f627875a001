"""Every date that a string may mean: the inverse of the date generator.

``answers(s)`` are the dates of the range that some locale, format and case renders exactly as s, each with the share of
the generator's own draws of s that it is behind. About one string in twenty has more than one: month names that two
languages share, and all-digit dates whose day and month can change places.

An index of skeletons (texts whose digits are masked) finds the formats that may have made a string; each is then read,
rendered again and compared, so an answer is never a guess.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.tasks.dates import FIRST_DAY, LAST_DAY, DateFormatter, all_formatters, with_case

#: How often the generator leaves, lowers and raises the case.
_CASE_WEIGHTS = {0: 0.5, 2: 0.25, 3: 0.25}
_CENTURY = FIRST_DAY.year


@dataclass(frozen=True)
class _Reading:
    """One way to read a skeleton: where year and day stand, and what its formats are."""

    formatter: DateFormatter
    month: int
    case: int
    fields: str
    weight: float


class DateAnswers:
    """Built once, in seconds; then a string takes some tens of microseconds."""

    def __init__(self, formatters: Sequence[DateFormatter] | None = None) -> None:
        self._readings: dict[str, list[_Reading]] = defaultdict(list)
        for formatter, count in _distinct(all_formatters() if formatters is None else formatters):
            for month in range(1, 13):
                for case, case_weight in _CASE_WEIGHTS.items():
                    found = {_case_of(formatter.render(date), case) for date in _samples(month)}
                    for text, fields in sorted({(_mask(text), fields) for text, fields in found}):
                        reading = _Reading(formatter, month, case, fields, count * case_weight)
                        self._readings[text].append(reading)

    def posterior(self, text: str) -> dict[datetime.date, float]:
        """Each date that the generator may have meant, with its probability; empty for what it never writes."""
        weights: Counter[datetime.date] = Counter()
        for reading in self._readings.get(_mask(text), ()):
            date = _read(text, reading)
            if date is not None and _case_of(reading.formatter.render(date), reading.case)[0] == text:
                weights[date] += reading.weight  # type: ignore[assignment]  # Counter holds floats as well
        total = sum(weights.values())
        return {date: weight / total for date, weight in weights.items()}

    def answers(self, text: str) -> set[datetime.date]:
        """Every date that some locale, format and case renders exactly as ``text``."""
        return set(self.posterior(text))


def _distinct(formatters: Iterable[DateFormatter]) -> list[tuple[DateFormatter, int]]:
    """Formatters that render every date alike stand once, with their number: 15,148 become some 2,800."""
    first: dict[tuple[str, ...], DateFormatter] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    # Two days of each month and each weekday tell apart whatever differs in names, order or literals.
    probes = [date for month in range(1, 13) for date in _samples(month)]
    for formatter in formatters:
        signature = tuple(formatter.render(date)[0] for date in probes)
        first.setdefault(signature, formatter)
        counts[signature] += 1
    return [(formatter, counts[signature]) for signature, formatter in first.items()]


def _samples(month: int) -> list[datetime.date]:
    """Days of one and of two digits on every weekday: all that a skeleton can depend on beside the month."""
    return [datetime.date(2021, month, day) for day in (*range(1, 8), *range(11, 18))]


def _mask(text: str) -> str:
    return re.sub("[0-9]", "0", text)


def _case_of(rendered: tuple[str, str], case: int) -> tuple[str, str]:
    return with_case(*rendered, case)


def _read(text: str, reading: _Reading) -> datetime.date | None:
    """The date that the reading's fields spell, None when there is no such day in the range."""
    year, day = (
        "".join(character for character, name in zip(text, reading.fields, strict=True) if name == field)
        for field in "yd"
    )
    if not (year.isdecimal() and day.isdecimal()):
        return None
    number = int(year)
    if len(year) == 2:  # the one year of the century that ends so
        number += _CENTURY - _CENTURY % 100
        number += 100 if number < _CENTURY else 0
    try:
        date = datetime.date(number, reading.month, int(day))
    except ValueError:
        return None
    return date if FIRST_DAY <= date <= LAST_DAY else None

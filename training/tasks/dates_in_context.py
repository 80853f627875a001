"""Dates of a little story: the day is in the sentence, the year often only in one of the sentences before.

"They married in May 1997. Flight 2031 was late. Anna left on 3 June." -> 1997-06-03. Three stories in four have a last
sentence without a year and exactly one sentence before that has one; in the others the last sentence has its own year,
whatever the sentences before say. Other sentences have other numbers, or a day without a year, or nothing of the kind.
English alone: what matters is where to look. Knows nothing of tokens, files or models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from babel import Locale

from training.tasks.dates import (
    FIRST_DAY,
    LAST_DAY,
    OTHER,
    TARGET_FIELDS,
    DateFormatter,
    Part,
    attention_hits_in,
    joined,
    random_date,
)
from training.tasks.example import Example

#: The most sentences before the last one.
SENTENCES = 3
_OWN_YEAR_SHARE = 0.25
_MASKS = "/"  # between the masks of an annotation

_WHO = ("Anna", "The committee", "My brother", "Dr Lee", "The ship", "She", "He", "Our team", "The author", "Mr Novak")
_DID = ("left", "came back", "was born", "signed the letter", "moved to Rome", "arrived", "met the mayor", "retired")
_PLAIN = (
    "It was a long way home.",
    "Nobody had expected that.",
    "The weather was good.",
    "Everything went well.",
    "The garden was full of roses.",
    "They spoke about it for hours.",
)
#: A number that is no year, whatever it looks like.
_NUMBERED = (
    "Room {year} was closed.",
    "Flight {year} was late.",
    "They paid {year} euros.",
    "The train left at {hour}:{minute}.",
    "It rained for {day} days.",
    "{day} people were there.",
)
_WITH_YEAR = ("d MMMM y", "MMMM d, y", "d MMM y", "MMM d, y", "EEEE, d MMMM y", "dd.MM.y")
_MONTH_AND_YEAR = ("MMMM y", "y")
_WITHOUT_YEAR = ("d MMMM", "MMMM d", "d MMM", "MMM d", "EEEE, d MMMM")

Sentence = tuple[str, str]  # text and, of equal length, the field that each character shows


def examples(seed: int) -> Iterator[Example]:
    """Endless examples, the same for the same seed and Babel version.

    ``annotation`` has the field mask (y, m, d or ".") of each sentence of the context and of the source, in order, "/"
    between them.
    """
    generator = random.Random(seed)
    english = Locale.parse("en")
    formatters = {
        pattern: DateFormatter(english, pattern) for pattern in (*_WITH_YEAR, *_MONTH_AND_YEAR, *_WITHOUT_YEAR)
    }
    while True:
        date = random_date(generator)
        own_year = generator.random() < _OWN_YEAR_SHARE
        before = [_without_year(generator, formatters) for _ in range(generator.randint(0, SENTENCES - 1))]
        if not own_year:
            before.insert(generator.randint(0, len(before)), _of_year(generator, formatters, date.year))
        elif generator.random() < 0.5:
            before.insert(generator.randint(0, len(before)), _of_year(generator, formatters, _any_year(generator)))
        pattern = generator.choice(_WITH_YEAR if own_year else _WITHOUT_YEAR)
        source = _told(generator, "on", formatters[pattern].parts(date))
        sentences = [*before, source]
        yield Example(
            source=source[0],
            target=date.isoformat(),
            annotation=_MASKS.join(fields for _, fields in sentences),
            context=tuple(text for text, _ in before),
        )


def _any_year(generator: random.Random) -> int:
    return generator.randint(FIRST_DAY.year, LAST_DAY.year)


def _of_year(generator: random.Random, formatters: dict[str, DateFormatter], year: int) -> Sentence:
    """A sentence with a date of this year, or with the month and the year, or with the year alone."""
    date = random_date(generator)
    date = date.replace(year=year, day=min(date.day, 28))
    if generator.random() < 0.5:
        return _told(generator, "on", formatters[generator.choice(_WITH_YEAR)].parts(date))
    return _told(generator, "in", formatters[generator.choice(_MONTH_AND_YEAR)].parts(date))


def _without_year(generator: random.Random, formatters: dict[str, DateFormatter]) -> Sentence:
    kind = generator.randrange(3)
    if kind == 0:
        return _told(generator, "on", formatters[generator.choice(_WITHOUT_YEAR)].parts(random_date(generator)))
    template = generator.choice(_PLAIN if kind == 1 else _NUMBERED)
    text = template.format(
        year=_any_year(generator),
        hour=generator.randint(6, 23),
        minute=f"{generator.randint(0, 59):02}",
        day=generator.randint(2, 90),
    )
    return text, OTHER * len(text)


def _told(generator: random.Random, preposition: str, date: list[Part]) -> Sentence:
    """Who did what on that date: the date last, or first."""
    who, did = generator.choice(_WHO), generator.choice(_DID)
    if generator.random() < 0.7:
        return joined([_plain(f"{who} {did} {preposition} "), *date, _plain(".")])
    lower = who[0].lower() + who[1:] if who.split()[0] in ("The", "My", "She", "He", "Our") else who
    return joined([_plain(f"{preposition.capitalize()} "), *date, _plain(f" {lower} {did}.")])


def _plain(text: str) -> Part:
    return Part(text, OTHER, "")


def year_sentence(example: Example) -> int | None:
    """Which sentence of the context the year must come from; None where the source has its own."""
    *before, own = example.annotation.split(_MASKS)
    return None if "y" in own else next(place for place, mask in enumerate(before) if "y" in mask)


def attention_hits(example: Example, looked_at: list[tuple[int, int]]) -> list[bool]:
    """As for dates, of the digits whose field stands in the source."""
    own = example.annotation.split(_MASKS)[-1]
    return attention_hits_in(own, looked_at)


def context_hits(example: Example, looked_at: list[tuple[int, int, int]]) -> list[bool]:
    """For each digit of a year that the source does not tell: was the context's character of greatest weight in the
    year? ``looked_at`` has for each target character the sentence of the context and the span there."""
    wanted = year_sentence(example)
    if wanted is None:
        return []
    mask = example.annotation.split(_MASKS)[wanted]
    return [
        sentence == wanted and "y" in mask[begin:end]
        for (sentence, begin, end), field in zip(looked_at, TARGET_FIELDS, strict=True)
        if field == "y"
    ]

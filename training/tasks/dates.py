"""The human-date task: a calendar date written for people, translated to ISO 8601.

Gives source strings in every format below and every locale Babel knows, their target, and for each source
character the field of the date it shows. Knows nothing of tokens, files or models.

After keras-attention (https://github.com/datalogue/keras-attention), with two differences: the year is ``y``, because
the original's ``YYY`` is the week-year and labels the days around New Year wrongly; and the years are 1950-2049, so
that a two-digit year has one meaning.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from babel import Locale, localedata
from babel.dates import DateTimeFormat, get_date_format, parse_pattern

from training.tasks.example import Example

FIRST_DAY = datetime.date(1950, 1, 1)
LAST_DAY = datetime.date(2049, 12, 31)
NAMED_FORMATS: tuple[Literal["short", "medium", "long", "full"], ...] = ("short", "medium", "long", "full")
PATTERNS = (
    "d MMM y",
    "d MMMM y",
    "dd MMM y",
    "d MMM, y",
    "d MMMM, y",
    "dd, MMM y",
    "d MM yy",
    "MMMM d y",
    "MMMM d, y",
    "dd.MM.yy",
)

# The field of the date that a CLDR pattern letter shows; every other letter (weekday, era, literal) shows OTHER.
OTHER = "."
_FIELD_OF_LETTER = {"y": "y", "M": "m", "L": "m", "d": "d"}

#: The field that each character of "YYYY-MM-DD" comes from.
TARGET_FIELDS = "yyyy.mm.dd"


class Part(NamedTuple):
    """A literal or a rendered field of a date: ``letters`` are CLDR's ("MMMM"), empty for a literal."""

    text: str
    field: str
    letters: str = ""


@dataclass(frozen=True)
class _Piece:
    """One literal or one field of a compiled pattern."""

    letters: str
    literal: str
    field: str


@dataclass
class DateFormatter:
    """One format of one locale, compiled so that rendering a date costs a few dictionary look-ups.

    Babel's own ``format_date`` gives the same text (a test holds this); it does not say which characters show which
    field, and is some thirty times slower.
    """

    locale: Locale
    pattern: str
    _pieces: list[_Piece] = field(init=False)
    _rendered: dict[tuple[str, int], str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._pieces = _compile(str(parse_pattern(self.pattern).format))

    def render(self, date: datetime.date) -> tuple[str, str]:
        """Return the text and, of equal length, the field that each of its characters shows."""
        return joined(self.parts(date))

    def parts(self, date: datetime.date) -> list[Part]:
        """The literals and fields of the text, in order."""
        return [
            Part(self._render_piece(piece, date) if piece.letters else piece.literal, piece.field, piece.letters)
            for piece in self._pieces
        ]

    def _render_piece(self, piece: _Piece, date: datetime.date) -> str:
        key = (piece.letters, _determining_value(piece.letters[0], date))
        if key not in self._rendered:
            self._rendered[key] = str(DateTimeFormat(date, self.locale)[piece.letters])
        return self._rendered[key]


def joined(parts: Iterable[Part]) -> tuple[str, str]:
    """The text of some parts and, of equal length, the field that each of its characters shows."""
    texts, fields = [], []
    for part in parts:
        texts.append(part.text)
        fields.append(part.field * len(part.text))
    return "".join(texts), "".join(fields)


def _determining_value(letter: str, date: datetime.date) -> int:
    """The number that decides how a field is rendered, so that the rendering can be kept."""
    values = {"y": date.year, "M": date.month, "L": date.month, "d": date.day, "E": date.weekday(), "c": date.weekday()}
    return values.get(letter, date.toordinal())


def _compile(format_string: str) -> list[_Piece]:
    """Split Babel's ``%(MMMM)s %(d)s`` into literals and fields."""
    pieces = []
    rest = format_string
    while rest:
        literal, found, rest = rest.partition("%(")
        if literal:
            pieces.append(_Piece("", literal.replace("%%", "%"), OTHER))
        if found:
            letters, _, rest = rest.partition(")s")
            pieces.append(_Piece(letters, "", _FIELD_OF_LETTER.get(letters[0], OTHER)))
    return pieces


def all_formatters() -> list[DateFormatter]:
    """Every format of every locale that Babel has, in a fixed order, but for the root locale, which has no language."""
    formatters = []
    for identifier in sorted(localedata.locale_identifiers()):
        if identifier == "root":
            continue
        locale = Locale.parse(identifier)
        patterns = [get_date_format(name, locale=locale).pattern for name in NAMED_FORMATS]
        formatters += [DateFormatter(locale, pattern) for pattern in (*patterns, *PATTERNS)]
    return formatters


def examples(seed: int) -> Iterator[Example]:
    """Endless examples, the same for the same seed and Babel version.

    ``Example.annotation`` is the field mask of the source: y, m, d or "." for each character.
    """
    generator = random.Random(seed)
    formatters = all_formatters()
    while True:
        date = random_date(generator)
        text, fields = generator.choice(formatters).render(date)
        text, fields = with_case(text, fields, generator.randrange(4))
        yield Example(source=text, target=date.isoformat(), annotation=fields)


def random_date(generator: random.Random) -> datetime.date:
    """Any day of the range, each as likely."""
    return FIRST_DAY + datetime.timedelta(days=generator.randrange((LAST_DAY - FIRST_DAY).days + 1))


def with_case(text: str, fields: str, choice: int) -> tuple[str, str]:
    """Leave the case (choice 0, 1), lower it (2) or raise it (3): some letters change their length with their case."""
    if choice < 2:
        return text, fields
    change = str.lower if choice == 2 else str.upper
    changed = change(text)
    widened = "".join(name * len(change(character)) for character, name in zip(text, fields, strict=True))
    if len(widened) != len(changed):
        raise ValueError(f"changing the case of {text!r} character by character does not give the length of the whole")
    return changed, widened


def attention_hits(example: Example, looked_at: list[tuple[int, int]]) -> list[bool]:
    """For each digit of the target: was the source character of greatest weight in the field the digit comes from?

    ``looked_at`` has, for each target character, the span (begin, end) in the source text of greatest weight; an empty
    span stands for a special token. Hyphens are not judged: no field is theirs.
    """
    return attention_hits_in(example.annotation, looked_at)


def attention_hits_in(fields: str, looked_at: list[tuple[int, int]]) -> list[bool]:
    """The same of a field mask, of the target's fields that it has."""
    return [
        wanted in fields[begin:end]
        for (begin, end), wanted in zip(looked_at, TARGET_FIELDS, strict=True)
        if wanted != OTHER and wanted in fields
    ]

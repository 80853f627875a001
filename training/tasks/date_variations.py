"""Dates as people write them: the generator's dates with what CLDR's formats never show.

Weekdays that are wrong or were never there, ordinals ("9th", "1er", "1.º"), "of" and "de" put in or left out, shortened
months, native digits, the Buddhist year in Thai, other separators, spare spaces and commas. And a few texts that are no
date, whose target is any date at all, so that a model learns to be unsure of them: no answer to them can have a high
probability. For training only: validation and test strings are the plain generator's (``training.tasks.dates``).
"""

from __future__ import annotations

import calendar
import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from babel import Locale
from babel.dates import get_date_format

from training.tasks.dates import OTHER, DateFormatter, Part, all_formatters, joined, random_date, with_case
from training.tasks.example import Example

#: How often a text is no date.
_NONSENSE_SHARE = 0.05
#: How often the locale is one of those below, evenly, where people are most likely to come from; else any.
_WIDESPREAD_SHARE = 0.65
_WIDESPREAD = (
    *("en", "en", "en", "en", "en_GB", "en_GB", "en_GB", "en_AU", "en_IN"),
    *("fr", "fr", "fr_CA", "es", "es", "es_MX", "de", "de", "it", "it", "pt", "pt", "pt_PT", "nl", "nl", "ca", "ro"),
    *("pl", "ru", "uk", "cs", "hu", "sv", "da", "nb", "fi", "el", "tr", "id", "vi", "ga", "ja", "zh", "ko"),
    *("ar", "ar", "ar_EG", "fa", "fa", "he", "ur", "hi", "hi", "mr", "ne", "bn", "bn", "ta", "te", "gu", "th", "th"),
    *("km", "lo", "my"),
)
#: Patterns that people use wherever they live; CLDR has some of them for some locales.
_WORD_PATTERNS = (
    *(
        "d MMM y",
        "d MMMM y",
        "d MMMM, y",
        "EEEE d MMMM y",
        "EEE d MMM y",
        "EEE, d MMM y",
        "EEEE, d MMMM y",
        "d. MMMM y",
    ),
    *("d-MMM-y", "d-MMM-yy", "dd/MMM/y", "d MMM yy", "d MMMM ''yy", "y MMM d", "y MMMM d", "y-MMM-dd"),
    *("MMM d, y", "MMMM d, y", "MMM d y", "MMMM d y", "EEEE, MMMM d, y", "EEE, MMM d, y", "EEE MMM d y", "MMM-d-y"),
    *("MMM d ''yy", "MMMM dd, y"),
)
_YEAR_FIRST = ("y-MM-dd", "y/MM/dd", "y.MM.dd", "y/M/d", "y-M-d", "y MM dd", "yMMdd")
_DAY_FIRST = ("d/M/y", "dd/MM/y", "d.M.y", "dd.MM.y", "d-M-y", "dd-MM-y", "d. M. y", "d M y")
_MONTH_FIRST = ("M/d/y", "MM/dd/y", "M-d-y", "MM-dd-y")

#: The character of zero of CLDR's numbering systems that count in tens.
_ZEROS = {
    "arab": 0x660,
    "arabext": 0x6F0,
    "beng": 0x9E6,
    "deva": 0x966,
    "fullwide": 0xFF10,
    "gujr": 0xAE6,
    "guru": 0xA66,
    "khmr": 0x17E0,
    "knda": 0xCE6,
    "laoo": 0xED0,
    "mlym": 0xD66,
    "mymr": 0x1040,
    "orya": 0xB66,
    "tamldec": 0xBE6,
    "telu": 0xC66,
    "thai": 0xE50,
    "tibt": 0xF20,
}
_BUDDHIST_ERA = 543  # years ahead
_SEPARATORS = "/-. "


def variations(seed: int) -> Iterator[Example]:
    """Endless examples, the same for the same seed and Babel version. ``annotation`` as of ``dates.examples``."""
    generator = random.Random(seed)
    locales: dict[str, _Writer] = {}
    for formatter in all_formatters():
        locales.setdefault(str(formatter.locale), _Writer(formatter.locale))
    everywhere = list(locales.values())
    while True:
        widespread = generator.random() < _WIDESPREAD_SHARE
        writer = locales[generator.choice(_WIDESPREAD)] if widespread else generator.choice(everywhere)
        text, fields, date = writer.write(generator)
        if generator.random() < _NONSENSE_SHARE:
            text = _nonsense(generator, text)
            yield Example(text, random_date(generator).isoformat(), OTHER * len(text))
        else:
            yield Example(text, date, fields)


@dataclass
class _Writer:
    """How people of one locale write."""

    locale: Locale

    def write(self, generator: random.Random) -> tuple[str, str, str]:
        """Text, fields and ISO date of one random date."""
        date = random_date(generator)
        formatter = self._formatter(generator)
        parts = formatter.parts(date)
        if self.locale.language == "th" and generator.random() < 0.4:
            parts = [_buddhist(part) for part in parts]
        if generator.random() < 0.4:
            parts = self._with_weekday(generator, parts)
        if generator.random() < 0.3:
            parts = [self._shorten(generator, part) for part in parts]
        if generator.random() < 0.35:
            parts = self._with_ordinal(generator, parts, date.day)
        parts = _vary_literals(generator, parts, long_year=any(part.letters == "y" for part in parts))
        native = self._native_zero
        if native is not None and generator.random() < 0.5:
            parts = [part._replace(text=_with_digits(part.text, native)) for part in parts]
        elif self.locale.language in ("ja", "zh", "ko") and generator.random() < 0.2:
            parts = [part._replace(text=_with_digits(part.text, _ZEROS["fullwide"])) for part in parts]
        text, fields = with_case(*joined(parts), generator.randrange(5) % 4)
        return text, fields, date.isoformat()

    def _formatter(self, generator: random.Random) -> DateFormatter:
        choices = self._formatters
        words, numbers, own = choices["words"], choices["numbers"], choices["own"]
        return generator.choice(generator.choices((own, words, numbers), (0.3, 0.5, 0.2))[0])

    @cached_property
    def _formatters(self) -> dict[str, list[DateFormatter]]:
        """By what the pattern is: the locale's own, with a month in words, all digits."""
        own = [get_date_format(name, locale=self.locale).pattern for name in ("short", "medium", "long", "full")]
        # The order of an all-digit date is the locale's own: a text whose day and month may change places must keep
        # the meaning that it has where it was written.
        short = own[0]
        if short.find("y") < short.find("d"):
            numbers: tuple[str, ...] = _YEAR_FIRST
        elif short.find("d") < short.find("M"):
            numbers = _DAY_FIRST + _YEAR_FIRST
        else:
            numbers = _MONTH_FIRST + _YEAR_FIRST
        patterns = {"own": own, "words": _WORD_PATTERNS, "numbers": numbers}
        return {
            kind: [DateFormatter(self.locale, pattern) for pattern in patterns_of_kind]
            for kind, patterns_of_kind in patterns.items()
        }

    @cached_property
    def _weekdays(self) -> list[str]:
        return [name for width in ("wide", "abbreviated") for name in self.locale.days["format"][width].values()]

    @cached_property
    def _native_zero(self) -> int | None:
        systems = {self.locale.default_numbering_system, self.locale.other_numbering_systems.get("native", "latn")}
        return next((_ZEROS[system] for system in sorted(systems) if system in _ZEROS), None)

    @cached_property
    def _full_months(self) -> list[str]:
        return [name.casefold() for name in self.locale.months["format"]["wide"].values()]

    def _with_weekday(self, generator: random.Random, parts: list[Part]) -> list[Part]:
        """Another weekday where there is one, or one where there was none, mostly in front."""
        name = generator.choice(self._weekdays)
        if any(part.letters.startswith("E") for part in parts):
            return [part._replace(text=name) if part.letters.startswith("E") else part for part in parts]
        separator = Part(generator.choice((" ", " ", ", ", ", ", ". ", "  ", ",")), OTHER)
        weekday = Part(name.rstrip("."), OTHER, "EEEE")
        return [*parts, separator, weekday] if generator.random() < 0.1 else [weekday, separator, *parts]

    @property
    def _english(self) -> bool:
        return self.locale.language == "en"

    def _shorten(self, generator: random.Random, part: Part) -> Part:
        """Three or four letters of a month's name where no other month begins so, with a full stop or without."""
        if not part.letters.startswith(("MMM", "LLL")):
            return part
        text = part.text.rstrip(".")
        letters = generator.choice((3, 3, 4))
        beginning = text[:letters]
        whole = len(text) > letters and beginning.isalpha() and ord(max(beginning)) < 0x530  # Latin, Greek, Cyrillic
        if whole and sum(name.startswith(beginning.casefold()) for name in self._full_months) == 1:
            text = beginning
        return part._replace(text=text + generator.choice(("", "", ".")))

    def _with_ordinal(self, generator: random.Random, parts: list[Part], day: int) -> list[Part]:
        if not any(part.letters.startswith(("MMM", "LLL")) for part in parts):
            return parts
        changed = []
        for place, part in enumerate(parts):
            follows = parts[place + 1] if place + 1 < len(parts) else None
            if part.letters != "d" and part.letters != "dd":
                changed.append(part)
                continue
            ending = _ordinal_ending(generator, self.locale.language, day)
            stops = follows is not None and follows.text.startswith(".") and bool(ending)
            begins = place == 0 or parts[place - 1].text.endswith(" ")
            if self._english and begins and generator.random() < 0.1:  # "the 9th", "May the 9th"
                changed.append(Part("the ", OTHER))
            changed.append(Part(part.text.lstrip("0") if ending else part.text, part.field, part.letters))
            if not stops:
                changed.append(Part(ending, part.field, part.letters))
            month_next = place + 2 < len(parts) and parts[place + 2].letters.startswith(("MMM", "LLL"))
            if self._english and month_next and generator.random() < 0.4:
                changed.append(Part(" of", OTHER))
        return changed


def _ordinal_ending(generator: random.Random, language: str, day: int) -> str:
    """What people write behind the number of a day; "" where they write nothing."""
    if language == "en":
        return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    if language == "fr":
        return "er" if day == 1 else ""
    if language in ("es", "pt", "gl"):
        return generator.choice(("º", ".º", "°")) if day == 1 or generator.random() < 0.2 else ""
    if language == "it":
        return generator.choice(("º", "°")) if day == 1 or generator.random() < 0.1 else ""
    endings = {"nl": ("e", "ste", "de"), "sv": (":e",), "ru": ("-го", "-е"), "el": ("η",), "ga": ("ú",), "ro": ("",)}
    return generator.choice(endings.get(language, ("", ".")))


def _vary_literals(generator: random.Random, parts: list[Part], long_year: bool) -> list[Part]:
    """Other separators, "de" left out, commas and spaces to spare or missing."""
    digits = not any(part.letters.startswith(("MMM", "LLL", "E")) for part in parts)
    # With a two-digit year and no word, the separators say which locale it is, and so what is the month.
    if digits and long_year and generator.random() < 0.25:
        chosen = generator.choice(_SEPARATORS)
        parts = [part._replace(text=chosen) if _is_separator(part) else part for part in parts]
    elif not digits and generator.random() < 0.06:
        chosen = generator.choice("-/.")
        parts = [part._replace(text=chosen) if part.text == " " else part for part in parts]
    tidy = generator.random() < 0.5
    shown = [part if part.letters else part._replace(text=_vary_literal(generator, part.text, tidy)) for part in parts]
    if tidy:
        return shown
    front, behind = generator.choice(("", "", "", " ", "  ")), generator.choice(("", "", "", " ", "  ", ".", ","))
    return [Part(front, OTHER), *shown, Part(behind, OTHER)]


def _is_separator(part: Part) -> bool:
    return not part.letters and part.text.strip("\u200f\u200e") in ("/", "-", ".", ". ")


def _vary_literal(generator: random.Random, text: str, tidy: bool) -> str:
    """``tidy`` leaves commas and spaces as they are."""
    if generator.random() < 0.7:  # marks of direction that no keyboard has
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
        text = "".join(" " if character.isspace() else character for character in text)
    if text.strip() in ("de", "del") and generator.random() < 0.3:
        text = generator.choice((" ", " ", " de ", " del "))
    if tidy:
        return text
    change = generator.random()
    if change < 0.12:
        return text.replace(",", "")
    if change < 0.2 and text.startswith(" "):
        return "," + text
    if change < 0.35:
        return text.replace(" ", "  ")
    if change < 0.43 and len(text) > 1:  # "May 9,2018"
        return text.rstrip(" ")
    if change < 0.53 and text.strip() in ("/", "-", ".", ","):
        return f" {text.strip()} "
    return text


def _buddhist(part: Part) -> Part:
    """The year as Thailand counts."""
    if part.letters == "y":
        return part._replace(text=str(int(part.text) + _BUDDHIST_ERA))
    return part._replace(text="พ.ศ.") if part.letters.startswith("G") else part


def _with_digits(text: str, zero: int) -> str:
    return text.translate({ord("0") + value: zero + value for value in range(10)})


def _nonsense(generator: random.Random, text: str) -> str:
    """No date: letters and digits of one in disorder, impossible numbers, or words and signs of no meaning."""
    kind = generator.randrange(5)
    if kind == 0:
        characters = list(text)
        generator.shuffle(characters)
        return "".join(characters)
    if kind == 1:
        separator = generator.choice(_SEPARATORS)
        high = (generator.randint(32, 99), generator.randint(13, 99), generator.randint(0, 9999))
        return separator.join(f"{number:02d}" for number in generator.sample(high, 3))
    if kind == 2:  # a day that its month does not have
        month = generator.choice(calendar.month_name[1:])
        return f"{generator.randint(32, 99)} {month} {generator.randint(1950, 2049)}"
    if kind == 3:
        return "".join(generator.choice("0123456789/-.,: ") for _ in range(generator.randint(1, 12)))
    letters = "abcdefghijklmnopqrstuvwxyz" if generator.random() < 0.7 else "".join(sorted(set(text))) + "abcde "
    words = ("".join(generator.choices(letters, k=generator.randint(1, 9))) for _ in range(generator.randint(1, 6)))
    written = " ".join(words)
    return generator.choice((str.lower, str.upper, str.capitalize))(written)

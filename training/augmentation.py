"""More training pairs made of those there are, for texts that a corpus of short, tidy sentences does not have.

A model that has seen upper case, missing full stops, several sentences in a row and strings to copy does something sane
with them. Held-out parts stay as they are. Joining pairs teaches length: Kondo et al. 2021, "Sentence Concatenation
Approach to Data Augmentation for Neural Machine Translation".
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, time, timedelta

from babel import Locale
from babel.dates import format_date, format_time
from babel.numbers import format_currency, format_decimal

from training.config import AugmentConfig
from training.tasks import Example
from training.templates import PICTURES, Values

_REMEMBERED = 10_000  # pairs to join with: a sample of all that came before
_MOST_JOINED = 4
_BEGINNINGS = ["", *"bcdfghjklmnprstvwxyz", "sch", "th", "br", "kl", "st", "tr", "ch", "gr", "ph"]
_VOWELS = [*"aeiouaeiouyäöüé", "ei", "au", "ie", "ou"]
_ENDS = ["", "", "", *"lnrstmkdx", "ll", "nn", "rt", "ck", "nd", "tz", "ng"]
_SCRIPTS = ["αβγδεζηθικλμνξοπρστυφχψωάέήίόύώς", "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїє"]
# Hebrew, Arabic, Devanagari, Thai, Hiragana, Katakana, Han, Hangul: the first code point, and how many.
_LETTERS = [(0x05D0, 27), (0x0627, 20), (0x0641, 10), (0x0905, 50), (0x0E01, 46), (0x3042, 80), (0x30A1, 80)]
_LETTERS += [(0x4E00, 20_000), (0xAC00, 11_000)]
_SCRIPTS += ["".join(map(chr, range(first, first + count))) for first, count in _LETTERS]
_NAMES_AND_NUMBERS = re.compile(r"\b[A-ZÄÖÜÉ][a-zäöüßé]{2,}\b|\b\d(?:[\d.,:]*\d)?\b")
_PLAIN = ('"', '"')
_STYLES = [("„", "“"), ("“", "”"), ("»", "«"), ("«", "»"), ("‚", "‘"), ("‘", "’"), _PLAIN]
_SAME = [("(", ")"), ("[", "]"), ("*", "*"), ("<b>", "</b>"), ("<p>", "</p>")]
_QUOTES = [(marks, _PLAIN) for marks in _STYLES] + [(marks, marks) for marks in _SAME]
_MARKS = '"„“”»«'
_PLACE = re.compile(r"\{[.,]?\}")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})
_FULL_STOPS = ".!?…"
_EMOJI = [chr(first + number) for first, count in [(0x2600, 255), *PICTURES] for number in range(count)]
_EMOJI += [*"☀☕♥⚡✅✨", *["❤️", "👍🏽", "👩‍💻", "🇩🇪"] * 20]


def augmented(
    pairs: Iterable[Example],
    settings: AugmentConfig,
    languages: tuple[str, str] | None = None,
    frames: Sequence[Example] = (),
    templates: Sequence[Example] = (),
) -> Iterator[Example]:
    """Every pair, and after a share of them one made of it. The same pairs and seed give the same.

    ``languages``: source and target, of which ``settings.formatted`` and ``templated`` must know how they write dates
    and numbers. ``frames``, ``templates``: for ``settings.framed`` and ``templated``.
    """
    generator = random.Random(settings.seed)
    earlier: list[Example] = []
    values = Values(_known(languages), generator) if settings.templated else None
    names = _Names(values)
    makers: list[tuple[float, Callable[[Example], Example]]] = [
        (settings.upper_case, _upper_case),
        (settings.unpunctuated, lambda pair: _unpunctuated(pair, generator)),
        (settings.joined, lambda pair: _joined(pair, earlier, generator)),
        (settings.renamed, lambda pair: _renamed(pair, names, generator)),
        (settings.quoted, lambda pair: _quoted(pair, generator)),
        (settings.copied, lambda pair: _copied(pair, generator)),
    ]
    if settings.lower_case:  # those above draw a number each, used or not: text that was made once stays as it was
        makers.append((settings.lower_case, _lower_case))
    if settings.respelled:
        makers.append((settings.respelled, lambda pair: _respelled(pair, generator)))
    if settings.framed:
        makers.append((settings.framed, lambda pair: _framed(pair, frames, generator)))
    if settings.formatted:
        writers = tuple(Locale.parse(language, sep="-") for language in _known(languages))
        makers.append((settings.formatted, lambda pair: _formatted(pair, writers, generator)))
    if values is not None:
        makers.append((settings.templated, lambda _: values.fill(generator.choice(templates))))
    for number, pair in enumerate(pairs):
        yield pair
        for share, make in makers:
            if generator.random() < share and (made := make(pair)) != pair:
                yield made
        place = number if number < _REMEMBERED else generator.randrange(number + 1)  # reservoir sampling
        if place < _REMEMBERED:
            earlier[place : place + 1] = [pair]


def _known(languages: tuple[str, str] | None) -> tuple[str, str]:
    if languages is None:
        raise ValueError("formatted texts are of two languages, and none are named")
    return languages


def _upper_case(pair: Example) -> Example:
    return replace(pair, source=pair.source.upper(), target=pair.target.upper())


def _lower_case(pair: Example) -> Example:
    """As people type, and as words are read that the service does not know in capitals; for those there is no ß."""
    return replace(pair, source=pair.source.upper().lower())


def _respelled(pair: Example, generator: random.Random) -> Example:
    """German as it is written in Switzerland, without ß, and every other as keyboards without umlauts have it."""
    source = pair.source.replace("ß", "ss")
    plain = source.translate(_UMLAUTS)
    if source.isupper():
        plain = plain.upper()
    return replace(pair, source=plain if generator.random() < 0.5 else source)


def _unpunctuated(pair: Example, generator: random.Random) -> Example:
    """A source without its full stop, as people type, and every other in lower case; a question is still one."""
    source = pair.source.rstrip(_FULL_STOPS)
    if not source:
        return pair
    asks = pair.source.endswith("?")
    target = pair.target if asks else pair.target.rstrip(_FULL_STOPS) or pair.target
    return replace(pair, source=source.lower() if generator.random() < 0.5 else source, target=target)


def _joined(pair: Example, earlier: list[Example], generator: random.Random) -> Example:
    others = generator.sample(earlier, min(len(earlier), generator.randint(1, _MOST_JOINED - 1)))
    both = [*(one for one in others if one.annotation == pair.annotation), pair]  # of one target language
    return replace(pair, source=" ".join(one.source for one in both), target=" ".join(one.target for one in both))


class _Names:
    """Those met so far, in their order: a set alone has another in each process. With ``values`` people's too."""

    def __init__(self, values: Values | None) -> None:
        self.values = values
        self.all: list[str] = []
        self._known: set[str] = set()

    def add(self, name: str) -> None:
        if name not in self._known:
            self._known.add(name)
            self.all.append(name)


def _renamed(pair: Example, names: _Names, generator: random.Random) -> Example:
    """Another name or number in the place of each that stands once on both sides, the same on both.

    ``names``: those met so far, which this pair's are put to.
    """
    source, target = (Counter(_NAMES_AND_NUMBERS.findall(text)) for text in (pair.source, pair.target))
    words = [word for word in source if source[word] == target[word] == 1]
    for word in words:
        if not word[0].isdigit():
            names.add(word)
    others = {word: _like(word, names, generator) for word in words}

    def rename(text: str) -> str:
        return _NAMES_AND_NUMBERS.sub(lambda found: others.get(found.group(), found.group()), text)

    return replace(pair, source=rename(pair.source), target=rename(pair.target))


def _like(word: str, names: _Names, generator: random.Random) -> str:
    """A number of the same shape; or a name: one of the corpus, of a person or one made up."""
    if not word[0].isdigit():
        kind = generator.random()
        if kind < 0.3:
            return generator.choice(names.all)
        return names.values.person() if names.values is not None and kind < 0.7 else _name(generator)
    digits = (generator.choice("0123456789") if character.isdigit() else character for character in word)
    return generator.choice("123456789") + "".join(digits)[1:]


def _quoted(pair: Example, generator: random.Random) -> Example:
    (begin, end), (plain_begin, plain_end) = generator.choice(_QUOTES)
    return replace(pair, source=f"{begin}{pair.source}{end}", target=f"{plain_begin}{pair.target}{plain_end}")


def _framed(pair: Example, frames: Sequence[Example], generator: random.Random) -> Example:
    """As direct speech. In a frame ``{.}`` is a sentence, ``{}`` one without its full stop, ``{,}`` one with a comma in
    its place; question and exclamation marks stay."""
    if any(mark in text for text in (pair.source, pair.target) for mark in _MARKS):
        return pair
    frame = generator.choice(frames)
    return replace(pair, source=_put_in(frame.source, pair.source), target=_put_in(frame.target, pair.target))


def is_frame(text: str) -> bool:
    """Has it a place for a sentence?"""
    return _PLACE.search(text) is not None


def _put_in(frame: str, text: str) -> str:
    unended = text if text.endswith("..") else text.removesuffix(".")
    ended = unended + "," if unended != text or text[-1].isalnum() else text
    forms = {"{.}": text, "{,}": ended, "{}": unended}
    return _PLACE.sub(lambda found: forms[found.group()], frame)


def _copied(pair: Example, generator: random.Random) -> Example:
    """With a text that no language translates, at either end or in the pair's place."""
    make = generator.choice([_number, _name, _emoji, _foreign, _foreign, _address, _signs])
    text = make(generator)
    # A word by itself is a word to translate: "Ja" is no name.
    return _placed(pair, text, text, generator, alone=make is not _name)


def _placed(pair: Example, source: str, target: str, generator: random.Random, alone: bool = True) -> Example:
    """Alone if it may be, before the pair or behind it."""
    place = generator.random()
    if alone and place < 0.3:
        return replace(pair, source=source, target=target)
    if place < 0.6:
        return replace(pair, source=f"{source} {pair.source}", target=f"{target} {pair.target}")
    return replace(pair, source=f"{pair.source} {source}", target=f"{pair.target} {target}")


def _formatted(pair: Example, writers: tuple[Locale, ...], generator: random.Random) -> Example:
    """With a date, a time, a number or an amount, on each side as its language writes it."""
    write = generator.choice([_date, _date, _time, _decimal, _amount])(generator)
    source, target = (" ".join(write(writer).split()) for writer in writers)  # without no-break spaces
    return _placed(pair, source, target, generator)


def _date(generator: random.Random) -> Callable[[Locale], str]:
    day = date(1900, 1, 1) + timedelta(days=generator.randrange(55_000))
    form = generator.choice(["long", "long", "full", "medium"])
    return lambda writer: format_date(day, form, locale=writer)


def _time(generator: random.Random) -> Callable[[Locale], str]:
    moment = time(generator.randrange(24), generator.randrange(60))
    return lambda writer: format_time(moment, "short", locale=writer)


def _decimal(generator: random.Random) -> Callable[[Locale], str]:
    number = generator.randrange(10 ** generator.randint(1, 8)) / generator.choice([1, 1, 10, 100])
    return lambda writer: format_decimal(number, locale=writer)


def _amount(generator: random.Random) -> Callable[[Locale], str]:
    number = generator.randrange(10 ** generator.randint(2, 7)) / generator.choice([1, 100])
    currency = generator.choice(["EUR", "USD", "GBP", "CHF"])
    return lambda writer: format_currency(number, currency, locale=writer)


def _number(generator: random.Random) -> str:
    whole = str(generator.randrange(10 ** generator.randint(1, 9)))
    forms = [whole, f"{whole} %", f"{generator.randrange(24)}:{generator.randrange(60):02}", f"{whole} €", f"#{whole}"]
    return generator.choice([*forms, f"{whole}-{generator.randrange(10_000)}", f"+49 {whole}"])


def _name(generator: random.Random) -> str:
    """One name, two, or two with a hyphen."""

    def one() -> str:
        parts = ("".join(map(generator.choice, (_BEGINNINGS, _VOWELS, _ENDS))) for _ in range(generator.randint(1, 3)))
        return "".join(parts).capitalize()

    count = generator.choice([1, 1, 2])
    return generator.choice([" ", " ", " ", "-"]).join(one() for _ in range(count))


def _emoji(generator: random.Random) -> str:
    return "".join(generator.choices(_EMOJI, k=generator.randint(1, 3)))


def _foreign(generator: random.Random) -> str:
    letters = generator.choice(_SCRIPTS)
    words = ["".join(generator.choices(letters, k=generator.randint(1, 8))) for _ in range(generator.randint(1, 5))]
    words = [word.capitalize() if generator.random() < 0.4 else word for word in words]
    return generator.choice([" ", " ", ", "]).join(words) + generator.choice(["", ".", "!", "?"])


def _signs(generator: random.Random) -> str:
    """Punctuation, or a formula."""
    if generator.random() < 0.3:
        return generator.choice(_FULL_STOPS + "-*=+&/") * generator.randint(1, 4)
    left, right = (generator.choice(string.ascii_letters + string.digits) for _ in range(2))
    signs = "".join(generator.choices("=+-*/<>^%$&|~", k=generator.randint(1, 2)))
    return f"{left} {signs} {right}{generator.choice(['', f' {signs[0]} {generator.randrange(100)}'])}"


def _address(generator: random.Random) -> str:
    name = "".join(generator.choices(string.ascii_lowercase + string.digits, k=generator.randint(3, 9)))
    forms = [f"{name}@example.org", f"https://{name}.org", f"www.{name}.com", f"{name}.txt", name.upper()]
    return generator.choice(forms)

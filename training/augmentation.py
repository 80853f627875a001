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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from training.config import AugmentConfig
from training.tasks import Example

_REMEMBERED = 10_000  # pairs to join with: a sample of all that came before
_MOST_JOINED = 4
_SYLLABLES = [
    consonant + vowel for consonant in ["", *"bdfghjklmnprstvwz", "sch", "th", "br", "kl"] for vowel in "aeiou"
]
_SCRIPTS = [
    "αβγδεζηθικλμνξοπρστυφχψω",
    "абвгдежзийклмнопрстуфхцчшщыэюя",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "ابتثجحدرزسشصعفقكلمنهوي",
]
_SCRIPTS += [
    "".join(map(chr, range(first, first + count)))
    for first, count in ((0x3042, 80), (0x4E00, 2000), (0xAC00, 2000), (0x0905, 50))
]
_NAMES_AND_NUMBERS = re.compile(r"\b[A-ZÄÖÜÉ][a-zäöüßé]{2,}\b|\b\d(?:[\d.,:]*\d)?\b")
_PLAIN = ('"', '"')
_STYLES = [("„", "“"), ("“", "”"), ("»", "«"), ("«", "»"), ("‚", "‘"), ("‘", "’"), _PLAIN]
_QUOTES = [(marks, _PLAIN) for marks in _STYLES] + [(("(", ")"), ("(", ")")), (("[", "]"), ("[", "]"))]
_EMOJI = [chr(code) for first, last in ((0x1F300, 0x1F5FF), (0x1F600, 0x1F64F)) for code in range(first, last)]
_EMOJI += [*"☀☕♥⚡✅✨", "❤️", "👍🏽", "👩‍💻", "🇩🇪"]


def augmented(pairs: Iterable[Example], settings: AugmentConfig) -> Iterator[Example]:
    """Every pair, and after a share of them one made of it. The same pairs and seed give the same."""
    generator = random.Random(settings.seed)
    earlier: list[Example] = []
    makers: list[tuple[float, Callable[[Example], Example]]] = [
        (settings.upper_case, _upper_case),
        (settings.unpunctuated, _unpunctuated),
        (settings.joined, lambda pair: _joined(pair, earlier, generator)),
        (settings.renamed, lambda pair: _renamed(pair, generator)),
        (settings.quoted, lambda pair: _quoted(pair, generator)),
        (settings.copied, lambda pair: _copied(pair, generator)),
    ]
    for number, pair in enumerate(pairs):
        yield pair
        for share, make in makers:
            if generator.random() < share and (made := make(pair)) != pair:
                yield made
        place = number if number < _REMEMBERED else generator.randrange(number + 1)  # reservoir sampling
        if place < _REMEMBERED:
            earlier[place : place + 1] = [pair]


def _upper_case(pair: Example) -> Example:
    return replace(pair, source=pair.source.upper(), target=pair.target.upper())


def _unpunctuated(pair: Example) -> Example:
    return replace(pair, source=pair.source.lower().rstrip(".!?…") or pair.source)


def _joined(pair: Example, earlier: list[Example], generator: random.Random) -> Example:
    others = generator.sample(earlier, min(len(earlier), generator.randint(1, _MOST_JOINED - 1)))
    both = [*(one for one in others if one.annotation == pair.annotation), pair]  # of one target language
    return replace(pair, source=" ".join(one.source for one in both), target=" ".join(one.target for one in both))


def _renamed(pair: Example, generator: random.Random) -> Example:
    """Another name or number in the place of each that stands once on both sides, the same on both."""
    source, target = (Counter(_NAMES_AND_NUMBERS.findall(text)) for text in (pair.source, pair.target))
    others = {
        word: _like(word, generator) for word in source.keys() & target.keys() if source[word] == target[word] == 1
    }

    def rename(text: str) -> str:
        return _NAMES_AND_NUMBERS.sub(lambda found: others.get(found.group(), found.group()), text)

    return replace(pair, source=rename(pair.source), target=rename(pair.target))


def _like(word: str, generator: random.Random) -> str:
    """A number of the same shape, or a name."""
    if not word[0].isdigit():
        return _name(generator)
    digits = (generator.choice("0123456789") if character.isdigit() else character for character in word)
    return generator.choice("123456789") + "".join(digits)[1:]


def _quoted(pair: Example, generator: random.Random) -> Example:
    (begin, end), (plain_begin, plain_end) = generator.choice(_QUOTES)
    return replace(pair, source=f"{begin}{pair.source}{end}", target=f"{plain_begin}{pair.target}{plain_end}")


def _copied(pair: Example, generator: random.Random) -> Example:
    text = generator.choice([_number, _name, _emoji, _foreign, _address])(generator)
    if generator.random() < 0.3:
        return replace(pair, source=f"{text} {pair.source}", target=f"{text} {pair.target}")
    return replace(pair, source=f"{pair.source} {text}", target=f"{pair.target} {text}")


def _number(generator: random.Random) -> str:
    whole = str(generator.randrange(10 ** generator.randint(1, 9)))
    forms = [whole, f"{whole} %", f"{generator.randrange(24)}:{generator.randrange(60):02}", f"{whole} €", f"#{whole}"]
    return generator.choice([*forms, f"{whole}-{generator.randrange(10_000)}", f"+49 {whole}"])


def _name(generator: random.Random) -> str:
    names = ("".join(generator.choices(_SYLLABLES, k=generator.randint(2, 4))) for _ in range(generator.randint(1, 2)))
    return " ".join(name.capitalize() for name in names)


def _emoji(generator: random.Random) -> str:
    return "".join(generator.choices(_EMOJI, k=generator.randint(1, 3)))


def _foreign(generator: random.Random) -> str:
    letters = generator.choice(_SCRIPTS)
    return " ".join(
        "".join(generator.choices(letters, k=generator.randint(2, 6))) for _ in range(generator.randint(1, 3))
    )


def _address(generator: random.Random) -> str:
    name = "".join(generator.choices(string.ascii_lowercase + string.digits, k=generator.randint(3, 9)))
    forms = [f"{name}@example.org", f"https://{name}.org", f"www.{name}.com", f"{name}.txt", name.upper()]
    return generator.choice(forms)

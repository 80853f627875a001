"""Training pairs of sentences with places in them: people, addresses, times, amounts, abbreviations, emoji.

A template is a pair of sentences in which ``{time}`` stands for a time of day as each side's language writes it, and
``{last}`` for a family name, the same on both sides. ``{last.2}`` is a second one. A sentence is not translated better
for it; what is in its place is read and copied as what it is, wherever it stands. The names are of many countries, so
that a model learns to copy what it has not seen. Faker has the names; Babel writes dates, numbers and amounts.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Sequence
from datetime import date, time, timedelta
from typing import TypeVar

from babel import Locale
from babel.dates import format_date, format_skeleton, format_time
from babel.numbers import format_currency, format_decimal
from faker import Faker

from training.tasks import Example

_T = TypeVar("_T")
_BRACES = re.compile(r"\{[^}]*\}?|\}")
_PLACE = re.compile(r"\{([a-z_]+)(?:\.\d)?\}")
_PEOPLE_OF = """
    de_DE de_AT en_US en_GB fr_FR it_IT es_ES pt_PT nl_NL sv_SE da_DK fi_FI pl_PL cs_CZ hr_HR hu_HU tr_TR
"""
_NO_CENTS = re.compile(r"[.,]00(?!\d)")
_ABBREVIATIONS = """
    USA NATO EU BMW IBM NASA FBI CIA BBC CDU SPD FDP ADAC FIFA UEFA UNESCO UNICEF NBA GPS DVD CD PC TV PDF HTML USB LED
    IT VW SAP DHL ICE FC AG HIV COVID SMS WLAN
"""
_TRANSLATED_TOWNS = {"München", "Köln", "Nürnberg", "Hannover", "Braunschweig", "Wien", "Hansestadttralsund"}  # or none
#: Of one name in German and English.
_TOWNS = """
    Berlin Hamburg Bremen Dresden Leipzig Frankfurt Stuttgart Düsseldorf Dortmund Essen Bonn Mannheim Karlsruhe
    Augsburg Wiesbaden Kiel Rostock Erfurt Mainz Kassel Lübeck Heidelberg Darmstadt Würzburg Regensburg Ingolstadt
    Wolfsburg Ulm Erlangen Göttingen Jena Weimar Bamberg Passau Potsdam Münster Aachen Freiburg Salzburg Innsbruck
    Graz Linz Klagenfurt Bregenz Basel Bern Lausanne London Paris Madrid Barcelona Valencia Lyon Bordeaux Toulouse
    Amsterdam Rotterdam Oslo Stockholm Helsinki Budapest Istanbul Ankara Izmir Dublin Manchester Liverpool
    Birmingham Oxford Cambridge Boston Chicago Dallas Houston Miami Seattle Toronto Montreal Sydney Melbourne Mumbai
    Shanghai Dubai Nairobi Lagos Bangkok Jakarta Manila Lima Bogotá Santiago
"""
_LONG_TOWNS = ["New York", "Los Angeles", "San Francisco", "Hong Kong", "Buenos Aires", "Tel Aviv", "Kuala Lumpur"]
#: Companies and the like, which are no words and are called the same everywhere.
_BRANDS = """
    Volkswagen Lufthansa Siemens Bosch Bayer BASF Porsche Audi Opel Daimler Mercedes Allianz Telekom Adidas Puma
    Aldi Lidl Rewe Edeka Henkel Continental Haribo Zalando Vodafone Microsoft Google Apple Amazon Facebook Instagram
    WhatsApp YouTube Netflix Spotify Twitter TikTok PayPal Intel Nvidia Samsung Sony Nintendo Toyota Honda Hyundai
    Renault Peugeot Fiat Ferrari Volvo Ikea Nokia Ericsson Philips Nestlé Novartis Roche Pfizer Moderna Boeing
    Airbus Ryanair Uber Airbnb Tesla Starbucks McDonald's Coca-Cola Pepsi Nike Gucci Rolex Walmart Disney Greenpeace
    Interpol Wikipedia Linux Windows
"""
_HOURS = {  # from the first to the twelfth
    "de": ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"],
    "en": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
}
#: Frequent ones, of which many are words too: a name stays as it is.
_FAMILIES = """
    Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Schäfer Koch Bauer Richter Klein Wolf
    Schröder Neumann Schwarz Zimmermann Braun Krüger Hartmann Lange Krause Lehmann Köhler Kaiser Fuchs Lang Möller Weiß
    Jung Hahn Vogel Keller Berger Winkler Roth Beck Baumann Böhm Winter Sommer Schumacher Krämer Stein Jäger Groß Haas
    Schreiber Graf Ziegler Kuhn Engel Horn Busch Bergmann Sauer Pfeiffer Huber Bäcker König Ritter Maler
    Smith Johnson Williams Brown Jones Miller Davis Wilson Anderson Taylor Thomas Moore Jackson White Harris Clark Lewis
    Young Walker King Wright Green Baker Hill Carter Cooper Cook Bell Ward Fisher Stone Black Hunter Mason Potter Parker
    Bush Woods Rivers Little Long Price Rice Fox Wolfe Knight Bishop Page
"""
_SYMBOLS = "♥♡❤★☆☺☹✓✔→←↑↓§€£¥©®°±×÷≈≠≤≥∞√π•†‡♪♫♦♣♠☎✂✈☀☁☂☃"
#: Emoji: the first code point, and how many.
PICTURES = [(0x1F300, 767), (0x1F600, 80), (0x1F680, 70), (0x1F910, 240)]
_EMOJI = [chr(first + number) for first, count in PICTURES for number in range(count)]
_EMOJI += [*"☀☕⚡✅✨⭐⚽", *["❤️", "👍🏽", "👩‍💻", "🇩🇪", "☺️"] * 10]
_EMOJI += ["☀️", "✈️", "☎️", "⚠️", "❄️", "✌️", "✔️", "🏖️", "🛍️", "🌧️", "1️⃣", "🇬🇧", "🇺🇸", "👨‍👩‍👧", "🙋‍♀️"] * 4
_FREQUENT = [
    *"😀😂🤣😍😊🙏😭😘👍😅👏😁🔥💔💖💙😢🤔😆🙄💪😉👌🤗💜😔😎😇🌹🤦🎉💞✌✨🤷😱😌🌸🙌😋💗💚😏💛🙂💓🤩😄😀🖤😃💯🙈👇🎶😒🤭"
]


class Values:
    """What may stand in the places of templates, for one pair of languages. The same generator draws the same."""

    def __init__(self, languages: tuple[str, str], generator: random.Random) -> None:
        self._locales = tuple(Locale.parse(language, sep="-") for language in languages)
        self._generator = generator
        seed = generator.getrandbits(32)
        self._people = Faker(_PEOPLE_OF.split())
        self._german = Faker("de_DE")
        self._english = Faker("en_US")
        self._others = [Faker(other) for other in ("fr_FR", "it_IT", "es_ES", "pl_PL", "la")]
        for number, faker in enumerate((self._people, self._german, self._english, *self._others)):
            faker.seed_instance(seed + number)

    def fill(self, template: Example) -> Example:
        """A value in each place, in places of one name the same."""
        drawn: dict[str, tuple[str, str]] = {}
        for found in _PLACE.finditer(f"{template.source}\t{template.target}"):
            if found.group() not in drawn:
                drawn[found.group()] = self._draw(found[1])
        source, target = (
            _PLACE.sub(lambda found, side=side: drawn[found.group()][side], text)  # type: ignore[misc]
            for side, text in enumerate((template.source, template.target))
        )
        return Example(_one_full_stop(source), _one_full_stop(target), template.annotation)

    def _draw(self, kind: str) -> tuple[str, str]:
        if kind in _WRITTEN:
            return _WRITTEN[kind](self)
        value = _COPIED[kind](self)
        return value, value

    def person(self) -> str:
        """A first name, or a full one."""
        first = self.first_name()
        return first if self._generator.random() < 0.3 else f"{first} {self.last_name()}"

    def _man(self) -> str:
        return str(self._people.first_name_male())

    def _woman(self) -> str:
        return str(self._people.first_name_female())

    def first_name(self) -> str:
        return str(self._people.first_name())

    def last_name(self) -> str:
        return self._choice([self._choice(_FAMILIES.split()), *[str(self._people.last_name())] * 2])

    def _choice(self, values: Sequence[_T]) -> _T:
        return self._generator.choice(values)

    def _below(self, count: int) -> int:
        return self._generator.randrange(count)

    def _time(self) -> tuple[str, str]:
        moment = time(self._below(24), self._choice([0, 15, 30, 45, self._below(60)]))
        source, target = self._locales
        return self._time_in(source, moment, written=False), self._time_in(target, moment, written=True)

    def _time_in(self, locale: Locale, moment: time, written: bool) -> str:
        """To be written in one way, to be read in all that are usual."""
        minutes = f":{moment.minute:02}" if moment.minute else ""
        if locale.language == "de":
            forms = [f"{moment.hour}{minutes} Uhr", f"{moment.hour}{minutes.replace(':', '.')} Uhr"]
        elif locale.language == "en":
            half, hour = "p.m." if moment.hour > 11 else "a.m.", moment.hour % 12 or 12
            forms = [f"{hour}{minutes} {half}", f"{hour}{minutes} {half.upper().replace('.', '')}"]
            forms += [f"{hour}{minutes} {half.replace('.', '')}", f"{hour}{minutes}{half.replace('.', '')}"]
        else:
            forms = [format_time(moment, "short", locale=locale)]
        return forms[0] if written else self._choice(forms)

    def _in_both(self, write: Callable[[Locale], str]) -> tuple[str, str]:
        source, target = (" ".join(write(locale).split()) for locale in self._locales)  # without no-break spaces
        return source, target

    def _date(self) -> tuple[str, str]:
        day = date(1800, 1, 1) + timedelta(days=self._below(90_000))
        return self._in_both(lambda locale: format_date(day, "long", locale=locale))

    def _day(self) -> tuple[str, str]:
        day = date(2024, 1, 1) + timedelta(days=self._below(366))
        return self._in_both(lambda locale: format_skeleton("MMMMd", day, locale=locale))

    def _decimal(self) -> tuple[str, str]:
        number = self._below(10 ** self._choice([2, 3, 4, 5, 7])) / self._choice([1, 10, 100])
        return self._in_both(lambda locale: str(format_decimal(number, locale=locale)))

    def _amount(self) -> tuple[str, str]:
        number = 1 + self._below(10 ** self._choice([2, 3, 4, 6])) / self._choice([1, 100])
        currency = self._choice(["EUR", "EUR", "USD", "GBP"])
        amounts = self._in_both(lambda locale: format_currency(number, currency, locale=locale))
        if number % 1 or self._generator.random() < 0.5:
            return amounts
        source, target = (_NO_CENTS.sub("", amount) for amount in amounts)
        return source, target

    def _count(self) -> tuple[str, str]:
        number = 2 + self._below(10 ** self._choice([2, 3, 4, 5, 7]))
        return self._in_both(lambda locale: str(format_decimal(number, locale=locale)))

    def _spoken(self) -> tuple[str, str]:
        """A time of day in words."""
        hour, kind = self._below(12), self._choice(["half", "quarter", "to", "whole"])
        texts = [self._spoken_in(locale.language, hour, kind) for locale in self._locales]
        return texts[0], texts[1]

    def _spoken_in(self, language: str, hour: int, kind: str) -> str:
        if language not in _HOURS:
            raise ValueError(f"a time in words is of {' and '.join(_HOURS)}, not of {language}: take {{time}}")
        this, following = _HOURS[language][hour - 1], _HOURS[language][hour]
        if language == "de":
            forms = {"half": "halb {1}", "quarter": "Viertel nach {0}", "to": "Viertel vor {1}", "whole": "{0} Uhr"}
            this = "ein" if this == "eins" and kind == "whole" else this
        else:
            forms = {
                "half": "half past {0}",
                "quarter": "a quarter past {0}",
                "to": "a quarter to {1}",
                "whole": "{0} o'clock",
            }
        return forms[kind].format(this, following)

    def _street(self) -> str:
        """Of one gender in German, which "in der" and "zur" before it tell."""
        english = f"{self.last_name()} {self._choice(['Street', 'Road', 'Avenue'])}"
        german = f"{self.last_name()}{self._choice(['straße', 'straße', 'allee', 'gasse'])}"
        return self._choice([german, german, english])

    def _town(self) -> str:
        """One that has no other name in the other language."""
        if self._generator.random() < 0.5:
            return self._choice([*_TOWNS.split(), *_LONG_TOWNS])
        while (town := str(self._choice([self._german, self._english]).city())) in _TRANSLATED_TOWNS:
            pass
        return town

    def _company(self) -> str:
        return self._choice([self._choice(_BRANDS.split()), str(self._choice([self._german, self._english]).company())])

    def _clock(self) -> str:
        return f"{self._below(24)}:{self._below(60):02}"

    def _number(self) -> str:
        return str(2 + self._below(10 ** self._choice([1, 2, 2, 3])))

    def _year(self) -> str:
        return str(1700 + self._below(340))

    def _mail(self) -> str:
        web = self._choice([self._german, self._english])
        made = f"{web.word()}@{web.word()}.{self._choice(['de', 'com', 'org'])}".lower()
        return self._choice([made, str(web.email(safe=False))])

    def _tag(self) -> str:
        return self._choice("#@") + self._word()

    def _letter(self) -> str:
        return self._choice(string.ascii_letters + "äöüßÄÖÜ")

    def _symbol(self) -> str:
        return self._choice(_SYMBOLS)

    def _phone(self) -> str:
        groups = [str(self._below(10**count)).zfill(count) for count in (3, self._choice([3, 5, 7]))]
        return self._choice(
            [f"0{groups[0]} {groups[1]}", f"+49 {groups[0]} {groups[1]}", str(self._german.phone_number())]
        )

    def _code(self) -> str:
        letters = "".join(self._generator.choices(string.ascii_uppercase, k=self._choice([1, 2, 3])))
        return f"{letters}{self._choice(['', '-', ' '])}{self._below(10 ** self._choice([1, 2, 3]))}"

    def _abbreviation(self) -> str:
        made = "".join(self._generator.choices(string.ascii_uppercase, k=self._choice([2, 3, 3, 4])))
        return self._choice([made, *[self._choice(_ABBREVIATIONS.split())] * 2])

    def _address(self) -> str:
        web = self._choice([self._german, self._english])
        kind = self._choice(["url", "uri", "domain_name", "file_name", "www"])
        address = f"www.{web.domain_name()}" if kind == "www" else str(getattr(web, kind)())
        query = f"?{self._choice(string.ascii_lowercase)}={self._below(100)}" if self._generator.random() < 0.2 else ""
        return address + query

    def _word(self) -> str:
        web = self._choice([self._german, self._english])
        letters = "".join(self._generator.choices(string.ascii_lowercase, k=3 + self._below(8)))
        name = f"{web.first_name()}_{web.random_letter()}{self._choice(['', self._number()])}"
        return self._choice([str(web.user_name()), str(web.word()), letters, self._choice([name, name.lower()])])

    def _file(self) -> str:
        web = self._choice([self._german, self._english])
        parts = [str(web.word()), self._choice(["", str(2000 + self._below(30)), str(web.word())])]
        kind = self._choice(["pdf", "txt", "docx", "jpg", "zip", "xlsx", "py"])
        return f"{self._choice('_-').join(filter(None, parts))}.{kind}".lower()

    def _row(self) -> str:
        """The same a few times, as hearts are sent and stars are given."""
        one: str = self._choice([*_FREQUENT, *["❤️", "⭐"] * 10])
        stars = self._below(6)
        return self._choice([one * (2 + self._below(5)), "★" * stars + "☆" * (5 - stars)])

    def _foreign(self) -> str:
        """Words of a third language."""
        words = self._choice(self._others)
        return " ".join(str(words.word()) for _ in range(self._choice([1, 1, 2, 3])))

    def _emoji(self) -> str:
        """One to four, now and then the same."""
        some = self._generator.choices(self._choice([_EMOJI, _FREQUENT]), k=self._choice([1, 1, 2, 3]))
        return "".join(one * self._choice([1, 1, 1, 2]) for one in some)

    def _sum(self) -> str:
        left, right = 1 + self._below(99), 1 + self._below(99)
        return self._choice(
            [
                f"{left} + {right} = {left + right}",
                f"{left * right} : {left} = {right}",
                f"{left} × {right} = {left * right}",
            ]
        )


def _one_full_stop(text: str) -> str:
    """An abbreviation at the end of a sentence has its full stop already."""
    return text[:-1] if text.endswith("..") else text


_WRITTEN: dict[str, Callable[[Values], tuple[str, str]]] = {  # as the source's language has it, and the target's
    "time": Values._time,
    "date": Values._date,
    "day": Values._day,
    "decimal": Values._decimal,
    "amount": Values._amount,
    "count": Values._count,
    "spoken": Values._spoken,
}
_COPIED: dict[str, Callable[[Values], str]] = {  # the same on both sides
    "first": Values.first_name,
    "man": Values._man,
    "woman": Values._woman,
    "last": Values.last_name,
    "street": Values._street,
    "town": Values._town,
    "company": Values._company,
    "clock": Values._clock,
    "number": Values._number,
    "year": Values._year,
    "phone": Values._phone,
    "code": Values._code,
    "abbreviation": Values._abbreviation,
    "mail": Values._mail,
    "address": Values._address,
    "tag": Values._tag,
    "word": Values._word,
    "letter": Values._letter,
    "symbol": Values._symbol,
    "emoji": Values._emoji,
    "row": Values._row,
    "file": Values._file,
    "foreign": Values._foreign,
    "sum": Values._sum,
}


def wrong_places(template: Example) -> set[str]:
    """The places that there are not, and those that one side alone has: they would teach to drop and to invent."""
    places = [set(_BRACES.findall(text)) for text in (template.source, template.target)]
    kinds = _WRITTEN.keys() | _COPIED.keys()
    unknown = {
        place for place in places[0] | places[1] if (found := _PLACE.fullmatch(place)) is None or found[1] not in kinds
    }
    return unknown | (places[0] ^ places[1])

"""What a translation is to keep, found in texts of all kinds, and looked for in translations."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.literals import Literal, added, as_written_in, literals, missing
from service.sentences import Span

GERMAN = frozenset("abcdefghijklmnopqrstuvwxyzäöüßéèàABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÜ")


def is_foreign(letter: str) -> bool:
    return letter not in GERMAN


def kept(text: str) -> list[str]:
    return [literal.text for literal in literals(text, is_foreign)]


def lost(text: str, translation: str) -> list[str]:
    return [literal.text for literal in missing(literals(text, is_foreign), translation)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Wo ist der Bahnhof?", []),
        ("Привет, как дела?", ["Привет, как дела"]),
        ("你好，世界", ["你好，世界"]),
        ("Sie sagte 谢谢 und ging, er sagte 再见.", ["谢谢", "再见"]),
        ("सभी मनुष्यों को", ["सभी मनुष्यों को"]),
        ("Frau Øyvind und Łukasz", ["Øyvind", "Łukasz"]),
        ("Crème brûlée à la carte, Café, Szymańska", []),
        ("😀😀🎉 Ich mag Pizza🍕!", ["😀😀🎉", "🍕"]),
        ("Hallo 👩‍💻 👍🏽 ❤️ 🇩🇪", ["👩‍💻", "👍🏽", "❤️", "🇩🇪"]),
        ("I ♥ NY, 2 × 3 = 6", ["♥", "×"]),
        ("Das kostet 5 € oder $4, 10 %, £ und US$ sind Zeichen, 5\u00a0¥.", ["€", "$", "%", "¥"]),
        ("Schreib (an info@beispiel.de)!", ["info@beispiel.de"]),
        ("https://a.de/b?c=1, www.bahn.de/angebote.", ["https://a.de/b?c=1", "www.bahn.de/angebote"]),
        ("@lisa_m #Urlaub bericht_2024.pdf beispiel.de", ["@lisa_m", "#Urlaub", "bericht_2024.pdf", "beispiel.de"]),
        ("z.B. usw. u.a. Das ist gut.Dann", []),
        ("Flug LH 454, Flug LH454, COVID-19-Pandemie, A4-Papier", ["454", "LH454", "COVID-19", "A4"]),
        ("Am 3. Mai 1990, 12 Eier, 1990er", ["1990"]),
        ("um 12:30, um 18.30 Uhr, ab 22.15, am 03.10.1990, on 12/24/2023, 2023-12-24", []),
        ("20 °C, 1º, ﬁn, Ⅷ, Typ-2-Diabetes, Dr.med., inkl.MwSt, 500g, 24/7, 1990er", []),
        ("COVID-2019, A-380, ISO-9001-Norm, US-2024", ["COVID-2019", "A-380", "ISO-9001", "US-2024"]),
        ("77-4410-B, 4410-C2, 256-GB-Karte, 24-Stunden-Dienst, 12-B, 100-W-Birne, 350-HP", ["77-4410-B", "4410-C2"]),
        ("En 2019 l'entreprise, le 5 m'a plu, 12 l’an", ["2019"]),
        ("2,4 m lang, 64 kg, 5\u00a0km², 50%, 8 GB, ein m, 5 mal, 3 l/s, 5 M", ["m", "kg", "km²", "%", "GB"]),
        ("CO2, G20-Gipfel, H1N1, § 218, mein.name@a.de", ["CO2", "G20", "H1N1", "218", "mein.name@a.de"]),
        ("Wie geht´s? Schüler_innen, zu Hause.es ist gut.Dann, kaputt\ufffd", []),
        (
            "Kontakt:info@a.de [hier](https://a.de) @tom's example.com's",
            ["info@a.de", "https://a.de", "@tom", "example.com"],
        ),
        ("1914-1918, 978-3-16-148410-0, $12.50, 500 €", ["1914", "1918", "978", "148410", "$", "12.50", "500", "€"]),
        ("030 1234567, 1.299,99 €, 3,5, 3,14", ["030", "1234567", "1.299,99", "€", "3,14"]),
    ],
)
def test_what_is_kept_is_found(text: str, wanted: list[str]) -> None:
    assert kept(text) == wanted


@pytest.mark.parametrize(
    ("text", "translation", "wanted"),
    [
        ("Ich mag 🍕 und 🍺.", "I like 🍕 and beer.", ["🍺"]),
        ("❤️❤️❤️", "❤️❤️", ["❤️❤️❤️"]),
        ("😀 Hallo 😀", "Hello 😀", ["😀"]),
        ("info@beispiel.de", "INFO@BEISPIEL.DE", []),
        ("你好，世界", "你好,世界", []),  # SentencePiece writes a wide comma as a narrow one
        ("1.299,99 € und 1990", "€1,299.99 and 1990", []),
        ("1.299,99 €", "€1,299.90", ["1.299,99"]),
        ("123 und 123", "123", ["123"]),
        ("１２３ und १२३", "123 and १२३", []),
        ("１２３", "321", ["１２３"]),
        ("Seit 2023", "Since 24.12.2023", []),
        ("100 Leute", "1,100 people", ["100"]),
        ("1.299,00 €", "€1,299", []),
        ("999 € statt 1.249 €", "€999 instead of 1,249", ["€"]),
        ("5 € und 4 $, 3 £", "five Euros and four dollars, 3", ["£"]),
        ("5 €", "5 Europeans", ["€"]),
        ("2,40 m lang", "2.40 long", ["m"]),
        ("2,40 m und 3 m", "2.40 meters long and 3m wide", []),
        ("100 km/h und 5 km", "100 kilometers an hour and 5 km", []),
        ("50 km², 8 GB, 5 %", "50 km2, 8-GB, five percent", []),
        ("100 km/h, 50 m², 10 m", "100 km per hour, 50-square-meter, Zehnmeterbrett", []),
        ("50,000 euros, 5%", "50 000 euros, 5%ige", []),
        ("5 l und 5 kg", "5 l/s and 5 kgs", ["l", "kg"]),
        ("77-4410-B", "77:4410-B", ["77-4410-B"]),
        ("Flug LH45 #Tag A4", "Flight LH456 #Tagung A400", ["LH45", "#Tag", "A4"]),
        ("Привет  мир", "Привет мир", []),
        ("می‌خواهم", "می خواهم", []),  # SentencePiece reads a zero-width non-joiner as a space
        ("Łukasz", "Lukasz", ["Łukasz"]),
        ("COVID-19-Pandemie", "COVID-19 pandemic", []),
        ("a@b.de und www.a@b.de", "a@b.de", ["www.a@b.de"]),
        ("Zimmer 454, Flug LH454", "room, flight LH454", ["454"]),
        ("Zimmer 454, Flug LH454", "room 454, flight LH454", []),
        ("Raum 101 und datei_101.pdf", "file datei_101.pdf", ["101"]),
        ("2023 auf https://a.de/2023", "https://a.de/2023", ["2023"]),
        ("2023 auf https://a.de/2023", "2023", ["https://a.de/2023"]),
    ],
)
def test_what_is_missing_is_named(text: str, translation: str, wanted: list[str]) -> None:
    assert lost(text, translation) == wanted


@pytest.mark.parametrize(
    ("text", "translation", "count"),
    [
        ("❤️❤️❤️", "❤️❤️❤️❤️❤️", 2),
        ("★★★★☆", "★★★★☆", 0),
        ("Hallo", "Hello", 0),
        ("Schön", "Schön — „gut“ 5 €", 0),
        ("❤️", "❤️睤", 1),
        ("Привет", "Привет я", 1),
        ("Klischee, ½", "cliché, 1⁄2", 0),
        ("a", "\U000109d3\U0001fbff", 2),  # a letter of another script, and a code point that means nothing
    ],
)
def test_what_is_added_is_counted(text: str, translation: str, count: int) -> None:
    assert added(text, translation, is_foreign) == count


TEXTS = st.text(st.sampled_from('abc ÄB.,:!?@#/_-()"0123456789€%kmg²×❤️👍🏽🍕жд你好é̈\u200d\n'), max_size=40)


@given(TEXTS)
def test_places_are_right_apart_and_in_order(text: str) -> None:
    found = literals(text, is_foreign)
    assert all(literal.span.of(text) == literal.text != "" for literal in found)
    assert all(one.span.end <= other.span.begin for one, other in itertools.pairwise(found))


@given(TEXTS, TEXTS)
def test_a_text_lacks_nothing_and_adds_nothing_to_itself(text: str, other: str) -> None:
    assert missing(literals(text, is_foreign), text) == ()
    assert missing(literals(text, is_foreign), f"{other} {text}") == ()
    assert added(text, text, is_foreign) == added(f"{text} {other}", text, is_foreign) == 0


@given(TEXTS, TEXTS)
def test_what_is_missing_is_some_of_what_was_wanted(text: str, translation: str) -> None:
    wanted = literals(text, is_foreign)
    found = missing(wanted, translation)
    assert set(found) <= set(wanted)
    assert list(found) == sorted(found, key=lambda literal: literal.span.begin)
    assert missing(wanted, "") == wanted
    assert all(isinstance(literal, Literal) for literal in found)


def test_of_a_unit_only_the_sign_or_its_name_is_looked_for() -> None:
    assert [literal.as_it_is for literal in literals("2,4 m", is_foreign)] == [False]


@pytest.mark.parametrize(
    ("text", "translation", "wanted"),
    [
        ("siebenundzwanzig Jahre", "twenty years", ["siebenundzwanzig"]),
        ("siebenundzwanzig Jahre", "twenty-seven years", []),
        ("siebenundzwanzig Jahre", "27 years", []),
        ("zwanzig Jahre und zwanzig Tage", "twenty years and some days", ["zwanzig"]),
        ("der Saal hat zweihundert Plätze", "the hall has 200 seats", []),
        ("200 Plätze, 1984", "two hundred seats, nineteen eighty-four", []),
        ("zwanzig und zwanzig", "twentyfold", ["zwanzig"]),
        ("LH454 um 18 Uhr, siebenundzwanzig", "LH454 at six p.m., twenty-seven", []),
    ],
)
def test_numbers_in_words_are_looked_for_in_words_and_digits(text: str, translation: str, wanted: list[str]) -> None:
    found = literals(text, is_foreign, "de")
    assert [one.text for one in missing(found, translation, "en")] == wanted
    assert all(not one.as_it_is for one in found if one.digits)


def test_a_language_whose_numbers_are_not_known_has_none() -> None:
    assert kept("siebenundzwanzig Jahre") == []
    assert literals("siebenundzwanzig Jahre", is_foreign, "pl") == ()


def test_a_compound_may_begin_with_the_number() -> None:
    found = literals("a twenty-year-old woman", is_foreign, "en")
    assert missing(found, "eine zwanzigjährige Frau", "de") == ()


def test_a_currency_lets_a_number_move() -> None:
    assert [literal.as_it_is for literal in literals("$500, 500 €, 500", is_foreign)] == [False] * 4 + [True]


def test_long_texts_take_no_longer_than_their_length() -> None:
    """Twenty thousand characters, each kind of which once took seconds."""
    for text in (
        "a@" + "." * 19_990,
        "a_" * 10_000,
        "1." * 10_000,
        "😀" * 20_000,
        "ж " * 10_000,
        "a.b" * 6_600,
        "x" * 20_000,
        "12-" * 6_600,
        "o " * 10_000,
        "siebenundzwanzig " * 1_200,
        "12345 Donaudampfschifffahrt " * 700,
        "hundertund" * 2_000,
    ):
        begun = time.perf_counter()
        missing(literals(text, is_foreign, "de"), text[:-10], "de")
        missing(literals(text, is_foreign, "en"), text[10:-10].replace("5", "6"), "en")
        assert time.perf_counter() - begun < 5.0  # a hundred times what they take


@pytest.mark.parametrize(
    ("text", "language", "written"),
    [
        ("1,400,000,000", "de", "1.400.000.000"),
        ("1.400.000.000", "en", "1,400,000,000"),
        ("1.400.000.000", "fr", ""),  # not known
        ("1,250", "de", ""),  # little more than one, or twelve hundred and fifty
        ("1,299.99", "de", ""),
        ("cm", "en", "cm"),
        ("%", "de", ""),  # Prozent, mostly
    ],
)
def test_a_number_or_a_unit_is_written_as_the_language_writes_it(text: str, language: str, written: str) -> None:
    assert as_written_in(Literal(Span(0, len(text)), text, as_it_is=False), language) == written
    assert as_written_in(Literal(Span(0, len(text)), text), language) == text

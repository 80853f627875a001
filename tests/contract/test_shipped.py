"""The shipped bundles keep their promises, on strings made now, with the service's own engine."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import sandglass_maps
from benchmarks.dates_as_written import area_under_curve, nonsense_area, translate, written
from benchmarks.measuring import shipped
from service.bundle.manifest import Precision
from service.bundle.repository import Bundle, Repository
from service.literals import missing
from service.negations import denies
from service.reading_back import is_reader_of
from service.recovery import kept_literals
from training.config import load_config
from training.evaluate import judge_ambiguity, score_examples, translate_texts, translations
from training.tasks import TASKS

ROOT = Path(__file__).parents[2]
FRESH_SEED = 20261121  # no config uses it


@pytest.mark.parametrize(
    ("name", "sentences", "exact_match", "attention_accuracy"),
    [("dates", 3000, 0.99, 0.97), ("reverse", 3000, 0.999, 0.95), ("sandglass-reverse", 3000, 0.99, 0.85)],
)
def test_accuracy_of_translations_and_of_attention(
    name: str, sentences: int, exact_match: float, attention_accuracy: float
) -> None:
    config = load_config(ROOT / "training" / "configs" / f"{name}.yaml")
    bundle = Repository(ROOT / "exported").load(config.name, config.version)
    assert config.task is not None
    examples = list(itertools.islice(config.task.examples(FRESH_SEED), sentences))
    scores, found = score_examples(config, bundle, examples)
    assert len(found) == sentences
    assert scores.exact_match >= exact_match
    assert scores.attention_accuracy >= attention_accuracy


def test_dates_are_read_by_all_that_they_may_mean() -> None:
    """Exact where one answer is right, one of the right ones elsewhere, the clear one where one is clear."""
    task = TASKS["dates"]
    config = load_config(ROOT / "training" / "configs" / "dates.yaml")
    bundle = Repository(ROOT / "exported").load(config.name, config.version)
    examples = list(itertools.islice(task.examples(FRESH_SEED), 3000))
    _, found = score_examples(config, bundle, examples)
    assert task.posterior is not None
    scores = judge_ambiguity(task.posterior(), examples, found)
    assert scores.single > 2500
    assert scores.several > 80
    assert scores.single_exact >= 0.995
    assert scores.several_within >= 0.995
    assert scores.clear_exact >= 0.99


def test_dates_as_people_write_them() -> None:
    pairs = written()
    assert len(pairs) == 60
    bundle, _ = shipped("dates", 0)
    found, _ = translate(bundle, [text for text, _ in pairs])
    wrong = [(text, got, date) for (text, date), got in zip(pairs, found, strict=True) if got != date]
    assert len(wrong) <= 6, wrong


def test_nonsense_is_not_answered_with_confidence() -> None:
    area, surest = nonsense_area(shipped("dates", 0)[0])
    assert area >= 0.95
    assert {"hello", "99/99/9999"} <= {text for _, text, _ in surest}


def test_the_area_under_the_curve_is_what_it_says() -> None:
    real, nonsense = np.array([3.0, 2.0, 1.0]), np.array([2.0, 0.0])
    assert area_under_curve(real, nonsense) == pytest.approx((2 + 1.5 + 1) / 6)


def test_sandglass_maps_have_their_signatures() -> None:
    """Map 2a an anti-diagonal, map 4 one of blocks, map 1 the token itself wherever it stands."""
    _, examples = shipped("sandglass-reverse", 200)
    judged = sandglass_maps.translate([example.source for example in examples])
    _, share, weight = sandglass_maps.anti_diagonal(judged, "2a")
    assert share > 0.9
    assert weight > 0.8
    assert sandglass_maps.blocks(judged)[1] > 0.9
    assert sandglass_maps.token_hits(judged, "1") > 0.95
    same, different = sandglass_maps.row_distances(judged, "1")
    assert same < 0.5 * different
    for name in ("1", "2b"):  # a key of scope 1 knows nothing but its token
        assert sandglass_maps.column_difference(judged, name) < 1e-6


# --- languages -------------------------------------------------------------------------------------------------------

TRANSLATORS = ("tatoeba-de-en", "tatoeba-en-de")
HARD = [
    "Привет, как дела?",
    "こんにちは",
    "שלום",
    "😀",
    "Ich liebe dich 😀❤️",
    "DAS IST SEHR WICHTIG!",
    "12345",
    "Am 24. Dezember um 18:30 Uhr kosten 2.500 Stück 1.234,56 €.",
    "»Nein«, rief Jürgen, »niemals!«",
    "https://example.com/a?b=c",
    "...",
    "a",
    "e\u0301 \u200b \u00a0x",
]


@pytest.fixture(scope="module")
def translators() -> dict[str, Bundle]:
    repository = Repository(ROOT / "exported")
    return {name: repository.load(name, max(repository.versions()[name])) for name in TRANSLATORS}


def test_german_is_translated_when_nothing_is_named() -> None:
    assert Repository(ROOT / "exported").settings.default_model == "tatoeba-de-en"


def test_language_codes_tell_the_shipped_models_apart() -> None:
    repository = Repository(ROOT / "exported")
    pairs = [
        (source, target)
        for name, versions in repository.versions().items()
        for manifest in [repository.load(name, max(versions)).manifest]
        for source in manifest.source_languages
        for target in manifest.target_languages
    ]
    assert {("de", "en"), ("en", "de")} <= set(pairs)
    assert len(pairs) - len(set(pairs)) == 1  # reverse and reverse-transformer are two models of one task


def test_what_is_shipped_is_small_and_says_whose_text_it_learned_from(translators: dict[str, Bundle]) -> None:
    sizes = [entry.size_bytes for bundle in translators.values() for entry in bundle.manifest.files.values()]
    assert sum(sizes) < 120 * 10**6
    for bundle in translators.values():
        assert bundle.manifest.license == "CC-BY-2.0-FR"
        assert "Tatoeba" in bundle.manifest.attribution[0]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_plain_sentences_are_translated(translators: dict[str, Bundle], precision: Precision) -> None:
    german = ["Wo ist der Bahnhof?", "Die Kinder spielen im Garten.", "Ich habe Hunger."]
    english = ["Where is the station?", "The children are playing in the garden.", "I'm hungry."]
    assert translate_texts(translators["tatoeba-de-en"], german, precision) == english
    assert translate_texts(translators["tatoeba-en-de"], english, precision) == german


@pytest.mark.parametrize("name", TRANSLATORS)
def test_whatever_is_sent_something_comes_back(translators: dict[str, Bundle], name: str) -> None:
    for text, translation in zip(HARD, translate_texts(translators[name], HARD), strict=True):
        assert translation.strip(), text
        assert len(translation) < 20 + 2 * len(text), (text, translation)  # and does not go on and on


@pytest.mark.parametrize("space", ["\u00a0", "\n", "\t", "\u2009", "\u3000"])
def test_a_token_is_without_the_white_space_before_it(translators: dict[str, Bundle], space: str) -> None:
    text = f"Das kostet 5{space}Euro. ﬃ"
    tokens = translators["tatoeba-de-en"].encode(text, "").tokens
    covered = [text[token.begin : token.end] for token in tokens]
    assert not any(part != part.strip() for part in covered)
    assert "Euro" in "".join(covered)


@given(
    st.text(
        alphabet=st.sampled_from("aB SEHR ÄßǅİªŉA\u0308\u200d年א „“”«»\"'’‘(-/._1,!\u00a0👍🏽ﬃ…"),
        min_size=1,
        max_size=40,
    )
)
def test_what_is_read_stands_in_the_text_as_it_was_sent(translators: dict[str, Bundle], text: str) -> None:
    """By the tokenizer that is shipped, which normalises, and spells what it does not know in bytes."""
    for bundle in translators.values():
        plainly = replace(bundle, manifest=bundle.manifest.model_copy(update={"reads_plainly": True}))
        *tokens, end = plainly.encode(text).tokens
        places = [place for token in tokens for place in (token.begin, token.end)]
        assert places == sorted(places)
        assert not places or (places[0] >= 0 and places[-1] <= len(text))
        assert (end.begin, end.end) == (len(text), len(text))
        assert plainly.encode_ids(text) == [*(token.id for token in tokens), end.id]


@pytest.mark.parametrize(
    "text",
    ["12345", "😀", "😀😀🎉", "I ♥ NY", "...", "x = y + 2", "Привет, как дела?", "こんにちは", "안녕하세요", "שלום"],
)
def test_what_no_language_translates_is_kept(translators: dict[str, Bundle], text: str) -> None:
    assert [translate_texts(bundle, [text]) for bundle in translators.values()] == [[text], [text]]


def test_numbers_and_dates_are_as_the_language_writes_them(translators: dict[str, Bundle]) -> None:
    german = ["3,14", "1.234.567,89 €", "Er wurde am 12. März 1965 geboren."]
    english = ["3.14", "€1,234,567.89", "He was born on March 12, 1965."]
    assert translate_texts(translators["tatoeba-de-en"], german) == english
    assert translate_texts(translators["tatoeba-en-de"], english) == german


def test_capitals_are_translated_and_answered_in_capitals(translators: dict[str, Bundle]) -> None:
    german = ["WO IST DER BAHNHOF?", "ICH HABE HEUTE KEINE ZEIT."]
    english = ["WHERE IS THE STATION?", "I DON'T HAVE TIME TODAY."]
    assert translate_texts(translators["tatoeba-de-en"], german) == english
    assert translate_texts(translators["tatoeba-en-de"], english) == german


def test_names_and_quotation_marks_are_kept(translators: dict[str, Bundle]) -> None:
    german = ["Meine Schwester wohnt in Hamburg.", "„Komm her“, sagte er.", "Emmanuel Macron wohnt in Paris."]
    english = ["My sister lives in Hamburg.", '"Come here," he said.', "Emmanuel Macron lives in Paris."]
    assert translate_texts(translators["tatoeba-de-en"], german) == english


def test_titles_times_and_letters(translators: dict[str, Bundle]) -> None:
    german = ["Herr Müller wohnt in der Goethestraße 12 in München.", "Mit freundlichen Grüßen"]
    assert translate_texts(translators["tatoeba-de-en"], german) == [
        "Mr. Müller lives at 12 Goethestraße in Munich.",
        "Kind regards",
    ]
    english = ["Mr. Smith lives in London.", "Dear Sir or Madam,", "The train leaves at 5:45 p.m."]
    assert translate_texts(translators["tatoeba-en-de"], english) == [
        "Herr Smith wohnt in London.",
        "Sehr geehrte Damen und Herren,",
        "Der Zug fährt um 17:45 Uhr ab.",
    ]


def test_every_sentence_of_a_long_paragraph_is_translated(translators: dict[str, Bundle]) -> None:
    sentences = (ROOT / "docs" / "everyday" / "de.txt").read_text(encoding="utf-8").splitlines()
    bundle, paragraph = translators["tatoeba-de-en"], " ".join(sentences)
    assert len(paragraph.split()) >= 300
    (translation,) = translate_texts(bundle, [paragraph])
    assert translation == " ".join(translate_texts(bundle, sentences))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_what_is_to_be_kept_is_kept(translators: dict[str, Bundle], name: str) -> None:
    """In texts that were written while the models trained, and mended nothing."""
    bundle = translators[name]
    path = ROOT / "docs" / "everyday" / f"fresh.{bundle.manifest.source_languages[0]}.txt"
    texts = path.read_text(encoding="utf-8").splitlines()
    kept = [kept_literals(bundle, text) for text in texts]
    lost = [
        literal.text
        for wanted, translation in zip(kept, translate_texts(bundle, texts), strict=True)
        for literal in missing(wanted, translation, bundle.manifest.target_languages[0])
    ]
    assert sum(map(len, kept)) >= 30
    assert lost == []


def test_what_the_first_search_leaves_out_is_found_and_searched_for(translators: dict[str, Bundle]) -> None:
    """Names that a beam of four drops, without a word of it."""
    bundle = translators["tatoeba-en-de"]
    (told,) = translations(bundle, ["Ms. Kowalczyk and Mr. Nguyen work for Zalando in Berlin."])
    assert "Zalando" in told.text
    assert told.left_out == ()
    (bought,) = translate_texts(
        translators["tatoeba-de-en"], ["Ich habe mir bei IKEA ein Billy-Regal für 49,99 € gekauft."]
    )
    assert "IKEA" in bought


@pytest.mark.parametrize("name", TRANSLATORS)
def test_names_of_other_alphabets_letters_are_kept(translators: dict[str, Bundle], name: str) -> None:
    """The vocabularies have no ễ, ł, ğ or ř in any word: they are written byte by byte."""
    english = name == "tatoeba-en-de"
    lives = "{} lives in Graz." if english else "{} wohnt in Graz."
    names = ["Nguyễn", "Łukasz", "Erdoğan", "Dvořák", "Wiśniewski", "Yıldız", "Şahin", "Håkon"]
    title = "Mr. " if english else "Herr "
    found = translate_texts(translators[name], [lives.format(title + one) for one in names])
    assert [one for one, text in zip(names, found, strict=True) if one not in text] == []


@pytest.mark.parametrize("name", TRANSLATORS)
def test_each_reads_the_translations_of_the_other(translators: dict[str, Bundle], name: str) -> None:
    bundle = translators[name]
    (other,) = set(TRANSLATORS) - {name}
    assert bundle.manifest.read_back_by == other
    assert is_reader_of(translators[other], bundle)


def test_what_denies_is_not_lost_unseen(translators: dict[str, Bundle]) -> None:
    """Without its first word a translation says the opposite: it has one, or it is told."""
    texts = ["No dogs allowed on the beach!", "We don't need to give Tom the money he's asking for."]
    for text, found in zip(texts, translations(translators["tatoeba-en-de"], texts), strict=True):
        has = {"nicht", "keine"} & set(found.text.lower().strip("!.").replace(",", "").split())
        assert has or denies(found.left_out[0], "en"), (text, found)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_of_plain_sentences_hardly_a_word_is_told(translators: dict[str, Bundle], name: str) -> None:
    """At most one word of fifty everyday sentences is told, of those that people say otherwise."""
    path = ROOT / "docs" / "everyday" / f"{translators[name].manifest.source_languages[0]}.txt"
    found = translations(translators[name], path.read_text(encoding="utf-8").splitlines())
    assert sum(len(one.left_out) for one in found) <= 1

"""What is wrong with a translation, what is asked for then, and which answer is the better one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from service import recovery
from service.bundle.repository import Bundle, Repository
from service.bundle.tokenizer import EOS_ID
from service.engine.decoding import GREEDY, Decoding, Sampling
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import FinishReason, Hypothesis
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest, SentenceResult, Timings, likely_target_tokens
from service.literals import missing
from service.recovery import Attempt, Faults, kept_literals
from tests.conftest import EXPORTED

MOST = 40
PICTURE = "👍🏽"


@pytest.fixture(scope="module")
def keeper(letters: Bundle) -> Bundle:
    """A model of letters that is to keep what its texts have of other things."""
    return replace(letters, manifest=letters.manifest.model_copy(update={"keeps_literals": True}))


@pytest.fixture(scope="module")
def engine(keeper: Bundle) -> Iterator[Engine]:
    running = Engine(OnnxModel(keeper, "cpu"), EngineSettings(workers=1, rows_per_worker=16))
    yield running
    running.stop()


def attempt(bundle: Bundle, text: str, decoding: Decoding = GREEDY, most_rows: int = 16) -> Attempt:
    request = SentenceRequest(tuple(bundle.encode_ids(text)), MOST, decoding=decoding)
    return Attempt(bundle, bundle.encode(text), kept_literals(bundle, text), request, most_rows=most_rows)


def result(bundle: Bundle, *texts: str, nats: float = -0.1) -> SentenceResult:
    """As if these had been written, each token with so many nats."""
    hypotheses = []
    for text in texts:
        ids = tuple(bundle.target_tokenizer.encode_ids(text))
        own = np.full(len(ids), nats, np.float32)
        hypotheses.append(Hypothesis(ids, own, {}, FinishReason.END_OF_SENTENCE, float(own.sum())))
    return SentenceResult(tuple(hypotheses), Timings(0.0, 0.0, 0.0))


def best(bundle: Bundle, found: SentenceResult) -> str:
    return bundle.decode(found.hypotheses[0].target_ids).text


def test_numbers_in_words_are_kept_where_both_languages_are_known(
    keeper: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "is_foreign", lambda _bundle, _letter: False)  # it knows a, b and c

    def between(source: list[str], target: list[str]) -> Bundle:
        of_languages = {"source_languages": source, "target_languages": target}
        return replace(keeper, manifest=keeper.manifest.model_copy(update=of_languages))

    text = "siebenundzwanzig"
    assert [one.digits for one in kept_literals(between(["de"], ["en"]), text)] == ["27"]
    assert [one.digits for one in kept_literals(between(["de"], ["en", "pl"]), text, "en-GB")] == ["27"]
    assert kept_literals(between(["de"], ["en", "pl"]), text, "pl") == ()
    assert kept_literals(between(["de"], ["en", "pl"]), text) == ()
    assert kept_literals(between(["de", "pl"], ["en"]), text) == ()
    tried = attempt(between(["de"], ["en"]), text)
    assert tried.faults(result(keeper, "abc").hypotheses[0]).left_out == 1


def test_a_name_is_asked_for_alone_and_taken_where_it_is_about_as_likely(
    keeper: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every translation with a c, which the text has not, had misspelled a name."""
    monkeypatch.setattr(
        recovery,
        "respelled_names",
        lambda source, written: source[:1] if any("c" in one.text for one in written) else [],
    )
    tried = attempt(keeper, "ab")
    first = result(keeper, "ac", nats=-1.0)
    again = tried.again(first)
    assert again is not None
    assert len(again.decoding.phrases) == 1
    assert best(keeper, tried.better(first, result(keeper, "ab", nats=-1.9))) == "ab"
    assert best(keeper, tried.better(first, result(keeper, "ab", nats=-2.1))) == "ac"  # three tokens: 3.3 nats
    both = attempt(keeper, f"ab {PICTURE}")
    lost = result(keeper, "ac", nats=-1.0)
    again = both.again(lost)
    assert again is not None
    assert len(again.decoding.phrases) == 1  # the picture
    with_picture = result(keeper, f"ac {PICTURE}", f"ab {PICTURE}", nats=-0.5)
    assert best(keeper, both.better(lost, with_picture)) == f"ac {PICTURE}"  # the first of equals


def test_a_model_that_keeps_nothing_is_asked_once(letters: Bundle) -> None:
    tried = attempt(letters, f"abc {PICTURE}")
    assert tried.kept == ()
    assert tried.again(result(letters, "cba")) is None
    assert tried.again(result(letters, "aaaaaaaaaaaa")) is None


def test_a_good_translation_is_asked_for_once(keeper: Bundle) -> None:
    assert attempt(keeper, f"abc {PICTURE}").again(result(keeper, f"cba {PICTURE}")) is None
    assert attempt(keeper, "abc").again(result(keeper, "cba")) is None
    assert attempt(keeper, "aaaaaaaa").again(result(keeper, "aaaaaaaa")) is None  # no more rounds than its source


def test_what_was_left_out_must_be_written(keeper: Bundle) -> None:
    wanted = attempt(keeper, f"abc {PICTURE}").again(result(keeper, "cba"))
    assert wanted is not None
    ids = tuple(token.id for token in keeper.target_tokenizer.encode(PICTURE).tokens[:-1])
    assert wanted.decoding.phrases == (ids,)
    assert wanted.decoding.space_id == keeper.target_tokenizer.space_id > 0
    assert (wanted.decoding.beam_size, wanted.decoding.hypotheses) == (8, 8)
    request = attempt(keeper, f"abc {PICTURE}").request
    likely = likely_target_tokens(len(request.source_ids), MOST) + len(ids)
    assert replace(wanted, decoding=GREEDY) == replace(request, max_target_tokens=min(MOST, likely))


def test_a_space_goes_before_what_had_one_before_it() -> None:
    shipped = Repository(EXPORTED).load("tatoeba-de-en", max(Repository(EXPORTED).versions()["tatoeba-de-en"]))
    keeper = replace(shipped, manifest=shipped.manifest.model_copy(update={"keeps_literals": True}))
    space = keeper.target_tokenizer.space_id

    def phrases(text: str) -> list[tuple[int, ...]]:
        wanted = attempt(keeper, text).again(result(keeper, "Pizza"))
        assert wanted is not None
        return list(wanted.decoding.phrases)

    ((first, *picture),) = phrases("Pizza 🍕")
    assert first == space
    assert phrases("Pizza🍕") == [tuple(picture)]
    assert phrases("🍕 Pizza (🍕)") == [(space, *picture), tuple(picture)]


def test_circles_are_not_gone_round_again(keeper: Bundle) -> None:
    wanted = attempt(keeper, "abc").again(result(keeper, "cbcbcbcbcb"))
    assert wanted is not None
    assert (wanted.decoding.no_repeat_ngram, wanted.decoding.phrases) == (4, ())


def test_the_beam_is_no_wider_than_the_engine(keeper: Bundle) -> None:
    wanted = attempt(keeper, f"abc {PICTURE}", most_rows=3).again(result(keeper, "cba"))
    assert wanted is not None
    assert wanted.decoding.rows == 3


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(beam_size=2, hypotheses=2),
        Decoding(sampling=Sampling((1,))),
        Decoding(prefix_ids=(5,)),
        Decoding(prefix_ids=(5, EOS_ID)),
    ],
    ids=["several", "drawn", "begun", "given"],
)
def test_what_was_asked_for_in_another_way_stays(keeper: Bundle, decoding: Decoding) -> None:
    assert attempt(keeper, f"abc {PICTURE}", decoding).again(result(keeper, "cba")) is None


def test_the_empty_translation_goes_on_for_a_token_longer(letters: Bundle) -> None:
    tried = attempt(letters, "abc")
    wanted = tried.longer(result(letters, ""))
    assert wanted is not None
    assert wanted.decoding == Decoding(min_tokens=2)
    assert tried.longer(result(letters, "a")) is tried.again(result(letters, "")) is None
    assert attempt(letters, "abc", Decoding(prefix_ids=(EOS_ID,))).longer(result(letters, "")) is None


def test_the_better_one_has_fewer_faults_and_is_not_much_less_likely(keeper: Bundle) -> None:
    tried, first = attempt(keeper, f"abc {PICTURE}"), result(keeper, "cba")
    for nats, wanted in ((-0.5, f"bca {PICTURE}"), (-9.0, "cba")):
        second = result(keeper, "bca", f"bca {PICTURE}", nats=nats)
        assert best(keeper, tried.better(first, second)) == wanted
        assert len(tried.better(first, second).hypotheses) == 1


def test_what_cannot_be_written_or_must_not_be_is_not_asked_for(keeper: Bundle) -> None:
    """Of the letters that its vocabulary has not, and of what the client will not have."""
    first = result(keeper, "cba")
    for text, decoding in (("abc Ω", GREEDY), (f"abc {PICTURE}", Decoding(suppressed_ids=frozenset([38, 37])))):
        wanted = attempt(keeper, text, decoding).again(first)
        assert wanted is not None
        assert wanted.decoding.phrases == ()
    both = attempt(keeper, f"abc Ω {PICTURE}").again(first)
    assert both is not None
    assert len(both.decoding.phrases) == 1


def test_what_was_cut_by_its_length_is_not_asked_for_again(keeper: Bundle) -> None:
    (hypothesis,) = result(keeper, "cba").hypotheses
    cut = SentenceResult((replace(hypothesis, finish_reason=FinishReason.LENGTH),), Timings(0.0, 0.0, 0.0))
    assert attempt(keeper, f"abc {PICTURE}").again(cut) is None


def test_attention_is_had_for_what_is_chosen_alone(keeper: Bundle, engine: Engine) -> None:
    tried = attempt(keeper, f"abc {PICTURE}")
    tried = replace(tried, request=replace(tried.request, attention="full"), attention="full")
    wanted = tried.again(result(keeper, "cba"))
    assert wanted is not None
    assert wanted.attention == "none"
    chosen = result(keeper, f"cba {PICTURE}", nats=-0.5)
    ask = tried.looked_at(chosen)
    assert ask is not None
    (looked,) = engine.translate([ask])
    (found,) = tried.with_attention(chosen, looked).hypotheses
    assert replace(found, attention={}) == chosen.hypotheses[0]
    assert looked.hypotheses[0].target_ids == found.target_ids
    for weights in found.attention.values():
        assert weights.shape[0] == len(found.target_ids)
        np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)
    assert attempt(keeper, "abc").looked_at(chosen) is None


def test_what_is_not_odd_is_better_than_circles(keeper: Bundle) -> None:
    tried, circles = attempt(keeper, f"abc {PICTURE}"), result(keeper, "cbcbcbcbcbcbcb", nats=-0.01)
    assert (
        best(keeper, tried.better(circles, result(keeper, "bca" * 10, nats=-1.4))) == "cbcbcbcbcbcbcb"
    )  # in circles, too
    assert best(keeper, tried.better(circles, result(keeper, "bcabacaabbcca", nats=-1.4))) == "bcabacaabbcca"
    assert best(keeper, tried.better(circles, result(keeper, "bcabacaabbcca", nats=-1.6))) == "cbcbcbcbcbcbcb"


def test_faults_are_counted(keeper: Bundle) -> None:
    tried = attempt(keeper, f"abc {PICTURE} 123")

    def faults(text: str) -> Faults:
        return tried.faults(result(keeper, text).hypotheses[0])

    assert faults(f"abc {PICTURE} 123") == Faults()
    assert faults(f"abc {PICTURE} 12") == Faults(left_out=1)
    assert faults("abc") == Faults(left_out=2)
    assert faults(f"abc {PICTURE} 123 {PICTURE}") == Faults(added=2)  # a hand and its colour
    assert faults("") == Faults(empty=True)
    assert faults(f"ababababab {PICTURE} 123") == Faults(circles=True)


def test_in_the_engine_what_is_kept_is_there_or_the_first_answer_stays(keeper: Bundle, engine: Engine) -> None:
    """The model's weights are random: hardly anything is kept by itself."""
    tried_again = kept = 0
    for number in range(30):
        text = f"{'abcdefghij'[number % 10] * (1 + number % 3)} {PICTURE} {'年月日'[number % 3]}ab"
        tried = attempt(keeper, text)
        (first,) = engine.translate([tried.request])
        if (wanted := tried.again(first)) is None:
            continue
        tried_again += 1
        (second,) = engine.translate([wanted])
        assert len(second.hypotheses) == 8
        ended = [one for one in second.hypotheses if one.finish_reason is FinishReason.END_OF_SENTENCE]
        assert all(not missing(tried.kept, keeper.decode(one.target_ids).text) for one in ended)
        if tried.better(first, second) is not first:
            assert tried.faults(tried.better(first, second).hypotheses[0]) < tried.faults(first.hypotheses[0])
        kept += bool(ended)
    assert tried_again > 10
    assert kept > 5


@pytest.mark.parametrize(
    ("text", "translation", "circles"),
    [
        ("Wir fliegen mit Ryanair nach Lissabon.", "We're flying to Lisbon to Lisbon.", True),
        ("Die Vorlesung beginnt im Saal.", "The lecture begins at 8:15 a.m. at 8:15 a.m.", True),
        ("Wir fliegen nach Lissabon.", "We're flying to Lisbon, very, very far.", False),  # one word
        ("Wir fliegen nach Lissabon.", "We're flying, then we fly to Lisbon.", False),
        ("Er lernt es Schritt für Schritt.", "He learns it step by step by step.", False),  # the text says one twice
    ],
)
def test_two_words_that_are_said_twice_are_circles(text: str, translation: str, circles: bool) -> None:
    models = Repository(EXPORTED)
    shipped = models.load("tatoeba-de-en", models.versions()["tatoeba-de-en"][0])
    bundle = replace(shipped, manifest=shipped.manifest.model_copy(update={"keeps_literals": True}))
    tried = attempt(bundle, text)
    ids = tuple(bundle.target_tokenizer.encode_ids(translation))
    own = np.full(len(ids), -0.1, np.float32)
    found = tried.faults(Hypothesis(ids, own, {}, FinishReason.END_OF_SENTENCE, float(own.sum())))
    assert found.circles == circles

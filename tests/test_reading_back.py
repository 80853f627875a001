"""Translations read back by the model of the other direction: what is asked of it, which hypothesis is the truest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st

from service.bundle.repository import Bundle, Repository
from service.bundle.tokenizer import EOS_ID
from service.engine.decoding import Decoding, Sampling
from service.engine.engine import Engine, EngineSettings
from service.engine.errors import DeadlineError, QueueFullError, RuntimeFailureError, StoppedError
from service.engine.hypothesis import FinishReason, Hypothesis
from service.engine.onnx_model import open_model
from service.engine.sentence import Priority, SentenceRequest, SentenceResult, Timings
from service.metrics import Metrics
from service.reading_back import Reader, Reading, is_reader_of
from service.recovery import Attempt, kept_literals
from service.registry import ModelRegistry
from service.second_tries import Checked, checked
from tests.conftest import EXPORTED

BEAM = Decoding(beam_size=4, length_penalty=1.0)
TEXT = "Ich fliege am Freitag mit Lufthansa nach New York."
WRONG = "I went to New York with Lufthansa on Friday."
TRUE = "I'm flying to New York with Lufthansa on Friday."


def shipped(name: str) -> Bundle:
    models = Repository(EXPORTED)
    return models.load(name, models.versions()[name][0])


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return shipped("tatoeba-de-en")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    running = Engine(open_model(bundle), EngineSettings(workers=1, rows_per_worker=16))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    other = shipped("tatoeba-en-de")
    running = Engine(open_model(other), EngineSettings(workers=1, rows_per_worker=16))
    yield Reader(other, running)
    running.stop()


def attempt(bundle: Bundle, text: str = TEXT, decoding: Decoding = BEAM) -> Attempt:
    source = bundle.encode(text)
    request = SentenceRequest(tuple(source.ids), 64, "alignment", decoding=decoding)
    return Attempt(bundle, source, kept_literals(bundle, text), request, most_rows=8)


def hypothesis(
    bundle: Bundle, text: str, nats: float, reason: FinishReason = FinishReason.END_OF_SENTENCE
) -> Hypothesis:
    """Its log-probability is ``nats``, the same for each token."""
    ids = tuple(bundle.target_tokenizer.encode_ids(text))
    return Hypothesis(ids, np.full(len(ids), nats / len(ids), np.float32), {}, reason, nats)


def results(*hypotheses: Hypothesis) -> SentenceResult:
    return SentenceResult(hypotheses, Timings(0.0, 0.0, 0.0))


def given(engine: Engine, tried: Attempt, translation: str) -> SentenceResult:
    ids = tuple(tried.bundle.target_tokenizer.encode_ids(translation))
    asked = replace(tried.request, decoding=Decoding(prefix_ids=ids), max_target_tokens=len(ids))
    return engine.translate([asked])[0]


def written(bundle: Bundle, result: SentenceResult) -> str:
    return bundle.decode(result.hypotheses[0].target_ids).text


# --- what is asked of the reader --------------------------------------------------------------------------------------


def test_the_reader_is_asked_how_likely_the_text_is(bundle: Bundle, reader: Reader) -> None:
    tried = attempt(bundle)
    asked = reader.request(TEXT, TRUE, replace(tried.request, priority=Priority.HIGH))
    assert asked is not None
    assert reader.bundle.source_tokenizer.decode(asked.source_ids).text == TRUE
    assert reader.bundle.decode(asked.decoding.prefix_ids).text == TEXT
    assert asked.decoding.prefix_ids[-1] == EOS_ID
    assert (asked.max_target_tokens, asked.priority) == (len(asked.decoding.prefix_ids), Priority.HIGH)
    (result,) = reader.engine.translate([asked])
    reading = Reading.of(result)
    assert reading.tokens == len(asked.decoding.prefix_ids)
    assert reading.log_probability == pytest.approx(reading.mean * reading.tokens)
    assert reading.log_probability < 0.0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("WO IST DER BAHNHOF?", "Wo ist der bahnhof?"),
        ("„Komm“, sagte er.", '"Komm", sagte er.'),
        ("Die NATO tagt.", "Die NATO tagt."),
    ],
)
def test_the_text_is_what_the_reader_would_write(bundle: Bundle, reader: Reader, text: str, read: str) -> None:
    """Capitals and quotation marks are not what its vocabulary has, and would seem unlikely of any translation."""
    asked = reader.request(text, "Whatever.", attempt(bundle, text).request)
    assert asked is not None
    assert reader.bundle.decode(asked.decoding.prefix_ids).text.casefold() == read.casefold()
    assert reader.bundle.decode(asked.decoding.prefix_ids).text.isupper() is False


@pytest.mark.parametrize(("words", "other"), [(300, 1), (1, 300)])
def test_what_is_too_long_is_not_read_back(bundle: Bundle, reader: Reader, words: int, other: int) -> None:
    assert reader.request("Haus " * words, "house " * other, attempt(bundle).request) is None


def change(bundle: Bundle, **values: Any) -> Bundle:
    return replace(bundle, manifest=bundle.manifest.model_copy(update=values))


def test_a_reader_is_of_the_other_direction(bundle: Bundle, reader: Reader) -> None:
    other = reader.bundle
    assert is_reader_of(other, bundle)
    assert is_reader_of(bundle, other)
    assert not is_reader_of(bundle, bundle)
    assert not is_reader_of(change(other, target_languages=("fr",)), bundle)
    assert not is_reader_of(change(other, target_languages=("de", "fr")), change(bundle, source_languages=("de", "fr")))
    judges_nothing = other.manifest.capabilities.model_copy(update={"prefix": False})
    assert not is_reader_of(change(other, capabilities=judges_nothing), bundle)
    assert not is_reader_of(change(other, target_language_pieces={"de": "<2de>"}), bundle)


# --- what is read back, and what is chosen ----------------------------------------------------------------------------


def test_what_is_unsure_is_read_back_and_what_is_sure_is_not(bundle: Bundle) -> None:
    tried = attempt(bundle)
    tokens = len(bundle.target_tokenizer.encode_ids(WRONG))
    assert tried.may_be_read_back(results(hypothesis(bundle, WRONG, -0.2 * tokens)))
    assert not tried.may_be_read_back(results(hypothesis(bundle, WRONG, -0.1 * tokens)))
    assert not tried.may_be_read_back(results(hypothesis(bundle, WRONG, -9.0, FinishReason.LENGTH)))


@pytest.mark.parametrize(
    "other",
    [
        {"beam_size": 1},
        {"hypotheses": 2},
        {"beam_size": 1, "sampling": Sampling(1.0, 0, 1.0, 1)},
        {"prefix_ids": (7,)},
        {"prefix_ids": (7, EOS_ID)},
    ],
)
def test_whoever_wished_for_something_else_gets_it(bundle: Bundle, other: dict[str, Any]) -> None:
    tried = attempt(bundle, decoding=replace(BEAM, **other))
    assert not tried.may_be_read_back(results(hypothesis(bundle, WRONG, -9.0)))


def test_all_that_is_to_be_kept_must_be_in_every_hypothesis(bundle: Bundle) -> None:
    asked = attempt(bundle, "Schreib an info@example.com, bitte.").several()
    assert asked.decoding.hypotheses == asked.decoding.beam_size == 8
    (phrase,) = asked.decoding.phrases
    assert bundle.decode(phrase).text.strip() == "info@example.com"
    assert attempt(bundle).several().decoding.phrases == ()


def chosen(
    bundle: Bundle, tried: Attempt, first: Hypothesis, read: float, *others: tuple[Hypothesis, float | None]
) -> str:
    second = results(*(other for other, _ in others))
    readings = [None if nats is None else Reading(nats, 10) for _, nats in others]
    return written(bundle, tried.truest(results(first), Reading(read, 10), second, readings))


def test_the_truest_is_taken(bundle: Bundle) -> None:
    tried, first = attempt(bundle), hypothesis(bundle, WRONG, -3.6)
    true, other = hypothesis(bundle, TRUE, -5.0), hypothesis(bundle, "I fly.", -4.0)
    assert chosen(bundle, tried, first, -45.0, (other, -40.0), (true, -2.0)) == TRUE
    assert chosen(bundle, tried, first, -5.0, (other, -40.0), (true, -2.0)) == WRONG  # 1.4 nats for 3 of the reader's
    assert chosen(bundle, tried, first, -45.0, (true, None)) == WRONG
    assert chosen(bundle, tried, first, -45.0) == WRONG


def test_the_text_must_be_read_better(bundle: Bundle) -> None:
    """A short hypothesis is likely because it is short."""
    tried, first = attempt(bundle), hypothesis(bundle, WRONG, -6.5)
    short = hypothesis(bundle, "I fly.", -3.5)
    assert chosen(bundle, tried, first, -25.0, (short, -33.0)) == WRONG
    assert chosen(bundle, tried, first, -25.0, (short, -24.0)) == "I fly."


def test_what_was_denied_is_not_taken_back(bundle: Bundle) -> None:
    """Nothing is searched again for a lost negation."""
    tried = attempt(bundle, "Ich habe das Geld nicht genommen.")
    alignment = bundle.manifest.alignment
    assert alignment is not None

    def looking(text: str, nats: float) -> Hypothesis:
        one = hypothesis(bundle, text, nats)
        shape = (len(one.target_ids), max(alignment.heads) + 1, len(tried.source.tokens))
        return replace(one, attention={alignment.map: np.ones(shape, np.float32)})  # at every word, as much as can be

    denied, said = looking("I didn't take the money.", -5.0), looking("I took the money.", -5.0)
    assert chosen(bundle, tried, denied, -30.0, (said, -15.0)) == "I didn't take the money."
    assert chosen(bundle, tried, said, -30.0, (denied, -15.0)) == "I didn't take the money."


def test_what_is_much_less_likely_or_cut_or_has_another_fault_is_not_taken(bundle: Bundle) -> None:
    tried, first = attempt(bundle), hypothesis(bundle, WRONG, -3.6)
    assert chosen(bundle, tried, first, -99.0, (hypothesis(bundle, TRUE, -7.5), -1.0)) == TRUE
    assert chosen(bundle, tried, first, -99.0, (hypothesis(bundle, TRUE, -7.7), -1.0)) == WRONG
    assert chosen(bundle, tried, first, -99.0, (hypothesis(bundle, TRUE, -4.0, FinishReason.LENGTH), -1.0)) == WRONG
    mail = attempt(bundle, "Schreib an info@example.com, bitte.")
    kept, lost = (hypothesis(bundle, text, -4.0) for text in ("Write to info@example.com.", "Please write to me."))
    assert chosen(bundle, mail, kept, -99.0, (lost, -1.0)) == "Write to info@example.com."


@for_any(st.lists(st.tuples(st.floats(-20.0, -0.1), st.floats(-60.0, -0.1)), max_size=8), st.floats(-60.0, -0.1))
def test_what_is_taken_is_never_less_likely_by_both(
    bundle: Bundle, nats: Sequence[tuple[float, float]], read: float
) -> None:
    tried, first = attempt(bundle), hypothesis(bundle, WRONG, -3.6)
    texts = {f"I fly {number} times.": both for number, both in enumerate(nats)}
    others = [(hypothesis(bundle, text, own), back) for text, (own, back) in texts.items()]
    found = chosen(bundle, tried, first, read, *others)
    own, back = texts.get(found, (-3.6, read))
    assert back >= read
    assert own + 0.35 * back >= -3.6 + 0.35 * read - 1e-4
    assert own >= -3.6 - 4.0 - 1e-4


# --- with both engines ------------------------------------------------------------------------------------------------


def test_what_says_something_else_is_read_back_and_another_hypothesis_taken(
    bundle: Bundle, engine: Engine, reader: Reader
) -> None:
    tried = attempt(bundle)
    first = given(engine, tried, WRONG)
    (found,) = asyncio.run(checked(engine, [tried], {0: first}, reader=reader)).values()
    assert "flying" in written(bundle, found.result)
    assert set(found.result.hypotheses[0].attention) == set(first.hypotheses[0].attention)
    assert "flying" not in written(bundle, asyncio.run(checked(engine, [tried], {0: first}))[0].result)


def test_what_is_read_back_well_is_not_searched_again(bundle: Bundle, engine: Engine, reader: Reader) -> None:
    tried, counts = attempt(bundle, "Wo ist der Bahnhof?"), list[int]()
    first = given(engine, tried, "Where's the station at?")
    assert tried.may_be_read_back(first)
    (found,) = asyncio.run(checked(engine, [tried], {0: first}, counts.append, reader)).values()
    assert found.result is first
    assert sum(counts) == 0


def test_a_batch_changes_no_answer(bundle: Bundle, engine: Engine, reader: Reader) -> None:
    lines = [
        "Der Hund meiner Tante bellt jeden Briefträger an.",
        TEXT,
        "Wo ist der Bahnhof?",
        "Hast du gut geschlafen?",
    ]
    tried = [attempt(bundle, line) for line in lines]
    first = engine.translate([one.request for one in tried])
    together = asyncio.run(checked(engine, tried, dict(enumerate(first)), reader=reader))
    for place, one in enumerate(tried):
        (alone,) = asyncio.run(checked(engine, [one], {0: first[place]}, reader=reader)).values()
        assert written(bundle, alone.result) == written(bundle, together[place].result)
        assert alone.left_out == together[place].left_out


def test_all_of_the_attention_is_had_for_what_is_chosen(bundle: Bundle, engine: Engine, reader: Reader) -> None:
    tried = attempt(bundle)
    tried = replace(tried, request=replace(tried.request, attention="full"), attention="full")
    first = given(engine, tried, WRONG)
    (found,) = asyncio.run(checked(engine, [tried], {0: first}, reader=reader)).values()
    (best,) = found.result.hypotheses
    assert "flying" in written(bundle, found.result)
    assert set(best.attention) == set(first.hypotheses[0].attention)
    assert len(best.attention) > 1


@pytest.mark.parametrize(
    "error", [QueueFullError(9, 9, 9), StoppedError("stopped"), DeadlineError("late"), RuntimeFailureError("broken")]
)
@pytest.mark.parametrize("answered", [0, 1])
def test_where_the_reader_fails_the_first_answer_stands(
    bundle: Bundle, engine: Engine, reader: Reader, monkeypatch: pytest.MonkeyPatch, error: Exception, answered: int
) -> None:
    """At once, or when the beam's hypotheses are to be read: refused, or failed under way."""
    submit, calls = Engine.submit, list[int]()

    def refusing(running: Engine, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
        if running is not reader.engine:
            return submit(running, requests)
        calls.append(len(requests))
        if len(calls) <= answered:
            return submit(running, requests)
        if isinstance(error, QueueFullError | StoppedError):
            raise error
        failed = [Future[SentenceResult]() for _ in requests]
        for one in failed:
            one.set_exception(error)
        return failed

    tried = attempt(bundle)
    first = given(engine, tried, WRONG)
    without = asyncio.run(checked(engine, [tried], {0: first}))
    monkeypatch.setattr(Engine, "submit", refusing)
    assert asyncio.run(checked(engine, [tried], {0: first}, reader=reader)) == without
    assert len(calls) == answered + 1


def test_it_has_half_of_the_time_of_all_second_tries(
    bundle: Bundle, engine: Engine, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out must still be told, and that is asked behind it."""
    submit, deadlines = Engine.submit, list[float]()

    def seen(running: Engine, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
        if running is reader.engine:
            deadlines.extend(request.deadline for request in requests if request.deadline is not None)
        return submit(running, requests)

    tried = attempt(bundle)
    first, end = given(engine, tried, WRONG), time.monotonic() + 100
    late = replace(tried, request=replace(tried.request, deadline=end))
    monkeypatch.setattr(Engine, "submit", seen)
    assert "flying" in written(bundle, asyncio.run(checked(engine, [late], {0: first}, reader=reader))[0].result)
    assert len(deadlines) > 1
    assert len(set(deadlines)) == 1
    assert 70 < end - deadlines[0] < 80


def test_greedy_search_is_not_read_back(bundle: Bundle, engine: Engine, reader: Reader) -> None:
    tried = attempt(bundle, "Wo ist der Bahnhof?", Decoding())
    first = given(engine, tried, "Where's the station at?")
    assert asyncio.run(checked(engine, [tried], {0: first}, reader=reader)) == {0: Checked(first)}


def test_a_server_reads_back_by_the_model_that_is_named_and_served() -> None:
    registry = ModelRegistry(Repository(EXPORTED), Metrics(), engine_settings=EngineSettings(workers=1))
    try:
        model, other = (registry.resolve(name, None, "", "") for name in ("tatoeba-de-en", "tatoeba-en-de"))

        def by(name: str | None) -> Reader | None:
            return registry.reader_of(replace(model, bundle=change(model.bundle, read_back_by=name)))

        assert by("tatoeba-en-de") == Reader(other.bundle, other.engine)
        assert [by(name) for name in (None, "none-such", "dates", "tatoeba-de-en")] == [None] * 4
    finally:
        registry.stop(1.0)

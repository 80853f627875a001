"""Words that a translation leaves out: which are doubted, how they are tested, what is asked then, what is taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from service.attention.words import Word, words_of
from service.bundle.repository import Bundle, Repository
from service.bundle.tokenizer import EOS_ID
from service.engine.decoding import GREEDY, Decoding, Sampling
from service.engine.engine import Engine, EngineSettings
from service.engine.errors import DeadlineError, QueueFullError, StoppedError
from service.engine.hypothesis import FinishReason, Hypothesis
from service.engine.observer import SilentObserver
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest, SentenceResult, Timings
from service.recovery import Attempt, kept_literals
from service.second_tries import Checked, checked
from tests.conftest import EXPORTED

TEXT = "Frau Kowalczyk arbeitet bei Zalando in Berlin."
WITHOUT = "Ms. Kowalczyk works in Berlin."
WHOLE = "Ms. Kowalczyk works for Zalando in Berlin."


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    shipped = Repository(EXPORTED).load("tatoeba-de-en", max(Repository(EXPORTED).versions()["tatoeba-de-en"]))
    grammar = (
        "am",
        "an",
        "arbeitet",
        "bei",
        "das",
        "ein",
        "es",
        "frau",
        "ich",
        "in",
        "ist",
        "kaufe",
        "kommen",
        "schreibt",
        "verkauft",
    )
    manifest = shipped.manifest.model_copy(
        update={"finds_omissions": True, "keeps_literals": True, "unaligned_words": grammar}
    )
    return replace(shipped, manifest=manifest)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    running = Engine(open_model(bundle), EngineSettings(workers=1, rows_per_worker=16))
    yield running
    running.stop()


def attempt(bundle: Bundle, text: str = TEXT, decoding: Decoding = GREEDY) -> Attempt:
    source = bundle.encode(text)
    request = SentenceRequest(tuple(source.ids), 64, "alignment", decoding=decoding)
    return Attempt(bundle, source, kept_literals(bundle, text), request, most_rows=8)


def given(engine: Engine, tried: Attempt, translation: str) -> SentenceResult:
    """As if the model had written it: its own numbers, and its own attention."""
    ids = tuple(tried.bundle.target_tokenizer.encode_ids(translation))
    asked = replace(tried.request, decoding=Decoding(prefix_ids=ids), max_target_tokens=len(ids))
    return engine.translate([asked])[0]


def result(tried: Attempt, text: str, columns: Sequence[int], nats: float = -0.1) -> Hypothesis:
    """A hypothesis each of whose tokens looks at one of the source's ``columns`` and nothing else."""
    ids = tuple(tried.bundle.target_tokenizer.encode_ids(text))
    alignment = tried.bundle.manifest.alignment
    assert alignment is not None
    heads = max(alignment.heads) + 1
    weights = np.zeros((len(ids), heads, len(tried.source.tokens)), np.float32)
    for row in range(len(ids)):
        weights[min(row + alignment.shift, len(ids) - 1), :, columns[min(row, len(columns) - 1)]] = 1.0
    own = np.full(len(ids), nats, np.float32)
    return Hypothesis(ids, own, {alignment.map: weights}, FinishReason.END_OF_SENTENCE, float(own.sum()))


def results(*hypotheses: Hypothesis) -> SentenceResult:
    return SentenceResult(hypotheses, Timings(0.0, 0.0, 0.0))


def texts(words: Sequence[Word]) -> list[str]:
    return [word.text for word in words]


def run(engine: Engine, tried: Attempt, first: SentenceResult) -> tuple[str, list[str]]:
    """The translation and the words that are told."""
    found = asyncio.run(checked(engine, [tried], {0: first}))[0]
    return tried.bundle.decode(found.result.hypotheses[0].target_ids).text, texts(found.left_out)


def test_what_is_not_looked_at_is_doubted(bundle: Bundle, engine: Engine) -> None:
    tried = attempt(bundle)
    assert texts(tried.doubtful(given(engine, tried, WITHOUT))) == ["Zalando"]
    assert tried.doubtful(given(engine, tried, WHOLE)) == []


def test_without_the_word_such_a_translation_is_as_likely(bundle: Bundle, engine: Engine) -> None:
    tried = attempt(bundle)
    first = given(engine, tried, WITHOUT)
    (word,) = tried.doubtful(first)
    asked = tried.request_without(word, first)
    assert asked.source_ids == tuple(bundle.encode_ids("Frau Kowalczyk arbeitet bei in Berlin."))
    assert (asked.decoding.prefix_ids, asked.attention) == (first.hypotheses[0].target_ids, "none")
    assert not tried.rests_on_it(first, *engine.translate([asked]))
    whole = given(engine, tried, WHOLE)
    assert tried.rests_on_it(whole, *engine.translate([tried.request_without(word, whole)]))


def test_what_can_be_said_is_said_after_all(bundle: Bundle, engine: Engine) -> None:
    tried = attempt(bundle, decoding=Decoding(beam_size=4, length_penalty=1.0))
    translation, left_out = run(engine, tried, given(engine, tried, WITHOUT))
    assert "Zalando" in translation
    assert left_out == []


def test_a_lost_negation_is_found_whatever_was_looked_at(bundle: Bundle, engine: Engine) -> None:
    """No alignment tells it: it is the verb beside it that is looked at. It is told."""
    tried = attempt(bundle, "Tom will nicht nach Boston gehen.", Decoding(beam_size=4, length_penalty=1.0))
    lost = given(engine, tried, "Tom wants to go to Boston.")
    assert "nicht" in texts(tried.doubtful(lost))
    assert run(engine, tried, lost) == ("Tom wants to go to Boston.", ["nicht"])
    kept = given(engine, tried, "Tom doesn't want to go to Boston.")
    assert "nicht" not in texts(tried.doubtful(kept))
    assert run(engine, tried, kept) == ("Tom doesn't want to go to Boston.", [])


def test_for_a_negation_nothing_is_searched_again(bundle: Bundle, engine: Engine) -> None:
    """What says it in its own way would be turned round."""
    tried = attempt(bundle, "Etwas stimmt mit unserer elektrischen Heizung nicht.", Decoding(beam_size=4))
    said = "Something is wrong with our electric heating."
    translation, left_out = run(engine, tried, given(engine, tried, said))
    assert translation == said
    assert set(left_out) <= {"nicht"}
    negation = next(word for word in words_of(tried.text, tried.source.tokens) if word.text == "nicht")
    assert tried.with_words([negation]) is None


def test_no_other_translation_is_taken_that_denies_nothing(bundle: Bundle) -> None:
    """Where the text denies something, and the first translation does."""
    tried = attempt(bundle, "Frau Kowalczyk arbeitet nicht bei Zalando.")
    columns = list(range(len(tried.source.tokens)))
    first = results(result(tried, "Ms. Kowalczyk doesn't work.", [0]))
    doubts = [word for word in tried.doubtful(first) if word.text == "Zalando"]
    assert doubts
    assert tried.covering(first, results(result(tried, "Ms. Kowalczyk works for Zalando.", columns)), doubts) is first
    better = result(tried, "Ms. Kowalczyk doesn't work for Zalando.", columns)
    assert tried.covering(first, results(better), doubts).hypotheses == (better,)


def test_of_a_text_of_several_languages_no_negation_is_known(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"source_languages": ("de", "nl")})
    tried = attempt(replace(bundle, manifest=manifest), "Tom will nicht.")
    everything = list(range(len(tried.source.tokens)))
    assert tried.doubtful(results(result(tried, "Tom wants to.", everything))) == []


def test_what_cannot_be_mended_is_told(bundle: Bundle, engine: Engine) -> None:
    """Where something else was wished, nothing is asked for again."""
    tried = attempt(bundle)
    first = given(engine, tried, WITHOUT)
    begun = replace(tried, request=replace(tried.request, decoding=Decoding(prefix_ids=(7,))))
    assert run(engine, begun, first) == (WITHOUT, ["Zalando"])


def test_a_translation_that_rests_on_all_of_its_text_is_left_alone(bundle: Bundle, engine: Engine) -> None:
    tried = attempt(bundle)
    whole = given(engine, tried, WHOLE)
    assert asyncio.run(checked(engine, [tried], {0: whole})) == {0: Checked(whole)}


def test_an_empty_text_is_no_test(bundle: Bundle) -> None:
    """Without its only word there is nothing to translate."""
    tried = attempt(bundle, "Zalando!")
    assert tried.doubtful(results(result(tried, "Yes!", [len(tried.source.tokens) - 1]))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"finish_reason": FinishReason.LENGTH},
        {"attention": {}},
    ],
    ids=["cut", "without attention"],
)
def test_what_cannot_be_known_is_not_doubted(bundle: Bundle, change: dict[str, object]) -> None:
    tried = attempt(bundle)
    hypothesis = result(tried, WITHOUT, [0])
    assert texts(tried.doubtful(results(hypothesis)))
    assert tried.doubtful(results(replace(hypothesis, **change))) == []  # type: ignore[arg-type]


def test_a_model_that_cannot_tell_doubts_nothing(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"finds_omissions": False})
    tried = attempt(replace(bundle, manifest=manifest))
    assert tried.doubtful(results(result(tried, WITHOUT, [0]))) == []


def test_a_translation_that_was_given_is_not_doubted(bundle: Bundle) -> None:
    tried = attempt(bundle, decoding=Decoding(prefix_ids=(5, EOS_ID)))
    assert tried.doubtful(results(result(tried, WITHOUT, [0]))) == []


def test_literals_are_looked_for_in_another_way(bundle: Bundle) -> None:
    tried = attempt(bundle, "Frau Kowalczyk schreibt an anna@zalando.de.")
    doubts = texts(tried.doubtful(results(result(tried, WITHOUT, [0]))))
    assert "Kowalczyk" in doubts
    assert not any("zalando" in word for word in doubts)


def test_names_must_be_written_and_words_may_be(bundle: Bundle) -> None:
    tried = attempt(bundle, "Ich kaufe bei IKEA ein Regal.")
    doubts = tried.doubtful(results(result(tried, "I buy.", [0])))
    assert {"IKEA", "Regal"} <= set(texts(doubts))
    asked = tried.with_words([word for word in doubts if word.text == "Regal"])
    assert asked is not None
    assert (asked.decoding.phrases, asked.decoding.hypotheses, asked.attention) == ((), 8, "alignment")
    asked = tried.with_words(doubts)
    assert asked is not None
    (phrase,) = asked.decoding.phrases
    assert bundle.target_tokenizer.decode(phrase).text.strip() == "IKEA"


@pytest.mark.parametrize(
    "decoding",
    [Decoding(beam_size=2, hypotheses=2), Decoding(sampling=Sampling((1,))), Decoding(prefix_ids=(5,))],
    ids=["several", "drawn", "begun"],
)
def test_what_was_asked_for_in_another_way_stays(bundle: Bundle, decoding: Decoding) -> None:
    tried = attempt(bundle, decoding=decoding)
    doubts = tried.doubtful(results(result(tried, WITHOUT, [0])))
    assert doubts
    assert tried.with_words(doubts) is None


def test_the_better_one_looks_at_more_and_is_not_much_less_likely(bundle: Bundle) -> None:
    tried = attempt(bundle)
    columns = list(range(len(tried.source.tokens)))
    first = results(result(tried, WITHOUT, [0]))
    doubts = tried.doubtful(first)
    for nats, taken in ((-0.2, True), (-3.0, False)):
        other = result(tried, WHOLE, columns, nats)
        chosen = tried.covering(first, results(result(tried, WITHOUT, [0]), other), doubts)
        assert (chosen.hypotheses == (other,)) is taken
        assert (chosen is first) is not taken


def test_the_better_one_has_no_other_fault(bundle: Bundle) -> None:
    tried = attempt(bundle, TEXT.replace(".", " 🍕."))
    columns = list(range(len(tried.source.tokens)))
    first = results(result(tried, WITHOUT.replace(".", " 🍕."), [0]))
    doubts = tried.doubtful(first)
    assert tried.covering(first, results(result(tried, WHOLE, columns)), doubts) is first
    kept = result(tried, WHOLE.replace(".", " 🍕."), columns)
    assert tried.covering(first, results(kept), doubts).hypotheses == (kept,)


Submit = Callable[[Engine, Sequence[SentenceRequest]], list[Future[SentenceResult]]]


def refusing(monkeypatch: pytest.MonkeyPatch, refused: int, error: Exception) -> list[int]:
    """The submission of this number is refused; returns a list that comes to hold the sizes of all."""
    submit: Submit = Engine.submit
    calls = list[int]()

    def full(running: Engine, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
        calls.append(len(requests))
        if len(calls) == refused:
            raise error
        return submit(running, requests)

    monkeypatch.setattr(Engine, "submit", full)
    return calls


@pytest.mark.parametrize("error", [QueueFullError(9, 9, 9), QueueFullError(9, 0, 1), StoppedError()])
@pytest.mark.parametrize("refused", [1, 2, 3, 4])
def test_without_room_the_first_answer_stays(
    bundle: Bundle, engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception, refused: int
) -> None:
    """Whether the tests were refused, the search, the tests of what it found, or all of its attention."""
    tried = attempt(bundle, decoding=Decoding(beam_size=4, length_penalty=1.0))
    tried = replace(tried, attention="full")
    first = given(engine, tried, WITHOUT)
    calls = refusing(monkeypatch, refused, error)
    translation, left_out = run(engine, tried, first)
    assert len(calls) >= refused
    assert translation == WITHOUT
    assert left_out == ([] if refused == 1 else ["Zalando"])


@pytest.mark.parametrize("late", [0, 1])
def test_what_was_tested_in_part_is_told_and_its_better_one_is_not_taken(
    bundle: Bundle, engine: Engine, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """Of the two tests of what the search found one comes too late."""
    tried = attempt(
        bundle, "Frau Kowalczyk verkauft bei Zalando Gummistiefel.", Decoding(beam_size=4, length_penalty=1.0)
    )
    first = given(engine, tried, "Ms. Kowalczyk sells.")
    assert texts(sorted(tried.doubtful(first), key=lambda word: word.begin)) == ["Zalando", "Gummistiefel"]
    submit: Submit = Engine.submit
    calls = list[int]()

    def one_is_late(running: Engine, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
        calls.append(len(requests))
        futures = submit(running, requests)
        if len(calls) == 3:
            futures[late] = Future()
            futures[late].set_exception(DeadlineError())
        return futures

    monkeypatch.setattr(Engine, "submit", one_is_late)
    translation, left_out = run(engine, tried, first)
    assert calls == [2, 1, 2]
    assert (translation, left_out) == ("Ms. Kowalczyk sells.", ["Zalando", "Gummistiefel"])


def test_where_the_time_is_over_nothing_is_asked(
    bundle: Bundle, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = attempt(bundle)
    first = given(engine, tried, WITHOUT)
    calls = refusing(monkeypatch, 0, StoppedError())
    late = replace(tried, request=replace(tried.request, deadline=time.monotonic() - 1))
    assert run(engine, late, first) == (WITHOUT, [])
    assert calls == []


def test_all_of_it_has_half_of_the_time_that_is_left(
    bundle: Bundle, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = attempt(bundle, decoding=Decoding(beam_size=4, length_penalty=1.0))
    first, submit, deadlines = given(engine, tried, WITHOUT), Engine.submit, list[float]()

    def seen(running: Engine, requests: Sequence[SentenceRequest]) -> list[Future[SentenceResult]]:
        deadlines.extend(request.deadline for request in requests if request.deadline is not None)
        return submit(running, requests)

    monkeypatch.setattr(Engine, "submit", seen)
    end = time.monotonic() + 100
    translation, _ = run(engine, replace(tried, request=replace(tried.request, deadline=end)), first)
    assert "Zalando" in translation
    assert len(deadlines) == 3
    assert len(set(deadlines)) == 1
    assert 45 < end - deadlines[0] < 55


def test_many_are_tested_in_parts_and_each_as_if_alone(bundle: Bundle, engine: Engine) -> None:
    """A queue that holds a few of the tests at once."""
    tried = attempt(bundle)
    first = given(engine, tried, WITHOUT)
    small = Engine(open_model(bundle), EngineSettings(workers=1, rows_per_worker=16, queue_tokens=4000))
    try:
        begun = replace(tried, request=replace(tried.request, decoding=Decoding(prefix_ids=(7,))))
        found = asyncio.run(checked(small, [begun] * 40, dict.fromkeys(range(40), first)))
    finally:
        small.stop()
    assert [texts(one.left_out) for one in found.values()] == [["Zalando"]] * 40


def test_the_tests_of_a_later_part_are_not_made_before_its_time(
    bundle: Bundle, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To make one cuts the text anew; where the first part is refused, the others would be made for nothing."""
    tried = attempt(bundle)
    first, make, made = given(engine, tried, WITHOUT), Attempt.request_without, list[Word]()

    def seen(tested: Attempt, word: Word, result: SentenceResult) -> SentenceRequest:
        made.append(word)
        return make(tested, word, result)

    monkeypatch.setattr(Attempt, "request_without", seen)
    calls = refusing(monkeypatch, 1, QueueFullError(9, 9, 9))
    small = Engine(open_model(bundle), EngineSettings(workers=1, rows_per_worker=16, queue_tokens=4000))
    try:
        found = asyncio.run(checked(small, [tried] * 40, dict.fromkeys(range(40), first)))
    finally:
        small.stop()
    assert all(one == Checked(first) for one in found.values())
    assert 1 <= calls[0] <= len(made) <= calls[0] + 1 < 40


def test_a_second_try_that_is_late_is_no_missed_deadline(bundle: Bundle) -> None:
    dropped = list[str]()

    class Told(SilentObserver):
        def dropped(self, reason: str, wasted_steps: int) -> None:
            del wasted_steps
            dropped.append(reason)

    running = Engine(open_model(bundle), EngineSettings(workers=1), Told())
    request = SentenceRequest(tuple(bundle.encode_ids(TEXT)), 40, deadline=time.monotonic() - 1)
    try:
        for spare in (False, True):
            with pytest.raises(DeadlineError):
                running.translate([replace(request, spare=spare)])
    finally:
        running.stop()
    assert dropped == ["deadline", "spare"]


def test_what_leaves_out_very_much_is_tested_by_a_few_words(bundle: Bundle) -> None:
    names = "Anna Bertha Cäcilie Dorothea Elfriede Friederike Gertrud Hildegard Irmgard Jakobine Katharina"
    tried = attempt(bundle, f"Es kommen {names}.")
    assert len(tried.doubtful(results(result(tried, "They come.", [0])))) == 8


def test_a_stressed_word_is_no_name(bundle: Bundle) -> None:
    tried = attempt(bundle, "Das ist bei IKEA STRENG VERBOTEN.")
    asked = tried.with_words(tried.doubtful(results(result(tried, "Yes.", [0]))))
    assert asked is not None
    assert [bundle.target_tokenizer.decode(phrase).text.strip() for phrase in asked.decoding.phrases] == ["IKEA"]


def test_a_text_in_capitals_is_looked_through_as_it_is_read(bundle: Bundle, engine: Engine) -> None:
    tried = attempt(bundle, TEXT.upper())
    first = given(engine, tried, WITHOUT)
    assert texts(tried.doubtful(first)) == ["ZALANDO"]


def test_what_the_text_cannot_do_without_is_tested_with_the_words_that_go_with_it(
    bundle: Bundle, engine: Engine
) -> None:
    """ "Das Spiel nach endete" is no text; without the preposition too it is."""
    tried = attempt(bundle, "Die Mannschaft gewann das Spiel nach Verlängerung mit drei zu zwei.")
    first = given(engine, tried, "The team won the game with three to two.")
    (word,) = (one for one in tried.doubtful(first) if one.text == "Verlängerung")
    with_it = tried.request_without_run(word, first)
    assert with_it is not None
    assert (
        bundle.source_tokenizer.decode(with_it.source_ids).text == "Die Mannschaft gewann das Spiel mit drei zu zwei."
    )
    assert not tried.rests_on_it(first, *engine.translate([with_it]))
    begun = replace(tried, request=replace(tried.request, decoding=Decoding(prefix_ids=(7,))))
    assert "Verlängerung" in run(engine, begun, first)[1]


def test_of_a_word_that_stands_alone_there_is_no_run(bundle: Bundle, engine: Engine) -> None:
    tried = attempt(bundle, "Zalando!")
    first = given(engine, tried, "Yes!")
    (word, *_) = words_of(tried.text, tried.source.tokens)
    assert tried.request_without_run(word, first) is None


def test_all_of_the_attention_is_had_for_what_is_chosen(bundle: Bundle, engine: Engine) -> None:
    tried = attempt(bundle, decoding=Decoding(beam_size=4, length_penalty=1.0))
    tried = replace(tried, request=replace(tried.request, attention="full"), attention="full")
    first = given(engine, tried, WITHOUT)
    (found,) = asyncio.run(checked(engine, [tried], {0: first})).values()
    (best,) = found.result.hypotheses
    assert set(best.attention) == set(first.hypotheses[0].attention)
    for weights in best.attention.values():
        np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)

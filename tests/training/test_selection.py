"""Which weights are kept, when a run stops and when its rate falls, by the validations alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import TrainingConfig
from training.selection import Selection, Validation

Measure = Literal["exact_match", "loss", "accuracy", "bleu", "chrf"]
MEASURES = pytest.mark.parametrize("measure", get_args(Measure))
GREATER_IS_BETTER = pytest.mark.parametrize("measure", ["exact_match", "accuracy", "bleu", "chrf"])
MIDDLE = Validation(loss=0.5, accuracy=0.5, exact_match=0.5, bleu=50.0, chrf=50.0)
#: Few enough values that ties are common.
SEEN = st.builds(
    Validation,
    loss=st.sampled_from([0.25, 0.5, 1.0]),
    accuracy=st.sampled_from([0.0, 0.5, 0.75]),
    exact_match=st.sampled_from([0.0, 0.5, 1.0]),
    bleu=st.sampled_from([0.0, 12.5, 30.0]),
    chrf=st.sampled_from([10.0, 20.0]),
)
RUNS = st.lists(SEEN, max_size=12)


def config(measure: Measure = "loss", **more: Any) -> TrainingConfig:
    values = {"updates": 100, "select_by": measure, "validation_sentences": 1}
    return TrainingConfig.model_validate(values | more)


def losses(*values: float) -> list[Validation]:
    return [replace(MIDDLE, loss=value) for value in values]


def recorded(settings: TrainingConfig, seen: list[Validation]) -> tuple[Selection, list[bool]]:
    """Validations at the updates 10, 20, 30 and so on; which of them were the best so far."""
    selection = Selection()
    return selection, [selection.record(settings, 10 * (i + 1), found) for i, found in enumerate(seen)]


def test_by_another_measure_the_best_begins_anew() -> None:
    """20 BLEU and a loss of 2 do not compare."""
    selection, _ = recorded(config("bleu", keep_best=2), [replace(MIDDLE, bleu=value) for value in (20.0, 30.0, 25.0)])
    again = Selection.from_dict(json.loads(json.dumps(selection.to_dict())))
    found = [again.record(config("loss", keep_best=2), 40 + i, MIDDLE) for i in range(2)]
    assert found == [True, False]
    assert [update for _, update in again.best] == [40, 41]
    assert again.measure == "loss"


# --- what is better --------------------------------------------------------------------------------------------------


def test_there_are_no_other_measures() -> None:
    assert set(get_args(TrainingConfig.model_fields["select_by"].annotation)) == set(get_args(Measure))


@GREATER_IS_BETTER
def test_more_is_better(measure: Measure) -> None:
    """Whatever the other measures say."""
    worse = Validation(loss=0.1, accuracy=0.9, exact_match=0.9, bleu=90.0, chrf=90.0)
    better = Validation(loss=9.0, accuracy=0.1, exact_match=0.1, bleu=10.0, chrf=10.0)
    worse, better = (replace(found, **{measure: value}) for found, value in ((worse, 0.3), (better, 0.4)))
    assert recorded(config(measure), [worse, better])[1] == [True, True]
    assert recorded(config(measure), [better, worse])[1] == [True, False]


def test_less_loss_is_better() -> None:
    """Whatever the other measures say."""
    found = [Validation(0.6, 0.9, 0.9, 90.0, 90.0), Validation(0.5, 0.1, 0.1, 10.0, 10.0)]
    assert recorded(config("loss"), found)[1] == [True, True]
    assert recorded(config("loss"), found[::-1])[1] == [True, False]


@MEASURES
def test_a_tie_is_no_improvement(measure: Measure) -> None:
    assert recorded(config(measure), [MIDDLE] * 3)[1] == [True, False, False]


@pytest.mark.parametrize("measure", ["accuracy", "bleu", "chrf"])
def test_a_lower_loss_breaks_no_tie(measure: Measure) -> None:
    assert recorded(config(measure), [MIDDLE, replace(MIDDLE, loss=0.1)])[1] == [True, False]


def test_a_lower_loss_breaks_a_tie_of_exact_match_and_no_more() -> None:
    found = [
        Validation(loss=0.5, accuracy=0.5, exact_match=0.7),
        Validation(loss=0.9, accuracy=0.5, exact_match=0.8),
        Validation(loss=0.8, accuracy=0.5, exact_match=0.8),
        Validation(loss=0.8, accuracy=0.9, exact_match=0.8),
        Validation(loss=0.1, accuracy=0.5, exact_match=0.7),
    ]
    assert recorded(config("exact_match"), found)[1] == [True, True, True, False, False]


@pytest.mark.parametrize("measure", ["exact_match", "loss"])
def test_a_loss_that_is_no_number_is_no_improvement(measure: Measure) -> None:
    assert recorded(config(measure), losses(0.5, math.nan, 0.4, math.nan))[1] == [True, False, True, False]


@pytest.mark.parametrize("measure", ["exact_match", "loss"])
def test_after_a_loss_that_is_no_number_any_number_is_better(measure: Measure) -> None:
    selection, improved = recorded(config(measure), losses(math.nan, 0.5))
    assert improved[1]
    assert [update for _, update in selection.best] == [20]


@pytest.mark.parametrize("measure", ["bleu", "chrf"])
def test_without_translations_nothing_is_selected_by_them(measure: Measure) -> None:
    untranslated = Validation(loss=0.5, accuracy=0.5, exact_match=0.5)
    with pytest.raises(ValueError, match=f"select_by {measure} needs translations: set validation_sentences"):
        Selection().record(config(measure), 10, untranslated)
    assert recorded(config("loss"), [untranslated])[1] == [True]


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_the_best_are_kept_best_first() -> None:
    selection, _ = recorded(config(keep_best=3), losses(0.5, 0.3, 0.9, 0.4, 0.2))
    assert [update for _, update in selection.best] == [50, 20, 40]
    assert selection.last == []
    assert selection.kept == {20, 40, 50}


def test_of_equals_the_older_are_kept() -> None:
    selection, _ = recorded(config(keep_best=2), losses(0.5, 0.5, 0.5, 0.4, 0.4))
    assert [update for _, update in selection.best] == [40, 50]
    selection, _ = recorded(config(keep_best=2), losses(0.5, 0.5, 0.5))
    assert [update for _, update in selection.best] == [10, 20]


def test_the_last_are_kept_newest_first() -> None:
    selection, _ = recorded(config(keep_last=3), losses(0.5, 0.6, 0.7, 0.8, 0.9))
    assert selection.last == [50, 40, 30]
    assert selection.kept == {10, 30, 40, 50}


def test_fewer_than_are_kept_are_all_kept() -> None:
    selection, _ = recorded(config(keep_best=9, keep_last=9), losses(0.5, 0.6))
    assert selection.kept == {10, 20}
    assert Selection().kept == set()


def test_an_update_that_is_validated_again_counts_once() -> None:
    """After its run went back to an older state."""
    settings, selection = config(keep_best=2, keep_last=2), Selection()
    for update, loss in ((10, 0.5), (20, 0.4), (20, 0.6)):
        selection.record(settings, update, replace(MIDDLE, loss=loss))
    assert [update for _, update in selection.best] == [10, 20]
    assert selection.last == [20, 10]


@MEASURES
@given(seen=RUNS, best=st.integers(1, 4), last=st.integers(0, 4))
def test_what_is_kept_is_what_sorting_all_of_them_gives(
    measure: Measure, seen: list[Validation], best: int, last: int
) -> None:
    def goodness(found: Validation) -> tuple[float, ...]:
        if measure == "loss":
            return (-found.loss,)
        return (found.exact_match, -found.loss) if measure == "exact_match" else (getattr(found, measure),)

    selection, improved = recorded(config(measure, keep_best=best, keep_last=last), seen)
    updates = [10 * (i + 1) for i in range(len(seen))]
    order = sorted(zip(seen, updates, strict=True), key=lambda entry: goodness(entry[0]), reverse=True)
    assert [update for _, update in selection.best] == [update for _, update in order[:best]]
    assert selection.last == updates[::-1][:last]
    for i, found in enumerate(seen):
        assert improved[i] == all(goodness(found) > goodness(other) for other in seen[:i])


# --- when to stop ----------------------------------------------------------------------------------------------------


def stops(patience: int, *values: float) -> list[bool]:
    settings, selection, found = config(patience=patience), Selection(), []
    for i, seen in enumerate(losses(*values)):
        selection.record(settings, i, seen)
        found.append(selection.should_stop(settings))
    return found


def test_a_run_stops_when_so_many_validations_were_no_better() -> None:
    assert stops(2, 0.5, 0.6, 0.5, 0.7) == [False, False, True, True]
    assert stops(1, 0.5, 0.4, 0.4) == [False, False, True]


def test_an_improvement_begins_the_count_anew() -> None:
    assert stops(2, 0.5, 0.6, 0.4, 0.6, 0.5) == [False, False, False, False, True]


def test_the_best_is_what_has_to_be_beaten_and_not_the_last() -> None:
    assert stops(3, 0.5, 0.9, 0.8, 0.7) == [False, False, False, True]


def test_without_patience_a_run_never_stops() -> None:
    assert not any(stops(0, *[0.5] * 50))
    assert not Selection().should_stop(config(patience=1))


# --- the plateau -----------------------------------------------------------------------------------------------------


def reductions(settings: TrainingConfig, *values: float) -> list[int]:
    selection, found = Selection(), []
    for i, seen in enumerate(losses(*values)):
        selection.record(settings, i, seen)
        found.append(selection.reductions)
    return found


def test_the_rate_falls_after_so_many_validations_that_were_no_better() -> None:
    settings = config(schedule="plateau", plateau_patience=2)
    assert reductions(settings, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5) == [0, 0, 1, 1, 2, 2]


def test_an_improvement_puts_the_fall_off_and_takes_none_back() -> None:
    settings = config(schedule="plateau", plateau_patience=2)
    assert reductions(settings, 0.5, 0.6, 0.4, 0.6, 0.6, 0.3, 0.3) == [0, 0, 0, 0, 1, 1, 1]


def test_a_fall_is_no_improvement() -> None:
    """Patience counts on."""
    settings, selection = config(schedule="plateau", plateau_patience=1, patience=3), Selection()
    for i, seen in enumerate(losses(0.5, 0.5, 0.5, 0.5)):
        assert not selection.should_stop(settings)
        selection.record(settings, i, seen)
    assert selection.should_stop(settings)
    assert selection.reductions == 3


@pytest.mark.parametrize("schedule", ["cosine", "constant", "inverse_sqrt"])
def test_no_other_schedule_has_reductions(schedule: str) -> None:
    assert reductions(config(schedule=schedule, plateau_patience=1), *[0.5] * 6) == [0] * 6


# --- saved and read --------------------------------------------------------------------------------------------------


@MEASURES
@given(before=RUNS, after=RUNS)
def test_a_selection_that_was_saved_goes_on_as_if_it_had_not_been(
    measure: Measure, before: list[Validation], after: list[Validation]
) -> None:
    settings = config(measure, keep_best=2, keep_last=2, patience=3, schedule="plateau", plateau_patience=2)
    selection, _ = recorded(settings, before)
    again = Selection.from_dict(json.loads(json.dumps(selection.to_dict())))
    assert again == selection
    for i, found in enumerate(after):
        update = 10 * (len(before) + i + 1)
        assert again.record(settings, update, found) == selection.record(settings, update, found)
        assert again.should_stop(settings) == selection.should_stop(settings)
    assert again == selection


def test_what_is_saved_does_not_change_with_the_run() -> None:
    settings = config(keep_best=2, keep_last=2)
    selection, _ = recorded(settings, losses(0.5, 0.4))
    saved = selection.to_dict()
    before = json.dumps(saved)
    again = Selection.from_dict(saved)
    for one in (selection, again):
        one.record(settings, 30, replace(MIDDLE, loss=0.1))
    assert json.dumps(saved) == before

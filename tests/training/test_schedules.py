"""Learning rates: each schedule is its formula, and none jumps where its warm-up ends."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import TrainingConfig
from training.schedules import learning_rate

Schedule = Literal["cosine", "constant", "inverse_sqrt", "plateau"]
SCHEDULES = pytest.mark.parametrize("schedule", get_args(Schedule))


def config(schedule: Schedule, updates: int = 8, warmup: int = 4, peak: float = 0.4, **more: Any) -> TrainingConfig:
    return TrainingConfig(updates=updates, warmup_updates=warmup, learning_rate=peak, schedule=schedule, **more)


def test_there_are_no_other_schedules() -> None:
    assert set(get_args(TrainingConfig.model_fields["schedule"].annotation)) == set(get_args(Schedule))


# --- by value --------------------------------------------------------------------------------------------------------

ROOT = math.sqrt(2)
VALUES: list[tuple[Schedule, list[float]]] = [
    ("constant", [0.4, 0.4, 0.4, 0.4, 0.4]),
    ("cosine", [0.4, 0.2 + 0.1 * ROOT, 0.2, 0.2 - 0.1 * ROOT, 0.0]),
    ("inverse_sqrt", [0.8 / math.sqrt(update + 1) for update in range(4, 9)]),
    ("plateau", [0.4, 0.4, 0.4, 0.4, 0.4]),
]


@pytest.mark.parametrize(("schedule", "after"), VALUES)
def test_the_learning_rate_of_a_short_run(schedule: Schedule, after: list[float]) -> None:
    rates = [learning_rate(config(schedule), update) for update in range(9)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, *after])


def test_the_root_of_a_long_run() -> None:
    """The peak where the warm-up ends, half of it after four times as many updates, a tenth after a hundred times."""
    settings = config("inverse_sqrt", updates=100_000, warmup=50)
    rates = [learning_rate(settings, update - 1) for update in (50, 200, 5000)]
    assert rates == pytest.approx([0.4, 0.2, 0.04])


@pytest.mark.parametrize(("reductions", "rate"), [(0, 0.4), (1, 0.1), (2, 0.025), (5, 0.4 / 1024)])
def test_a_plateau_lowers_the_rate_as_often_as_it_is_told(reductions: int, rate: float) -> None:
    settings = config("plateau", plateau_factor=0.25)
    assert learning_rate(settings, 4, reductions) == pytest.approx(rate)
    assert learning_rate(settings, 7, reductions) == pytest.approx(rate)


@SCHEDULES
def test_reductions_change_no_warm_up_and_no_other_schedule(schedule: Schedule) -> None:
    for update in range(4 if schedule == "plateau" else 9):
        assert learning_rate(config(schedule), update, 3) == learning_rate(config(schedule), update)


@given(st.integers(1, 5000), st.integers(0, 6000), st.floats(1e-6, 1.0), st.integers(0, 10))
def test_every_rate_is_its_formula(updates: int, warmup: int, peak: float, reductions: int) -> None:
    asked = {0, 1, warmup - 1, warmup, warmup + 1, (warmup + updates) // 2, updates - 1} & set(range(updates))
    for update in asked:
        formulas: dict[Schedule, float] = {
            "constant": peak,
            "cosine": peak * math.cos(math.pi / 2 * (update - warmup) / max(1, updates - warmup)) ** 2,
            "inverse_sqrt": peak * (max(1, warmup) / (update + 1)) ** 0.5,
            "plateau": peak * 0.5**reductions,
        }
        for schedule, formula in formulas.items():
            wanted = peak * (update + 1) / warmup if update < warmup else formula
            found = learning_rate(config(schedule, updates, warmup, peak), update, reductions)
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9 * peak)
            assert 0.0 < found <= peak * (1 + 1e-12)


# --- the end of the warm-up ------------------------------------------------------------------------------------------


@SCHEDULES
def test_a_run_without_a_warm_up_begins_at_the_peak(schedule: Schedule) -> None:
    assert learning_rate(config(schedule, warmup=0), 0) == 0.4


@SCHEDULES
@given(warmup=st.integers(1, 3000), more=st.integers(2, 3000))
def test_the_rate_does_not_jump_where_the_warm_up_ends(schedule: Schedule, warmup: int, more: int) -> None:
    """The last update of the warm-up is at the peak; the next one is off by less than the steps around it."""
    settings = config(schedule, updates=warmup + more, warmup=warmup)
    last, first, second = (learning_rate(settings, update) for update in (warmup - 1, warmup, warmup + 1))
    assert last == pytest.approx(0.4)
    assert -1e-12 <= last - first <= max(first - second, 0.4 / warmup) + 1e-12


@SCHEDULES
@given(warmup=st.integers(0, 200), more=st.integers(1, 200))
def test_the_rate_rises_to_the_peak_and_never_again(schedule: Schedule, warmup: int, more: int) -> None:
    rates = [learning_rate(config(schedule, warmup + more, warmup), update) for update in range(warmup + more)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)

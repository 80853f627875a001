"""Dropout: how much it drops, what it keeps, its gradient, its random state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.dropout import Dropout, computing_dtype


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.99])
def test_so_many_are_dropped_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(1)
    dropped = Dropout(p).train()(torch.ones(1000, 1001))
    assert (dropped == 0).double().mean().item() == pytest.approx(p, abs=0.002)
    assert dropped.double().mean().item() == pytest.approx(1.0, abs=0.03)
    kept = dropped[dropped != 0]
    assert kept.min() == kept.max()
    assert kept[0].item() == pytest.approx(1 / (1 - p), rel=2e-3)


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(0, 7), min_size=0, max_size=4),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_any_shape_and_its_gradient_is_its_mask(shape: list[int], dtype: torch.dtype) -> None:
    tensor = torch.full(shape, 2.0, dtype=dtype).requires_grad_()
    dropped = Dropout(0.5).train()(tensor)
    (gradient,) = torch.autograd.grad(dropped.sum(), tensor)
    assert (dropped.shape, dropped.dtype, gradient.dtype) == (tensor.shape, dtype, dtype)
    torch.testing.assert_close(gradient * 2.0, dropped.detach())


def test_a_tensor_that_is_not_contiguous_is_dropped_alike() -> None:
    torch.manual_seed(2)
    one = Dropout(0.3).train()(torch.ones(6, 5).t())
    torch.manual_seed(2)
    torch.testing.assert_close(Dropout(0.3).train()(torch.ones(5, 6)), one)


def test_columns_and_neighbours_are_dropped_independently() -> None:
    """Four share one random number."""
    torch.manual_seed(3)
    gone = (Dropout(0.5).train()(torch.ones(50_000, 4)) == 0).double()
    together = gone.t() @ gone / len(gone)
    torch.testing.assert_close(together, 0.25 + 0.25 * torch.eye(4, dtype=torch.float64), rtol=0, atol=0.01)


def test_the_random_state_decides_and_goes_on() -> None:
    dropout, tensor = Dropout(0.5).train(), torch.ones(100)
    state = torch.get_rng_state()
    first, second = dropout(tensor), dropout(tensor)
    torch.set_rng_state(state)
    assert torch.equal(dropout(tensor), first)
    assert torch.equal(dropout(tensor), second)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_outside_training() -> None:
    tensor = torch.ones(100)
    assert Dropout(0.5).eval()(tensor) is tensor
    assert Dropout(0.0).train()(tensor) is tensor


def test_the_dtype_that_autocast_computes_in() -> None:
    tensor = torch.ones(2, dtype=torch.float64)
    assert computing_dtype(tensor) == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert computing_dtype(tensor) == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert computing_dtype(tensor) == torch.float64

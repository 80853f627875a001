"""Dropout: how much it drops, what it keeps, its gradient, its random state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.dropout import Dropout, ReluDropout


@pytest.mark.parametrize("p", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_so_many_are_dropped_and_the_mean_stays(p: float) -> None:
    """A tensor's own share is the multiple of 1/256 below p or above it; over many tensors it is p."""
    torch.manual_seed(1)
    dropout, shares, means = Dropout(p).train(), [], []
    for _ in range(400):
        dropped = dropout(torch.ones(100, 101))
        share, kept = (dropped == 0).double().mean().item(), dropped[dropped != 0]
        assert kept.min() == kept.max()
        of_levels = 256 * (1 - 1 / kept[0].item())
        assert of_levels == pytest.approx(round(of_levels), abs=2e-3)
        assert abs(of_levels - 256 * p) < 1 + 2e-3
        assert share == pytest.approx(of_levels / 256, abs=5 * (p / 10_100) ** 0.5 + 1e-3)
        shares.append(share)
        means.append(dropped.double().mean().item())
    assert sum(shares) / 400 == pytest.approx(p, abs=5e-4)
    assert sum(means) / 400 == pytest.approx(1.0, abs=0.03)


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
    """Eight share one random number."""
    torch.manual_seed(3)
    gone = (Dropout(0.5).train()(torch.ones(50_000, 8)) == 0).double()
    together = gone.t() @ gone / len(gone)
    torch.testing.assert_close(together, 0.25 + 0.25 * torch.eye(8, dtype=torch.float64), rtol=0, atol=0.01)


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


@settings(deadline=None, max_examples=20)
@given(p=st.floats(0.0, 0.99), seed=st.integers(0, 1000))
def test_after_relu_it_is_relu_and_dropout(p: float, seed: int) -> None:
    tensor = torch.randn(7, 9, dtype=torch.float64, requires_grad=True)
    found = []
    for apart in (False, True):
        torch.manual_seed(seed)
        dropped = Dropout(p).train()(torch.relu(tensor)) if apart else ReluDropout(p).train()(tensor)
        found.append((dropped, torch.autograd.grad(dropped.square().sum(), tensor)[0]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)

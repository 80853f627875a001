"""Cross-entropy by blocks against PyTorch's of whole logits: the loss and every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from training import linear_cross_entropy as module
from training.linear_cross_entropy import linear_cross_entropy

VOCABULARY, SIZE = 11, 6


def made(positions: int, bias: bool, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, nn.Linear, Tensor]:
    torch.manual_seed(seed)
    layer = nn.Linear(SIZE, VOCABULARY, bias=bias, dtype=dtype)
    features = torch.randn(positions, SIZE, dtype=dtype, requires_grad=True)
    return features, layer, torch.randint(0, VOCABULARY, (positions,))


def gradients(loss: Tensor, features: Tensor, layer: nn.Linear) -> list[Tensor]:
    return list(torch.autograd.grad(3.0 * loss, [features, *layer.parameters()]))


@settings(deadline=None)
@given(
    positions=st.integers(1, 9),
    rows=st.integers(1, 10),
    bias=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 0.7]),
    seed=st.integers(0, 99),
)
def test_it_is_the_cross_entropy_of_whole_logits(
    positions: int, rows: int, bias: bool, smoothing: float, seed: int
) -> None:
    """However many positions a block has."""
    features, layer, targets = made(positions, bias, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module._BLOCK, "cpu", rows * VOCABULARY)
        found = linear_cross_entropy(features, layer, targets, smoothing)
        of_found = gradients(found, features, layer)
    wanted = functional.cross_entropy(layer(features), targets, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(found, wanted.float())
    for one, other in zip(of_found, gradients(wanted, features, layer), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, check_dtype=False)


def test_a_vocabulary_larger_than_a_block_is_judged_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._BLOCK, "cpu", 2)
    features, layer, targets = made(4, True, 1)
    wanted = functional.cross_entropy(layer(features), targets, reduction="sum")
    torch.testing.assert_close(linear_cross_entropy(features, layer, targets, 0.0), wanted.float())


def test_no_position_is_a_loss_of_zero() -> None:
    features, layer, targets = made(0, True, 1)
    loss = linear_cross_entropy(features, layer, targets, 0.1)
    assert loss.item() == 0.0
    assert [float(part.abs().sum()) for part in gradients(loss, features, layer)] == [0.0, 0.0, 0.0]


def test_under_autocast_products_are_of_few_bits_and_the_loss_of_many() -> None:
    features, layer, targets = made(50, True, 2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(features, layer, targets, 0.1)
    exact = functional.cross_entropy(layer(features), targets, label_smoothing=0.1, reduction="sum")
    assert loss.dtype == torch.float32
    assert loss.item() != exact.item()
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)
    for one, other in zip(gradients(loss, features, layer), gradients(exact, features, layer), strict=True):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def test_tied_weights_get_both_gradients() -> None:
    """Those of an embedding and of the layer that shares them."""
    _, layer, targets = made(5, False, 3)
    ids = torch.randint(0, VOCABULARY, (5,))
    found = torch.autograd.grad(
        linear_cross_entropy(functional.embedding(ids, layer.weight), layer, targets, 0.0), layer.weight
    )
    read = functional.embedding(ids, layer.weight)
    wanted = torch.autograd.grad(functional.cross_entropy(layer(read), targets, reduction="sum"), layer.weight)
    torch.testing.assert_close(found, wanted)

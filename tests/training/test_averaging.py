"""Means of weights, by value; and the moving one, by its recursion, along a real training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from training.averaging import average, interpolated, moving_average
from training.config import TransformerConfig
from training.models.transformer import Transformer

FLOATS = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)


# --- of checkpoints --------------------------------------------------------------------------------------------------


def test_a_mean_to_the_letter() -> None:
    one = {"weight": torch.tensor([[1.0, 2.0], [3.0, -4.0]]), "bias": torch.tensor([0.5])}
    other = {"weight": torch.tensor([[3.0, 2.0], [0.0, -2.0]]), "bias": torch.tensor([-0.5])}
    found = average([one, other])
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "weight": [[2.0, 2.0], [1.5, -3.0]],
        "bias": [0.0],
    }


@given(st.floats(-4.0, 4.0), st.floats(-4.0, 4.0), st.floats(0.0, 1.0))
def test_interpolated_weights_lie_between_both(mine: float, other: float, share: float) -> None:
    weights = {"weight": torch.tensor([mine]), "count": torch.tensor([3])}
    start = {"weight": torch.tensor([other], dtype=torch.float64), "count": torch.tensor([5])}
    found = interpolated(weights, start, share)
    assert found["weight"].dtype == torch.float32
    assert found["weight"].item() == pytest.approx((1 - share) * mine + share * other, abs=1e-5)
    assert found["count"].item() == 3
    assert weights["weight"].item() == torch.tensor(mine).item()


@FLOATS
@given(data=st.data(), count=st.integers(1, 7))
def test_a_mean_is_the_exact_one_rounded_once(dtype: torch.dtype, data: st.DataObject, count: int) -> None:
    values = st.lists(st.floats(-1000, 1000, width=32), min_size=3, max_size=3)
    rows = [torch.tensor(data.draw(values), dtype=torch.float64).to(dtype) for _ in range(count)]
    found = average({"weight": row} for row in rows)["weight"]
    wanted = torch.from_numpy(np.sum([row.double().numpy() for row in rows], axis=0) / count).to(dtype)
    assert found.dtype == dtype
    assert torch.equal(found, wanted)


def test_many_small_weights_of_few_bits_are_not_lost() -> None:
    """In bfloat16 256 + 1 is 256."""
    weights = [{"weight": torch.tensor([value], dtype=torch.bfloat16)} for value in [256.0, *[1.0] * 15]]
    assert average(weights)["weight"].item() == torch.tensor(271 / 16).bfloat16().item() != 16.0


def test_whole_numbers_are_those_of_the_first() -> None:
    """Such as the counter of batch normalisation, of which there is no half."""
    weights = [
        {"counter": torch.tensor(counter), "mask": torch.tensor([counter > 5]), "weight": torch.tensor(float(counter))}
        for counter in (4, 7)
    ]
    found = average(weights)
    assert (found["counter"].item(), found["counter"].dtype) == (4, torch.int64)
    assert (found["mask"].tolist(), found["mask"].dtype) == ([False], torch.bool)
    assert found["weight"].item() == 5.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_averaged_is_left_as_it_was(dtype: torch.dtype, count: int) -> None:
    weights = [{"weight": torch.tensor([1 + i, 2 + i], dtype=dtype)} for i in range(count)]
    found = average(weights)["weight"]
    found += 100
    assert [tensors["weight"].tolist() for tensors in weights] == [[1 + i, 2 + i] for i in range(count)]


def test_a_module_takes_the_mean_of_two() -> None:
    torch.manual_seed(1)
    one, other, mean = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(3))
    mean.load_state_dict(average([one.state_dict(), other.state_dict()]))
    for name in ("0.weight", "1.bias", "1.running_mean"):
        wanted, found = (one.state_dict()[name] + other.state_dict()[name]) / 2, mean.state_dict()[name]
        torch.testing.assert_close(found, wanted, msg=name)
    assert not torch.equal(mean.state_dict()["0.weight"], one.state_dict()["0.weight"])


def test_the_mean_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no checkpoints to average"):
        average([])


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"weight": torch.ones(3)},
        {"weight": torch.ones(3), "bias": torch.ones(1), "more": torch.ones(1)},
        {"weight": torch.ones(3), "biases": torch.ones(1)},
    ],
)
def test_other_tensors_are_refused(other: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="the checkpoints to average have other tensors"):
        average([{"weight": torch.ones(3), "bias": torch.ones(1)}, other])


@pytest.mark.parametrize("shape", [(4,), (1,), (), (2, 3)])
def test_tensors_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Some could be broadcast, and must not be."""
    with pytest.raises(ValueError, match="the checkpoints to average have other tensors"):
        average([{"weight": torch.ones(3)}, {"weight": torch.ones(shape)}])


# --- the moving one --------------------------------------------------------------------------------------------------


def trained(model: nn.Module, updates: int) -> Iterator[int]:
    """Update a model by Adam on random numbers, batch after batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for update in range(updates):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        yield update


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_moving_average_is_its_recursion(decay: float) -> None:
    """Of the weights; of batch normalisation's statistics it has the last."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    averaged = moving_average(model, decay)
    wanted: dict[str, Tensor] = {}
    for _ in trained(model, 6):
        averaged.update_parameters(model)
        for name, parameter in model.named_parameters():
            now = parameter.detach().double().clone()
            wanted[name] = decay * wanted[name] + (1 - decay) * now if name in wanted else now
    for name, parameter in averaged.module.named_parameters():
        torch.testing.assert_close(parameter.double(), wanted[name], rtol=1e-5, atol=1e-6, msg=name)
        assert not torch.equal(parameter, model.get_parameter(name))
    for name, buffer in averaged.module.named_buffers():
        assert torch.equal(buffer, model.get_buffer(name))
    assert model.get_buffer("1.num_batches_tracked").item() == 6


def test_the_moving_average_changes_nothing_of_the_training() -> None:
    runs = []
    for follow in (False, True):
        torch.manual_seed(3)
        model = nn.Linear(3, 2)
        averaged = moving_average(model, 0.9)
        for _ in trained(model, 4):
            if follow:
                averaged.update_parameters(model)
        runs.append(model.weight)
    assert torch.equal(*runs)


def test_tied_weights_stay_tied_and_move_once() -> None:
    torch.manual_seed(4)
    sizes = {"size": 4, "heads": 2, "feed_forward": 4, "encoder_layers": 1, "decoder_layers": 1}
    model = Transformer(TransformerConfig.model_validate({**sizes, "tied_embeddings": "target"}), 9, 9)
    averaged = moving_average(model, 0.75)
    averaged.update_parameters(model)
    before = model.output.weight.detach().clone()
    with torch.no_grad():
        model.output.weight += 1.0
    averaged.update_parameters(model)
    assert isinstance(averaged.module, Transformer)
    assert averaged.module.output.weight is averaged.module.target_embedding.weight
    torch.testing.assert_close(averaged.module.output.weight.detach(), before + 0.25)

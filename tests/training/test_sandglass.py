"""SandGlass in the original's form: its primitives against loops, its size, what each map can see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.models.sandglass import (
    KEY,
    LAYERS,
    SCOPES,
    TIME,
    VALUE,
    VOCABULARY,
    Attend,
    ExpandConv,
    FilterConv,
    FilterTransposedConv,
    ReduceConv,
    SandGlass,
    SandGlassConfig,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def _sources(batch: int) -> Tensor:
    return torch.randint(2, VOCABULARY, (batch, TIME))


def test_the_faithful_form_has_the_originals_parameters() -> None:
    assert sum(parameter.numel() for parameter in SandGlass().parameters()) == 204_840


def test_a_convolution_is_its_definition() -> None:
    for kernel in (1, 3, 4):
        conv = FilterConv(kernel, 3, 5, in_filters=2, out_filters=2).double()
        x = torch.randn(2, 2, 7, 3, dtype=torch.float64)
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        expected = np.zeros((2, 2, 7, 5))
        front = -(-(kernel - 1) // 2)
        for b, g, t in np.ndindex(2, 2, 7):
            for f in range(2):
                expected[b, g, t] += bias[f, g]
                for k in range(kernel):
                    if 0 <= t + k - front < 7:
                        expected[b, g, t] += x[b, f, t + k - front].numpy() @ weight[f, g, k]
        np.testing.assert_allclose(conv(x).detach().numpy(), expected, atol=1e-12)


def test_a_transposed_convolution_scatters_and_crops() -> None:
    for kernel in (1, 3, 4):
        conv = FilterTransposedConv(kernel, 3, 5, out_filters=2).double()
        x = torch.randn(2, 1, 7, 3, dtype=torch.float64)
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        scattered = np.zeros((2, 2, 7 + kernel - 1, 5))
        for b, g, s, k in np.ndindex(2, 2, 7, kernel):
            scattered[b, g, s + k] += x[b, 0, s].numpy() @ weight[0, g, k]
        front = -(-(kernel - 1) // 2)
        expected = scattered[:, :, front : front + 7] + bias[0][None, :, None]
        np.testing.assert_allclose(conv(x).detach().numpy(), expected, atol=1e-12)


def test_the_two_are_adjoint() -> None:
    """<conv(x), y> = <x, transposed(y)> with one weight: a sign or an offset wrong in either breaks it."""
    for kernel in (1, 3, 4):
        conv, transposed = FilterConv(kernel, 3, 5).double(), FilterTransposedConv(kernel, 5, 3).double()
        with torch.no_grad():
            transposed.weight.copy_(conv.weight.transpose(-1, -2))
            conv.bias.zero_()
            transposed.bias.zero_()
        x, y = torch.randn(1, 1, 9, 3, dtype=torch.float64), torch.randn(1, 1, 9, 5, dtype=torch.float64)
        torch.testing.assert_close((conv(x) * y).sum(), (x * transposed(y)).sum())


def test_reducing_and_expanding_are_of_blocks() -> None:
    reduce, expand = ReduceConv(4, 3, 5), ExpandConv(4, 5, 3)
    x = torch.randn(2, 1, 8, 3)
    torch.testing.assert_close(reduce(x)[:, :, 1], x[:, :, 4:].reshape(2, 1, 12) @ reduce.weight + reduce.bias)
    y = torch.randn(2, 1, 2, 5)
    widened = expand(y)
    assert widened.shape == (2, 1, 8, 3)
    torch.testing.assert_close(widened[:, :, 4:].reshape(2, 1, 12), y[:, :, 1] @ expand.weight + expand.bias.repeat(4))


def test_attention_is_a_softmax_of_dot_products() -> None:
    attend = Attend(attends=True, batch_norm=False)
    decoded, encoded = torch.randn(1, 1, 6, VALUE + KEY), torch.randn(1, 1, 6, VALUE + KEY)
    following, weights = attend(decoded, encoded)
    assert weights is not None
    scores = decoded[0, 0, :, VALUE:] @ encoded[0, 0, :, VALUE:].T
    expected = torch.softmax(scores, dim=-1)
    torch.testing.assert_close(weights[0, 0], expected)
    torch.testing.assert_close(following[0, 0, :, :VALUE], decoded[0, 0, :, :VALUE])
    torch.testing.assert_close(following[0, 0, :, VALUE:], expected @ encoded[0, 0, :, :VALUE])


def test_maps_have_their_shapes_and_rows_sum_to_one() -> None:
    output = SandGlass().eval()(_sources(3))
    assert output.logits.shape == (3, TIME, VOCABULARY)
    for name, weights in output.maps._asdict().items():
        width = 6 if name == "attention_4" else TIME
        assert weights.shape == (3, width, width)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, width))


def test_a_maps_scope_is_what_its_encoder_key_can_see() -> None:
    """Change one token at a time, and see which keys change: the span is the scope the manifest will state."""
    model = SandGlass().eval()
    base = _sources(1)
    changed = base.repeat(TIME, 1)
    changed[torch.arange(TIME), torch.arange(TIME)] = (base[0] - 1) % (VOCABULARY - 2) + 2
    keys: dict[str, Tensor] = {}

    def keep(name: str, filters: slice) -> None:
        def hook(_module: object, inputs: tuple[Tensor, Tensor], _output: object) -> None:
            keys[name] = inputs[1][:, filters, :, VALUE:]

        hooks.append(getattr(model, f"attend{name[0]}").register_forward_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name in SCOPES:
        keep(name, slice(1, 2) if name == "2b" else slice(0, 1))
    model(torch.cat([base, changed]))
    for hook in hooks:
        hook.remove()
    for name, scope in SCOPES.items():
        moved = (keys[name][1:] - keys[name][:1]).abs().amax(dim=(1, 3)) > 0  # (token changed, key)
        middle = moved.shape[1] // 2
        assert int(moved[:, middle].sum()) == scope, name


@pytest.mark.parametrize("layers", [(), ("2",), ("2", "3"), LAYERS])
def test_layers_attend_or_not(layers: tuple[str, ...]) -> None:
    model = SandGlass(SandGlassConfig(attention=layers)).eval()
    output = model(_sources(2))
    present = {name.removeprefix("attention_")[0] for name, found in output.maps._asdict().items() if found is not None}
    assert present == set(layers)
    assert torch.isfinite(output.logits).all()


def test_without_batch_norm_there_are_960_parameters_less() -> None:
    model = SandGlass(SandGlassConfig(batch_norm=False))
    assert sum(parameter.numel() for parameter in model.parameters()) == 204_840 - 960


def test_alone_as_in_a_batch() -> None:
    model = SandGlass().eval()
    sources = _sources(5)
    together, alone = model(sources), model(sources[2:3])
    torch.testing.assert_close(together.logits[2:3], alone.logits, rtol=1e-4, atol=1e-5)

"""SandGlass: its primitives against loops, its sizes, what it reads and writes, what each map can see."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from training.config import SandGlassConfig
from training.errors import ConfigError
from training.models.sandglass import (
    BLOCK,
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
    ReduceAttention,
    ReduceConv,
    SandGlass,
    _one_hot,
)

#: A bundle's ids: four special tokens, then the 58 numbers.
FIRST, PIECES = 4, 62
CONTENT = st.lists(st.integers(FIRST, PIECES - 1), max_size=TIME - 1)
CONTENTS = st.lists(CONTENT, min_size=1, max_size=4)
#: Every option apart, and all of them together.
OPTIONS = {
    "original": SandGlassConfig(),
    "glu": SandGlassConfig(gate="glu"),
    "gtu": SandGlassConfig(gate="gtu"),
    "reduce": SandGlassConfig(reduce_attention=True),
    "bare": SandGlassConfig(batch_norm=False),
    "all": SandGlassConfig(batch_norm=False, gate="glu", reduce_attention=True),
}
EVERY_OPTION = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
#: Every set of layers that attend.
LAYER_SETS = [layers for count in range(5) for layers in itertools.combinations(LAYERS, count)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


def make_model(config: SandGlassConfig = OPTIONS["original"], seed: int = 5) -> SandGlass:
    """With weights and statistics other than at the start, so that every token and every norm matters."""
    torch.manual_seed(seed)
    model = SandGlass(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
        for name, buffer in model.named_buffers():
            if name.endswith(("mean", "var")):
                buffer.uniform_(0.1, 0.5)
    return model.eval()


def _sources(batch: int) -> Tensor:
    """Full of content: no end and no padding."""
    return torch.randint(FIRST, PIECES, (batch, TIME))


def padded(sentences: list[list[int]], length: int = TIME) -> Tensor:
    """As a bundle's source: content, end, padding."""
    return torch.tensor([[*content, EOS_ID] + [PAD_ID] * (length - 1 - len(content)) for content in sentences])


def parameters(config: SandGlassConfig) -> int:
    return sum(parameter.numel() for parameter in SandGlass(config).parameters())


# --- size ------------------------------------------------------------------------------------------------------------


def test_the_faithful_form_has_the_originals_parameters() -> None:
    assert parameters(SandGlassConfig()) == 204_840


def test_without_batch_norm_there_are_960_parameters_less() -> None:
    assert parameters(SandGlassConfig(batch_norm=False)) == 204_840 - 960


@pytest.mark.parametrize("gate", ["glu", "gtu"])
def test_a_gated_model_has_twice_the_outputs_of_each_convolution(gate: str) -> None:
    assert parameters(SandGlassConfig(gate=gate)) == 403_860


def test_reduce_attention_takes_the_place_of_a_convolution() -> None:
    assert sum(1 for _ in ReduceAttention(BLOCK).parameters()) == 0
    convolution = sum(parameter.numel() for parameter in ReduceConv(BLOCK, VALUE, VALUE + KEY).parameters())
    norm = 2 * VALUE  # pools what comes, not normalized
    assert parameters(SandGlassConfig(reduce_attention=True)) == 204_840 - convolution - norm == 195_100


# --- primitives ------------------------------------------------------------------------------------------------------


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


def test_reduce_attention_weighs_a_block_by_the_mean_of_its_keys() -> None:
    x = torch.randn(2, 1, 8, VALUE + KEY)
    found = ReduceAttention(BLOCK)(x)
    assert found.shape == (2, 1, 2, VALUE + KEY)
    for sentence, place in np.ndindex(2, 2):
        block = x[sentence, 0, place * BLOCK : (place + 1) * BLOCK].double().numpy()
        scores = block[:, VALUE:] @ block[:, VALUE:].mean(0)
        weights = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(found[sentence, 0, place].numpy(), weights @ block, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.1, 1.0, 10.0]))
def test_reduce_attention_is_a_convex_mean_of_each_block(seed: int, scale: float) -> None:
    """Nothing leaves the span of its block, a block of one vector stays that vector, and the order plays no part."""
    torch.manual_seed(seed)
    reduce, x = ReduceAttention(BLOCK), scale * torch.randn(2, 1, 12, VALUE + KEY, dtype=torch.float64)
    blocks, found = x.reshape(2, 1, 3, BLOCK, VALUE + KEY), reduce(x)
    slack = 1e-9 * scale
    assert torch.all(found <= blocks.amax(3) + slack)
    assert torch.all(found >= blocks.amin(3) - slack)
    same = blocks[..., :1, :].expand_as(blocks).reshape(x.shape)
    torch.testing.assert_close(reduce(same), blocks[..., 0, :], rtol=0, atol=slack)
    turned = blocks.flip(3).reshape(x.shape)
    torch.testing.assert_close(reduce(turned), found, rtol=0, atol=slack)


GATES = {
    "none": torch.tanh,
    "glu": lambda x: x[..., :60] * torch.sigmoid(x[..., 60:]),
    "gtu": lambda x: torch.tanh(x[..., :60]) * torch.sigmoid(x[..., 60:]),
}


@pytest.mark.parametrize("gate", GATES)
def test_every_convolution_goes_through_the_gate(gate: str) -> None:
    """What attention and the next convolution read is the gate's formula of what the convolution gave."""
    model, formula = make_model(SandGlassConfig(gate=gate, batch_norm=False)), GATES[gate]
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    for name, module in model.named_children():
        module.register_forward_hook(
            lambda _module, inputs, output, name=name: seen.update({name: (inputs, output)})  # type: ignore[misc]
        )
    with torch.no_grad():
        model.translate(_sources(3))
    read = {name: inputs for name, (inputs, _) in seen.items()}
    gave = {name: output for name, (_, output) in seen.items()}
    encoded = {
        "attend1": gave["e1"],
        "attend2": torch.cat([gave["e2a"], gave["e2b"]], dim=1),
        "attend3": gave["e3"],
        "attend4": gave["e4"],
    }
    decoded = {
        "attend1": gave["d3a"] + gave["d3b"],
        "attend2": gave["d2"],
        "attend3": gave["d1"],
        "attend4": gave["centre"].reshape(3, 1, TIME // BLOCK, -1),
    }
    for name, given_by in encoded.items():
        torch.testing.assert_close(read[name][1], formula(given_by))
        torch.testing.assert_close(read[name][0], formula(decoded[name]))
    followers = {"e2a": "attend1", "e2b": "attend1", "e3": "attend2", "e4": "attend3"}
    for name, source in followers.items():
        assert torch.equal(read[name][0], read[source][1][..., :VALUE]), "in the encoder only the value goes on"
    assert torch.equal(read["centre"][0], read["attend4"][1][..., :VALUE].flatten(1))


# --- what it reads and writes ----------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(CONTENTS)
def test_a_target_is_judged_as_the_padded_source_turned_round(contents: list[list[int]]) -> None:
    """Padding, end, content: what the original compares its 24 outputs with."""
    longest = max(map(len, contents)) + 1
    targets = padded([content[::-1] for content in contents], longest)
    judged = SandGlass(SandGlassConfig()).judged_targets(targets)
    assert judged.dtype == torch.int64
    sources = padded(contents)
    assert judged.tolist() == [row[::-1] for row in sources.tolist()]
    assert torch.equal(_one_hot(judged), _one_hot(sources).flip(1))


@settings(max_examples=30, deadline=None)
@given(CONTENTS, st.integers(0, 5))
def test_padding_behind_a_target_changes_nothing(contents: list[list[int]], more: int) -> None:
    model, longest = SandGlass(SandGlassConfig()), max(map(len, contents)) + 1
    narrow, wide = padded(contents, longest), padded(contents, longest + more)
    assert torch.equal(model.judged_targets(narrow), model.judged_targets(wide))


def test_the_originals_numbering_is_padding_end_content() -> None:
    ids = torch.tensor([[PAD_ID, EOS_ID, *range(FIRST, PIECES)]])
    assert torch.equal(_one_hot(ids)[0], torch.eye(VOCABULARY, dtype=torch.bool))


def test_what_the_original_has_no_number_for_is_read_as_zeros() -> None:
    """An unknown number, and `<s>`, which no source holds: alike, and unlike padding."""
    model, read = make_model(), []
    model.e1.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    ids = padded([[5, 6, 7]])
    variants = torch.cat([ids] * 4)
    variants[1:, 1] = torch.tensor([UNK_ID, BOS_ID, PAD_ID])
    with torch.no_grad():
        logits = model.translate(variants).logits
    (vectors,) = read
    assert vectors.shape == (4, 1, TIME, VOCABULARY)
    assert vectors.sum(-1)[:, 0].tolist() == [[1.0] * TIME, *[[1.0, 0.0] + [1.0] * (TIME - 2)] * 2, [1.0] * TIME]
    assert torch.equal(logits[1], logits[2])
    assert (logits[1] - logits[0]).abs().max() > 1e-3
    assert (logits[1] - logits[3]).abs().max() > 1e-3


@EVERY_OPTION
def test_the_start_and_the_unknown_are_never_written(config: SandGlassConfig) -> None:
    with torch.no_grad():
        logits = make_model(config).translate(_sources(4)).logits
    assert logits.shape == (4, TIME, PIECES)
    written = [i for i in range(PIECES) if i not in (BOS_ID, UNK_ID)]
    assert torch.all(torch.softmax(logits, -1)[..., [BOS_ID, UNK_ID]] == 0.0)
    assert torch.all(logits[..., [BOS_ID, UNK_ID]].amax(-1) < logits[..., written].amin(-1))


@settings(max_examples=20, deadline=None)
@given(CONTENTS, st.booleans())
def test_a_narrower_batch_is_padded_before_it_is_read(contents: list[list[int]], training: bool) -> None:
    model, longest = make_model().train(training), max(map(len, contents)) + 1
    lengths = torch.tensor([len(content) + 1 for content in contents])
    with torch.no_grad():
        wanted = model.translate(padded(contents))
        found = model(padded(contents, longest), lengths, torch.full((len(contents), 3), BOS_ID))
    assert torch.equal(found.logits, wanted.logits)
    assert all(torch.equal(found.attention[name], weights) for name, weights in wanted.attention.items())


@pytest.mark.parametrize("sizes", [(61, 62), (62, 61), (54, 54), (60, 60), (63, 63)])
def test_another_vocabulary_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"62 pieces on either side, this corpus has {sizes[0]} and {sizes[1]}"):
        SandGlass(SandGlassConfig(), *sizes)


def test_its_own_vocabulary_is_taken() -> None:
    model = SandGlass(SandGlassConfig(), PIECES, PIECES)
    assert (model.source_vocabulary, model.target_vocabulary, model.length) == (PIECES, PIECES, TIME)


# --- attention -------------------------------------------------------------------------------------------------------


@EVERY_OPTION
def test_maps_have_their_shapes_and_rows_sum_to_one(config: SandGlassConfig) -> None:
    with torch.no_grad():
        decoded = make_model(config).translate(_sources(3))
    assert decoded.attention.keys() == SCOPES.keys()
    for name, weights in decoded.attention.items():
        width = TIME // BLOCK if name == "4" else TIME
        assert weights.shape == (3, 1, width, width)
        assert torch.all(weights >= 0.0)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 1, width))


@EVERY_OPTION
def test_a_maps_scope_is_what_its_encoder_key_can_see(config: SandGlassConfig) -> None:
    """Change one token at a time, and see which keys change: the span is the scope the manifest states."""
    model = make_model(config)
    base = _sources(1)
    changed = base.repeat(TIME, 1)
    changed[torch.arange(TIME), torch.arange(TIME)] = (base[0] - FIRST + 1) % (PIECES - FIRST) + FIRST
    keys: dict[str, Tensor] = {}

    def keep(name: str, filters: slice) -> None:
        def hook(_module: object, inputs: tuple[Tensor, Tensor], _output: object) -> None:
            keys[name] = inputs[1][:, filters, :, VALUE:]

        hooks.append(getattr(model, f"attend{name[0]}").register_forward_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name in SCOPES:
        keep(name, slice(1, 2) if name == "2b" else slice(0, 1))
    with torch.no_grad():
        model.translate(torch.cat([base, changed]))
    for hook in hooks:
        hook.remove()
    stated = {entry.name: entry.scope_tokens for entry in model.attention_maps}
    assert stated == {"1": 1, "2a": 4, "2b": 1, "3": 6, "4": 9}
    for name, scope in stated.items():
        moved = (keys[name][1:] - keys[name][:1]).abs().amax(dim=(1, 3)) > 0  # (token changed, key)
        middle = moved.shape[1] // 2
        assert int(moved[:, middle].sum()) == scope, name


@pytest.mark.parametrize("layers", LAYER_SETS, ids="".join)
def test_layers_attend_or_not(layers: tuple[str, ...]) -> None:
    """The maps that come out are those that the manifest has, in its order: the graphs name their outputs by it."""
    model = SandGlass(SandGlassConfig(attention=layers)).eval()
    decoded = model.translate(_sources(2))
    assert list(decoded.attention) == [name for name in SCOPES if name[0] in layers]
    assert [entry.name for entry in model.attention_maps] == list(decoded.attention)
    assert torch.isfinite(decoded.logits).all()


@pytest.mark.parametrize("layers", [("1",), LAYERS])
def test_the_manifests_maps_are_the_models(layers: tuple[str, ...]) -> None:
    model = make_model(SandGlassConfig(attention=layers))
    decoded = model.translate(_sources(2))
    for entry in model.attention_maps:
        weights = decoded.attention[entry.name]
        assert entry.tensor == f"attention_{entry.name}"
        assert (entry.kind, entry.score_function, entry.emitted_by) == ("cross", "dot", "one_shot")
        assert entry.heads == weights.shape[1] == 1
        assert weights.shape[-1] * entry.tokens_per_unit == weights.shape[-2] * entry.tokens_per_unit == TIME
        assert entry.rows_sum_to_one
        assert entry.includes_end_of_sentence
    of_four = {entry.name: (entry.layer, entry.tokens_per_unit) for entry in make_model().attention_maps}
    assert of_four == {"1": (0, 1), "2a": (1, 1), "2b": (1, 1), "3": (2, 1), "4": (3, 4)}


def test_the_alignment_is_the_map_of_single_tokens() -> None:
    alignment = SandGlass(SandGlassConfig(attention=("1", "3"))).alignment
    assert (alignment.map, alignment.heads, alignment.shift) == ("1", (0,), 0)


@pytest.mark.parametrize("layers", [(), ("2", "3", "4")])
def test_a_model_without_the_map_of_single_tokens_has_no_alignment(layers: tuple[str, ...]) -> None:
    model = SandGlass(SandGlassConfig(attention=layers))
    with pytest.raises(ConfigError, match="without attention layer 1 has no alignment"):
        _ = model.alignment


# --- one model, many sentences ---------------------------------------------------------------------------------------


@EVERY_OPTION
def test_alone_as_in_a_batch(config: SandGlassConfig) -> None:
    """In float64: what rounding makes of float32 hangs on the machine, and is greater than such a bound."""
    model = make_model(config).double()
    sources = torch.cat([_sources(2), padded([[5, 6, 7], list(range(FIRST, FIRST + 22)), []])])
    with torch.no_grad():
        together = model.translate(sources)
        for row in range(len(sources)):
            alone = model.translate(sources[row : row + 1])
            torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=1e-9, atol=1e-9)
            for name, weights in together.attention.items():
                torch.testing.assert_close(weights[row], alone.attention[name][0], rtol=1e-9, atol=1e-9)


def test_everything_comes_in_one_pass() -> None:
    capabilities = SandGlass(SandGlassConfig()).capabilities
    assert capabilities.generation == "one_shot"
    assert not capabilities.scoring
    assert not capabilities.prefix
    assert not capabilities.beam
    assert not capabilities.streaming
    assert not capabilities.document_context


@EVERY_OPTION
def test_every_weight_learns(config: SandGlassConfig) -> None:
    model = make_model(config).train()
    sources = torch.cat([_sources(8), torch.arange(FIRST, FIRST + TIME).repeat(4, 1)])
    judged = torch.randint(FIRST, PIECES, (len(sources), TIME))
    logits = model.translate(sources).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), judged.flatten()).backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == set()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.any(parameter.grad != 0.0), name
            assert torch.all(torch.isfinite(parameter.grad)), name

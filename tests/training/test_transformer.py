"""The Transformer against PyTorch's own layers and the papers' formulas, and its three uses against each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID
from training.config import TransformerConfig
from training.errors import ConfigError
from training.models.attention import length_mask
from training.models.interface import Inputs, Step, Tensors
from training.models.transformer import DecoderLayer, EncoderLayer, MultiHead, Transformer, rotated, rotation, sinusoids

PIECES = 11  # of both sides, which tied_embeddings: all wants
SIZES = {"size": 12, "heads": 3, "feed_forward": 20, "encoder_layers": 2, "decoder_layers": 2, "max_positions": 10}
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
SEEDS = st.integers(0, 1000)

KINDS = [
    {"norm": norm, "positions": positions, "tied_embeddings": tied}
    for norm in ("pre", "post")
    for positions in ("sinusoidal", "rotary")
    for tied in ("none", "target", "all")
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["-".join(kind.values()) for kind in KINDS])
pre_or_post = pytest.mark.parametrize("norm", ["pre", "post"])
sinusoidal_or_rotary = pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])


def make_config(**options: Any) -> TransformerConfig:
    return TransformerConfig.model_validate(SIZES | {"dropout": 0.0} | options)


def make_model(seed: int = 1, **options: Any) -> Transformer:
    """With biases and norms away from 0 and 1, so that each of them matters to the answer."""
    torch.manual_seed(seed)
    model = Transformer(make_config(**options), PIECES, PIECES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2).add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@st.composite
def any_model(draw: st.DrawFn) -> Transformer:
    """Any shape, in float64."""
    heads = draw(st.integers(1, 4))
    options = draw(st.sampled_from(KINDS)) | {
        "heads": heads,
        "size": 2 * heads * draw(st.integers(1, 3)),
        "feed_forward": draw(st.integers(3, 20)),
        "encoder_layers": draw(st.integers(1, 3)),
        "decoder_layers": draw(st.integers(1, 3)),
    }
    return make_model(draw(SEEDS), **options).double()


def sources(lengths: list[int], more: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random source ids, random ones after the end too, and their lengths."""
    ids = torch.randint(0, PIECES, (len(lengths), max(lengths) + more))
    return ids, torch.tensor(lengths, dtype=torch.int32)


def target_inputs(batch: int, length: int) -> torch.Tensor:
    ids = torch.randint(4, PIECES, (batch, length))
    ids[:, 0] = BOS_ID
    return ids


def each_hypothesis(state: Tensors, hypotheses: int) -> Tensors:
    return {name: tensor.repeat_interleave(hypotheses, 0) for name, tensor in state.items()}


def steps(
    model: Transformer, source_ids: torch.Tensor, source_lengths: torch.Tensor, inputs: torch.Tensor
) -> list[Step]:
    """Step through ``inputs`` (batch, hypotheses, target_length), on each step's own state."""
    batch, hypotheses, length = inputs.shape
    memory, state, _ = model.encode(source_ids, source_lengths)
    state = each_hypothesis(state, hypotheses)
    found = []
    for i in range(length):
        step = model.decode_step(inputs[:, :, i], torch.full((batch,), i), source_lengths, memory, state)
        assert list(step.state) == list(state)  # the graphs' names go by this order
        assert [tensor.shape for tensor in step.state.values()] == [tensor.shape for tensor in state.values()]
        state = step.state
        found.append(step)
    return found


# --- positions -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 500), min_size=1, max_size=4), st.integers(1, 9))
def test_sinusoids_are_the_papers(positions: list[int], half: int) -> None:
    size = 2 * half
    found = sinusoids(torch.tensor([positions]), size)
    assert found.shape == (1, len(positions), size)
    for place, position in enumerate(positions):
        for i in range(half):
            angle = position / 10_000 ** (2 * i / size)
            assert float(found[0, place, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-4)
            assert float(found[0, place, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-4)


def test_an_odd_size_has_a_last_sine_without_its_cosine() -> None:
    found = sinusoids(torch.tensor([3]), 5)
    wanted = [math.sin(3), math.cos(3), math.sin(3 / 10_000**0.4), math.cos(3 / 10_000**0.4), math.sin(3 / 10_000**0.8)]
    torch.testing.assert_close(found, torch.tensor([wanted]))


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 5), SEEDS)
def test_rotation_is_that_of_complex_numbers(position: int, half: int, seed: int) -> None:
    torch.manual_seed(seed)
    tensor = torch.randn(1, 1, 1, 2 * half, dtype=torch.float64)
    found = rotated(tensor, rotation(torch.tensor([[position]]), 2 * half)).flatten()
    for i in range(half):
        angle = position * 10_000 ** (-2 * i / (2 * half))
        number = complex(*tensor.flatten()[2 * i : 2 * i + 2].tolist()) * complex(math.cos(angle), math.sin(angle))
        assert complex(*found[2 * i : 2 * i + 2].tolist()) == pytest.approx(number, abs=1e-4)


def test_a_product_turns_as_places_changed_do() -> None:
    tensor, positions = torch.randn(3, 2, 5, 6), torch.randint(0, 50, (3, 5))
    found = rotated(tensor, rotation(positions, 6, by_product=True))
    torch.testing.assert_close(found, rotated(tensor, rotation(positions, 6)))


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(1, 5), SEEDS)
def test_rotated_products_know_the_distance_alone(one: int, other: int, shift: int, half: int, seed: int) -> None:
    torch.manual_seed(seed)
    queries, keys = torch.randn(2, 3, 2, 1, 2 * half, dtype=torch.float64).unbind(0)

    def products(query_place: int, key_place: int) -> torch.Tensor:
        turned = [
            rotated(tensor, rotation(torch.full((1, 1), place), 2 * half))
            for tensor, place in ((queries, query_place), (keys, key_place))
        ]
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(products(one, other), products(one + shift, other + shift), rtol=0, atol=1e-4)
    torch.testing.assert_close(products(one, one), (queries * keys).sum(-1), rtol=0, atol=1e-4)
    turned = rotated(queries, rotation(torch.full((1, 1), one), 2 * half))
    torch.testing.assert_close(turned.norm(dim=-1), queries.norm(dim=-1), rtol=1e-6, atol=0)


def test_rows_are_rotated_by_positions_of_their_own() -> None:
    tensor = torch.randn(2, 3, 4, 6)
    positions = torch.tensor([[0, 1, 2, 3], [5, 9, 7, 0]])
    together = rotated(tensor, rotation(positions, 6))
    for row in range(2):
        alone = rotated(tensor[row : row + 1], rotation(positions[row : row + 1], 6))
        torch.testing.assert_close(together[row : row + 1], alone)
    torch.testing.assert_close(together[0, :, 0], tensor[0, :, 0])  # place 0 turns nothing
    torch.testing.assert_close(together[1, :, 3], tensor[1, :, 3])


# --- layers ----------------------------------------------------------------------------------------------------------


def into_pytorchs(own: MultiHead, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        parts = (own.query, own.key, own.value)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.load_state_dict(own.output.state_dict())


def pytorchs_encoder(layer: EncoderLayer, config: TransformerConfig) -> nn.TransformerEncoderLayer:
    """In training mode, which has no shortcuts, without dropout."""
    theirs = nn.TransformerEncoderLayer(
        config.size, config.heads, config.feed_forward, 0.0, batch_first=True, norm_first=config.norm == "pre"
    )
    theirs.to(layer.feed_forward.inner.weight.dtype)
    into_pytorchs(layer.own, theirs.self_attn)
    theirs.linear1.load_state_dict(layer.feed_forward.inner.state_dict())
    theirs.linear2.load_state_dict(layer.feed_forward.outer.state_dict())
    theirs.norm1.load_state_dict(layer.own_residual.norm.state_dict())
    theirs.norm2.load_state_dict(layer.feed_residual.norm.state_dict())
    return theirs


def pytorchs_decoder(layer: DecoderLayer, config: TransformerConfig) -> nn.TransformerDecoderLayer:
    theirs = nn.TransformerDecoderLayer(
        config.size, config.heads, config.feed_forward, 0.0, batch_first=True, norm_first=config.norm == "pre"
    )
    theirs.to(layer.feed_forward.inner.weight.dtype)
    into_pytorchs(layer.own, theirs.self_attn)
    into_pytorchs(layer.cross, theirs.multihead_attn)
    theirs.linear1.load_state_dict(layer.feed_forward.inner.state_dict())
    theirs.linear2.load_state_dict(layer.feed_forward.outer.state_dict())
    residuals = (layer.own_residual, layer.cross_residual, layer.feed_residual)
    for norm, residual in zip((theirs.norm1, theirs.norm2, theirs.norm3), residuals, strict=True):
        norm.load_state_dict(residual.norm.state_dict())
    return theirs


def read_by(layer: DecoderLayer, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A decoder layer's keys and values of what the encoder has read."""
    return layer.cross.split(layer.cross.key(source)), layer.cross.split(layer.cross.value(source))


@settings(max_examples=20, deadline=None)
@given(LENGTHS, SEEDS)
def test_heads_are_pytorchs(lengths: list[int], seed: int) -> None:
    own = make_model(seed).double().encoder[0].own
    theirs = nn.MultiheadAttention(SIZES["size"], SIZES["heads"], batch_first=True, dtype=torch.float64)
    into_pytorchs(own, theirs)
    queries = torch.randn(len(lengths), 4, SIZES["size"], dtype=torch.float64)
    values = torch.randn(len(lengths), max(lengths), SIZES["size"], dtype=torch.float64)
    mask = length_mask(torch.tensor(lengths), max(lengths))
    with torch.no_grad():
        keys = own.split(own.key(values))
        found = own.attend(own.split(own.query(queries)), keys, own.split(own.value(values)), mask[:, None, None])
        wanted = theirs(queries, values, values, key_padding_mask=~mask, average_attn_weights=False)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pre_or_post
@settings(max_examples=20, deadline=None)
@given(LENGTHS, SEEDS)
def test_an_encoder_layer_is_pytorchs(norm: str, lengths: list[int], seed: int) -> None:
    model = make_model(seed, norm=norm).double()
    layer = model.encoder[0]
    theirs = pytorchs_encoder(layer, model.config)
    mask = length_mask(torch.tensor(lengths), max(lengths))
    hidden = torch.randn(*mask.shape, SIZES["size"], dtype=torch.float64)
    found, _ = layer(hidden, None, mask[:, None, None])
    wanted = theirs(hidden, src_key_padding_mask=~mask)
    torch.testing.assert_close(found[mask], wanted[mask], rtol=0, atol=1e-10)


@pre_or_post
@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.integers(1, 6), SEEDS)
def test_a_decoder_layer_is_pytorchs(norm: str, lengths: list[int], target_length: int, seed: int) -> None:
    model = make_model(seed, norm=norm).double()
    layer = model.decoder[0]
    theirs = pytorchs_decoder(layer, model.config)
    mask = length_mask(torch.tensor(lengths), max(lengths))
    source = torch.randn(*mask.shape, SIZES["size"], dtype=torch.float64)
    hidden = torch.randn(len(lengths), target_length, SIZES["size"], dtype=torch.float64)
    causal = torch.ones(target_length, target_length, dtype=torch.bool).tril()
    found, _, _ = layer(
        hidden,
        layer.own_queries_keys_values(hidden, None),
        causal[None, None],
        read_by(layer, source),
        mask[:, None, None],
        1,
    )
    wanted = theirs(hidden, source, tgt_mask=~causal, memory_key_padding_mask=~mask)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def written_again(model: Transformer, source_ids: list[int], inputs: list[int]) -> torch.Tensor:
    """Logits of one sentence after the paper, with PyTorch's own layers and positions a number at a time."""
    config = model.config
    dtype = model.output.weight.dtype

    def embed(embedding: nn.Embedding, ids: list[int]) -> torch.Tensor:
        waves = [
            [
                (math.cos if i % 2 else math.sin)(place / 10_000 ** ((i - i % 2) / config.size))
                for i in range(config.size)
            ]
            for place in range(len(ids))
        ]
        return embedding(torch.tensor([ids])) * math.sqrt(config.size) + torch.tensor([waves], dtype=dtype)

    source = embed(model.source_embedding, source_ids)
    for layer in model.encoder:
        source = pytorchs_encoder(layer, config)(source)
    if config.norm == "pre":
        source = model.encoder_norm(source)
    hidden = embed(model.target_embedding, inputs)
    later = torch.ones(len(inputs), len(inputs), dtype=torch.bool).triu(1)
    for layer in model.decoder:
        hidden = pytorchs_decoder(layer, config)(hidden, source, tgt_mask=later)
    if config.norm == "pre":
        hidden = model.decoder_norm(hidden)
    logits: torch.Tensor = (hidden @ model.output.weight.t())[0]
    return logits


@pre_or_post
@settings(max_examples=15, deadline=None)
@given(LENGTHS, st.integers(1, 3), st.integers(1, 3), SEEDS)
def test_a_target_is_decoded_after_the_paper(
    norm: str, lengths: list[int], encoder_layers: int, decoder_layers: int, seed: int
) -> None:
    model = make_model(seed, norm=norm, encoder_layers=encoder_layers, decoder_layers=decoder_layers).double()
    source_ids, source_lengths = sources(lengths)
    inputs = target_inputs(len(lengths), 5)
    with torch.no_grad():
        logits = model(source_ids, source_lengths, inputs).logits
        for row, length in enumerate(lengths):
            wanted = written_again(model, source_ids[row, :length].tolist(), inputs[row].tolist())
            torch.testing.assert_close(logits[row], wanted, rtol=0, atol=1e-5)  # our sinusoids are of float32


def test_rotary_weights_are_those_of_complex_numbers() -> None:
    """score(m, n) = Re sum_i q_i k_i* exp(i (m - n) theta_i) / sqrt(d), of the first encoder layer."""
    model = make_model(2, positions="rotary", norm="post").double()
    source_ids, source_lengths = sources([6])
    layer, head_size = model.encoder[0], SIZES["size"] // SIZES["heads"]
    with torch.no_grad():
        found = model.encode(source_ids, source_lengths).attention["encoder-self-0"][0]
        hidden = model.source_embedding(source_ids[0]) * math.sqrt(SIZES["size"])
        queries, keys = (
            torch.view_as_complex(projection(hidden).reshape(6, SIZES["heads"], head_size // 2, 2))
            for projection in (layer.own.query, layer.own.key)
        )
    thetas = torch.tensor([10_000 ** (-2 * i / head_size) for i in range(head_size // 2)], dtype=torch.float64)
    for head in range(SIZES["heads"]):
        scores = torch.empty(6, 6, dtype=torch.float64)
        for m in range(6):
            for n in range(6):
                turn = torch.polar(torch.ones_like(thetas), (m - n) * thetas)
                scores[m, n] = (queries[m, head] * keys[n, head].conj() * turn).sum().real / math.sqrt(head_size)
        torch.testing.assert_close(found[head], torch.softmax(scores, -1), rtol=0, atol=1e-5)


@pre_or_post
def test_a_rotary_layer_knows_distances_alone(norm: str) -> None:
    """A sentence and a target shifted by 7 places each are read as before."""
    model = make_model(3, norm=norm, positions="rotary").double()
    encoder, decoder = model.encoder[0], model.decoder[0]
    source, target = torch.randn(2, 2, 5, SIZES["size"], dtype=torch.float64).unbind(0)
    real, causal = torch.ones(2, 1, 1, 5, dtype=torch.bool), torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    found = []
    for shift in (0, 7):
        places = rotation(torch.arange(5).unsqueeze(0) + shift, SIZES["size"] // SIZES["heads"])
        read, _ = encoder(source, places, real)
        own = decoder.own_queries_keys_values(target, places)
        found.append((read, *decoder(target, own, causal, read_by(decoder, read), real, 1)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@every_kind
def test_order_matters(kind: dict[str, str]) -> None:
    """Without positions, a sentence would be a bag of tokens to the encoder."""
    model = make_model(**kind)
    inputs = target_inputs(1, 3)
    with torch.no_grad():
        one, other = (
            model(torch.tensor([ids]), torch.tensor([4]), inputs).logits for ids in ([5, 6, 7, 3], [7, 5, 6, 3])
        )
    assert not torch.allclose(one, other, atol=1e-3)


# --- one model, three uses -------------------------------------------------------------------------------------------


def assert_forward_is_stepping(
    model: Transformer, lengths: list[int], hypotheses: int, tolerance: float, target_length: int = 6
) -> None:
    """Row ``sentence * hypotheses + hypothesis`` of a step is that sentence with that hypothesis, alone."""
    source_ids, source_lengths = sources(lengths)
    rows = len(lengths) * hypotheses
    inputs = target_inputs(rows, target_length)
    with torch.no_grad():
        decoded = model(
            source_ids.repeat_interleave(hypotheses, 0), source_lengths.repeat_interleave(hypotheses, 0), inputs
        )
        stepped = steps(model, source_ids, source_lengths, inputs.view(len(lengths), hypotheses, target_length))
    for i, step in enumerate(stepped):
        assert step.logits.shape == (rows, PIECES)
        torch.testing.assert_close(step.logits, decoded.logits[:, i], rtol=0, atol=tolerance)
        for name, found in step.attention.items():
            wanted = decoded.attention[name][:, :, i]
            if name.startswith("decoder-self"):
                assert found.shape == (rows, model.config.heads, model.config.max_positions)
                assert torch.all(found[..., i + 1 :] == 0.0)
                found, wanted = found[..., : i + 1], wanted[..., : i + 1]
            torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@every_kind
def test_teacher_forcing_is_stepping(kind: dict[str, str]) -> None:
    assert_forward_is_stepping(make_model(5, **kind), [5, 1, 8], 3, 1e-5)


@settings(max_examples=40, deadline=None)
@given(any_model(), LENGTHS, st.integers(1, 4), st.integers(1, SIZES["max_positions"]))
def test_teacher_forcing_is_stepping_in_any_model(
    model: Transformer, lengths: list[int], hypotheses: int, target_length: int
) -> None:
    """To the last of ``max_positions`` places."""
    assert_forward_is_stepping(model, lengths, hypotheses, 1e-9, target_length)


@settings(max_examples=30, deadline=None)
@given(any_model(), st.integers(0, 5), st.integers(1, 3))
def test_sentences_may_stand_at_different_steps(model: Transformer, ahead: int, hypotheses: int) -> None:
    """A sentence that joins a running batch is at its own step 0, which is what ``positions`` has a row for."""
    source_ids, source_lengths = sources([4, 7])
    inputs = target_inputs(2 * hypotheses, 6).view(2, hypotheses, 6)
    with torch.no_grad():
        memory, state, _ = model.encode(source_ids, source_lengths)
        alone = steps(model, source_ids, source_lengths, inputs)
        before = {name: tensor.clone() for name, tensor in each_hypothesis(state, hypotheses).items()}
        if ahead:
            for name, tensor in alone[ahead - 1].state.items():
                before[name][:hypotheses] = tensor[:hypotheses]
        tokens = torch.stack([inputs[0, :, ahead], inputs[1, :, 0]])
        together = model.decode_step(tokens, torch.tensor([ahead, 0]), source_lengths, memory, before)
    torch.testing.assert_close(together.logits[:hypotheses], alone[ahead].logits[:hypotheses], rtol=0, atol=1e-9)
    torch.testing.assert_close(together.logits[hypotheses:], alone[0].logits[hypotheses:], rtol=0, atol=1e-9)


@every_kind
def test_places_that_are_not_written_yet_are_not_read(kind: dict[str, str]) -> None:
    """Whatever an earlier sentence left there."""
    model = make_model(**kind)
    source_ids, source_lengths = sources([4, 7])
    inputs = target_inputs(2, 5).unsqueeze(1)
    with torch.no_grad():
        memory, _, _ = model.encode(source_ids, source_lengths)
        stepped = steps(model, source_ids, source_lengths, inputs)
        stale = {name: tensor.clone() for name, tensor in stepped[2].state.items()}
        for tensor in stale.values():
            tensor[:, :, 3:] = 50.0 * torch.randn_like(tensor[:, :, 3:])
        step = model.decode_step(inputs[:, :, 3], torch.tensor([3, 3]), source_lengths, memory, stale)
    torch.testing.assert_close(step.logits, stepped[3].logits, rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(any_model(), LENGTHS, st.data())
def test_a_score_is_the_probability_of_each_target_token(
    model: Transformer, lengths: list[int], data: st.DataObject
) -> None:
    source_ids, source_lengths = sources(lengths)
    target_lengths = data.draw(st.lists(st.integers(1, 7), min_size=len(lengths), max_size=len(lengths)))
    target_ids = torch.full((len(lengths), max(target_lengths)), PAD_ID)
    for row, length in enumerate(target_lengths):
        target_ids[row, :length] = torch.randint(4, PIECES, (length,))
        target_ids[row, length - 1] = EOS_ID
    with torch.no_grad():
        found = model.score(source_ids, source_lengths, target_ids).log_probabilities
        for row, (source_length, target_length) in enumerate(zip(lengths, target_lengths, strict=True)):
            target = target_ids[row, :target_length].tolist()
            inputs = torch.tensor([[[BOS_ID, *target[:-1]]]])
            alone = steps(model, source_ids[row : row + 1, :source_length], source_lengths[row : row + 1], inputs)
            chosen = [torch.log_softmax(step.logits[0], 0)[i] for step, i in zip(alone, target, strict=True)]
            torch.testing.assert_close(found[row, :target_length], torch.stack(chosen), rtol=0, atol=1e-5)
            assert torch.all(found[row, target_length:] == 0.0)


# --- padding and order -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(any_model(), LENGTHS, st.integers(0, 3))
def test_neither_padding_nor_neighbours_change_an_answer(model: Transformer, lengths: list[int], more: int) -> None:
    source_ids, source_lengths = sources(lengths, more)
    inputs = target_inputs(len(lengths), 5)
    with torch.no_grad():
        together = model(source_ids, source_lengths, inputs)
        for row, length in enumerate(lengths):
            alone = model(source_ids[row : row + 1, :length], source_lengths[row : row + 1], inputs[row : row + 1])
            torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-9)
            for name, weights in together.attention.items():
                found = weights[row]
                if name.startswith("encoder-self"):
                    found = found[:, :length]
                if not name.startswith("decoder-self"):
                    assert torch.all(found[..., length:] == 0.0)
                    found = found[..., :length]
                torch.testing.assert_close(found, alone.attention[name][0], rtol=0, atol=1e-9)


@every_kind
def test_neither_padding_nor_neighbours_change_a_shipped_models_answer(kind: dict[str, str]) -> None:
    """In float32."""
    model = make_model(7, **kind)
    source_ids, source_lengths = sources([6, 1, 3], 2)
    inputs = target_inputs(3, 5)
    with torch.no_grad():
        together = model(source_ids, source_lengths, inputs).logits
        for row, length in enumerate([6, 1, 3]):
            alone = model(source_ids[row : row + 1, :length], source_lengths[row : row + 1], inputs[row : row + 1])
            torch.testing.assert_close(together[row], alone.logits[0], rtol=0, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(any_model(), LENGTHS, st.integers(1, 6))
def test_every_row_of_every_map_sums_to_one(model: Transformer, lengths: list[int], target_length: int) -> None:
    source_ids, source_lengths = sources(lengths)
    with torch.no_grad():
        decoded = model(source_ids, source_lengths, target_inputs(len(lengths), target_length))
    for name, weights in decoded.attention.items():
        assert torch.all(weights >= 0.0), name
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), rtol=0, atol=1e-9)
        if name.startswith("decoder-self"):
            assert torch.all(weights.triu(1) == 0.0)


@every_kind
def test_what_comes_later_in_a_target_changes_nothing_before(kind: dict[str, str]) -> None:
    model = make_model(**kind)
    source_ids, source_lengths = sources([5, 3])
    inputs = target_inputs(2, 6)
    later = inputs.clone()
    later[:, 3] = 4 + (inputs[:, 3] - 3) % (PIECES - 4)
    with torch.no_grad():
        one, other = (model(source_ids, source_lengths, ids).logits for ids in (inputs, later))
    torch.testing.assert_close(one[:, :3], other[:, :3], rtol=0, atol=1e-6)
    assert torch.all((one[:, 3:] - other[:, 3:]).abs().amax(-1) > 1e-6)


@every_kind
def test_every_source_token_matters(kind: dict[str, str]) -> None:
    model = make_model(**kind)
    source_ids, source_lengths = sources([6])
    inputs = target_inputs(1, 3)
    with torch.no_grad():
        before = model(source_ids, source_lengths, inputs).logits
        for place in range(6):
            other = source_ids.clone()
            other[0, place] = (other[0, place] + 1) % PIECES
            assert not torch.allclose(model(other, source_lengths, inputs).logits, before, atol=1e-5)


# --- training and export ---------------------------------------------------------------------------------------------


@every_kind
def test_every_weight_learns(kind: dict[str, str]) -> None:
    """But for biases of keys that are not rotated: they add the same to all scores of a row."""
    model = make_model(**kind).double().train()
    source_ids, source_lengths = sources([5, 3, 1, 6])
    model(source_ids, source_lengths, target_inputs(4, 6)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.all(torch.isfinite(parameter.grad)), name
        largest = float(parameter.grad.abs().max())
        if name.endswith("cross.key.bias") or (name.endswith("own.key.bias") and kind["positions"] == "sinusoidal"):
            assert largest < 1e-10, name
        else:
            assert largest > 1e-6, name


@every_kind
def test_dropout_is_for_training_only(kind: dict[str, str]) -> None:
    model = make_model(dropout=0.5, **kind)
    source_ids, source_lengths = sources([5, 3])
    inputs = target_inputs(2, 4)
    with torch.no_grad():
        first, second = (model(source_ids, source_lengths, inputs).logits for _ in range(2))
        assert torch.equal(first, second)
        model.train()
        first, second = (model(source_ids, source_lengths, inputs).logits for _ in range(2))
    assert not torch.equal(first, second)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("tied", "tables"), [("none", 3), ("target", 2), ("all", 1)])
def test_tied_embeddings_are_one_tensor(tied: str, tables: int) -> None:
    torch.manual_seed(1)
    model = Transformer(make_config(tied_embeddings=tied), PIECES, PIECES)
    weights = (model.source_embedding.weight, model.target_embedding.weight, model.output.weight)
    assert len({id(weight) for weight in weights}) == tables
    assert len({weight.data_ptr() for weight in weights}) == tables
    untied = Transformer(make_config(tied_embeddings="none"), PIECES, PIECES)
    assert count(untied) - count(model) == (3 - tables) * PIECES * SIZES["size"]
    assert model.output.bias is None


def test_a_tied_table_that_learns_learns_for_all_its_uses() -> None:
    model = make_model(tied_embeddings="all")
    before = model.output.weight.detach().clone()
    model(*sources([3]), target_inputs(1, 3)).logits.square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for weight in (model.source_embedding.weight, model.target_embedding.weight, model.output.weight):
        assert torch.equal(weight, model.output.weight)
        assert not torch.equal(weight, before)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(("tied", "tables"), [("none", (1, 2)), ("target", (1, 1))])
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.integers(5, 20)
)
@settings(max_examples=10, deadline=None)
def test_a_model_has_as_many_weights_as_the_paper_says(
    norm: str,
    tied: str,
    tables: tuple[int, int],
    heads: int,
    head_size: int,
    inner: int,
    encoder_layers: int,
    decoder_layers: int,
    target_pieces: int,
) -> None:
    size = heads * head_size
    config = make_config(
        size=size,
        heads=heads,
        feed_forward=inner,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        norm=norm,
        tied_embeddings=tied,
    )
    attention, feed_forward, layer_norm = 4 * (size * size + size), 2 * size * inner + inner + size, 2 * size
    wanted = size * (tables[0] * PIECES + tables[1] * target_pieces)
    wanted += encoder_layers * (attention + feed_forward + 2 * layer_norm)
    wanted += decoder_layers * (2 * attention + feed_forward + 3 * layer_norm)
    wanted += 2 * layer_norm if norm == "pre" else 0
    assert count(Transformer(config, PIECES, target_pieces)) == wanted


def test_the_papers_base_model_has_its_44_million_weights_beside_the_embeddings() -> None:
    """Table 3 says 65 million with some 37,000 pieces of 512."""
    with torch.device("meta"):
        config = TransformerConfig(
            size=512, heads=8, feed_forward=2048, encoder_layers=6, decoder_layers=6, norm="post", tied_embeddings="all"
        )
        model = Transformer(config, 37_000, 37_000)
    assert count(model) - 37_000 * 512 == 44_138_496


def test_embeddings_start_as_large_as_positions() -> None:
    """sqrt(d) times what starts with 1 / sqrt(d): scaled, of about 1."""
    torch.manual_seed(1)
    model = Transformer(make_config(size=96, heads=4, tied_embeddings="none"), 200, 200)
    for weight in (model.source_embedding.weight, model.target_embedding.weight, model.output.weight):
        assert float(weight.detach().std()) * math.sqrt(96) == pytest.approx(1.0, abs=0.05)


def test_memory_and_state_have_the_sizes_of_the_config() -> None:
    model = make_model(decoder_layers=3, encoder_layers=1)
    with torch.no_grad():
        memory, state, _ = model.encode(*sources([5, 3]))
    head = SIZES["size"] // SIZES["heads"]
    for tensors, prefix, length in ((memory, "cross", 5), (state, "self", SIZES["max_positions"])):
        names = [f"{prefix}_{half}_{layer}" for layer in range(3) for half in ("keys", "values")]
        assert list(tensors) == names
        assert {tensor.shape for tensor in tensors.values()} == {(2, SIZES["heads"], length, head)}


@settings(max_examples=20, deadline=None)
@given(any_model())
def test_the_manifests_maps_are_the_models(model: Transformer) -> None:
    source_ids, source_lengths = sources([5, 3])
    config, inputs = model.config, target_inputs(2, 4)
    with torch.no_grad():
        encoded = model.encode(source_ids, source_lengths)
        decoded = model(source_ids, source_lengths, inputs)
        step = model.decode_step(inputs[:, :1], torch.tensor([0, 0]), source_lengths, encoded.memory, encoded.state)
    maps = {entry.name: entry for entry in model.attention_maps}
    assert len(maps) == len(model.attention_maps) == config.encoder_layers + 2 * config.decoder_layers
    by_graph = {graph: [name for name in maps if maps[name].emitted_by == graph] for graph in ("encode", "decode_step")}
    assert by_graph == {"encode": list(encoded.attention), "decode_step": list(step.attention)}
    assert set(maps) == set(decoded.attention)
    sizes = {"encoder_self": (5, 5), "decoder_self": (4, 4), "cross": (4, 5)}
    for name, entry in maps.items():
        assert name == f"{entry.kind.replace('_', '-')}-{entry.layer}"
        assert entry.tensor == f"attention_{name}"
        assert decoded.attention[name].shape == (2, entry.heads, *sizes[entry.kind])
        assert (entry.score_function, entry.rows_sum_to_one) == ("scaled_dot", True)
        assert (entry.scope_tokens, entry.includes_end_of_sentence) == (0, True)
    alignment = model.alignment
    assert maps[alignment.map].kind == "cross"
    assert set(alignment.heads) <= set(range(maps[alignment.map].heads))
    assert alignment.shift == 0


def test_the_model_can_be_told_what_it_has_said() -> None:
    capabilities = make_model().capabilities
    assert (capabilities.generation, capabilities.streaming) == ("autoregressive", True)
    assert capabilities.scoring
    assert capabilities.prefix
    assert capabilities.beam
    assert not capabilities.document_context


# --- parts that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"size": 13}, {"size": 12, "heads": 5}, {"size": 9, "heads": 3, "positions": "rotary"}]
)
def test_a_size_that_cannot_be_cut_into_heads_is_refused(options: dict[str, Any]) -> None:
    config = make_config(**options)
    with pytest.raises(ConfigError, match=rf"model\.size {config.size} cannot be cut into {config.heads} heads"):
        Transformer(config, PIECES, PIECES)


def test_odd_heads_will_do_without_rotation() -> None:
    assert_forward_is_stepping(make_model(size=9, heads=3), [4, 2], 2, 1e-5)


def test_two_vocabularies_cannot_be_one_table() -> None:
    with pytest.raises(ConfigError, match=r"model\.tied_embeddings all needs one vocabulary, not 11 and 12"):
        Transformer(make_config(tied_embeddings="all"), 11, 12)
    Transformer(make_config(tied_embeddings="target"), 11, 12)


def test_under_autocast_judged_features_are_near_the_exact() -> None:
    """Attention is fused and of float32 on a CPU, all the other products of bfloat16."""
    model = make_model(7, positions="rotary").train()
    batch = Inputs(*sources([5, 3, 6]), target_inputs(3, 5), None)
    judged = torch.ones(3, 5, dtype=torch.bool)

    def gradients(autocast: bool) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            features = model.judged_features(batch, judged)
        gradients = torch.autograd.grad(features.float().square().sum(), [*model.parameters()], allow_unused=True)
        return features.detach(), torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])

    exact, of_exact = gradients(autocast=False)
    found, of_found = gradients(autocast=True)
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.1, check_dtype=False)
    assert float((of_found - of_exact).norm() / of_exact.norm()) < 0.05

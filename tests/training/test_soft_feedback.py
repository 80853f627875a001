"""The published human-date model against its equations, and stepping against training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from service.bundle.tokenizer import BOS_ID, EOS_ID
from training.config import SoftFeedbackConfig
from training.models.interface import Step
from training.models.soft_feedback import SoftFeedbackModel

SOURCE_PIECES, TARGET_PIECES = 13, 11
ENCODER, DECODER = 4, 6
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
SEEDS = st.integers(0, 1000)


def make_model(seed: int = 1) -> SoftFeedbackModel:
    """With weights larger than PyTorch's first ones, so that sentences, places and what was said matter."""
    torch.manual_seed(seed)
    config = SoftFeedbackConfig(encoder_size=ENCODER, decoder_size=DECODER)
    model = SoftFeedbackModel(config, SOURCE_PIECES, TARGET_PIECES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


def sources(lengths: list[int], more: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random source ids, random ones after the end too, and their lengths."""
    ids = torch.randint(0, SOURCE_PIECES, (len(lengths), max(lengths) + more))
    return ids, torch.tensor(lengths, dtype=torch.int32)


def any_inputs(batch: int, length: int) -> torch.Tensor:
    """What the model does not read, but for its shape."""
    return torch.full((batch, length), BOS_ID)


def steps(
    model: SoftFeedbackModel, source_ids: torch.Tensor, source_lengths: torch.Tensor, inputs: torch.Tensor
) -> list[Step]:
    """Step through ``inputs`` (batch, hypotheses, target_length), on each step's own state."""
    batch, hypotheses, length = inputs.shape
    memory, state, _ = model.encode(source_ids, source_lengths)
    state = {name: tensor.repeat_interleave(hypotheses, 0) for name, tensor in state.items()}
    found = []
    for i in range(length):
        step = model.decode_step(inputs[:, :, i], torch.full((batch,), i), source_lengths, memory, state)
        state = step.state
        found.append(step)
    return found


# --- the equations ---------------------------------------------------------------------------------------------------


def annotations(model: SoftFeedbackModel, source_ids: list[int]) -> torch.Tensor:
    """h of one sentence, with PyTorch's own LSTM over one-hot vectors: (source_length, 2 x encoder)."""
    layer = model.encoder
    lstm = nn.LSTM(SOURCE_PIECES, ENCODER, batch_first=True, bidirectional=True)
    weights = layer.gates.weight.split(4 * ENCODER, 1)
    with torch.no_grad():
        for i, suffix in enumerate(("", "_reverse")):
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(weights[i].t())
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(layer.recurrence[i])
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(layer.bias[i])
            getattr(lstm, f"bias_hh_l0{suffix}").zero_()
    outputs: torch.Tensor = lstm(nn.functional.one_hot(torch.tensor([source_ids]), SOURCE_PIECES).float())[0][0]
    return outputs


def written_again(
    model: SoftFeedbackModel, source_ids: list[int], length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, attention and states of one sentence after the module's text, one matrix of the equations at a time."""
    h = annotations(model, source_ids)
    sizes = (DECODER, DECODER, DECODER, TARGET_PIECES)
    w_r, w_z, w_p, w_o = model.token.weight.split(sizes)
    c_r, c_z, c_p, c_o = model.context.weight.split(sizes)
    b_r, b_z, b_p, b_o = model.context.bias.split(sizes)
    u_r, u_z, u_o = model.hidden.weight.split((DECODER, DECODER, TARGET_PIECES))
    u_p = model.reset_hidden.weight
    w_a, u_a, b_a, v = (
        model.attention.query.weight,
        model.attention.key.weight,
        model.attention.key.bias,
        model.attention.score.weight[0],
    )
    s, y = torch.tanh(model.initial.weight @ h[0]), torch.zeros(TARGET_PIECES)
    logits, attention, states = [], [], []
    for _ in range(length):
        alpha = torch.softmax(torch.stack([v @ torch.tanh(w_a @ s + u_a @ h_i + b_a) for h_i in h]), 0)
        c = alpha @ h
        r = torch.sigmoid(w_r @ y + u_r @ s + c_r @ c + b_r)
        z = torch.sigmoid(w_z @ y + u_z @ s + c_z @ c + b_z)
        proposed = torch.tanh(w_p @ y + u_p @ (r * s) + c_p @ c + b_p)
        said = w_o @ y + u_o @ s + c_o @ c + b_o
        s, y = (1 - z) * s + z * proposed, torch.softmax(said, 0)
        logits.append(said)
        attention.append(alpha)
        states.append(s)
    return torch.stack(logits), torch.stack(attention), torch.stack(states)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, SEEDS)
def test_training_and_stepping_follow_the_equations(lengths: list[int], seed: int) -> None:
    model, target_length = make_model(seed), 5
    source_ids, source_lengths = sources(lengths)
    inputs = any_inputs(len(lengths), target_length)
    with torch.no_grad():
        decoded = model(source_ids, source_lengths, inputs)
        stepped = steps(model, source_ids, source_lengths, inputs.unsqueeze(1))
        for row, length in enumerate(lengths):
            logits, attention, states = written_again(model, source_ids[row, :length].tolist(), target_length)
            torch.testing.assert_close(decoded.logits[row], logits, rtol=0, atol=1e-5)
            torch.testing.assert_close(decoded.attention["cross"][row, 0, :, :length], attention, rtol=0, atol=1e-5)
            for i, step in enumerate(stepped):
                torch.testing.assert_close(step.logits[row], logits[i], rtol=0, atol=1e-5)
                torch.testing.assert_close(step.attention["cross"][row, 0, :length], attention[i], rtol=0, atol=1e-5)
                torch.testing.assert_close(step.state["hidden"][row], states[i], rtol=0, atol=1e-5)
                distribution = torch.softmax(logits[i], 0)
                torch.testing.assert_close(step.state["distribution"][row], distribution, rtol=0, atol=1e-5)


def test_nothing_was_said_before_the_first_step_and_both_directions_start_it() -> None:
    model = make_model()
    source_ids, source_lengths = sources([5, 3, 1])
    with torch.no_grad():
        memory, state, _ = model.encode(source_ids, source_lengths)
        for row, length in enumerate([5, 3, 1]):
            first = annotations(model, source_ids[row, :length].tolist())[0]
            for half in (first[:ENCODER], first[ENCODER:]):
                assert half.abs().max() > 1e-3
            torch.testing.assert_close(state["hidden"][row], torch.tanh(model.initial.weight @ first))
    assert memory["keys"].shape == (3, 5, DECODER)
    assert memory["values"].shape == (3, 5, 2 * ENCODER)
    assert state["hidden"].shape == (3, DECODER)
    assert torch.equal(state["distribution"], torch.zeros(3, TARGET_PIECES))


def test_the_original_has_no_biases_but_of_the_context_and_the_key() -> None:
    """And the encoder's one of each gate: a second would be the same function with another training."""
    biases = {name for name, _ in make_model().named_parameters() if name.endswith("bias")}
    assert biases == {"encoder.bias", "attention.key.bias", "context.bias"}


# --- one model, two uses ---------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.integers(1, 4), SEEDS)
def test_training_is_stepping(lengths: list[int], hypotheses: int, seed: int) -> None:
    """Row ``sentence * hypotheses + hypothesis`` of a step is that sentence."""
    model, target_length = make_model(seed), 6
    source_ids, source_lengths = sources(lengths)
    rows = len(lengths) * hypotheses
    with torch.no_grad():
        decoded = model(source_ids, source_lengths, any_inputs(len(lengths), target_length))
        inputs = torch.randint(0, TARGET_PIECES, (len(lengths), hypotheses, target_length))
        stepped = steps(model, source_ids, source_lengths, inputs)
    for i, step in enumerate(stepped):
        assert step.logits.shape == (rows, TARGET_PIECES)
        assert step.attention["cross"].shape == (rows, 1, max(lengths))
        assert step.state["hidden"].shape == (rows, DECODER)
        assert step.state["distribution"].shape == (rows, TARGET_PIECES)
        wanted = decoded.logits[:, i].repeat_interleave(hypotheses, 0)
        torch.testing.assert_close(step.logits, wanted, rtol=0, atol=1e-5)
        weights = decoded.attention["cross"][:, :, i].repeat_interleave(hypotheses, 0)
        torch.testing.assert_close(step.attention["cross"], weights, rtol=0, atol=1e-5)


def test_hypotheses_keep_their_own_states() -> None:
    """All alike when they start alike; what one carries does not reach another."""
    model = make_model()
    source_ids, source_lengths = sources([4, 2])
    tokens, positions = torch.full((2, 3), BOS_ID), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        memory, _, _ = model.encode(source_ids, source_lengths)
        state = {"hidden": torch.randn(6, DECODER), "distribution": torch.softmax(torch.randn(6, TARGET_PIECES), -1)}
        together = model.decode_step(tokens, positions, source_lengths, memory, state)
        for row in range(6):
            sentence = row // 3
            alone = model.decode_step(
                tokens[:1, :1],
                positions[:1],
                source_lengths[sentence : sentence + 1],
                {name: tensor[sentence : sentence + 1] for name, tensor in memory.items()},
                {name: tensor[row : row + 1] for name, tensor in state.items()},
            )
            torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(together.state["hidden"][row], alone.state["hidden"][0], rtol=0, atol=1e-5)


# --- what it reads and what it does not ------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.integers(0, 4), SEEDS)
def test_neither_padding_nor_neighbours_change_an_answer(lengths: list[int], more: int, seed: int) -> None:
    model = make_model(seed)
    source_ids, source_lengths = sources(lengths, more)
    with torch.no_grad():
        together = model(source_ids, source_lengths, any_inputs(len(lengths), 5))
        for row, length in enumerate(lengths):
            alone = model(source_ids[row : row + 1, :length], source_lengths[row : row + 1], any_inputs(1, 5))
            attention = together.attention["cross"][row]
            torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(attention[..., :length], alone.attention["cross"][0], rtol=0, atol=1e-5)
            assert torch.all(attention[..., length:] == 0.0)
            torch.testing.assert_close(attention.sum(-1), torch.ones(1, 5), rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.integers(1, 3), SEEDS)
def test_what_is_chosen_does_not_go_back_in(lengths: list[int], hypotheses: int, seed: int) -> None:
    """To the last bit, in training as in stepping, whatever the position."""
    model = make_model(seed)
    source_ids, source_lengths = sources(lengths)
    batch = len(lengths)
    one, other = torch.randint(0, TARGET_PIECES, (2, batch, hypotheses))
    with torch.no_grad():
        memory, state, _ = model.encode(source_ids, source_lengths)
        state = {name: tensor.repeat_interleave(hypotheses, 0) for name, tensor in state.items()}
        first, second = (
            model.decode_step(tokens, torch.full((batch,), position), source_lengths, memory, state)
            for tokens, position in ((one, 0), (other, 7))
        )
        assert torch.equal(first.logits, second.logits)
        assert torch.equal(first.state["hidden"], second.state["hidden"])
        inputs = torch.randint(0, TARGET_PIECES, (2, batch, 4))
        assert torch.equal(*(model(source_ids, source_lengths, ids).logits for ids in inputs))


def test_what_it_said_does_go_back_in() -> None:
    """Why the test above can fail: the same state with another distribution says something else."""
    model = make_model()
    source_ids, source_lengths = sources([4])
    tokens, positions = torch.tensor([[BOS_ID]]), torch.tensor([0])
    with torch.no_grad():
        memory, state, _ = model.encode(source_ids, source_lengths)
        said = nn.functional.one_hot(torch.tensor([5]), TARGET_PIECES).float()
        first, second = (
            model.decode_step(tokens, positions, source_lengths, memory, state | {"distribution": distribution})
            for distribution in (state["distribution"], said)
        )
    assert (first.logits - second.logits).abs().max() > 1e-2
    assert (first.state["hidden"] - second.state["hidden"]).abs().max() > 1e-3


def test_every_source_token_matters() -> None:
    model = make_model()
    source_ids, source_lengths = sources([6])
    with torch.no_grad():
        before = model(source_ids, source_lengths, any_inputs(1, 3)).logits
        for place in range(6):
            other = source_ids.clone()
            other[0, place] = (other[0, place] + 1) % SOURCE_PIECES
            assert not torch.allclose(model(other, source_lengths, any_inputs(1, 3)).logits, before, atol=1e-5)


# --- what may be asked of it -----------------------------------------------------------------------------------------


def test_it_cannot_be_told_what_it_has_said() -> None:
    model = make_model()
    capabilities = model.capabilities
    assert (capabilities.generation, capabilities.streaming) == ("autoregressive", True)
    assert not capabilities.scoring
    assert not capabilities.prefix
    assert not capabilities.beam
    assert not capabilities.document_context
    with pytest.raises(ValueError, match="SoftFeedbackModel cannot score a given target"):
        model.score(*sources([3]), torch.tensor([[5, 6, EOS_ID]]))


def test_the_manifests_maps_are_the_models() -> None:
    model = make_model()
    with torch.no_grad():
        decoded = model(*sources([5, 3]), any_inputs(2, 4))
    maps = model.attention_maps
    assert [entry.name for entry in maps] == list(decoded.attention) == ["cross"]
    assert [entry.tensor for entry in maps] == [f"attention_{name}" for name in decoded.attention]
    assert [entry.heads for entry in maps] == [weights.shape[1] for weights in decoded.attention.values()]
    assert all(entry.rows_sum_to_one and entry.emitted_by == "decode_step" for entry in maps)
    assert model.alignment.map in decoded.attention


# --- training --------------------------------------------------------------------------------------------------------


def test_every_weight_learns() -> None:
    model = make_model()
    source_ids, source_lengths = sources([5, 3, 1])
    source_ids[0, :5] = torch.arange(5)
    model(source_ids, source_lengths, any_inputs(3, 4)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.any(parameter.grad != 0.0), name
        assert torch.all(torch.isfinite(parameter.grad)), name


def test_gradients_are_those_of_the_numbers() -> None:
    """Through every path, what was said among them: double precision, finite differences."""
    torch.manual_seed(3)
    model = SoftFeedbackModel(SoftFeedbackConfig(encoder_size=1, decoder_size=2), 3, 3).double()
    source_ids, source_lengths = torch.tensor([[0, 1, 2], [2, 0, 0]]), torch.tensor([3, 1])
    names = [name for name, _ in model.named_parameters()]

    def decode(*parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = dict(zip(names, parameters, strict=True))
        decoded = torch.func.functional_call(model, weights, (source_ids, source_lengths, any_inputs(2, 3)))
        return decoded.logits, decoded.attention["cross"]

    assert torch.autograd.gradcheck(decode, tuple(model.parameters()))


def test_a_loss_reaches_back_through_what_was_said() -> None:
    """To the first distribution from the last step's loss, and to none that came later."""
    model = make_model()
    fed: list[torch.Tensor] = []

    def keep(_module: object, inputs: tuple[torch.Tensor]) -> None:
        if inputs[0].requires_grad:
            inputs[0].retain_grad()
        fed.append(inputs[0])

    with model.token.register_forward_pre_hook(keep):
        logits = model(*sources([4, 2]), any_inputs(2, 5)).logits
    logits[:, 3].square().sum().backward()
    nothing, *said, last = fed
    assert not nothing.requires_grad
    for distribution in said:
        assert distribution.grad is not None
        assert torch.all(distribution.grad.abs().amax(-1) > 0.0)
    assert last.grad is None or not last.grad.any()

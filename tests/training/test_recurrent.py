"""The recurrent model against its equations, and its three uses (training, stepping, scoring) against each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID
from training.config import RecurrentConfig
from training.models.interface import Step
from training.models.recurrent import RecurrentModel

SOURCE_PIECES, TARGET_PIECES = 13, 11
SIZES = {"embedding_size": 5, "encoder_size": 4, "decoder_size": 6, "attention_size": 7}
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
SEEDS = st.integers(0, 1000)
LAYERS = st.integers(1, 3)


def make_model(seed: int = 1, layers: int = 1, dropout: float = 0.0) -> RecurrentModel:
    """With weights larger than PyTorch's first ones, so that sentences, places and tokens matter to the answer."""
    torch.manual_seed(seed)
    config = RecurrentConfig(encoder_layers=layers, dropout=dropout, **SIZES)
    model = RecurrentModel(config, SOURCE_PIECES, TARGET_PIECES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.eval()


def sources(lengths: list[int], more: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random source ids, random ones after the end too, and their lengths."""
    ids = torch.randint(0, SOURCE_PIECES, (len(lengths), max(lengths) + more))
    return ids, torch.tensor(lengths, dtype=torch.int32)


def target_inputs(batch: int, length: int) -> torch.Tensor:
    ids = torch.randint(4, TARGET_PIECES, (batch, length))
    ids[:, 0] = BOS_ID
    return ids


def steps(
    model: RecurrentModel, source_ids: torch.Tensor, source_lengths: torch.Tensor, inputs: torch.Tensor
) -> list[Step]:
    """Step through ``inputs`` (batch, hypotheses, target_length), on each step's own state."""
    batch, hypotheses, length = inputs.shape
    memory, state = model.encode(source_ids, source_lengths)
    state = {name: tensor.repeat_interleave(hypotheses, 0) for name, tensor in state.items()}
    found = []
    for i in range(length):
        step = model.decode_step(inputs[:, :, i], torch.full((batch,), i), source_lengths, memory, state)
        state = step.state
        found.append(step)
    return found


# --- the equations ---------------------------------------------------------------------------------------------------


def written_again(model: RecurrentModel, source_ids: list[int], inputs: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and attention of one sentence after the module's text, with PyTorch's own LSTM and GRU cell."""
    size = model.config.decoder_size
    embedded = outputs = model.source_embedding(torch.tensor([source_ids]))
    for layer in model.encoder:
        lstm = nn.LSTM(outputs.shape[-1], model.config.encoder_size, batch_first=True, bidirectional=True)
        backwards = {f"{name}_reverse": weight for name, weight in layer.backwards.state_dict().items()}
        lstm.load_state_dict(layer.forwards.state_dict() | backwards)
        packed = pack_padded_sequence(outputs, torch.tensor([len(source_ids)]), batch_first=True)
        outputs, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
    annotations = torch.cat([outputs, embedded], -1)[0]
    cell = nn.GRUCell(model.config.embedding_size + annotations.shape[-1], size)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([model.token_gates.weight, model.context_gates.weight], -1))
        cell.bias_ih.copy_(model.token_gates.bias)
        cell.weight_hh.copy_(model.hidden_gates.weight)
        cell.bias_hh.copy_(model.hidden_gates.bias)
    state = torch.tanh(model.initial(outputs[0, 0, model.config.encoder_size :]))
    logits, attention = [], []
    for token in inputs:
        last = model.target_embedding(torch.tensor(token))
        hidden = torch.tanh(model.attention.query.weight @ state + model.attention.key(annotations))
        weights = torch.softmax(hidden @ model.attention.score.weight[0], 0)
        context = weights @ annotations
        state = cell(torch.cat([last, context]), state)
        logits.append(model.output(torch.tanh(model.readout(torch.cat([state, last, context])))))
        attention.append(weights)
    return torch.stack(logits), torch.stack(attention)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, LAYERS, SEEDS)
def test_a_target_is_decoded_after_the_equations(lengths: list[int], layers: int, seed: int) -> None:
    model = make_model(seed, layers)
    source_ids, source_lengths = sources(lengths)
    inputs = target_inputs(len(lengths), 5)
    with torch.no_grad():
        decoded = model(source_ids, source_lengths, inputs)
        for row, length in enumerate(lengths):
            logits, attention = written_again(model, source_ids[row, :length].tolist(), inputs[row].tolist())
            torch.testing.assert_close(decoded.logits[row], logits, rtol=0, atol=1e-5)
            torch.testing.assert_close(decoded.attention["cross"][row, 0, :, :length], attention, rtol=0, atol=1e-5)


# --- one model, three uses -------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(LENGTHS, LAYERS, st.integers(1, 4), SEEDS)
def test_teacher_forcing_is_stepping(lengths: list[int], layers: int, hypotheses: int, seed: int) -> None:
    """Row ``sentence * hypotheses + hypothesis`` of a step is that sentence with that hypothesis, alone."""
    model, target_length = make_model(seed, layers), 6
    source_ids, source_lengths = sources(lengths)
    rows = len(lengths) * hypotheses
    inputs = target_inputs(rows, target_length)
    with torch.no_grad():
        decoded = model(
            source_ids.repeat_interleave(hypotheses, 0), source_lengths.repeat_interleave(hypotheses, 0), inputs
        )
        stepped = steps(model, source_ids, source_lengths, inputs.view(len(lengths), hypotheses, target_length))
    for i, step in enumerate(stepped):
        assert step.logits.shape == (rows, TARGET_PIECES)
        assert step.attention["cross"].shape == (rows, 1, max(lengths))
        assert step.state["hidden"].shape == (rows, SIZES["decoder_size"])
        torch.testing.assert_close(step.logits, decoded.logits[:, i], rtol=0, atol=1e-5)
        torch.testing.assert_close(step.attention["cross"], decoded.attention["cross"][:, :, i], rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.data(), SEEDS)
def test_a_score_is_the_probability_of_each_target_token(lengths: list[int], data: st.DataObject, seed: int) -> None:
    model = make_model(seed)
    source_ids, source_lengths = sources(lengths)
    target_lengths = data.draw(st.lists(st.integers(1, 7), min_size=len(lengths), max_size=len(lengths)))
    target_ids = torch.full((len(lengths), max(target_lengths)), PAD_ID)
    for row, length in enumerate(target_lengths):
        target_ids[row, :length] = torch.randint(4, TARGET_PIECES, (length,))
        target_ids[row, length - 1] = EOS_ID
    with torch.no_grad():
        scored = model.score(source_ids, source_lengths, target_ids)
        assert scored.log_probabilities.shape == target_ids.shape
        for row, (source_length, target_length) in enumerate(zip(lengths, target_lengths, strict=True)):
            target = target_ids[row, :target_length].tolist()
            inputs = torch.tensor([[[BOS_ID, *target[:-1]]]])
            alone = steps(model, source_ids[row : row + 1, :source_length], source_lengths[row : row + 1], inputs)
            wanted = [float(torch.log_softmax(step.logits[0], 0)[i]) for step, i in zip(alone, target, strict=True)]
            found = scored.log_probabilities[row]
            torch.testing.assert_close(found[:target_length], torch.tensor(wanted), rtol=0, atol=1e-5)
            assert torch.all(found[target_length:] == 0.0)
            assert torch.all(found[:target_length] < 0.0)
            seen = torch.cat([step.attention["cross"][0] for step in alone])
            of_row = scored.attention["cross"][row, 0, :target_length, :source_length]
            torch.testing.assert_close(of_row, seen, rtol=0, atol=1e-5)


# --- padding ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(LENGTHS, LAYERS, st.integers(0, 4), SEEDS)
def test_neither_padding_nor_neighbours_change_an_answer(lengths: list[int], layers: int, more: int, seed: int) -> None:
    model = make_model(seed, layers)
    source_ids, source_lengths = sources(lengths, more)
    inputs = target_inputs(len(lengths), 5)
    with torch.no_grad():
        together = model(source_ids, source_lengths, inputs)
        for row, length in enumerate(lengths):
            alone = model(source_ids[row : row + 1, :length], source_lengths[row : row + 1], inputs[row : row + 1])
            attention = together.attention["cross"][row]
            torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(attention[..., :length], alone.attention["cross"][0], rtol=0, atol=1e-5)
            assert torch.all(attention[..., length:] == 0.0)
            torch.testing.assert_close(attention.sum(-1), torch.ones(1, 5), rtol=0, atol=1e-5)


def test_what_comes_later_in_a_target_changes_nothing_before() -> None:
    model = make_model()
    source_ids, source_lengths = sources([5, 3])
    inputs = target_inputs(2, 6)
    later = inputs.clone()
    later[:, 3] = 4 + (inputs[:, 3] - 3) % (TARGET_PIECES - 4)
    with torch.no_grad():
        one, other = (model(source_ids, source_lengths, ids).logits for ids in (inputs, later))
    assert torch.equal(one[:, :3], other[:, :3])
    assert torch.all((one[:, 3:] - other[:, 3:]).abs().amax(-1) > 1e-6)


def test_every_source_token_matters() -> None:
    model = make_model()
    source_ids, source_lengths = sources([6])
    inputs = target_inputs(1, 3)
    with torch.no_grad():
        before = model(source_ids, source_lengths, inputs).logits
        for place in range(6):
            other = source_ids.clone()
            other[0, place] = (other[0, place] + 1) % SOURCE_PIECES
            assert not torch.allclose(model(other, source_lengths, inputs).logits, before, atol=1e-5)


def test_a_recurrent_state_needs_no_position() -> None:
    model = make_model()
    source_ids, source_lengths = sources([4, 2])
    with torch.no_grad():
        memory, state = model.encode(source_ids, source_lengths)
        tokens = torch.tensor([[5], [6]])
        first, second = (
            model.decode_step(tokens, torch.tensor(positions), source_lengths, memory, state)
            for positions in ([0, 0], [3, 9])
        )
    assert torch.equal(first.logits, second.logits)


# --- training and export ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
def test_every_weight_learns(layers: int) -> None:
    model = make_model(layers=layers)
    source_ids, source_lengths = sources([5, 3, 1])
    model(source_ids, source_lengths, target_inputs(3, 4)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.any(parameter.grad != 0.0), name
        assert torch.all(torch.isfinite(parameter.grad)), name


def test_dropout_is_for_training_only() -> None:
    model = make_model(dropout=0.5)
    source_ids, source_lengths = sources([5, 3])
    inputs = target_inputs(2, 4)
    with torch.no_grad():
        first, second = (model(source_ids, source_lengths, inputs).logits for _ in range(2))
        assert torch.equal(first, second)
        model.train()
        first, second = (model(source_ids, source_lengths, inputs).logits for _ in range(2))
    assert not torch.equal(first, second)


def test_memory_and_state_have_the_sizes_of_the_config() -> None:
    model = make_model(layers=2)
    with torch.no_grad():
        memory, state = model.encode(*sources([5, 3, 1]))
    annotation = 2 * SIZES["encoder_size"] + SIZES["embedding_size"]
    assert memory["keys"].shape == (3, 5, SIZES["attention_size"])
    assert memory["values"].shape == (3, 5, annotation)
    assert state["hidden"].shape == (3, SIZES["decoder_size"])


def test_the_manifests_maps_are_the_models() -> None:
    model = make_model()
    with torch.no_grad():
        decoded = model(*sources([5, 3]), target_inputs(2, 4))
    maps = model.attention_maps
    assert [entry.name for entry in maps] == list(decoded.attention) == ["cross"]
    assert [entry.tensor for entry in maps] == [f"attention_{name}" for name in decoded.attention]
    assert [entry.heads for entry in maps] == [weights.shape[1] for weights in decoded.attention.values()]
    assert all(entry.rows_sum_to_one and entry.emitted_by == "decode_step" for entry in maps)
    assert model.alignment.map in decoded.attention


def test_the_model_can_be_told_what_it_has_said() -> None:
    capabilities = make_model().capabilities
    assert (capabilities.generation, capabilities.streaming) == ("autoregressive", True)
    assert capabilities.scoring
    assert capabilities.prefix
    assert capabilities.beam
    assert not capabilities.document_context

"""The recurrent models against their equations, and their three uses (training, stepping, scoring) against each other.

The attentions' own equations are in ``test_attention``, the cells' in ``test_cells``: here they are put together.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID
from training.config import RecurrentConfig
from training.errors import ConfigError
from training.models.encoders import RecurrentLayer
from training.models.interface import Step, Tensors
from training.models.recurrent import SCORES, RecurrentModel, score_name

SOURCE_PIECES, TARGET_PIECES = 13, 11
SIZES = {"embedding_size": 5, "encoder_size": 4, "decoder_size": 6, "attention_size": 8, "max_positions": 12}
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
SEEDS = st.integers(0, 1000)
LAYERS = st.integers(1, 3)

OF_ONE_SIZE = ("dot", "scaled_dot", "cosine", "kernel")
OF_SCORES = ("hard", "local_m", "local_p", "attention_over_attention")
#: Every attention there is, and those made of scores with every score: (attention, score).
ATTENTIONS = [
    *((score, score) for score in SCORES),
    *((mechanism, score) for mechanism in OF_SCORES for score in SCORES),
    *((other, "additive") for other in ("multi_head", "average", "max", "none")),
]
every_attention = pytest.mark.parametrize(("attention", "score"), ATTENTIONS)

#: Encoders and decoders that are unlike in everything.
ARCHITECTURES: list[dict[str, Any]] = [
    {},
    {"encoder": "gru", "decoder": "lstm", "encoder_layers": 2, "decoder_layers": 2},
    {"bidirectional": False, "decoder": "gru", "decoder_layers": 3, "input_feeding": True},
    {"bidirectional": False, "encoder": "gru", "decoder": "lstm", "input_feeding": True},
    {"decoder": "additive", "encoder_layers": 2},
]
every_architecture = pytest.mark.parametrize(
    "architecture", ARCHITECTURES, ids=["plain", "deep", "fed", "one way", "additive"]
)


def make_config(**options: Any) -> RecurrentConfig:
    """With a decoder of the annotations' size where the parts ask for one."""
    config = RecurrentConfig(**(SIZES | options))
    annotation = config.encoder_size * (2 if config.bidirectional else 1)
    annotation += 0 if config.attention == "none" else config.embedding_size
    if config.decoder == "additive" or (score_name(config) in OF_ONE_SIZE and config.attention != "none"):
        return config.model_copy(update={"decoder_size": annotation})
    return config


def make_model(seed: int = 1, **options: Any) -> RecurrentModel:
    """With weights larger than PyTorch's first ones, so that sentences, places and tokens matter to the answer."""
    torch.manual_seed(seed)
    model = RecurrentModel(make_config(**options), SOURCE_PIECES, TARGET_PIECES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.eval()


@st.composite
def any_model(draw: st.DrawFn) -> RecurrentModel:
    """Any combination that fits, in float64: where a window or a greatest score decides, rounding must not."""
    attention, score = draw(st.sampled_from(ATTENTIONS))
    decoder = draw(st.sampled_from(["gru", "lstm", "additive"]))
    model = make_model(
        draw(SEEDS),
        attention=attention,
        score=score,
        decoder=decoder,
        encoder=draw(st.sampled_from(["lstm", "gru"])),
        bidirectional=draw(st.booleans()),
        encoder_layers=draw(LAYERS),
        decoder_layers=1 if decoder == "additive" else draw(LAYERS),
        input_feeding=decoder != "additive" and draw(st.booleans()),
        attention_heads=draw(st.sampled_from([1, 2, 4])),
        attention_window=draw(st.integers(1, 3)),
    )
    return model.double()


def sources(lengths: list[int], more: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random source ids, random ones after the end too, and their lengths."""
    ids = torch.randint(0, SOURCE_PIECES, (len(lengths), max(lengths) + more))
    return ids, torch.tensor(lengths, dtype=torch.int32)


def target_inputs(batch: int, length: int) -> torch.Tensor:
    ids = torch.randint(4, TARGET_PIECES, (batch, length))
    ids[:, 0] = BOS_ID
    return ids


def each_hypothesis(state: Tensors, hypotheses: int) -> Tensors:
    return {name: tensor.repeat_interleave(hypotheses, 0) for name, tensor in state.items()}


def steps(
    model: RecurrentModel, source_ids: torch.Tensor, source_lengths: torch.Tensor, inputs: torch.Tensor
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


# --- the equations ---------------------------------------------------------------------------------------------------


def pytorchs_encoder(layer: RecurrentLayer) -> nn.LSTM | nn.GRU:
    kind = nn.LSTM if layer.kind == "lstm" else nn.GRU
    weights = dict(layer.forwards.state_dict())
    if layer.backwards is not None:
        weights |= {f"{name}_reverse": weight for name, weight in layer.backwards.state_dict().items()}
    inputs = layer.forwards.input_size
    theirs = kind(inputs, layer.hidden_size, batch_first=True, bidirectional=layer.backwards is not None)
    theirs.load_state_dict(weights)
    return theirs.to(layer.forwards.weight_hh_l0.dtype)


def pytorchs_cells(model: RecurrentModel) -> list[nn.GRUCell | nn.LSTMCell]:
    """The first reads [e(y); c] and, where it is fed, the last readout; those above the state below."""
    if model.token_gates is None or model.context_gates is None:
        return []
    parts = [model.token_gates, model.context_gates] + ([] if model.fed_gates is None else [model.fed_gates])
    inputs = [torch.cat([part.weight for part in parts], -1), *(gates.weight for gates in model.layer_gates)]
    biases = [model.token_gates.bias, *(gates.bias for gates in model.layer_gates)]
    kind = nn.GRUCell if model.config.decoder == "gru" else nn.LSTMCell
    found = []
    for own, weight, bias in zip(model.cells, inputs, biases, strict=True):
        cell = kind(weight.shape[1], model.config.decoder_size, dtype=weight.dtype)
        with torch.no_grad():
            cell.weight_ih.copy_(weight)
            cell.bias_ih.copy_(bias)
            cell.weight_hh.copy_(own.hidden_gates.weight)
            cell.bias_hh.copy_(own.hidden_gates.bias)
        found.append(cell)
    return found


def written_again(
    model: RecurrentModel, source_ids: list[int], inputs: list[int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits and attention of one sentence after the module's text, with PyTorch's own layers and cells.

    Additive attention is written out; the others are asked for one state of one sentence without padding.
    """
    config, size = model.config, model.config.decoder_size
    embedded = outputs = model.source_embedding(torch.tensor([source_ids]))
    for layer in model.encoder:
        outputs, ended = pytorchs_encoder(layer)(outputs)
    ends = ended if config.encoder == "gru" else ended[0]  # (directions, 1, encoder_size), backward last
    annotations = torch.cat([outputs, embedded], -1)
    states = list(torch.tanh(model.initial(ends[-1, 0])).split(size))
    memories = [torch.zeros_like(state) for state in states]
    fed = torch.zeros_like(states[0])
    cells, carried = pytorchs_cells(model), {}
    if model.attention is not None:
        carried = {name: tensor.unsqueeze(1) for name, tensor in model.attention.carried(annotations).items()}
    logits, attention = [], []
    for place, token in enumerate(inputs):
        last = model.target_embedding(torch.tensor(token))
        if model.attention is None:
            context = ends.flatten()
        elif config.attention == "additive":
            function = model.attention.score_function
            hidden = torch.tanh(function.query.weight @ states[-1] + function.key(annotations[0]))
            weights = torch.softmax(hidden @ function.score.weight[0], 0)
            context = weights @ annotations[0]
            attention.append(weights.unsqueeze(0))
        else:
            mask = torch.ones(1, len(source_ids), dtype=torch.bool)
            keys = model.attention.keys(annotations)
            query, position = states[-1][None, None], torch.tensor([place])
            (seen, weights), carried = model.attention(query, keys, annotations, mask, position, carried)
            context = seen[0, 0]
            attention.append(weights[0, 0])
        below = torch.cat([last, context] + ([fed] if config.input_feeding else []))
        for number, cell in enumerate(cells):
            if isinstance(cell, nn.GRUCell):
                states[number] = cell(below, states[number])
            else:
                states[number], memories[number] = cell(below, (states[number], memories[number]))
            below = states[number]
        if config.decoder == "additive":
            states[0] = states[0] + context
        fed = torch.tanh(model.readout(torch.cat([states[-1], last, context])))
        logits.append(model.output(fed))
    return torch.stack(logits), torch.stack(attention, 1) if attention else None


def assert_it_is_as_written(
    model: RecurrentModel, lengths: list[int], tolerance: float, target_length: int = 5
) -> None:
    source_ids, source_lengths = sources(lengths)
    inputs = target_inputs(len(lengths), target_length)
    with torch.no_grad():
        decoded = model(source_ids, source_lengths, inputs)
        for row, length in enumerate(lengths):
            logits, attention = written_again(model, source_ids[row, :length].tolist(), inputs[row].tolist())
            torch.testing.assert_close(decoded.logits[row], logits, rtol=0, atol=tolerance)
            if attention is None:
                assert decoded.attention == {}
            else:
                found = decoded.attention["cross"][row, :, :, :length]
                torch.testing.assert_close(found, attention, rtol=0, atol=tolerance)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, LAYERS, SEEDS)
def test_a_target_is_decoded_after_the_equations(lengths: list[int], layers: int, seed: int) -> None:
    assert_it_is_as_written(make_model(seed, encoder_layers=layers), lengths, 1e-5)


@every_attention
@every_architecture
def test_every_attention_in_every_architecture_is_as_written(
    attention: str, score: str, architecture: dict[str, Any]
) -> None:
    model = make_model(3, attention=attention, score=score, **architecture)
    assert_it_is_as_written(model, [6, 1, 4], 1e-5)


@settings(max_examples=60, deadline=None)
@given(any_model(), LENGTHS)
def test_any_model_is_as_written(model: RecurrentModel, lengths: list[int]) -> None:
    assert_it_is_as_written(model, lengths, 1e-9)


# --- one model, three uses -------------------------------------------------------------------------------------------


def assert_forward_is_stepping(
    model: RecurrentModel, lengths: list[int], hypotheses: int, tolerance: float, target_length: int = 6
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
        assert step.logits.shape == (rows, TARGET_PIECES)
        torch.testing.assert_close(step.logits, decoded.logits[:, i], rtol=0, atol=tolerance)
        assert list(step.attention) == list(decoded.attention)
        if model.attention is not None:
            found = step.attention["cross"]
            assert found.shape == (rows, model.attention.heads, max(lengths))
            torch.testing.assert_close(found, decoded.attention["cross"][:, :, i], rtol=0, atol=tolerance)


@every_attention
@every_architecture
def test_teacher_forcing_is_stepping(attention: str, score: str, architecture: dict[str, Any]) -> None:
    model = make_model(5, attention=attention, score=score, **architecture)
    assert_forward_is_stepping(model, [5, 1, 8], 3, 1e-5)


@settings(max_examples=60, deadline=None)
@given(any_model(), LENGTHS, st.integers(1, 4))
def test_teacher_forcing_is_stepping_in_any_model(model: RecurrentModel, lengths: list[int], hypotheses: int) -> None:
    assert_forward_is_stepping(model, lengths, hypotheses, 1e-9)


@settings(max_examples=40, deadline=None)
@given(any_model(), st.integers(0, 4), st.integers(1, 3))
def test_sentences_may_stand_at_different_steps(model: RecurrentModel, ahead: int, hypotheses: int) -> None:
    """A sentence that joins a running batch is at its own step 0, which is what ``positions`` has a row for."""
    source_ids, source_lengths = sources([4, 7])
    inputs = target_inputs(2 * hypotheses, 6).view(2, hypotheses, 6)
    with torch.no_grad():
        memory, state, _ = model.encode(source_ids, source_lengths)
        of_first = model.encode(source_ids[:1], source_lengths[:1]).state
        alone = steps(model, source_ids, source_lengths, inputs)
        before = each_hypothesis(state, hypotheses)
        if ahead:
            before = {name: tensor.clone() for name, tensor in before.items()}
            for name, tensor in alone[ahead - 1].state.items():
                before[name][:hypotheses] = tensor[:hypotheses]
        tokens = torch.stack([inputs[0, :, ahead], inputs[1, :, 0]])
        together = model.decode_step(tokens, torch.tensor([ahead, 0]), source_lengths, memory, before)
    assert list(of_first) == list(state)
    torch.testing.assert_close(together.logits[:hypotheses], alone[ahead].logits[:hypotheses], rtol=0, atol=1e-9)
    torch.testing.assert_close(together.logits[hypotheses:], alone[0].logits[hypotheses:], rtol=0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(any_model(), LENGTHS, st.data())
def test_a_score_is_the_probability_of_each_target_token(
    model: RecurrentModel, lengths: list[int], data: st.DataObject
) -> None:
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
            chosen = [torch.log_softmax(step.logits[0], 0)[i] for step, i in zip(alone, target, strict=True)]
            found = scored.log_probabilities[row]
            torch.testing.assert_close(found[:target_length], torch.stack(chosen), rtol=0, atol=1e-5)
            assert torch.all(found[target_length:] == 0.0)
            assert torch.all(found[:target_length] < 0.0)
            for name, weights in scored.attention.items():
                seen = torch.stack([step.attention[name][0] for step in alone], 1)
                of_row = weights[row, :, :target_length, :source_length]
                torch.testing.assert_close(of_row, seen, rtol=0, atol=1e-5)


# --- padding ---------------------------------------------------------------------------------------------------------


def assert_padding_changes_nothing(
    model: RecurrentModel, lengths: list[int], more: int, tolerance: float, target_length: int = 5
) -> None:
    source_ids, source_lengths = sources(lengths, more)
    inputs = target_inputs(len(lengths), target_length)
    with torch.no_grad():
        together = model(source_ids, source_lengths, inputs)
        for row, length in enumerate(lengths):
            alone = model(source_ids[row : row + 1, :length], source_lengths[row : row + 1], inputs[row : row + 1])
            torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=tolerance)
            if model.attention is None:
                continue
            attention = together.attention["cross"][row]
            found = alone.attention["cross"][0]
            torch.testing.assert_close(attention[..., :length], found, rtol=0, atol=tolerance)
            assert torch.all(attention[..., length:] == 0.0)
            sums = attention.sum(-1)
            if model.attention.rows_sum_to_one:
                torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
            else:
                assert torch.all((sums > 0.0) & (sums <= 1.0 + 1e-5))


@every_attention
@every_architecture
def test_neither_padding_nor_neighbours_change_an_answer(
    attention: str, score: str, architecture: dict[str, Any]
) -> None:
    model = make_model(7, attention=attention, score=score, **architecture)
    assert_padding_changes_nothing(model, [6, 1, 3], 2, 1e-5)


@settings(max_examples=60, deadline=None)
@given(any_model(), LENGTHS, st.integers(0, 3))
def test_neither_padding_nor_neighbours_change_any_models_answer(
    model: RecurrentModel, lengths: list[int], more: int
) -> None:
    assert_padding_changes_nothing(model, lengths, more, 1e-9)


@every_attention
def test_what_comes_later_in_a_target_changes_nothing_before(attention: str, score: str) -> None:
    model = make_model(attention=attention, score=score)
    source_ids, source_lengths = sources([5, 3])
    inputs = target_inputs(2, 6)
    later = inputs.clone()
    later[:, 3] = 4 + (inputs[:, 3] - 3) % (TARGET_PIECES - 4)
    with torch.no_grad():
        one, other = (model(source_ids, source_lengths, ids).logits for ids in (inputs, later))
    assert torch.equal(one[:, :3], other[:, :3])
    assert torch.all((one[:, 3:] - other[:, 3:]).abs().amax(-1) > 1e-6)


@every_attention
def test_every_source_token_matters(attention: str, score: str) -> None:
    """Be it by the first state alone."""
    model = make_model(attention=attention, score=score)
    source_ids, source_lengths = sources([6])
    inputs = target_inputs(1, 3)
    with torch.no_grad():
        before = model(source_ids, source_lengths, inputs).logits
        for place in range(6):
            other = source_ids.clone()
            other[0, place] = (other[0, place] + 1) % SOURCE_PIECES
            assert not torch.allclose(model(other, source_lengths, inputs).logits, before, atol=1e-6)


@every_attention
def test_a_step_is_counted_only_where_the_attention_is_monotonic(attention: str, score: str) -> None:
    """Positions decide local-m's window, and which of the carried rows are past."""
    model = make_model(attention=attention, score=score)
    source_ids, source_lengths = sources([9, 8])
    with torch.no_grad():
        memory, state, _ = model.encode(source_ids, source_lengths)
        tokens = torch.tensor([[5], [6]])
        first, second = (
            model.decode_step(tokens, torch.tensor(positions), source_lengths, memory, state)
            for positions in ([0, 0], [5, 9])
        )
    counted = attention in ("local_m", "attention_over_attention")
    assert torch.equal(first.logits, second.logits) != counted


# --- the fixed-length bottleneck -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [True, False])
def test_without_attention_the_memory_is_one_vector(bidirectional: bool) -> None:
    """Of one size for a long sentence and a short one: there is no source to look at."""
    model = make_model(attention="none", bidirectional=bidirectional)
    width = SIZES["encoder_size"] * (2 if bidirectional else 1)
    with torch.no_grad():
        for lengths in ([1], [9, 3]):
            memory, _, maps = model.encode(*sources(lengths))
            assert {name: tensor.shape for name, tensor in memory.items()} == {"values": (len(lengths), 1, width)}
            assert maps == {}
        decoded = model(*sources([5, 3]), target_inputs(2, 4))
    assert decoded.attention == {}
    assert model.attention_maps == ()
    assert model.alignment is None


def test_without_attention_there_are_no_parameters_of_one() -> None:
    assert not [name for name, _ in make_model(attention="none").named_parameters() if name.startswith("attention")]


# --- training and export ---------------------------------------------------------------------------------------------


@every_attention
@every_architecture
def test_every_weight_learns(attention: str, score: str, architecture: dict[str, Any]) -> None:
    model = make_model(attention=attention, score=score, **architecture).train()
    source_ids, source_lengths = sources([6, 5, 5, 4, 3, 1])  # hard attention looks at one token of each
    model(source_ids, source_lengths, target_inputs(6, 4)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.any(parameter.grad != 0.0), name
        assert torch.all(torch.isfinite(parameter.grad)), name


@every_architecture
def test_dropout_is_for_training_only(architecture: dict[str, Any]) -> None:
    model = make_model(dropout=0.5, **architecture)
    source_ids, source_lengths = sources([5, 3])
    inputs = target_inputs(2, 4)
    with torch.no_grad():
        first, second = (model(source_ids, source_lengths, inputs).logits for _ in range(2))
        assert torch.equal(first, second)
        model.train()
        first, second = (model(source_ids, source_lengths, inputs).logits for _ in range(2))
    assert not torch.equal(first, second)


def shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def test_memory_and_state_have_the_sizes_of_the_config() -> None:
    model = make_model(encoder_layers=2)
    with torch.no_grad():
        memory, state, maps = model.encode(*sources([5, 3, 1]))
    annotation = 2 * SIZES["encoder_size"] + SIZES["embedding_size"]
    assert shapes(memory) == {"keys": (3, 5, SIZES["attention_size"]), "values": (3, 5, annotation)}
    assert shapes(state) == {"hidden_0": (3, SIZES["decoder_size"])}
    assert maps == {}


def test_a_state_holds_what_each_layer_feeding_and_attention_carry() -> None:
    options = {"decoder": "lstm", "decoder_layers": 2, "input_feeding": True, "attention": "attention_over_attention"}
    model = make_model(**options)
    with torch.no_grad():
        state = model.encode(*sources([5, 3])).state
    size = (2, SIZES["decoder_size"])
    assert shapes(state) == {
        "hidden_0": size,
        "cell_0": size,
        "hidden_1": size,
        "cell_1": size,
        "fed": size,
        "attention_scores": (2, SIZES["max_positions"], 5),
    }


SCORE_NAMES = {"multi_head": "scaled_dot", "average": "none", "max": "none"}


@every_attention
def test_the_manifests_maps_are_the_models(attention: str, score: str) -> None:
    model = make_model(attention=attention, score=score)
    with torch.no_grad():
        decoded = model(*sources([5, 3]), target_inputs(2, 4))
    maps, alignment = model.attention_maps, model.alignment
    assert [entry.name for entry in maps] == list(decoded.attention) == ([] if attention == "none" else ["cross"])
    assert (alignment is None) == (attention == "none")
    for entry in maps:
        assert alignment is not None
        heads = 4 if attention == "multi_head" else 1
        assert entry.tensor == f"attention_{entry.name}"
        assert entry.heads == decoded.attention[entry.name].shape[1] == heads
        assert entry.score_function == SCORE_NAMES.get(attention, score)
        assert entry.rows_sum_to_one == (attention != "local_p")
        assert (entry.kind, entry.emitted_by, entry.scope_tokens) == ("cross", "decode_step", 0)
        assert (alignment.map, alignment.heads, alignment.shift) == (entry.name, tuple(range(heads)), 0)


@every_attention
def test_the_model_can_be_told_what_it_has_said(attention: str, score: str) -> None:
    capabilities = make_model(attention=attention, score=score).capabilities
    assert (capabilities.generation, capabilities.streaming) == ("autoregressive", True)
    assert capabilities.scoring
    assert capabilities.prefix
    assert capabilities.beam
    assert not capabilities.document_context


# --- parts that do not fit -------------------------------------------------------------------------------------------


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        RecurrentModel(RecurrentConfig(**(SIZES | options)), SOURCE_PIECES, TARGET_PIECES)
    return str(refused.value)


@pytest.mark.parametrize("mechanism", [None, *OF_SCORES])
@pytest.mark.parametrize("score", OF_ONE_SIZE)
def test_a_score_of_one_size_names_both_sizes(mechanism: str | None, score: str) -> None:
    message = refusal(attention=mechanism or score, score=score)
    for part in ("model.attention", "decoder_size 6", "annotations of 13", "encoder_size", "embedding_size"):
        assert part in message
    assert "annotations of 9" in refusal(attention=mechanism or score, score=score, bidirectional=False)


def test_an_additive_decoder_has_the_annotations_size() -> None:
    message = refusal(decoder="additive")
    for part in ("model.decoder additive", "contexts of 13", "decoder_size 6"):
        assert part in message
    assert "contexts of 8" in refusal(decoder="additive", attention="none")


@pytest.mark.parametrize("options", [{"decoder_layers": 2}, {"input_feeding": True}])
def test_an_additive_decoder_has_one_layer_and_is_fed_nothing(options: dict[str, Any]) -> None:
    message = refusal(decoder="additive", decoder_size=13, **options)
    assert "model.decoder additive has one layer and takes nothing but the context" in message


def test_heads_of_unequal_size_are_refused() -> None:
    message = refusal(attention="multi_head", attention_heads=3)
    assert "model.attention_size 8 is not a multiple of attention_heads 3" in message


@pytest.mark.parametrize("score", OF_ONE_SIZE)
@pytest.mark.parametrize("attention", ["multi_head", "average", "max", "none"])
def test_a_score_that_is_not_used_need_not_fit(attention: str, score: str) -> None:
    """Nor is it built, nor told of."""
    config = RecurrentConfig(**(SIZES | {"attention": attention, "score": score}))
    model = RecurrentModel(config, SOURCE_PIECES, TARGET_PIECES)
    named = [entry.score_function for entry in model.attention_maps]
    assert named == ([] if attention == "none" else [SCORE_NAMES[attention]])
    another = RecurrentModel(config.model_copy(update={"score": "additive"}), SOURCE_PIECES, TARGET_PIECES)
    assert shapes(model.state_dict()) == shapes(another.state_dict())

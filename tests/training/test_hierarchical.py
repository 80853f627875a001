"""Hierarchical attention against its equations, a number at a time, and the recurrent model that reads a context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID
from tests.training.test_attention import (
    ANNOTATION,
    EQUATIONS,
    OF_ONE_SIZE,
    PLACES,
    QUERY,
    SCORES,
    Array,
    Weights,
    array,
    assert_gradients_are_those_of_the_numbers,
    inner,
    product,
    randomised,
    softmax,
    weights_of,
)
from tests.training.test_recurrent import (
    ARCHITECTURES,
    SIZES,
    SOURCE_PIECES,
    TARGET_PIECES,
    each_hypothesis,
    make_model,
    shapes,
    sources,
    target_inputs,
)
from training.config import RecurrentConfig
from training.errors import ConfigError
from training.models.hierarchical import HierarchicalAttention, Remembered
from training.models.interface import Context, Step
from training.models.recurrent import RecurrentModel

SEEDS = st.integers(0, 1000)
FEW = settings(max_examples=15, deadline=None)

#: Scores of words and of sentences: each with itself, and some that are unlike.
PAIRS = [*((score, score) for score in SCORES), ("additive", "general"), ("location", "concat"), ("dot", "kernel")]
every_pair = pytest.mark.parametrize(("words", "sentences"), PAIRS)

#: Of each sentence of a batch the lengths of as many before it, 0 for one that is not there.
RAGGED = st.integers(1, 4).flatmap(
    lambda most: st.lists(st.lists(st.integers(0, 6), min_size=most, max_size=most), min_size=1, max_size=3)
)


def make_hierarchy(words: str, sentences: str, seed: int = 1) -> HierarchicalAttention:
    size = QUERY if {words, sentences} & set(OF_ONE_SIZE) else ANNOTATION
    of_words, of_sentences = (SCORES[name](QUERY, size) for name in (words, sentences))
    return randomised(HierarchicalAttention(of_words, of_sentences, size), seed)


def ask(
    hierarchy: HierarchicalAttention, lengths: list[list[int]], seed: int, hypotheses: int = 2, more: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Remembered]:
    """Random queries, contexts and annotations, random behind each end too; and what comes of them."""
    torch.manual_seed(seed)
    batch, size = len(lengths), hierarchy.summary.in_features
    queries = torch.randn(batch, hypotheses, QUERY, dtype=torch.float64)
    context = torch.randn(batch, hypotheses, size, dtype=torch.float64)
    values = torch.randn(batch, len(lengths[0]), max(map(max, lengths)) + more, size, dtype=torch.float64)
    with torch.no_grad():
        found = hierarchy(queries, context, hierarchy.keys(values), values, torch.tensor(lengths, dtype=torch.int32))
    return queries, context, values, found


def part(weights: Weights, name: str) -> Weights:
    return {key.removeprefix(f"{name}."): array for key, array in weights.items() if key.startswith(f"{name}.")}


def written(
    w: Weights, names: tuple[str, str], q: Array, c: Array, h: list[Array]
) -> tuple[list[float], list[list[float]], list[float]]:
    """c', gamma_j beta_ji and gamma of one state q: h has the words of every sentence, none where there is none.

    W_d and W_g have a bias each, which the paper does not write.
    """
    of_words, of_sentences = names
    there = [j for j, words in enumerate(h) if len(words)]
    if not there:
        return list(c), [[] for _ in h], [0.0 for _ in h]
    betas, summaries = [list[float]() for _ in h], np.zeros((len(h), len(c)))
    for j in there:
        function = part(w, "word_score")
        betas[j] = softmax([EQUATIONS[of_words](function, q, h[j], i) for i in range(len(h[j]))])
        summaries[j] = [inner(betas[j], h[j][:, channel]) for channel in range(len(c))]
    function = part(w, "sentence_score")
    present = softmax([EQUATIONS[of_sentences](function, q, summaries, j) for j in there])
    gamma = [0.0 for _ in h]
    for j, weight in zip(there, present, strict=True):
        gamma[j] = weight
    mean = [inner(gamma, summaries[:, channel]) for channel in range(len(c))]
    d = [a + b for a, b in zip(product(w["summary.weight"], mean), w["summary.bias"], strict=True)]
    gates = [a + b for a, b in zip(product(w["gate.weight"], [*c, *d]), w["gate.bias"], strict=True)]
    shares = [1.0 / (1.0 + np.exp(-gate)) for gate in gates]
    mixed = [share * a + (1.0 - share) * b for share, a, b in zip(shares, c, d, strict=True)]
    return mixed, [[gamma[j] * weight for weight in betas[j]] for j in range(len(h))], gamma


# --- the equations ---------------------------------------------------------------------------------------------------


@every_pair
@FEW
@given(RAGGED, st.integers(1, 3), SEEDS)
def test_what_is_remembered_is_as_written(
    words: str, sentences: str, lengths: list[list[int]], hypotheses: int, seed: int
) -> None:
    hierarchy = make_hierarchy(words, sentences, seed)
    queries, context, values, found = ask(hierarchy, lengths, seed, hypotheses)
    for row, of_row in enumerate(lengths):
        h = [array(values[row, j, :length]) for j, length in enumerate(of_row)]
        for hypothesis in range(hypotheses):
            place = (row, hypothesis)
            q, c = array(queries[place]), array(context[place])
            mixed, of_words, gamma = written(weights_of(hierarchy), (words, sentences), q, c, h)
            np.testing.assert_allclose(array(found.context[place]), mixed, rtol=0, atol=1e-9)
            np.testing.assert_allclose(array(found.sentences[place]), gamma, rtol=0, atol=1e-9)
            for j, length in enumerate(of_row):
                np.testing.assert_allclose(array(found.words[place][j, :length]), of_words[j], rtol=0, atol=1e-9)


@every_pair
@FEW
@given(RAGGED, SEEDS)
def test_weights_sum_to_one_over_what_is_there_and_are_0_elsewhere(
    words: str, sentences: str, lengths: list[list[int]], seed: int
) -> None:
    _, _, values, found = ask(make_hierarchy(words, sentences, seed), lengths, seed, more=2)
    assert found.words.shape == (len(lengths), 2, *values.shape[1:3])
    real = torch.arange(values.shape[2]) < torch.tensor(lengths).unsqueeze(-1)  # (batch, sentences, length)
    there = real.any(-1)
    for hypothesis in range(2):
        assert torch.all(found.words[:, hypothesis][~real] == 0.0)
        assert torch.all(found.words[:, hypothesis][real] > 0.0)
        assert torch.all(found.sentences[:, hypothesis][~there] == 0.0)
    wanted = there.any(-1).to(torch.float64).unsqueeze(-1).expand(-1, 2)
    torch.testing.assert_close(found.words.sum((-1, -2)), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.sentences.sum(-1), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.words.sum(-1), found.sentences, rtol=0, atol=1e-12)


@every_pair
def test_without_a_sentence_before_the_context_is_as_it_was(words: str, sentences: str) -> None:
    """To the last bit, whatever a neighbour has before it."""
    _, context, _, found = ask(make_hierarchy(words, sentences), [[0, 0, 0], [2, 0, 3], [0, 0, 0]], seed=1)
    for row in (0, 2):
        assert torch.equal(found.context[row], context[row])
        assert torch.all(found.words[row] == 0.0)
        assert torch.all(found.sentences[row] == 0.0)
    assert not torch.any(found.context[1] == context[1])


def test_where_nobody_has_a_context_nobodys_changes() -> None:
    for more in (1, 4):
        _, context, _, found = ask(make_hierarchy("additive", "additive"), [[0, 0], [0, 0]], seed=2, more=more)
        assert torch.equal(found.context, context)
        assert not torch.any(found.words)
        assert not torch.any(found.sentences)


@pytest.mark.parametrize("score", sorted(SCORES.keys() - {"location"}))
def test_the_order_of_the_sentences_says_nothing(score: str) -> None:
    """There are no positions in it, except where a score is of places."""
    hierarchy = make_hierarchy(score, score)
    queries, context, values, found = ask(hierarchy, [[3, 0, 5], [1, 2, 0]], seed=3)
    order = [2, 0, 1]
    values, lengths = values[:, order], torch.tensor([[5, 3, 0], [0, 1, 2]])
    with torch.no_grad():
        other = hierarchy(queries, context, hierarchy.keys(values), values, lengths)
    torch.testing.assert_close(other.context, found.context, rtol=0, atol=1e-12)
    torch.testing.assert_close(other.words, found.words[:, :, order], rtol=0, atol=1e-12)
    torch.testing.assert_close(other.sentences, found.sentences[:, :, order], rtol=0, atol=1e-12)


def test_a_location_beyond_its_rows_is_not_looked_at() -> None:
    _, _, _, found = ask(make_hierarchy("location", "location"), [[PLACES + 3, 2]], seed=4)
    assert torch.all(found.words[0, :, 0, :PLACES] > 0.0)
    assert torch.all(found.words[0, :, 0, PLACES:] == 0.0)
    torch.testing.assert_close(found.words.sum((-1, -2)), torch.ones(1, 2, dtype=torch.float64))


class Remembering(nn.Module):
    """Both halves of the hierarchy as one, so that its weights can be given from outside."""

    def __init__(self, hierarchy: HierarchicalAttention, lengths: list[list[int]]) -> None:
        super().__init__()
        self.hierarchy = hierarchy
        self.lengths = torch.tensor(lengths)

    def forward(self, queries: torch.Tensor, context: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: Remembered = self.hierarchy(queries, context, self.hierarchy.keys(values), values, self.lengths)
        return tuple(found)


@pytest.mark.parametrize(
    ("words", "sentences"), [("additive", "additive"), ("cosine", "kernel"), ("location", "concat")]
)
def test_gradients_are_those_of_the_numbers(words: str, sentences: str) -> None:
    """Of a sentence with two before it, of one with one, of one with none."""
    lengths = [[2, 1], [0, 2], [0, 0]]
    hierarchy = make_hierarchy(words, sentences)
    queries, context, values, _ = ask(hierarchy, lengths, seed=5, hypotheses=1, more=0)
    assert_gradients_are_those_of_the_numbers(Remembering(hierarchy, lengths), queries, context, values)


# --- the model that reads a context ----------------------------------------------------------------------------------

SENTENCES = 3
#: Attention to the sentence itself, and the score of its context.
KINDS = [
    ("additive", "additive"),
    ("general", "concat"),
    ("dot", "dot"),
    ("multi_head", "general"),
    ("hard", "additive"),
    ("local_p", "location"),
    ("attention_over_attention", "additive"),
    ("average", "concat"),
]
every_kind = pytest.mark.parametrize(("attention", "score"), KINDS)
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES[:4], ids=["plain", "deep", "fed", "one way"])
#: Of four sentences; one with nothing before it, and one with a gap.
SOURCES, BEFORE = [5, 1, 8, 3], [[4, 7, 1], [0, 0, 0], [2, 0, 0], [3, 0, 6]]


def make_reader(seed: int = 1, **options: Any) -> RecurrentModel:
    """In float64, as every comparison here wants it."""
    return make_model(seed, context_sentences=SENTENCES, **options).double()


def contexts(lengths: list[list[int]], more: int = 0) -> Context:
    """Random ids, random ones after each end too."""
    shape = (len(lengths), len(lengths[0]), max(1, *map(max, lengths)) + more)
    return Context(torch.randint(0, SOURCE_PIECES, shape), torch.tensor(lengths, dtype=torch.int32))


def row_of(context: Context, row: int) -> Context:
    """One sentence's own context, without what only its neighbours need."""
    lengths = context.lengths[row : row + 1]
    return Context(context.ids[row : row + 1, :, : max(1, int(lengths.max()))], lengths)


def steps(
    model: RecurrentModel, source: tuple[torch.Tensor, torch.Tensor], inputs: torch.Tensor, context: Context | None
) -> list[Step]:
    """Step through ``inputs`` (batch, hypotheses, target_length), on each step's own state."""
    batch, hypotheses, length = inputs.shape
    memory, state, _ = model.encode(*source, context)
    state, found = each_hypothesis(state, hypotheses), list[Step]()
    for place in range(length):
        step = model.decode_step(inputs[:, :, place], torch.full((batch,), place), source[1], memory, state)
        assert shapes(step.state) == shapes(state)
        state = step.state
        found.append(step)
    return found


def assert_forward_is_stepping(model: RecurrentModel, hypotheses: int, tolerance: float) -> None:
    source, context = sources(SOURCES), contexts(BEFORE)
    rows = len(SOURCES) * hypotheses
    inputs = target_inputs(rows, 5)
    with torch.no_grad():
        of_rows = [tensor.repeat_interleave(hypotheses, 0) for tensor in (*source, *context)]
        decoded = model(of_rows[0], of_rows[1], inputs, Context(of_rows[2], of_rows[3]))
        stepped = steps(model, source, inputs.view(len(SOURCES), hypotheses, 5), context)
    assert list(decoded.attention) == ["cross", "context", "context-sentences"]
    assert decoded.attention["context"].shape == (rows, 1, 5, SENTENCES, 7)
    assert decoded.attention["context-sentences"].shape == (rows, 1, 5, SENTENCES)
    for place, step in enumerate(stepped):
        torch.testing.assert_close(step.logits, decoded.logits[:, place], rtol=0, atol=tolerance)
        assert list(step.attention) == list(decoded.attention)
        for name, weights in decoded.attention.items():
            torch.testing.assert_close(step.attention[name], weights[:, :, place], rtol=0, atol=tolerance)


@every_kind
@every_architecture
def test_teacher_forcing_is_stepping(attention: str, score: str, architecture: dict[str, Any]) -> None:
    assert_forward_is_stepping(make_reader(attention=attention, score=score, **architecture), 3, 1e-9)


def test_teacher_forcing_is_stepping_in_float32() -> None:
    assert_forward_is_stepping(make_reader().float(), 2, 1e-5)


@every_kind
def test_a_score_is_of_what_forward_says(attention: str, score: str) -> None:
    model = make_reader(attention=attention, score=score)
    source, context = sources(SOURCES), contexts(BEFORE)
    target = torch.randint(4, TARGET_PIECES, (4, 6))
    for row, length in enumerate([6, 2, 4, 1]):
        target[row, length - 1], target[row, length:] = EOS_ID, PAD_ID
    inputs = torch.cat([torch.full((4, 1), BOS_ID), target[:, :-1]], 1)
    with torch.no_grad():
        scored, decoded = model.score(*source, target, context), model(*source, inputs, context)
    chosen = torch.log_softmax(decoded.logits, -1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    real = target != PAD_ID
    torch.testing.assert_close(scored.log_probabilities[real], chosen[real], rtol=0, atol=1e-12)
    assert torch.all(scored.log_probabilities[~real] == 0.0)
    assert all(torch.equal(scored.attention[name], weights) for name, weights in decoded.attention.items())


@every_kind
def test_what_lies_behind_a_sentence_of_the_context_changes_nothing(attention: str, score: str) -> None:
    model = make_reader(attention=attention, score=score)
    source, context, inputs = sources(SOURCES), contexts(BEFORE), target_inputs(4, 4)
    real = torch.arange(context.ids.shape[-1]) < context.lengths.unsqueeze(-1)
    others = torch.where(real, context.ids, (context.ids + 1) % SOURCE_PIECES)
    wider = torch.cat([others, torch.randint(0, SOURCE_PIECES, (4, SENTENCES, 3))], -1)
    with torch.no_grad():
        wanted = model(*source, inputs, context)
        of_others = model(*source, inputs, Context(others, context.lengths))
        of_wider = model(*source, inputs, Context(wider, context.lengths))
    assert torch.equal(of_others.logits, wanted.logits)
    torch.testing.assert_close(of_wider.logits, wanted.logits, rtol=0, atol=1e-9)
    weights = of_wider.attention["context"]
    assert torch.all(weights[..., 7:] == 0.0)
    torch.testing.assert_close(weights[..., :7], wanted.attention["context"], rtol=0, atol=1e-9)


@every_kind
@every_architecture
def test_a_sentence_in_its_context_is_the_same_alone_and_in_a_batch(
    attention: str, score: str, architecture: dict[str, Any]
) -> None:
    model = make_reader(attention=attention, score=score, **architecture)
    (ids, lengths), context, inputs = sources(SOURCES, more=2), contexts(BEFORE, more=1), target_inputs(4, 4)
    with torch.no_grad():
        together = model(ids, lengths, inputs, context)
        for row, length in enumerate(SOURCES):
            own = row_of(context, row)
            alone = model(ids[row : row + 1, :length], lengths[row : row + 1], inputs[row : row + 1], own)
            torch.testing.assert_close(together.logits[row], alone.logits[0], rtol=0, atol=1e-9)
            for name, width in (("cross", length), ("context", own.ids.shape[-1]), ("context-sentences", SENTENCES)):
                weights = together.attention[name][row]
                torch.testing.assert_close(weights[..., :width], alone.attention[name][0], rtol=0, atol=1e-9)
                assert torch.all(weights[..., width:] == 0.0)


def test_no_context_is_a_context_of_no_sentences() -> None:
    """Of one token's width, and of any other."""
    model = make_reader()
    source, inputs = sources([5, 2]), target_inputs(2, 4)
    nothing = torch.zeros(2, SENTENCES, dtype=torch.int32)
    with torch.no_grad():
        wanted = model.encode(*source)
        same = model.encode(*source, Context(torch.full((2, SENTENCES, 1), PAD_ID), nothing))
        for found, one in ((same.memory, wanted.memory), (same.state, wanted.state)):
            assert list(found) == list(one)
            assert all(torch.equal(found[name], one[name]) for name in one)
        assert torch.equal(wanted.memory["context_lengths"], nothing)
        decoded = model(*source, inputs)
        other = model(*source, inputs, Context(torch.randint(0, SOURCE_PIECES, (2, SENTENCES, 5)), nothing))
    torch.testing.assert_close(other.logits, decoded.logits, rtol=0, atol=1e-12)
    for name in ("context", "context-sentences"):
        assert not torch.any(decoded.attention[name])
        assert not torch.any(other.attention[name])


@every_kind
def test_every_word_of_the_context_matters(attention: str, score: str) -> None:
    """Except where there is no attention that reads it."""
    model = make_reader(attention=attention, score=score)
    source, inputs, context = sources([4]), target_inputs(1, 3), contexts([[2, 0, 3]])
    with torch.no_grad():
        before = model(*source, inputs, context).logits
        for sentence, word in ((0, 0), (0, 1), (2, 0), (2, 1), (2, 2)):
            other = context.ids.clone()
            other[0, sentence, word] = (other[0, sentence, word] + 1) % SOURCE_PIECES
            changed = model(*source, inputs, Context(other, context.lengths)).logits
            assert torch.all((changed - before).abs().amax(-1) > 1e-9)


def test_a_model_of_single_sentences_does_not_read_a_context() -> None:
    model = make_model().double()
    source, inputs = sources([5, 2]), target_inputs(2, 4)
    with torch.no_grad():
        alone, other = (model(*source, inputs, context) for context in (None, contexts([[3], [2]])))
    assert model.context_sentences == 0
    assert torch.equal(alone.logits, other.logits)
    assert list(alone.attention) == list(other.attention) == ["cross"]


@every_kind
@every_architecture
def test_every_weight_learns(attention: str, score: str, architecture: dict[str, Any]) -> None:
    model = make_reader(attention=attention, score=score, **architecture).train()
    lengths = [6, 5, 5, 4, 3, 1]
    context = contexts([[4, 5, 6], [0, 0, 0], [3, 0, 2], [6, 0, 0], [1, 2, 1], [5, 4, 0]])
    model(*sources(lengths), target_inputs(6, 4), context).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.any(parameter.grad != 0.0), name
        assert torch.all(torch.isfinite(parameter.grad)), name


def test_memory_holds_the_context_beside_the_sentence() -> None:
    with torch.no_grad():
        memory, state, maps = make_reader().encode(*sources([5, 3]), contexts([[4, 0, 1], [2, 6, 0]]))
    annotation = 2 * SIZES["encoder_size"] + SIZES["embedding_size"]
    assert shapes(memory) == {
        "keys": (2, 5, SIZES["attention_size"]),
        "values": (2, 5, annotation),
        "context_keys": (2, SENTENCES, 6, SIZES["attention_size"]),
        "context_values": (2, SENTENCES, 6, annotation),
        "context_lengths": (2, SENTENCES),
    }
    assert memory["context_lengths"].dtype == torch.int32
    assert shapes(state) == {"hidden_0": (2, SIZES["decoder_size"])}
    assert maps == {}


def test_the_maps_say_what_they_are_of() -> None:
    model = make_reader(attention="multi_head", score="concat")
    found = [(entry.name, entry.tensor, entry.kind, entry.heads) for entry in model.attention_maps]
    assert found == [
        ("cross", "attention_cross", "cross", 4),
        ("context", "attention_context", "context", 1),
        ("context-sentences", "attention_context-sentences", "context_sentence", 1),
    ]
    assert [entry.score_function for entry in model.attention_maps] == ["scaled_dot", "concat", "concat"]
    assert all(entry.rows_sum_to_one and entry.emitted_by == "decode_step" for entry in model.attention_maps)
    assert model.capabilities.document_context
    assert model.context_sentences == SENTENCES
    assert model.alignment is not None
    assert model.alignment.map == "cross"


def test_local_attention_leaves_the_contexts_rows_whole() -> None:
    assert [entry.rows_sum_to_one for entry in make_reader(attention="local_p").attention_maps] == [False, True, True]


def test_a_context_without_attention_to_the_sentence_itself_is_refused() -> None:
    config = RecurrentConfig(**(SIZES | {"attention": "none", "context_sentences": SENTENCES}))
    with pytest.raises(ConfigError, match=r"model\.context_sentences needs attention to the sentence itself"):
        RecurrentModel(config, SOURCE_PIECES, TARGET_PIECES)

"""Every score function and mechanism against a second writing of its equation, a number at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training.errors import ConfigError
from training.models.attention import (
    AdditiveScore,
    Attended,
    Attention,
    AttentionOverAttention,
    AveragePooling,
    ConcatScore,
    CosineScore,
    DotScore,
    GeneralScore,
    GlobalAttention,
    HardAttention,
    KernelScore,
    LocalMonotonicAttention,
    LocalPredictiveAttention,
    LocationScore,
    MaxPooling,
    MultiHeadAttention,
    ScoreFunction,
    length_mask,
    masked_softmax,
)

Array = npt.NDArray[np.float64]
Weights = dict[str, Array]
Module = TypeVar("Module", bound=nn.Module)

QUERY, ANNOTATION, SIZE, HEADS, VALUES = 4, 5, 6, 3, 7
WINDOW, PLACES, STEPS = 2, 9, 7
LENGTHS = st.lists(st.integers(1, PLACES), min_size=1, max_size=4)
SEEDS = st.integers(0, 1000)
FEW = settings(max_examples=15, deadline=None)

SCORES: dict[str, Callable[[int, int], ScoreFunction]] = {
    "additive": lambda query, annotation: AdditiveScore(query, annotation, SIZE),
    "concat": lambda query, annotation: ConcatScore(query, annotation, SIZE),
    "dot": lambda query, annotation: DotScore(query, annotation, scaled=False),
    "scaled_dot": lambda query, annotation: DotScore(query, annotation, scaled=True),
    "general": GeneralScore,
    "location": lambda query, _: LocationScore(query, PLACES),
    "cosine": CosineScore,
    "kernel": KernelScore,
}
OF_ONE_SIZE = ("dot", "scaled_dot", "cosine", "kernel")

OF_SCORES: dict[str, Callable[[ScoreFunction], Attention]] = {
    "global": GlobalAttention,
    "hard": HardAttention,
    "local_m": lambda score: LocalMonotonicAttention(score, WINDOW),
    "local_p": lambda score: LocalPredictiveAttention(score, QUERY, WINDOW),
    "attention_over_attention": lambda score: AttentionOverAttention(score, STEPS),
}
WITHOUT_SCORES: dict[str, Callable[[], Attention]] = {
    "multi_head": lambda: MultiHeadAttention(QUERY, ANNOTATION, SIZE, HEADS),
    "average": AveragePooling,
    "max": MaxPooling,
}
#: Every mechanism with every score function, as ``make_attention`` wants them.
ALL = [(mechanism, score) for mechanism in OF_SCORES for score in SCORES] + [(name, "none") for name in WITHOUT_SCORES]


def annotation_size(score: str) -> int:
    return QUERY if score in OF_ONE_SIZE else ANNOTATION


def randomised(module: Module, seed: int) -> Module:
    """In float64, with parameters far from their first values, single numbers and biases too."""
    torch.manual_seed(seed)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def make_score(name: str, seed: int = 1) -> ScoreFunction:
    return randomised(SCORES[name](QUERY, annotation_size(name)), seed)


def make_attention(mechanism: str, score: str = "general", seed: int = 1) -> Attention:
    if mechanism in WITHOUT_SCORES:
        return randomised(WITHOUT_SCORES[mechanism](), seed)
    return randomised(OF_SCORES[mechanism](SCORES[score](QUERY, annotation_size(score))), seed)


def ragged(
    lengths: Sequence[int], seed: int, size: int = ANNOTATION, hypotheses: int = 2, more: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random queries and annotations, random behind the end too, and the mask of the lengths."""
    torch.manual_seed(seed)
    batch, longest = len(lengths), max(lengths) + more
    queries = torch.randn(batch, hypotheses, QUERY, dtype=torch.float64)
    annotations = torch.randn(batch, longest, size, dtype=torch.float64)
    return queries, annotations, length_mask(torch.tensor(lengths), longest)


def beside(carried: dict[str, torch.Tensor], hypotheses: int) -> dict[str, torch.Tensor]:
    """What a sentence starts with, for each of its hypotheses."""
    return {name: tensor.unsqueeze(1).repeat_interleave(hypotheses, 1) for name, tensor in carried.items()}


def attend(
    attention: Attention,
    queries: torch.Tensor,
    annotations: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor | None = None,
) -> Attended:
    """One step of a model whose values are its annotations."""
    if positions is None:
        positions = torch.zeros(len(queries), dtype=torch.int64)
    carried = beside(attention.carried(annotations), queries.shape[1])
    return attention(queries, attention.keys(annotations), annotations, mask, positions, carried)[0]


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().astype(np.float64)


def weights_of(module: nn.Module) -> Weights:
    return {name: array(parameter) for name, parameter in module.named_parameters()}


# --- the equations, written again ------------------------------------------------------------------------------------


def inner(one: Sequence[float] | Array, other: Sequence[float] | Array) -> float:
    return float(sum(a * b for a, b in zip(one, other, strict=True)))


def product(matrix: Array, vector: Sequence[float] | Array) -> list[float]:
    return [inner(row, vector) for row in matrix]


def distance(one: Array, other: Array) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def softmax(scores: Sequence[float]) -> list[float]:
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [exponential / sum(exponentials) for exponential in exponentials]


def additive(w: Weights, s: Array, h: Array, j: int) -> float:
    of_state, of_annotation = product(w["query.weight"], s), product(w["key.weight"], h[j])
    sums = zip(of_state, of_annotation, w["key.bias"], strict=True)
    return inner(w["score.weight"][0], [math.tanh(a + b + c) for a, b, c in sums])


def concat(w: Weights, s: Array, h: Array, j: int) -> float:
    return inner(w["score.weight"][0], [math.tanh(x) for x in product(w["both.weight"], [*s, *h[j]])])


def dot(w: Weights, s: Array, h: Array, j: int) -> float:
    return inner(s, h[j])


def scaled_dot(w: Weights, s: Array, h: Array, j: int) -> float:
    return inner(s, h[j]) / math.sqrt(len(s))


def general(w: Weights, s: Array, h: Array, j: int) -> float:
    return inner(s, product(w["key.weight"], h[j]))


def location(w: Weights, s: Array, h: Array, j: int) -> float:
    rows = product(w["place.weight"], s)
    return rows[j] if j < len(rows) else -1e9


def cosine(w: Weights, s: Array, h: Array, j: int) -> float:
    beta = math.log(1.0 + math.exp(float(w["sharpness"])))
    return beta * inner(s, h[j]) / (math.sqrt(inner(s, s)) * math.sqrt(inner(h[j], h[j])))


def kernel(w: Weights, s: Array, h: Array, j: int) -> float:
    return -(distance(s, h[j]) ** 2) / (2.0 * math.exp(float(w["log_sigma"])) ** 2)


EQUATIONS: dict[str, Callable[[Weights, Array, Array, int], float]] = {
    "additive": additive,
    "concat": concat,
    "dot": dot,
    "scaled_dot": scaled_dot,
    "general": general,
    "location": location,
    "cosine": cosine,
    "kernel": kernel,
}


def written_scores(name: str, function: ScoreFunction, query: torch.Tensor, annotations: torch.Tensor) -> list[float]:
    """One state's score of each annotation (source_length, annotation_size)."""
    w, s, h = weights_of(function), array(query), array(annotations)
    return [EQUATIONS[name](w, s, h, j) for j in range(len(h))]


def written_weights(mechanism: str, w: Weights, scores: list[float], query: Array, position: int) -> list[float]:
    """One state's weights of the tokens of one sentence, without padding."""
    last, places = len(scores) - 1, range(len(scores))
    if mechanism == "global":
        return softmax(scores)
    if mechanism == "hard":
        return [float(j == scores.index(max(scores))) for j in places]
    if mechanism == "local_m":
        centre, gaussian = float(min(position, last)), [1.0] * len(scores)
    else:
        hidden = [math.tanh(x) for x in product(w["hidden.weight"], query)]
        centre = last / (1.0 + math.exp(-inner(w["centre.weight"][0], hidden)))
        gaussian = [math.exp(-((j - centre) ** 2) / (2.0 * (WINDOW / 2.0) ** 2)) for j in places]
    window = [j for j in places if centre - WINDOW <= j <= centre + WINDOW]
    within = dict(zip(window, softmax([scores[j] for j in window]), strict=True))
    return [within.get(j, 0.0) * gaussian[j] for j in places]


# --- masks -----------------------------------------------------------------------------------------------------------


@given(LENGTHS, st.integers(0, 3))
def test_a_mask_is_true_for_real_tokens(lengths: list[int], more: int) -> None:
    longest = max(lengths) + more
    mask = length_mask(torch.tensor(lengths, dtype=torch.int32), longest)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True] * length + [False] * (longest - length) for length in lengths]


@settings(deadline=None)
@given(LENGTHS, SEEDS, st.sampled_from([0.0, 1.0, 1e4]))
def test_softmax_is_of_the_real_tokens_alone(lengths: list[int], seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    scores = scale * torch.randn(len(lengths), max(lengths))
    mask = length_mask(torch.tensor(lengths), max(lengths))
    weights = masked_softmax(scores.masked_fill(~mask, 1e30), mask)  # what is masked may be anything
    assert torch.all(weights[~mask] == 0.0)
    assert torch.allclose(weights.sum(-1), torch.ones(len(lengths)), atol=1e-6)
    for row, score, length in zip(weights, scores, lengths, strict=True):
        assert torch.allclose(row[:length], torch.softmax(score[:length], -1), atol=1e-7)


def test_tokens_between_may_be_masked_too() -> None:
    weights = masked_softmax(torch.zeros(1, 5), torch.tensor([[True, False, True, False, False]]))
    assert weights.tolist() == [[0.5, 0.0, 0.5, 0.0, 0.0]]


# --- score functions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORES)
@FEW
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, PLACES + 2), SEEDS)
def test_a_score_is_its_equation(name: str, batch: int, hypotheses: int, length: int, seed: int) -> None:
    function = make_score(name, seed)
    queries, annotations, _ = ragged([length] * batch, seed + 1, annotation_size(name), hypotheses)
    with torch.no_grad():
        found = function(queries, function.keys(annotations))
    assert found.shape == (batch, hypotheses, length)
    wanted = [
        [written_scores(name, function, query, h) for query in s] for s, h in zip(queries, annotations, strict=True)
    ]
    np.testing.assert_allclose(array(found), np.array(wanted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_its_equation_in_float32(name: str) -> None:
    """What is shipped, to 1e-6 of the greatest score."""
    function = make_score(name)
    queries, annotations, _ = ragged([6, 6], seed=3, size=annotation_size(name))
    with torch.no_grad():
        double = function(queries, function.keys(annotations))
        function.float()
        single = function(queries.float(), function.keys(annotations.float()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double() / double.abs().max(), double / double.abs().max(), rtol=0, atol=1e-6)


class Scoring(nn.Module):
    """Both halves of a score function as one, so that its weights can be given from outside."""

    def __init__(self, function: ScoreFunction) -> None:
        super().__init__()
        self.function = function

    def forward(self, queries: torch.Tensor, annotations: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.function(queries, self.function.keys(annotations))
        return scores


def assert_gradients_are_those_of_the_numbers(module: nn.Module, *inputs: torch.Tensor) -> None:
    """Of the inputs and of every parameter, by finite differences."""
    names = [name for name, _ in module.named_parameters()]

    def call(*tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        given_weights = dict(zip(names, tensors[len(inputs) :], strict=True))
        found: torch.Tensor | tuple[torch.Tensor, ...] = torch.func.functional_call(
            module, given_weights, tensors[: len(inputs)]
        )
        return found

    parameters = [parameter.detach().requires_grad_() for parameter in module.parameters()]
    assert torch.autograd.gradcheck(call, (*(tensor.requires_grad_() for tensor in inputs), *parameters))


@pytest.mark.parametrize("name", SCORES)
def test_gradients_of_a_score_are_those_of_the_numbers(name: str) -> None:
    queries, annotations, _ = ragged([3, 3], seed=4, size=annotation_size(name))
    assert_gradients_are_those_of_the_numbers(Scoring(make_score(name)), queries, annotations)


def test_the_keys_bias_is_the_only_bias() -> None:
    """The paper has no bias; one beside W_h h serves for both sums within the tanh."""
    names = {name for name, _ in AdditiveScore(QUERY, ANNOTATION, SIZE).named_parameters()}
    assert names == {"query.weight", "key.weight", "key.bias", "score.weight"}


def test_concat_is_additive_without_a_bias() -> None:
    one, other = make_score("concat"), make_score("additive")
    assert isinstance(one, ConcatScore)
    assert isinstance(other, AdditiveScore)
    queries, annotations, _ = ragged([5, 5], seed=2)
    with torch.no_grad():
        other.query.weight.copy_(one.both.weight[:, :QUERY])
        other.key.weight.copy_(one.both.weight[:, QUERY:])
        other.key.bias.zero_()
        other.score.weight.copy_(one.score.weight)
        torch.testing.assert_close(
            one(queries, one.keys(annotations)), other(queries, other.keys(annotations)), rtol=0, atol=1e-12
        )


@FEW
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), SEEDS)
def test_a_cosine_knows_no_lengths(of_states: float, of_annotations: float, seed: int) -> None:
    function = make_score("cosine", seed)
    queries, annotations, _ = ragged([5], seed, QUERY)
    with torch.no_grad():
        before = function(queries, function.keys(annotations))
        after = function(of_states * queries, function.keys(of_annotations * annotations))
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-12)


def test_a_vector_of_zeros_has_the_cosine_0() -> None:
    """And a gradient that is a number: it has no direction."""
    function = make_score("cosine")
    queries, annotations, _ = ragged([3], seed=1, size=QUERY)
    annotations[0, 1] = 0.0
    queries[0, 1] = 0.0
    queries.requires_grad_()
    annotations.requires_grad_()
    scores = function(queries, function.keys(annotations))
    assert torch.all(scores[0, :, 1] == 0.0)
    assert torch.all(scores[0, 1] == 0.0)
    scores.square().sum().backward()
    for tensor in (queries, annotations):
        assert tensor.grad is not None
        assert torch.all(torch.isfinite(tensor.grad))


@FEW
@given(LENGTHS, SEEDS)
def test_kernel_weights_are_nadarayas_and_watsons_quotient(lengths: list[int], seed: int) -> None:
    attention = make_attention("global", "kernel", seed)
    queries, annotations, mask = ragged(lengths, seed, QUERY)
    with torch.no_grad():
        found = attend(attention, queries, annotations, mask)
    sigma = math.exp(float(weights_of(attention)["score_function.log_sigma"]))
    for row, length in enumerate(lengths):
        h = array(annotations[row, :length])
        for hypothesis, s in enumerate(array(queries[row])):
            kernels = [math.exp(-(distance(s, h[j]) ** 2) / (2.0 * sigma**2)) for j in range(length)]
            wanted = np.array([value / sum(kernels) for value in kernels])
            np.testing.assert_allclose(array(found.weights[row, hypothesis, 0, :length]), wanted, rtol=0, atol=1e-9)
            regressed = sum(weight * h[j] for j, weight in enumerate(wanted))
            np.testing.assert_allclose(array(found.context[row, hypothesis]), regressed, rtol=0, atol=1e-9)


def test_location_does_not_read_the_annotations() -> None:
    function = make_score("location")
    queries, annotations, _ = ragged([4, 4], seed=1)
    with torch.no_grad():
        one, other = (function(queries, function.keys(tensor)) for tensor in (annotations, -3.0 * annotations))
    assert torch.equal(one, other)


def test_location_looks_at_no_token_beyond_its_rows() -> None:
    attention = make_attention("global", "location")
    queries, annotations, mask = ragged([PLACES + 3, 2], seed=1)
    with torch.no_grad():
        weights = attend(attention, queries, annotations, mask).weights
    assert torch.all(weights[0, ..., :PLACES] > 0.0)
    assert torch.all(weights[0, ..., PLACES:] == 0.0)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("name", OF_ONE_SIZE)
def test_what_compares_states_with_annotations_wants_one_size(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.attention .* decoder_size 4 .* annotations of 5 .*encoder_size"):
        SCORES[name](4, 5)


# --- mechanisms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("mechanism", ["global", "hard", "local_m", "local_p"])
@FEW
@given(LENGTHS, st.integers(0, PLACES + 2), SEEDS)
def test_weights_and_context_are_the_equations(
    mechanism: str, score: str, lengths: list[int], first: int, seed: int
) -> None:
    """Values of a size of their own: the context is made of them, not of the keys."""
    attention = make_attention(mechanism, score, seed).eval()
    assert isinstance(attention, GlobalAttention)
    queries, annotations, mask = ragged(lengths, seed, annotation_size(score))
    values = torch.randn(*mask.shape, VALUES, dtype=torch.float64)
    positions = torch.arange(first, first + len(lengths))
    with torch.no_grad():
        found, carried = attention(queries, attention.keys(annotations), values, mask, positions, {})
    assert carried == {}
    for row, length in enumerate(lengths):
        for hypothesis, query in enumerate(queries[row]):
            scores = written_scores(score, attention.score_function, query, annotations[row, :length])
            wanted = written_weights(mechanism, weights_of(attention), scores, array(query), first + row)
            of_row = array(found.weights[row, hypothesis, 0])
            np.testing.assert_allclose(of_row[:length], wanted, rtol=0, atol=1e-9)
            assert np.all(of_row[length:] == 0.0)
            seen = sum(weight * array(values[row, j]) for j, weight in enumerate(wanted))
            np.testing.assert_allclose(array(found.context[row, hypothesis]), seen, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("mechanism", "score"), ALL)
@FEW
@given(LENGTHS, st.integers(0, 3), st.integers(1, 3), st.integers(0, STEPS - 1), SEEDS)
def test_weights_are_shares_of_real_tokens(
    mechanism: str, score: str, lengths: list[int], more: int, hypotheses: int, position: int, seed: int
) -> None:
    attention = make_attention(mechanism, score, seed)
    queries, annotations, mask = ragged(lengths, seed, annotation_size(score), hypotheses, more)
    with torch.no_grad():
        context, weights = attend(
            attention, queries, annotations, mask, torch.full((len(lengths),), position, dtype=torch.int64)
        )
    assert context.shape == (len(lengths), hypotheses, annotation_size(score))
    assert weights.shape == (len(lengths), hypotheses, attention.heads, mask.shape[1])
    assert attention.heads == (HEADS if mechanism == "multi_head" else 1)
    assert torch.all(weights.masked_select(~mask[:, None, None]) == 0.0)
    assert torch.all(weights >= 0.0)
    sums = weights.sum(-1)
    assert attention.rows_sum_to_one == (mechanism != "local_p")
    if attention.rows_sum_to_one:
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-12)
    else:
        assert torch.all(sums <= 1.0 + 1e-12)
        assert torch.all(sums > 0.0)


@pytest.mark.parametrize(("mechanism", "score"), ALL)
@FEW
@given(LENGTHS, st.integers(0, 3), st.integers(0, STEPS - 1), SEEDS)
def test_a_sentence_alone_is_as_in_a_batch(
    mechanism: str, score: str, lengths: list[int], more: int, position: int, seed: int
) -> None:
    """Each hypothesis too, and whatever lies behind the end."""
    attention = make_attention(mechanism, score, seed)
    queries, annotations, mask = ragged(lengths, seed, annotation_size(score), 2, more)
    positions = torch.arange(len(lengths)).add(position).clamp_max(STEPS - 1)
    with torch.no_grad():
        together = attend(attention, queries, annotations, mask, positions)
        for row, length in enumerate(lengths):
            for hypothesis in range(2):
                alone = attend(
                    attention,
                    queries[row : row + 1, hypothesis : hypothesis + 1],
                    annotations[row : row + 1, :length],
                    mask[row : row + 1, :length],
                    positions[row : row + 1],
                )
                found = together.weights[row, hypothesis, :, :length]
                torch.testing.assert_close(found, alone.weights[0, 0], rtol=0, atol=1e-12)
                torch.testing.assert_close(together.context[row, hypothesis], alone.context[0, 0], rtol=0, atol=1e-12)


class Attending(nn.Module):
    """Both halves of a mechanism as one."""

    def __init__(self, attention: Attention, mask: torch.Tensor, positions: torch.Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.mask = mask
        self.positions = positions

    def forward(self, queries: torch.Tensor, annotations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(attend(self.attention, queries, annotations, self.mask, self.positions))


@pytest.mark.parametrize(("mechanism", "score"), [pair for pair in ALL if pair[0] != "hard"])
def test_gradients_are_those_of_the_numbers(mechanism: str, score: str) -> None:
    queries, annotations, mask = ragged([4, 2], seed=5, size=annotation_size(score))
    attending = Attending(make_attention(mechanism, score), mask, torch.tensor([1, 3]))
    assert_gradients_are_those_of_the_numbers(attending, queries, annotations)


@pytest.mark.parametrize(("mechanism", "score"), ALL)
def test_padding_gets_no_gradient(mechanism: str, score: str) -> None:
    queries, annotations, mask = ragged([4, 2, 1], seed=5, size=annotation_size(score), more=1)
    annotations.requires_grad_()
    attend(make_attention(mechanism, score), queries, annotations, mask).context.square().sum().backward()
    assert annotations.grad is not None
    assert torch.all(annotations.grad[~mask] == 0.0)
    assert torch.all(torch.isfinite(annotations.grad))
    assert torch.any(annotations.grad != 0.0)


# --- one by one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_that_one_can_do_by_hand(dtype: torch.dtype) -> None:
    """Five embeddings of .1 to 1.5, a state of halves, the dot product."""
    embeddings = torch.arange(1, 16, dtype=dtype).reshape(1, 5, 3) / 10
    attention = GlobalAttention(DotScore(3, 3, scaled=False))
    queries = torch.full((1, 1, 3), 0.5, dtype=dtype)
    context, weights = attend(attention, queries, embeddings, torch.ones(1, 5, dtype=torch.bool))
    expected = [0.06695687, 0.10500927, 0.16468731, 0.25828112, 0.40506543]
    np.testing.assert_allclose(array(weights[0, 0, 0]), expected, rtol=0, atol=1e-7 if dtype == torch.float32 else 5e-9)
    np.testing.assert_allclose(array(context[0, 0]), [0.9488467, 1.0488467, 1.1488467], rtol=0, atol=3e-7)


@FEW
@given(LENGTHS, SEEDS)
def test_hard_attention_is_one_token_forward_and_the_softmax_backward(lengths: list[int], seed: int) -> None:
    hard, soft = make_attention("hard", "additive", seed), make_attention("global", "additive", seed)
    soft.load_state_dict(hard.state_dict())
    queries, annotations, mask = ragged(lengths, seed)
    judges = torch.randn(*mask.shape, dtype=torch.float64)[:, None, None]
    gradients = []
    for attention in (hard.train(), soft):
        inputs = [tensor.clone().requires_grad_() for tensor in (queries, annotations)]
        weights = attend(attention, *inputs, mask).weights
        found = torch.autograd.grad((weights * judges).sum(), [*inputs, *attention.parameters()])
        gradients.append((weights, found))
    (ones, of_hard), (shares, of_soft) = gradients
    chosen = nn.functional.one_hot(shares.argmax(-1), mask.shape[1]).double()
    torch.testing.assert_close(ones, chosen, rtol=0, atol=1e-12)
    for one, other in zip(of_hard, of_soft, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert torch.equal(attend(hard.eval(), queries, annotations, mask).weights, chosen)


def test_hard_attention_takes_the_first_of_equals() -> None:
    attention = GlobalAttention(DotScore(QUERY, QUERY, scaled=False)), HardAttention(DotScore(QUERY, QUERY, False))
    queries, annotations, mask = (
        torch.zeros(1, 1, QUERY),
        torch.ones(1, 4, QUERY),
        torch.tensor([[True, True, True, False]]),
    )
    soft, hard = (attend(one.eval(), queries, annotations, mask).weights for one in attention)
    torch.testing.assert_close(soft.flatten(), torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]))
    assert hard.flatten().tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("length", "position", "seen"),
    [
        (7, 0, [0, 1, 2]),
        (7, 1, [0, 1, 2, 3]),
        (7, 3, [1, 2, 3, 4, 5]),
        (7, 6, [4, 5, 6]),
        (7, 7, [4, 5, 6]),
        (7, 5000, [4, 5, 6]),
        (2, 1, [0, 1]),
        (1, 9, [0]),
    ],
)
def test_the_monotonic_window_stays_at_the_last_token(length: int, position: int, seen: list[int]) -> None:
    attention = make_attention("local_m")
    queries, annotations, mask = ragged([length], seed=1, more=2)
    weights = attend(attention, queries, annotations, mask, torch.tensor([position])).weights
    for hypothesis in range(2):
        assert torch.nonzero(weights[0, hypothesis, 0]).flatten().tolist() == seen


@pytest.mark.parametrize("centre", [-50.0, -1.0, 0.0, 1.0, 50.0])
@pytest.mark.parametrize("window", [1, 2, 5])
@FEW
@given(LENGTHS, SEEDS)
def test_the_predicted_window_has_a_token_wherever_it_lies(
    centre: float, window: int, lengths: list[int], seed: int
) -> None:
    """Within it the Gaussian is at least exp(-2), so that is what a row sums to at least."""
    attention = randomised(LocalPredictiveAttention(GeneralScore(QUERY, ANNOTATION), QUERY, window), seed)
    queries, annotations, mask = ragged(lengths, seed)
    with torch.no_grad():
        attention.centre.weight.mul_(centre)
        sums = attend(attention, queries, annotations, mask).weights.sum(-1)
    assert torch.all(sums >= math.exp(-2.0) - 1e-12)
    assert torch.all(sums <= 1.0 + 1e-12)


@pytest.mark.parametrize(("sign", "seen"), [(-1.0, [0, 1, 2]), (1.0, [4, 5, 6])])
def test_the_predicted_window_reaches_both_ends(sign: float, seen: list[int]) -> None:
    """sigmoid's limits are the first token and the last: p_t lies in 0..S-1, not 1..S."""
    attention = make_attention("local_p")
    assert isinstance(attention, LocalPredictiveAttention)
    queries, annotations, mask = ragged([7], seed=1, hypotheses=1, more=2)
    with torch.no_grad():
        hidden = torch.tanh(attention.hidden(queries[0, 0]))
        attention.centre.weight.copy_((sign * 1e3 * hidden.sign()).unsqueeze(0))
        weights = attend(attention, queries, annotations, mask).weights[0, 0, 0]
        soft = torch.softmax(attention.score_function(queries, attention.keys(annotations))[0, 0, seen], -1)
    assert torch.nonzero(weights).flatten().tolist() == seen
    far = torch.tensor([abs(j - (0 if sign < 0 else 6)) for j in seen], dtype=torch.float64)
    torch.testing.assert_close(weights[seen], soft * torch.exp(-(far**2) / 2.0), rtol=0, atol=1e-9)  # sigma = 2 / 2


@FEW
@given(LENGTHS, st.integers(1, 3), SEEDS)
def test_each_head_is_a_scaled_dot_product_of_its_own(lengths: list[int], hypotheses: int, seed: int) -> None:
    attention = make_attention("multi_head", seed=seed)
    w, size = weights_of(attention), SIZE // HEADS
    queries, annotations, mask = ragged(lengths, seed, hypotheses=hypotheses)
    with torch.no_grad():
        found = attend(attention, queries, annotations, mask)
    for row, length in enumerate(lengths):
        h = array(annotations[row, :length])
        for hypothesis, s in enumerate(array(queries[row])):
            heads: list[float] = []
            for head in range(HEADS):
                own = slice(head * size, (head + 1) * size)
                query = product(w["query.weight"][own], s)
                scores = [inner(query, product(w["key.weight"][own], token)) / math.sqrt(size) for token in h]
                wanted = softmax(scores)
                shown = array(found.weights[row, hypothesis, head, :length])
                np.testing.assert_allclose(shown, wanted, rtol=0, atol=1e-9)
                values = [product(w["value.weight"][own], token) for token in h]
                heads += [inner(wanted, [value[i] for value in values]) for i in range(size)]
            context = array(found.context[row, hypothesis])
            np.testing.assert_allclose(context, product(w["output.weight"], heads), rtol=0, atol=1e-9)


def test_heads_of_unequal_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.attention_size 10 is not a multiple of attention_heads 4"):
        MultiHeadAttention(QUERY, ANNOTATION, 10, 4)


def over_all_steps(
    attention: Attention, queries: torch.Tensor, annotations: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """queries (batch, hypotheses, steps, query_size) -> weights (batch, hypotheses, steps, source_length)."""
    carried, keys = beside(attention.carried(annotations), queries.shape[1]), attention.keys(annotations)
    weights = []
    for step in range(queries.shape[2]):
        positions = torch.full((len(queries),), step)
        attended, carried = attention(queries[:, :, step], keys, annotations, mask, positions, carried)
        weights.append(attended.weights[:, :, 0])
    return torch.stack(weights, 2)


@pytest.mark.parametrize("score", SCORES)
@FEW
@given(LENGTHS, st.integers(1, STEPS), SEEDS)
def test_attention_over_attention_is_the_papers_of_the_steps_so_far(
    score: str, lengths: list[int], steps: int, seed: int
) -> None:
    attention = make_attention("attention_over_attention", score, seed)
    assert isinstance(attention, AttentionOverAttention)
    _, annotations, mask = ragged(lengths, seed, annotation_size(score))
    queries = torch.randn(len(lengths), 2, steps, QUERY, dtype=torch.float64)
    with torch.no_grad():
        found = over_all_steps(attention, queries, annotations, mask)
    for row, length in enumerate(lengths):
        for hypothesis in range(2):
            matrix = [
                written_scores(score, attention.score_function, query, annotations[row, :length])
                for query in queries[row, hypothesis]
            ]
            for step in range(steps):
                so_far = range(step + 1)
                alphas = [softmax(matrix[tau]) for tau in so_far]
                betas = [softmax([matrix[tau][j] for tau in so_far]) for j in range(length)]
                mean = [sum(beta[tau] for beta in betas) / length for tau in so_far]
                wanted = [inner(mean, [alpha[j] for alpha in alphas]) for j in range(length)]
                of_step = array(found[row, hypothesis, step])
                np.testing.assert_allclose(of_step[:length], wanted, rtol=0, atol=1e-9)
                assert np.all(of_step[length:] == 0.0)


def test_attention_over_attention_is_causal() -> None:
    """Neither a later query nor what lies in the places of later steps changes a step."""
    attention = make_attention("attention_over_attention", "additive")
    _, annotations, mask = ragged([5, 3], seed=1)
    queries = torch.randn(2, 2, STEPS, QUERY, dtype=torch.float64)
    later = queries.clone()
    later[:, :, 4] += 1.0
    with torch.no_grad():
        one, other = (over_all_steps(attention, tensor, annotations, mask) for tensor in (queries, later))
        assert torch.equal(one[:, :, :4], other[:, :, :4])
        assert torch.all((one[:, :, 4:] - other[:, :, 4:]).abs().amax(-1) > 1e-6)  # it is remembered
        stale = {"scores": torch.randn(2, 2, STEPS, 5, dtype=torch.float64)}
        keys = attention.keys(annotations)
        first, _ = attention(queries[:, :, 0], keys, annotations, mask, torch.tensor([0, 0]), stale)
    torch.testing.assert_close(first.weights[:, :, 0], one[:, :, 0], rtol=0, atol=1e-12)


def test_the_first_step_of_attention_over_attention_is_plain() -> None:
    over, plain = make_attention("attention_over_attention", "concat"), make_attention("global", "concat")
    plain.load_state_dict(over.state_dict())
    queries, annotations, mask = ragged([5, 2], seed=1)
    one, other = (attend(attention, queries, annotations, mask) for attention in (over, plain))
    torch.testing.assert_close(one.weights, other.weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.context, other.context, rtol=0, atol=1e-12)


@FEW
@given(LENGTHS, SEEDS)
def test_pooling_is_the_mean_and_the_greatest_of_each_channel(lengths: list[int], seed: int) -> None:
    queries, annotations, mask = ragged(lengths, seed)
    mean, greatest = (attend(make_attention(name), queries, annotations, mask) for name in ("average", "max"))
    for row, length in enumerate(lengths):
        h = array(annotations[row, :length])
        best = [max(range(length), key=lambda j, channel=i: h[j][channel]) for i in range(ANNOTATION)]
        for hypothesis in range(2):
            np.testing.assert_allclose(array(mean.weights[row, hypothesis, 0, :length]), [1 / length] * length)
            seen = [sum(h[j][i] for j in range(length)) / length for i in range(ANNOTATION)]
            np.testing.assert_allclose(array(mean.context[row, hypothesis]), seen, rtol=0, atol=1e-12)
            shares = [best.count(j) / ANNOTATION for j in range(length)]
            np.testing.assert_allclose(array(greatest.weights[row, hypothesis, 0, :length]), shares, atol=1e-15)
            wanted = [h[best[i]][i] for i in range(ANNOTATION)]
            np.testing.assert_array_equal(array(greatest.context[row, hypothesis]), wanted)


@pytest.mark.parametrize("name", ["average", "max"])
def test_pooling_has_no_parameters_and_asks_nothing(name: str) -> None:
    attention = make_attention(name)
    assert list(attention.parameters()) == []
    queries, annotations, mask = ragged([4, 2], seed=1)
    one, other = (attend(attention, tensor, annotations, mask) for tensor in (queries, queries + 1.0))
    assert torch.equal(one.context, other.context)
    assert torch.equal(one.weights, other.weights)


@pytest.mark.parametrize(("mechanism", "score"), [pair for pair in ALL if pair[0] != "attention_over_attention"])
def test_only_attention_over_attention_carries_anything(mechanism: str, score: str) -> None:
    attention = make_attention(mechanism, score)
    assert attention.carried(torch.zeros(2, 3, annotation_size(score), dtype=torch.float64)) == {}


def test_what_is_carried_has_a_place_for_every_step() -> None:
    attention = make_attention("attention_over_attention")
    carried = attention.carried(torch.zeros(2, 3, ANNOTATION, dtype=torch.float64))
    assert {name: tensor.shape for name, tensor in carried.items()} == {"scores": (2, STEPS, 3)}


@pytest.mark.parametrize("mechanism", ["local_m", "local_p", "attention_over_attention"])
def test_location_beyond_its_rows_still_gives_numbers(mechanism: str) -> None:
    attention = make_attention(mechanism, "location")
    queries, annotations, mask = ragged([3 * PLACES, 2], seed=1)
    if isinstance(attention, LocalPredictiveAttention):
        with torch.no_grad():
            hidden = torch.tanh(attention.hidden(queries[0, 0]))
            attention.centre.weight.copy_((1e3 * hidden.sign()).unsqueeze(0))
    step = 0 if isinstance(attention, AttentionOverAttention) else 2 * PLACES
    attended = attend(attention, queries, annotations, mask, torch.tensor([step, 0]))
    assert torch.all(torch.isfinite(attended.weights))
    assert torch.all(torch.isfinite(attended.context))

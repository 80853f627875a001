"""Additive attention against a second writing of the paper's equation, in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.attention import AdditiveAttention, length_mask, masked_softmax

BATCH, HYPOTHESES, QUERY, ANNOTATION, SIZE, VALUES = 3, 2, 4, 5, 6, 7
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def ragged(lengths: list[int], seed: int, hypotheses: int = HYPOTHESES) -> tuple[torch.Tensor, ...]:
    """Random queries, annotations and values, and the mask of the lengths."""
    torch.manual_seed(seed)
    batch, longest = len(lengths), max(lengths)
    return (
        torch.randn(batch, hypotheses, QUERY),
        torch.randn(batch, longest, ANNOTATION),
        torch.randn(batch, longest, VALUES),
        length_mask(torch.tensor(lengths), longest),
    )


def array(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().numpy().astype(np.float64)


# --- masks -----------------------------------------------------------------------------------------------------------


@given(LENGTHS, st.integers(0, 3))
def test_a_mask_is_true_for_real_tokens(lengths: list[int], more: int) -> None:
    longest = max(lengths) + more
    mask = length_mask(torch.tensor(lengths, dtype=torch.int32), longest)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True] * length + [False] * (longest - length) for length in lengths]


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 1000), st.sampled_from([0.0, 1.0, 1e4]))
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


# --- attention -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 1000))
def test_attention_is_the_equation(lengths: list[int], seed: int) -> None:
    queries, annotations, values, mask = ragged(lengths, seed)
    attention = AdditiveAttention(QUERY, ANNOTATION, SIZE)
    with torch.no_grad():
        context, weights = attention(queries, attention.keys(annotations), values, mask)
    query, key, bias, score = (
        array(parameter)
        for parameter in (attention.query.weight, attention.key.weight, attention.key.bias, attention.score.weight)
    )
    for sentence, length in enumerate(lengths):
        for hypothesis in range(HYPOTHESES):
            state = array(queries[sentence, hypothesis])
            scores = [
                float(score[0] @ np.tanh(query @ state + key @ array(annotation) + bias))
                for annotation in annotations[sentence, :length]
            ]
            wanted = np.exp(scores) / np.sum(np.exp(scores))
            seen = sum(weight * array(values[sentence, j]) for j, weight in enumerate(wanted))
            np.testing.assert_allclose(array(weights[sentence, hypothesis, :length]), wanted, atol=1e-6)
            np.testing.assert_allclose(array(context[sentence, hypothesis]), seen, atol=1e-6)
            assert torch.all(weights[sentence, hypothesis, length:] == 0.0)


def test_shapes_are_those_of_the_contract() -> None:
    queries, annotations, values, mask = ragged([4, 2, 1], seed=1)
    attention = AdditiveAttention(QUERY, ANNOTATION, SIZE)
    keys = attention.keys(annotations)
    assert keys.shape == (BATCH, 4, SIZE)
    attended = attention(queries, keys, values, mask)
    assert attended.context.shape == (BATCH, HYPOTHESES, VALUES)
    assert attended.weights.shape == (BATCH, HYPOTHESES, 4)


def test_hypotheses_do_not_see_each_other() -> None:
    queries, annotations, values, mask = ragged([4, 2, 3], seed=2, hypotheses=5)
    attention = AdditiveAttention(QUERY, ANNOTATION, SIZE)
    keys = attention.keys(annotations)
    together = attention(queries, keys, values, mask)
    for i in range(5):
        alone = attention(queries[:, i : i + 1], keys, values, mask)
        assert torch.allclose(alone.weights[:, 0], together.weights[:, i], atol=1e-6)
        assert torch.allclose(alone.context[:, 0], together.context[:, i], atol=1e-6)


def test_the_keys_bias_is_the_only_bias() -> None:
    """The paper has no bias; one beside W_h h serves for both sums within the tanh."""
    names = {name for name, _ in AdditiveAttention(QUERY, ANNOTATION, SIZE).named_parameters()}
    assert names == {"query.weight", "key.weight", "key.bias", "score.weight"}


# --- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_numbers() -> None:
    torch.manual_seed(3)
    attention = AdditiveAttention(2, 3, 2).double()
    mask = length_mask(torch.tensor([3, 1]), 3)
    inputs = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 2, 2), (2, 3, 3), (2, 3, 2))
    ]

    def attend(queries: torch.Tensor, annotations: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(attention(queries, attention.keys(annotations), values, mask))

    assert torch.autograd.gradcheck(attend, inputs)


def test_gradients_of_the_weights_are_those_of_the_numbers() -> None:
    torch.manual_seed(4)
    attention = AdditiveAttention(2, 3, 2).double()
    queries, annotations, values = (torch.randn(*shape).double() for shape in ((2, 1, 2), (2, 3, 3), (2, 3, 2)))
    mask = length_mask(torch.tensor([3, 2]), 3)
    names = [name for name, _ in attention.named_parameters()]

    def attend(*parameters: torch.Tensor) -> torch.Tensor:
        given_weights = dict(zip(names, parameters, strict=True))
        keys = torch.nn.functional.linear(annotations, given_weights["key.weight"], given_weights["key.bias"])
        attended = torch.func.functional_call(attention, given_weights, (queries, keys, values, mask))
        return attended.context

    assert torch.autograd.gradcheck(attend, tuple(attention.parameters()))


def test_padding_gets_no_gradient() -> None:
    queries, annotations, values, mask = ragged([4, 2, 1], seed=5)
    annotations.requires_grad_()
    values.requires_grad_()
    attention = AdditiveAttention(QUERY, ANNOTATION, SIZE)
    attention(queries, attention.keys(annotations), values, mask).context.square().sum().backward()
    for tensor in (annotations, values):
        assert tensor.grad is not None
        assert torch.all(tensor.grad[~mask] == 0.0)
        assert torch.all((tensor.grad[0] != 0.0).any(-1))  # the sentence without padding

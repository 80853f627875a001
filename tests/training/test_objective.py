"""The loss against its formula in float64, that of two passes too, and logits only where they are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor, nn

from service.bundle.manifest import AlignmentEntry, AttentionMapEntry, Capabilities
from service.bundle.tokenizer import EOS_ID, PAD_ID
from training.batches import Batch
from training.config import ModelConfig, TrainingConfig
from training.models import build
from training.models.interface import NOT_JUDGED, Context, Decoded, TranslationModel
from training.objective import Objective, cross_entropy

Array = npt.NDArray[np.float64]
PIECES = 62  # what SandGlass has
SEEDS = st.integers(0, 1000)
SMALL = {"embedding_size": 5, "encoder_size": 4, "decoder_size": 6, "attention_size": 4}
TRANSFORMER = {"family": "transformer", "size": 8, "heads": 2, "feed_forward": 10, "encoder_layers": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "recurrent": {"family": "recurrent", **SMALL},
    "recurrent-fed": {"family": "recurrent", **SMALL, "decoder": "lstm", "decoder_layers": 2, "input_feeding": True},
    "recurrent-none": {"family": "recurrent", **SMALL, "attention": "none"},
    "recurrent-context": {"family": "recurrent", **SMALL, "context_sentences": 2},
    "transformer": {**TRANSFORMER},
    "transformer-post": {**TRANSFORMER, "norm": "post", "positions": "rotary", "tied_embeddings": "all"},
    "soft_feedback": {"family": "soft_feedback", "encoder_size": 4, "decoder_size": 6},
    "sandglass": {"family": "sandglass"},
}
EVERY_FAMILY = pytest.mark.parametrize("name", FAMILIES)


def make_model(name: str, dropout: float = 0.0) -> TranslationModel:
    torch.manual_seed(5)
    values = FAMILIES[name]
    if values["family"] in ("recurrent", "transformer"):
        values = values | {"dropout": dropout}
    config: ModelConfig = TypeAdapter[ModelConfig](ModelConfig).validate_python(values)
    model = build(config, PIECES, PIECES)
    if values["family"] != "transformer":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2.0)  # so that what is read matters
    return model


def padded(lengths: list[int], generator: torch.Generator) -> Tensor:
    ids = torch.full((len(lengths), max(lengths)), PAD_ID)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(4, PIECES, (length,), generator=generator)
        row[length - 1] = EOS_ID
    return ids


def ragged(model: TranslationModel | None = None) -> Batch:
    """Three pairs of different lengths, after two, one and no sentences where the model reads them."""
    generator = torch.Generator().manual_seed(1)
    sources, targets = [6, 2, 4], [3, 7, 1]
    context = None
    if model is not None and model.context_sentences:
        ids = torch.randint(4, PIECES, (3, 2, 4), generator=generator)
        context = Context(ids, torch.tensor([[4, 3], [2, 0], [0, 0]], dtype=torch.int32))
    return Batch(
        padded(sources, generator),
        torch.tensor(sources, dtype=torch.int32),
        padded(targets, generator),
        torch.tensor(targets, dtype=torch.int32),
        context,
    )


def config(**values: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"updates": 1, **values})


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    wanted: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return wanted


def smoothed(logits: Array, targets: npt.NDArray[np.int64], smoothing: float) -> float:
    """-sum_t sum_v q_tv log p_tv, q = (1 - s) of the target and s / V of every token."""
    wanted = np.full(logits.shape, smoothing / logits.shape[1])
    wanted[np.arange(len(targets)), targets] += 1 - smoothing
    return float(-(wanted * log_softmax(logits)).sum())


def divergence(one: Array, other: Array) -> float:
    """KL(one || other) of logits, summed over positions."""
    p, q = log_softmax(one), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum())


# --- cross-entropy ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(2, 9), st.sampled_from([0.0, 0.1, 0.5, 0.9]), SEEDS)
def test_cross_entropy_is_its_formula(positions: int, vocabulary: int, smoothing: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(positions, vocabulary)) * 4
    targets = generator.integers(0, vocabulary, positions)
    found = cross_entropy(torch.from_numpy(logits).float(), torch.from_numpy(targets), smoothing)
    assert found.item() == pytest.approx(smoothed(logits, targets, smoothing), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_logits_of_few_bits_are_summed_in_many(dtype: torch.dtype) -> None:
    logits = torch.randn(3000, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    targets = torch.arange(3000) % 7
    found = cross_entropy(logits, targets, 0.1)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(smoothed(logits.double().numpy(), targets.numpy(), 0.1), rel=1e-5)


# --- a stub of which all is known ------------------------------------------------------------------------------------


class Stub(TranslationModel):
    """Says at each place of a batch what it was told to, the second pass after the first."""

    def __init__(self, *passes: Tensor) -> None:
        super().__init__(passes[0].shape[-1], passes[0].shape[-1])
        self.said = nn.Parameter(torch.cat(passes))

    @property
    def capabilities(self) -> Capabilities:
        raise NotImplementedError

    @property
    def attention_maps(self) -> tuple[AttentionMapEntry, ...]:
        return ()

    @property
    def alignment(self) -> AlignmentEntry | None:
        return None

    def forward(
        self, source_ids: Tensor, source_lengths: Tensor, target_inputs: Tensor, context: Context | None = None
    ) -> Decoded:
        assert len(source_ids) == len(source_lengths) == len(target_inputs) == len(self.said)
        return Decoded(self.said, {})


def said(seed: int, vocabulary: int = 9) -> Tensor:
    """Logits at each place of ``two_pairs``."""
    return 3 * torch.randn(2, 3, vocabulary, generator=torch.Generator().manual_seed(seed))


def two_pairs() -> Batch:
    """Targets of three tokens and of one."""
    lengths = torch.tensor([1, 1], dtype=torch.int32)
    targets = torch.tensor([[5, 8, EOS_ID], [EOS_ID, PAD_ID, PAD_ID]])
    return Batch(torch.tensor([[4], [EOS_ID]]), lengths, targets, torch.tensor([3, 1], dtype=torch.int32))


JUDGED = ([0, 0, 0, 1], [0, 1, 2, 0])
WANTED = np.array([5, 8, EOS_ID, EOS_ID])


def at_judged(logits: Tensor) -> Array:
    found: Array = logits[JUDGED].detach().double().numpy()
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_of_the_judged_places_alone(smoothing: float) -> None:
    logits = said(1)
    stub = Stub(logits)
    loss: Tensor = Objective(stub, config(label_smoothing=smoothing))(two_pairs())
    assert loss.item() == pytest.approx(smoothed(at_judged(logits), WANTED, smoothing), rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert stub.said.grad is not None
    assert torch.equal(stub.said.grad.ne(0).any(-1), torch.tensor([[True, True, True], [True, False, False]]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 5.0])
def test_the_loss_of_two_passes_is_its_formula(alpha: float, smoothing: float) -> None:
    """L = (CE_1 + CE_2) / 2 + alpha / 4 (KL(p_1 || p_2) + KL(p_2 || p_1))."""
    first, second = said(1), said(2)
    loss = Objective(Stub(first, second), config(r_drop=alpha, label_smoothing=smoothing))(two_pairs())
    one, other = at_judged(first), at_judged(second)
    entropy = (smoothed(one, WANTED, smoothing) + smoothed(other, WANTED, smoothing)) / 2
    apart = divergence(one, other) + divergence(other, one)
    assert apart > 1.0
    assert loss.item() == pytest.approx(entropy + alpha / 4 * apart, rel=1e-5)


def test_both_passes_learn_from_each_other() -> None:
    """The gradient of the formula, as autograd has it."""
    passes = said(1), said(2)
    stub = Stub(*passes)
    Objective(stub, config(r_drop=3.0))(two_pairs()).backward()
    written = [logits[JUDGED].double().requires_grad_() for logits in passes]
    p, q = (torch.log_softmax(logits, -1) for logits in written)
    entropy = -(p + q)[torch.arange(4), torch.from_numpy(WANTED)].sum() / 2
    (entropy + 3.0 / 4 * ((p.exp() - q.exp()) * (p - q)).sum()).backward()  # type: ignore[no-untyped-call]
    assert stub.said.grad is not None
    for found, wanted in zip(stub.said.grad.chunk(2), written, strict=True):
        torch.testing.assert_close(found[JUDGED].double(), wanted.grad, rtol=1e-4, atol=1e-5)


# --- real models -----------------------------------------------------------------------------------------------------


def plain_loss(model: TranslationModel, batch: Batch, smoothing: float) -> float:
    """From ``forward`` alone."""
    wanted = model.judged_targets(batch.target_ids)
    with torch.no_grad():
        decoded = model(batch.source_ids, batch.source_lengths, batch.target_inputs, batch.context)
    judged = wanted != NOT_JUDGED
    return smoothed(decoded.logits[judged].double().numpy(), wanted[judged].numpy(), smoothing)


@EVERY_FAMILY
@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_without_dropout_two_passes_are_one(name: str, alpha: float) -> None:
    """The divergence of a pass from itself is 0."""
    model = make_model(name).eval()
    batch = ragged(model)
    with torch.no_grad():
        loss = Objective(model, config(r_drop=alpha, label_smoothing=0.1))(batch)
    assert loss.item() == pytest.approx(plain_loss(model, batch, 0.1), rel=1e-5)


@pytest.mark.parametrize("name", ["recurrent", "recurrent-context", "transformer"])
def test_two_passes_differ_by_their_dropout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a model is the formula of what it said in each pass."""
    model = make_model(name, dropout=0.3).train()
    batch = ragged(model)
    heard: list[Tensor] = []
    judged_logits = model.judged_logits

    def listen(*arguments: Any) -> Tensor:
        heard.append(judged_logits(*arguments))
        return heard[-1]

    monkeypatch.setattr(model, "judged_logits", listen)
    loss = Objective(model, config(r_drop=2.0, label_smoothing=0.1))(batch)
    assert len(heard) == 1
    one, other = (half.detach().double().numpy() for half in heard[0].chunk(2))
    targets = batch.target_ids[batch.target_ids != PAD_ID].numpy()
    apart = divergence(one, other) + divergence(other, one)
    assert apart > 0.1
    entropy = (smoothed(one, targets, 0.1) + smoothed(other, targets, 0.1)) / 2
    assert loss.item() == pytest.approx(entropy + 2.0 / 4 * apart, rel=1e-5)


def logits_in_both_ways(model: TranslationModel, batch: Batch, judged: Tensor) -> tuple[Tensor, Tensor]:
    found = []
    for read in (lambda: model(*batch.inputs).logits[judged], lambda: model.judged_logits(batch.inputs, judged)):
        torch.manual_seed(8)
        with torch.no_grad():
            found.append(read())
    return found[0], found[1]


@EVERY_FAMILY
def test_judged_logits_are_those_of_forward(name: str) -> None:
    model = make_model(name).eval()
    batch = ragged(model)
    judged = model.judged_targets(batch.target_ids) != NOT_JUDGED
    wanted, found = logits_in_both_ways(model, batch, judged)
    assert found.shape == (int(judged.sum()), PIECES)
    assert not torch.allclose(found[0], found[-1], rtol=0.1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@EVERY_FAMILY
def test_any_places_may_be_judged(name: str) -> None:
    model = make_model(name).eval()
    batch = ragged(model)
    places = model.judged_targets(batch.target_ids)
    judged = torch.rand(places.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    torch.testing.assert_close(*reversed(logits_in_both_ways(model, batch, judged)), rtol=1e-5, atol=1e-5)
    none = torch.zeros_like(judged)
    assert logits_in_both_ways(model, batch, none)[1].shape == (0, PIECES)


@pytest.mark.parametrize("name", ["recurrent", "recurrent-fed", "transformer", "transformer-post"])
def test_judged_logits_have_the_dropout_of_forward(name: str) -> None:
    """Else a model would be trained without it."""
    model = make_model(name, dropout=0.3).train()
    batch = ragged(model)
    judged = model.judged_targets(batch.target_ids) != NOT_JUDGED
    wanted, found = logits_in_both_ways(model, batch, judged)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, logits_in_both_ways(model.eval(), batch, judged)[1], rtol=0.1)

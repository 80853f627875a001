"""Runs of a few updates: what they write, and that no stop, crash or NaN changes what comes out in the end."""

from __future__ import annotations

import io
import math
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from tests.training.conftest import tiny_config, tiny_values
from training.batches import make_batch, plan_epoch, plan_epoch_of_any_length
from training.config import Config, RecurrentConfig, TrainingConfig, load_config
from training.corpus import Corpus, ParallelArrays, TokenArrays, prepare
from training.errors import CheckpointError, ConfigError, CorpusError, TrainingError
from training.models.interface import Decoded
from training.models.recurrent import RecurrentModel
from training.models.sandglass import TIME
from training.parity import greedy, one_pass
from training.trainer import Trainer, Validation, build_model, learning_rate, load_best, validate

UPDATES, BATCHES_AN_EPOCH, VALIDATIONS = 20, 8, [6, 12, 18, 20]


@dataclass(frozen=True)
class Run:
    """A finished run: its config, and its checkpoints as they were saved."""

    config: Config
    last: dict[str, Any]
    best: dict[str, Any]
    console: str


def start(config: Config, corpus: Corpus) -> tuple[Trainer, io.StringIO]:
    shown = io.StringIO()
    return Trainer(config, corpus, Console(file=shown, width=200)), shown


def finish(config: Config, corpus: Corpus) -> Run:
    trainer, shown = start(config, corpus)
    assert trainer.train()
    return Run(config, state(config, "last.pt"), state(config, "best.pt"), shown.getvalue())


def state(config: Config, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(config.run_directory / name, weights_only=True)
    return found


def at_update(trainer: Trainer, update: int, act: Callable[[], None]) -> None:
    """Call ``act`` while the update of this number is being computed; the first of this start is 1."""
    passed = 0

    def count(model: torch.nn.Module, _inputs: object) -> None:
        nonlocal passed
        passed += model.training
        if model.training and passed == update:
            act()

    trainer.model.register_forward_pre_hook(count)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def crash() -> None:
    raise MemoryError


def assert_same(found: object, wanted: object, name: str = "") -> None:
    """Nested checkpoints, equal to the last bit."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_same(found[key], wanted[key], f"{name}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list)
        for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_same(one, other, f"{name}.{i}")
    elif isinstance(wanted, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert torch.equal(found, wanted), name
    else:
        assert found == wanted, name


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Every TensorBoard tag of a run with its updates and values."""
    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def whole(reverse_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing interrupted."""
    return finish(tiny_config(tmp_path_factory.mktemp("whole")), reverse_corpus)


def test_the_tiny_run_has_what_the_tests_below_want(whole: Run, reverse_corpus: Corpus) -> None:
    """More than one epoch, dropout, and stops that fall on an end of an epoch, on a validation and on neither."""
    plan = plan_epoch(reverse_corpus.arrays("training"), whole.config.training.batch_tokens, seed=1, epoch=0)
    assert len(plan) == BATCHES_AN_EPOCH
    assert whole.config.training.updates == UPDATES
    assert whole.config.model.dropout > 0.0


# --- stopping and continuing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("update", [1, BATCHES_AN_EPOCH, VALIDATIONS[1], 17])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    whole: Run, reverse_corpus: Corpus, tmp_path: Path, number: signal.Signals, update: int
) -> None:
    config = tiny_config(tmp_path)
    trainer, shown = start(config, reverse_corpus)
    at_update(trainer, update, lambda: signal.raise_signal(number))
    assert not trainer.train()
    assert "stopping after this update" in shown.getvalue()
    assert state(config, "last.pt")["update"] == update
    finished = finish(config, reverse_corpus)
    assert f"continuing after update {update}" in finished.console
    assert_same(finished.last, whole.last)
    assert_same(finished.best, whole.best)


def test_a_run_may_be_stopped_again_and_again(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    for updates in (3, 5, 1, 6):
        trainer, _ = start(config, reverse_corpus)
        at_update(trainer, updates, interrupt)
        assert not trainer.train()
    assert state(config, "last.pt")["update"] == 15
    assert_same(finish(config, reverse_corpus).last, whole.last)


def test_a_run_that_crashed_continues_from_its_last_validation(
    whole: Run, reverse_corpus: Corpus, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path)
    trainer, _ = start(config, reverse_corpus)
    at_update(trainer, 16, crash)
    with pytest.raises(MemoryError):
        trainer.train()
    assert state(config, "last.pt")["update"] == 12
    finished = finish(config, reverse_corpus)
    assert_same(finished.last, whole.last)
    assert_same(finished.best, whole.best)


def test_stopped_in_its_last_update_a_run_is_finished(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trainer, _ = start(config, reverse_corpus)
    at_update(trainer, UPDATES, interrupt)
    assert trainer.train()
    assert_same(state(config, "last.pt"), whole.last)


def test_a_finished_run_has_nothing_left_to_do(whole: Run, reverse_corpus: Corpus) -> None:
    trainer, _ = start(whole.config, reverse_corpus)
    at_update(trainer, 1, crash)
    assert trainer.train()
    assert_same(state(whole.config, "last.pt"), whole.last)


def test_a_second_signal_ends_a_run_at_once(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trainer, _ = start(config, reverse_corpus)

    def twice() -> None:
        interrupt()
        interrupt()

    at_update(trainer, 9, twice)
    # A shell starts what runs in its background with SIGINT ignored, and the second would be handled so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert state(config, "last.pt")["update"] == 6
    assert_same(finish(config, reverse_corpus).last, whole.last)


@pytest.mark.parametrize("act", [interrupt, crash])
def test_signals_are_handled_as_before_when_a_run_is_over(
    reverse_corpus: Corpus, tmp_path: Path, act: Callable[[], None]
) -> None:
    def own(_number: int, _frame: object) -> None:
        pytest.fail("the trainer handles signals while it runs")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, own) for number in numbers]
    try:
        trainer, _ = start(tiny_config(tmp_path), reverse_corpus)
        at_update(trainer, 1, act)
        if act is crash:
            with pytest.raises(MemoryError):
                trainer.train()
        else:
            trainer.train()
        assert [signal.getsignal(number) for number in numbers] == [own, own]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_a_run_in_another_thread_needs_no_signals(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trainer, _ = start(config, reverse_corpus)
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(trainer.train()))
    thread.start()
    thread.join()
    assert done == [True]
    assert_same(state(config, "last.pt"), whole.last)


def test_another_seed_is_another_run(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    """Why the tests above can fail."""
    other = finish(tiny_config(tmp_path, training={"seed": 2}), reverse_corpus)
    assert not torch.equal(other.last["model"]["output.weight"], whole.last["model"]["output.weight"])


# --- batches of so many sentences of any length ----------------------------------------------------------------------


def in_sentences(run_directory: Path) -> Config:
    """Seven batches of 40 and one of 20 an epoch, and a rate that stays."""
    return tiny_config(run_directory, training={"batch_sentences": 40, "schedule": "constant"})


def test_a_batch_may_be_so_many_sentences_of_any_length(reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = in_sentences(tmp_path)
    trainer, _ = start(config, reverse_corpus)
    read: list[torch.Tensor] = []
    trainer.model.register_forward_pre_hook(lambda model, inputs: read.append(inputs[0]) if model.training else None)
    assert trainer.train()
    corpus = reverse_corpus.arrays("training")
    plan = [sentences for epoch in range(3) for sentences in plan_epoch_of_any_length(300, 40, seed=1, epoch=epoch)]
    assert [len(batch) for batch in read] == [*[40] * 7, 20, *[40] * 7, 20, *[40] * 4]
    for batch, sentences in zip(read, plan[:UPDATES], strict=True):
        assert torch.equal(batch, make_batch(corpus, sentences).source_ids)
    rates = [value for _, value in scalars(tmp_path)["training/learning_rate"]]
    assert rates == pytest.approx([config.training.learning_rate] * 4)


def test_in_batches_of_sentences_too_a_stopped_run_ends_as_if_it_had_not_been(
    reverse_corpus: Corpus, tmp_path: Path
) -> None:
    """Within an epoch and at its end."""
    wanted = finish(in_sentences(tmp_path / "whole"), reverse_corpus)
    config = in_sentences(tmp_path / "stopped")
    for updates in (3, 5, 7):
        trainer, _ = start(config, reverse_corpus)
        at_update(trainer, updates, interrupt)
        assert not trainer.train()
    finished = finish(config, reverse_corpus)
    assert_same(finished.last, wanted.last)
    assert_same(finished.best, wanted.best)


# --- other families --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandglass_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(sandglass_config(tmp_path_factory.mktemp("sandglass")), lambda _: None)


def sandglass_config(run_directory: Path, **model: object) -> Config:
    values = tiny_values(
        run_directory,
        corpus={"task": "sandglass-reverse"},
        training={"updates": 12, "batch_sentences": 60, "gradient_norm": 100.0},
    )
    return Config.model_validate(values | {"model": {"family": "sandglass", **model}})


def soft_feedback_config(run_directory: Path) -> Config:
    sizes = {"family": "soft_feedback", "encoder_size": 6, "decoder_size": 8}
    return Config.model_validate(tiny_values(run_directory, training={"updates": 12}) | {"model": sizes})


@pytest.mark.parametrize(("family", "name"), [("sandglass", "sandglass_corpus"), ("soft_feedback", "reverse_corpus")])
def test_a_run_of_any_family_learns_and_continues_where_it_stopped(
    request: pytest.FixtureRequest, tmp_path: Path, family: str, name: str
) -> None:
    """The statistics of batch normalisation among its state."""
    make: Callable[[Path], Config] = sandglass_config if family == "sandglass" else soft_feedback_config
    corpus: Corpus = request.getfixturevalue(name)
    whole = finish(make(tmp_path / "whole"), corpus)
    config = make(tmp_path / "stopped")
    trainer, _ = start(config, corpus)
    at_update(trainer, 8, interrupt)
    assert not trainer.train()
    finished = finish(config, corpus)
    assert_same(finished.last, whole.last)
    assert_same(finished.best, whole.best)
    losses = [loss for _, loss in scalars(whole.config.run_directory)["validation/loss"]]
    assert losses[-1] < losses[0]
    model, _ = load_best(whole.config, corpus)
    assert not model.training
    assert_same(dict(model.state_dict()), whole.best["model"])


def test_the_loss_of_a_sandglass_is_the_mean_over_all_its_places(sandglass_corpus: Corpus, tmp_path: Path) -> None:
    """Padding and end too, 24 of each sentence, whatever its length and its batch."""
    config = sandglass_config(tmp_path, batch_norm=False)
    trainer, _ = start(config, sandglass_corpus)
    model, corpus = trainer.model.eval(), sandglass_corpus.arrays("validation")
    total, exact = 0.0, 0
    for i in range(len(corpus)):
        source, target = corpus.source[i].tolist(), corpus.target[i].tolist()
        padding = [PAD_ID] * (TIME - len(source))
        wanted = [*padding, EOS_ID, *target[:-1]]
        assert wanted == [*source, *padding][::-1]
        with torch.no_grad():
            logits = model.translate(torch.tensor([[*source, *padding]])).logits[0]
        total -= float(torch.log_softmax(logits, -1)[range(TIME), wanted].sum())
        exact += one_pass(model, source) == wanted
    for batch_tokens in (1, 100, 100_000):
        found = validate(model, corpus, batch_tokens)
        assert found.loss == pytest.approx(total / (len(corpus) * TIME), rel=1e-5)
        assert found.exact_match == exact / len(corpus)


def test_a_sandglass_is_right_when_every_place_is(sandglass_corpus: Corpus, tmp_path: Path) -> None:
    """A model that says what it is told: right where padding, end and numbers all are."""
    model, corpus = start(sandglass_config(tmp_path), sandglass_corpus)[0].model, sandglass_corpus.arrays("validation")

    class Told(torch.nn.Module):
        wrong_place: int | None = None

        def forward(self, source_ids: torch.Tensor, *_: torch.Tensor) -> Decoded:
            padded = torch.nn.functional.pad(source_ids, (0, TIME - source_ids.shape[1]))
            tokens = padded.flip(1)
            if self.wrong_place is not None:
                tokens[:, self.wrong_place] = EOS_ID + 2 + (tokens[:, self.wrong_place] == EOS_ID + 2)
            return Decoded(torch.nn.functional.one_hot(tokens, 62).float(), {})

        judged_targets = staticmethod(model.judged_targets)

    told = Told()
    assert validate(told, corpus, 500).exact_match == 1.0  # type: ignore[arg-type]
    for place in (0, TIME - 1):
        told.wrong_place = place
        assert validate(told, corpus, 500).exact_match == 0.0  # type: ignore[arg-type]


def test_a_sandglass_on_another_task_is_refused(reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = Config.model_validate(tiny_values(tmp_path) | {"model": {"family": "sandglass"}})
    with pytest.raises(ConfigError, match="62 pieces on either side, this corpus has 54 and 54: use its own task"):
        start(config, reverse_corpus)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_last_checkpoint(
    whole: Run, reverse_corpus: Corpus, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path)
    trainer, _ = start(config, reverse_corpus)
    saved: list[bytes] = []

    def spoil() -> None:
        saved.append((tmp_path / "last.pt").read_bytes())
        with torch.no_grad():
            trainer.model.output.bias.fill_(math.nan)

    at_update(trainer, 9, spoil)
    with pytest.raises(TrainingError, match=r"the loss is nan at update 9: lower the learning rate; .*last\.pt is the"):
        trainer.train()
    assert [(tmp_path / "last.pt").read_bytes()] == saved
    assert state(config, "last.pt")["update"] == 6
    assert_same(finish(config, reverse_corpus).last, whole.last)


def test_a_gradient_without_bounds_takes_no_step(
    reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the update that is validated and saved: the weights of before are what stays."""
    config = tiny_config(tmp_path)
    trainer, _ = start(config, reverse_corpus)
    before: list[dict[str, torch.Tensor]] = []

    def break_the_gradient() -> None:
        before.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
        trainer.model.output.bias.register_hook(lambda gradient: gradient + math.inf)

    at_update(trainer, 6, break_the_gradient)
    with pytest.raises(TrainingError, match=r"the gradient's norm is inf at update 6: lower the learning rate$"):
        trainer.train()
    assert not (tmp_path / "last.pt").exists()
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in trainer.model.state_dict().items())


def test_another_vocabulary_is_refused(reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"updates": 1, "validate_every": 1})
    finish(config, reverse_corpus)
    changed = tiny_config(tmp_path, tokenizers={"source": {"kind": "char"}}, training={"updates": 2})
    corpus = prepare(changed, lambda _: None)
    with pytest.raises(CheckpointError, match="was trained on other data"):
        start(changed, corpus)
    with pytest.raises(CheckpointError, match="was trained on other data"):
        load_best(changed, corpus)


def test_a_corpus_of_other_settings_is_refused(reverse_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="prepare again"):
        start(tiny_config(tmp_path, corpus={"seed": 4}), reverse_corpus)


def test_a_checkpoint_of_another_model_is_refused(whole: Run, reverse_corpus: Corpus) -> None:
    other = tiny_config(whole.config.run_directory, model={"decoder_size": 11})
    with pytest.raises(CheckpointError, match="decoder_size: 10 there, 11 here"):
        start(other, reverse_corpus)
    with pytest.raises(CheckpointError, match="decoder_size: 10 there, 11 here"):
        load_best(other, reverse_corpus)
    family = soft_feedback_config(whole.config.run_directory)
    with pytest.raises(CheckpointError, match="family: 'recurrent' there, 'soft_feedback' here"):
        start(family, reverse_corpus)


def test_there_is_no_best_before_a_run(reverse_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*best\.pt"):
        load_best(tiny_config(tmp_path), reverse_corpus)


# --- what a run writes -----------------------------------------------------------------------------------------------


def test_the_run_keeps_its_config(whole: Run) -> None:
    assert load_config(whole.config.run_directory / "config.yaml") == whole.config


def test_the_log_tells_every_validation(whole: Run) -> None:
    log = (whole.config.run_directory / "log.txt").read_text(encoding="utf-8").splitlines()
    told = [line.split(" ", 2)[2] for line in log if "validation" in line]
    assert [line.split(":")[0] for line in told] == [f"update {update}" for update in VALIDATIONS]
    losses = scalars(whole.config.run_directory)["validation/loss"]
    assert [f"loss {loss:.5f}," in line for line, (_, loss) in zip(told, losses, strict=True)] == [True] * 4


def test_tensorboard_has_every_tag_at_its_updates(whole: Run) -> None:
    found = scalars(whole.config.run_directory)
    assert {tag: [step for step, _ in values] for tag, values in found.items()} == {
        "training/loss": [5, 10, 15, 20],
        "training/gradient_norm": [5, 10, 15, 20],
        "training/learning_rate": [5, 10, 15, 20],
        "training/target_tokens_per_second": [5, 10, 15, 20],
        "validation/loss": VALIDATIONS,
        "validation/exact_match": VALIDATIONS,
    }
    for step, value in found["training/learning_rate"]:
        assert value == pytest.approx(learning_rate(whole.config.training, step - 1), rel=1e-6)
    assert all(value > 0.0 for tag in ("loss", "gradient_norm") for _, value in found[f"training/{tag}"])
    assert all(value > 0.0 for _, value in found["training/target_tokens_per_second"])


def test_a_run_learns(whole: Run) -> None:
    losses = [loss for _, loss in scalars(whole.config.run_directory)["validation/loss"]]
    assert losses[-1] < losses[0] < math.log(54) + 0.1


def test_the_best_checkpoint_is_the_best_validation(whole: Run, reverse_corpus: Corpus) -> None:
    found = scalars(whole.config.run_directory)
    seen = zip(found["validation/exact_match"], found["validation/loss"], strict=True)
    (match, update), loss = max(((match, step), -loss) for (step, match), (_, loss) in seen)
    assert whole.best["update"] == update
    assert whole.best["best_exact_match"] == pytest.approx(match)
    assert whole.best["best_loss"] == pytest.approx(-loss)
    model, path = load_best(whole.config, reverse_corpus)
    assert path == whole.config.run_directory / "best.pt"
    assert not model.training
    again = validate(model, reverse_corpus.arrays("validation"), whole.config.training.batch_tokens)
    assert (again.exact_match, again.loss) == (whole.best["best_exact_match"], whole.best["best_loss"])


def test_a_worse_model_does_not_replace_the_best(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trainer, _ = start(config, reverse_corpus)

    def spoil() -> None:
        with torch.no_grad():
            trainer.model.output.bias.copy_(torch.linspace(-9, 9, 54))

    at_update(trainer, 13, spoil)
    trainer.train()
    assert (state(config, "last.pt")["update"], state(config, "best.pt")["update"]) == (20, 12)
    losses = dict(scalars(tmp_path)["validation/loss"])
    assert state(config, "last.pt")["best_loss"] == pytest.approx(losses[12])
    assert losses[20] > losses[12]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_and_the_first_step_are_those_of_the_definition(
    reverse_corpus: Corpus, tmp_path: Path, smoothing: float
) -> None:
    """Adam's first step moves every weight by the learning rate against its gradient's sign."""
    changes = {"updates": 1, "log_every": 1, "label_smoothing": smoothing, "warmup_updates": 10, "gradient_norm": 1e-3}
    config = tiny_config(tmp_path, training=changes, model={"dropout": 0.0})
    trainer, _ = start(config, reverse_corpus)
    model = build_model(config, reverse_corpus)
    model.load_state_dict(trainer.model.state_dict())
    corpus = reverse_corpus.arrays("training")
    total, tokens = torch.tensor(0.0), 0
    for i in plan_epoch(corpus, config.training.batch_tokens, seed=1, epoch=0)[0]:
        batch = make_batch(corpus, np.array([i]))
        log_probabilities = torch.log_softmax(model(batch.source_ids, batch.source_lengths, batch.target_inputs)[0], -1)
        likelihood = log_probabilities.gather(-1, batch.target_ids.unsqueeze(-1)).sum()
        total = total - (1 - smoothing) * likelihood - smoothing * log_probabilities.mean(-1).sum()
        tokens += len(corpus.target[int(i)])
    loss = total / tokens
    loss.backward()
    norm = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in model.parameters()))  # type: ignore[union-attr]
    trainer.train()
    found = scalars(tmp_path)
    assert found["training/loss"][0][1] == pytest.approx(loss.item(), rel=1e-5)
    assert found["training/gradient_norm"][0][1] == pytest.approx(norm, rel=1e-4)
    rate = config.training.learning_rate / 10
    for (name, parameter), stepped in zip(model.named_parameters(), trainer.model.parameters(), strict=True):
        assert parameter.grad is not None
        clipped = parameter.grad * 1e-3 / norm
        torch.testing.assert_close(stepped.grad, clipped, rtol=1e-3, atol=1e-7, msg=name)
        clear = clipped.abs() > 1e-6  # where Adam's epsilon and rounding play no part
        moved = (stepped - parameter).detach()[clear]
        torch.testing.assert_close(moved, -rate * clipped[clear].sign(), rtol=1e-2, atol=1e-6, msg=name)


# --- the learning rate -----------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(0, 6000), st.floats(1e-6, 1.0))
def test_the_learning_rate_warms_up_and_falls(updates: int, warmup: int, peak: float) -> None:
    config = TrainingConfig(updates=updates, warmup_updates=warmup, learning_rate=peak)
    for update in {0, 1, warmup - 1, warmup, warmup + 1, (warmup + updates) // 2, updates - 1} & set(range(updates)):
        if update < warmup:
            wanted = peak * (update + 1) / warmup
        else:
            wanted = peak * math.cos(math.pi / 2 * (update - warmup) / (updates - warmup)) ** 2
        assert learning_rate(config, update) == pytest.approx(wanted, rel=1e-6, abs=1e-9 * peak)
        assert 0.0 < learning_rate(config, update) <= peak * (1 + 1e-12)


def test_the_learning_rate_of_a_short_run() -> None:
    config = TrainingConfig(updates=8, warmup_updates=4, learning_rate=0.4)
    rates = [learning_rate(config, update) for update in range(9)]
    assert rates == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.4, 0.2 + 0.1 * math.sqrt(2), 0.2, 0.2 - 0.1 * math.sqrt(2), 0.0]
    )


def test_a_constant_learning_rate_stays_after_its_warm_up() -> None:
    config = TrainingConfig(updates=8, warmup_updates=4, learning_rate=0.4, schedule="constant")
    rates = [learning_rate(config, update) for update in range(9)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4])
    at_once = TrainingConfig(updates=8, warmup_updates=0, learning_rate=0.4, schedule="constant")
    assert {learning_rate(at_once, update) for update in range(9)} == {0.4}


# --- validation ------------------------------------------------------------------------------------------------------

PIECES = 30


def lively_model(seed: int) -> RecurrentModel:
    """Untrained, but large of weight: what it says depends on what it reads."""
    torch.manual_seed(seed)
    sizes = {"embedding_size": 6, "encoder_size": 6, "decoder_size": 8, "attention_size": 6}
    model = RecurrentModel(RecurrentConfig(**sizes), PIECES, PIECES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        model.output.bias[[PAD_ID, BOS_ID, UNK_ID]] = -1e3  # no target has one of these
    return model


def token_arrays(sentences: list[list[int]]) -> TokenArrays:
    offsets = np.cumsum([0, *(len(sentence) for sentence in sentences)], dtype=np.int64)
    return TokenArrays(np.array([i for sentence in sentences for i in sentence], dtype=np.int32), offsets)


def partly_right(model: RecurrentModel, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Sources, and targets of which the first half is what greedy search gives and the rest differs in one token."""
    generator = np.random.default_rng(3)
    sources = [[*generator.integers(4, PIECES, generator.integers(1, 8)).tolist(), EOS_ID] for _ in range(count)]
    targets = [greedy(model, source, int(generator.integers(1, 8))) for source in sources]
    for target in targets[count // 2 :]:
        place = generator.integers(len(target))
        target[place] = 4 + (target[place] - 3) % (PIECES - 4)
    return sources, targets


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_exact_match_is_what_greedy_search_gives(seed: int) -> None:
    model = lively_model(seed).eval()
    sources, targets = partly_right(model, 40)
    assert len(set(map(tuple, targets[:20]))) > 10, "the model says the same to everything"
    right = sum(greedy(model, source, len(target)) == target for source, target in zip(sources, targets, strict=True))
    assert right == 20
    corpus = ParallelArrays(token_arrays(sources), token_arrays(targets))
    assert validate(model, corpus, batch_tokens=60).exact_match == right / 40


def test_the_loss_is_the_mean_over_target_tokens_whatever_the_batches() -> None:
    model = lively_model(4)
    sources, targets = partly_right(model, 30)
    corpus = ParallelArrays(token_arrays(sources), token_arrays(targets))
    total = 0.0
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            scored = model.score(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([target]))
            total -= float(scored.log_probabilities.sum())
    wanted = total / sum(map(len, targets))
    for batch_tokens in (1, 60, 100_000):
        found = validate(model, corpus, batch_tokens)
        assert found.loss == pytest.approx(wanted, rel=1e-5)
        assert found.exact_match == validate(model, corpus, 1).exact_match


def test_validation_uses_no_dropout_and_no_random_numbers() -> None:
    model = lively_model(5)
    model.dropout.p = 0.5
    corpus = ParallelArrays(token_arrays([[5, 6, EOS_ID]] * 9), token_arrays([[BOS_ID + 4, EOS_ID]] * 9))
    before = torch.get_rng_state()
    first = validate(model.train(), corpus, 100)
    assert validate(model.train(), corpus, 100) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_exact_match_comes_first_and_loss_second() -> None:
    best = Validation(loss=0.5, exact_match=0.7)
    assert Validation(loss=0.9, exact_match=0.8).better_than(best)
    assert Validation(loss=0.4, exact_match=0.7).better_than(best)
    assert not Validation(loss=0.5, exact_match=0.7).better_than(best)
    assert not Validation(loss=0.1, exact_match=0.6).better_than(best)
    assert not Validation(loss=math.nan, exact_match=0.7).better_than(best)

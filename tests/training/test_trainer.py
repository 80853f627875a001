"""Runs of a few updates: what they write, and that no stop, crash or NaN changes what comes out in the end."""

from __future__ import annotations

import errno
import io
import math
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from service.bundle.tokenizer import PAD_ID
from tests.training.conftest import ignore_progress, tiny_config, tiny_values, write_config
from training import trainer as trainer_module
from training.averaging import average
from training.batches import make_batch, plan_epoch, plan_epoch_of_any_length
from training.checkpoint import Checkpoint, Weights, load
from training.config import Config, load_config
from training.corpus import SIDES, Corpus, prepare
from training.distributed import Processes, joined
from training.errors import CheckpointError, ConfigError, CorpusError, TrainingError
from training.journal import read_log
from training.models.interface import Inputs
from training.models.precision import cpu_computes_bfloat16
from training.schedules import learning_rate
from training.selection import Selection, Validation
from training.trainer import Trainer, build_model, choose_device, load_weights
from training.validation import validate

UPDATES, BATCHES_AN_EPOCH, VALIDATIONS = 20, 9, [6, 12, 18, 20]
CPU = torch.device("cpu")


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
    passed, judged_features = 0, trainer.model.judged_features

    def count(*arguments: Any) -> torch.Tensor:
        nonlocal passed
        passed += trainer.model.training
        if trainer.model.training and passed == update:
            act()
        return judged_features(*arguments)

    trainer.model.judged_features = count  # type: ignore[assignment, method-assign]


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
    assert whole.config.model.model_dump()["dropout"] > 0.0


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


def test_a_batch_may_be_so_many_sentences_of_any_length(
    reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = in_sentences(tmp_path)
    trainer, _ = start(config, reverse_corpus)
    read: list[torch.Tensor] = []
    judged_features = trainer.model.judged_features

    def listen(inputs: Inputs, judged: torch.Tensor) -> torch.Tensor:
        if trainer.model.training:
            read.append(inputs.source_ids)
        return judged_features(inputs, judged)

    monkeypatch.setattr(trainer.model, "judged_features", listen)
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
    model, updates = load_weights(whole.config, corpus)
    assert updates == [whole.best["update"]]
    assert not model.training
    assert_same(dict(model.state_dict()), whole.best["model"])


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
            trainer.model.get_parameter("output.bias").fill_(math.nan)

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
        trainer.model.get_parameter("output.bias").register_hook(lambda gradient: gradient + math.inf)  # type: ignore[no-untyped-call]

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
        load_weights(changed, corpus)


def test_a_corpus_of_other_settings_is_refused(reverse_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="prepare again"):
        start(tiny_config(tmp_path, corpus={"seed": 4}), reverse_corpus)


def test_a_checkpoint_of_another_model_is_refused(whole: Run, reverse_corpus: Corpus) -> None:
    other = tiny_config(whole.config.run_directory, model={"decoder_size": 11})
    with pytest.raises(CheckpointError, match="decoder_size: 10 there, 11 here"):
        start(other, reverse_corpus)
    with pytest.raises(CheckpointError, match="decoder_size: 10 there, 11 here"):
        load_weights(other, reverse_corpus)
    family = soft_feedback_config(whole.config.run_directory)
    with pytest.raises(CheckpointError, match="family: 'recurrent' there, 'soft_feedback' here"):
        start(family, reverse_corpus)


def test_there_is_no_best_before_a_run(reverse_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*best\.pt"):
        load_weights(tiny_config(tmp_path), reverse_corpus)


# --- what a run writes -----------------------------------------------------------------------------------------------


def test_the_run_keeps_its_config(whole: Run) -> None:
    assert load_config(whole.config.run_directory / "config.yaml") == whole.config


def test_the_log_tells_every_validation(whole: Run) -> None:
    log = (whole.config.run_directory / "log.txt").read_text(encoding="utf-8").splitlines()
    told = [line.split(" ", 2)[2] for line in log if "validation" in line]
    assert [line.split(":")[0] for line in told] == [f"update {update}" for update in VALIDATIONS]
    losses = scalars(whole.config.run_directory)["validation/loss"]
    points = read_log(whole.config.run_directory)
    assert [point.update for point in points] == VALIDATIONS
    assert [point.loss for point in points] == pytest.approx([loss for _, loss in losses], abs=1e-5)


def test_a_log_with_translations_has_their_score(tmp_path: Path) -> None:
    lines = [
        "2026-01-01 10:00:00 update 500: validation loss 3.25, exact match 1.5%",
        "2026-01-01 10:10:00 update 1000: validation loss 2.5, exact match 4%, BLEU 20.41, chrF 40.1",
        "2026-01-01 10:20:00 update 1000: validation loss 2.25, exact match 4.5%, BLEU 21.5, chrF 41.0",
    ]
    (tmp_path / "log.txt").write_text("\n".join(lines), encoding="utf-8")
    assert [tuple(point) for point in read_log(tmp_path)] == [(500, 3.25, 0.015, None), (1000, 2.25, 0.045, 21.5)]


def test_tensorboard_has_every_tag_at_its_updates(whole: Run) -> None:
    found = scalars(whole.config.run_directory)
    assert {tag: [step for step, _ in values] for tag, values in found.items()} == {
        "training/loss": [5, 10, 15, 20],
        "training/gradient_norm": [5, 10, 15, 20],
        "training/learning_rate": [5, 10, 15, 20],
        "training/target_tokens_per_second": [5, 10, 15, 20],
        "validation/loss": VALIDATIONS,
        "validation/accuracy": VALIDATIONS,
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
    ((rank, chosen),) = Selection.from_dict(whole.last["selection"]).best
    assert chosen == update
    assert rank == pytest.approx((match, loss))
    model, updates = load_weights(whole.config, reverse_corpus)
    assert updates == [update]
    assert not model.training
    again = validate(model, reverse_corpus.arrays("validation"), whole.config.training.batch_tokens)
    assert (again.exact_match, -again.loss) == rank


def test_a_worse_model_does_not_replace_the_best(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trainer, _ = start(config, reverse_corpus)

    def spoil() -> None:
        with torch.no_grad():
            trainer.model.get_parameter("output.bias").copy_(torch.linspace(-9, 9, 54))

    at_update(trainer, 13, spoil)
    trainer.train()
    assert (state(config, "last.pt")["update"], state(config, "best.pt")["update"]) == (20, 12)
    losses = dict(scalars(tmp_path)["validation/loss"])
    ((rank, _),) = Selection.from_dict(state(config, "last.pt")["selection"]).best
    assert -rank[1] == pytest.approx(losses[12])
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
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = math.sqrt(math.fsum(gradient.square().sum().item() for gradient in gradients))
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


# --- killed ----------------------------------------------------------------------------------------------------------

#: A process that has imported everything and trained nothing, from which each run below is forked.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["training.trainer", "tests.training.conftest"])

Moment = Literal["writing", "written"]


def full_config(run_directory: Path, **training: Any) -> Config:
    """Dropout, a moving average, two batches an update, several weights kept: all that a state has to hold."""
    values: dict[str, Any] = {"accumulate": 2, "ema_decay": 0.8, "save_every": 2, "validate_every": 4, "updates": 14}
    values |= {"keep_best": 3, "keep_last": 2, "validation_sentences": 3, "select_by": "loss", "schedule": "constant"}
    return tiny_config(run_directory, training=values | training)


@pytest.fixture(scope="module")
def full(reverse_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A full run that nothing killed."""
    return finish(full_config(tmp_path_factory.mktemp("full")), reverse_corpus)


def run_and_be_killed(config: Config, data: Path, moment: Moment | None, save: int) -> None:
    """In a process of its own; SIGKILL in the middle of writing a file, or right after it, where that is asked for."""
    count = 0
    replace = Path.replace

    def counted(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if (count, moment) == (save, "writing"):
            path.write_bytes(path.read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)
        moved = replace(path, target)
        if (count, moment) == (save, "written"):
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = counted  # type: ignore[method-assign, assignment]
    Trainer(config, Corpus(data), Console(file=io.StringIO())).train()


def begin(config: Config, corpus: Corpus, moment: Moment | None = None, save: int = 0) -> ForkServerProcess:
    process = _processes.Process(target=run_and_be_killed, args=(config, corpus.directory, moment, save))
    process.start()
    return process


def saved_at(config: Config) -> int:
    """When the state was saved last."""
    path = config.run_directory / "last.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


def assert_ends_like(whole: Run, config: Config, corpus: Corpus) -> None:
    """To the last bit: the state, the best weights, the weights that are kept."""
    finished = finish(config, corpus)
    assert_same(finished.last, whole.last)
    assert_same(finished.best, whole.best)
    directory, other = config.run_directory, whole.config.run_directory
    names = sorted(path.relative_to(other) for path in other.rglob("*.pt*"))
    assert sorted(path.relative_to(directory) for path in directory.rglob("*.pt*")) == names
    for name in names:
        assert_same(torch.load(directory / name, weights_only=True), torch.load(other / name, weights_only=True))


def test_a_full_run_is_full(full: Run) -> None:
    """Why what follows says something."""
    assert full.config.model.model_dump()["dropout"] > 0.0
    assert full.last["averaged"]["n_averaged"].item() == 14
    assert len(list((full.config.run_directory / "kept").iterdir())) >= 3
    assert not torch.equal(full.last["model"]["output.weight"], full.last["averaged"]["module.output.weight"])
    assert (full.last["epoch"], full.last["batch"]) == (2, 8)


def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(
    full: Run, reverse_corpus: Corpus, tmp_path: Path
) -> None:
    """Again and again: some while after it has saved something new, and sometimes before."""
    config, generator, kills = full_config(tmp_path), random.Random(time.time_ns()), 0
    for kill in range(3):
        before, process = saved_at(config), begin(config, reverse_corpus)
        while saved_at(config) == before and process.is_alive():
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, 0.2) if kill else 0.0)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills
    assert_ends_like(full, config, reverse_corpus)


@pytest.mark.parametrize(
    ("moment", "save"),
    [("writing", 1), ("written", 1), ("writing", 3), ("written", 3), ("written", 4), ("writing", 5), ("writing", 8)],
)
def test_a_run_that_is_killed_while_it_saves_ends_as_if_it_had_not_been(
    full: Run, reverse_corpus: Corpus, tmp_path: Path, moment: Moment, save: int
) -> None:
    """The state at update 2; the best weights, the kept ones and the state at 4; the state at 6; those at 8."""
    config = full_config(tmp_path)
    process = begin(config, reverse_corpus, moment, save)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert_ends_like(full, config, reverse_corpus)


def test_a_killed_run_is_shown_once(full: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    """TensorBoard passes over what came after the state that the run continued from."""
    config = full_config(tmp_path, save_every=6)
    process = begin(config, reverse_corpus, "written", 5)  # best.pt and 4.pt; last.pt at 6; best.pt and 8.pt
    process.join()
    assert saved_updates(config) == 6
    time.sleep(1.0)  # TensorBoard's files are in the order of their seconds
    assert finish(config, reverse_corpus).last["update"] == 14
    found, wanted = scalars(tmp_path), scalars(full.config.run_directory)
    assert found.keys() == wanted.keys()
    for tag in wanted.keys() - {"training/target_tokens_per_second"}:
        assert found[tag] == wanted[tag], tag
    points = [point.update for point in read_log(tmp_path)]
    assert points == [4, 8, 12, 14]


# --- accumulated, and in several processes ---------------------------------------------------------------------------


def even_config(run_directory: Path, **training: Any) -> Config:
    """Nothing random, and an Adam that does not blow rounding up: what is left is the sum over the batches."""
    values = {"schedule": "constant", "adam_epsilon": 0.1, "learning_rate": 0.3, "updates": 6}
    return tiny_config(run_directory, training=values | training, model={"dropout": 0.0})


def weights(config: Config) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = state(config, "last.pt")["model"]
    return found


def assert_close(config: Config, wanted: dict[str, torch.Tensor]) -> None:
    found = weights(config)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_two_accumulated_batches_are_the_one_that_holds_both(reverse_corpus: Corpus, tmp_path: Path) -> None:
    """Whatever the tokens of either, and at the end of an epoch too, where one of 20 is left alone."""
    configs = {
        "one": even_config(tmp_path / "one", batch_sentences=40, updates=10),
        "two": even_config(tmp_path / "two", batch_sentences=20, accumulate=2, updates=10),
        "other": even_config(tmp_path / "other", batch_sentences=20, updates=10),
    }
    for config in configs.values():
        finish(config, reverse_corpus)
    assert_close(configs["two"], weights(configs["one"]))
    places = [(state(configs[name], "last.pt")["epoch"], state(configs[name], "last.pt")["batch"]) for name in configs]
    assert places == [(1, 2), (1, 4), (0, 10)]
    with pytest.raises(AssertionError):
        assert_close(configs["other"], weights(configs["one"]))
    losses = [scalars(tmp_path / name)["training/loss"] for name in ("one", "two")]
    assert [loss for _, loss in losses[0]] == pytest.approx([loss for _, loss in losses[1]], rel=1e-5)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def one_of_many(config: Config, data: Path, environment: dict[str, str]) -> None:
    """What each process of ``torchrun`` does."""
    os.environ.update(environment)
    with joined(CPU) as processes:
        assert (processes.rank, processes.count) == (int(environment["RANK"]), int(environment["WORLD_SIZE"]))
        assert Trainer(config, Corpus(data), Console(file=io.StringIO()), processes).train()


def finish_in_two(config: Config, corpus: Corpus) -> None:
    everyone = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    everyone |= {"GLOO_SOCKET_IFNAME": "lo"}
    environments = [everyone | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [
        _processes.Process(target=one_of_many, args=(config, corpus.directory, environment))
        for environment in environments
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.parametrize(
    "training",
    [
        {"accumulate": 2},
        {"accumulate": 2, "batch_sentences": 45, "updates": 9},
        {"accumulate": 4, "batch_sentences": 45, "ema_decay": 0.7, "keep_last": 1, "label_smoothing": 0.1},
    ],
    ids=["even", "none for one", "more for one"],
)
def test_two_processes_end_with_the_weights_of_one(
    reverse_corpus: Corpus, tmp_path: Path, training: dict[str, Any]
) -> None:
    """An epoch has 8 batches, or 7 of 45 sentences: then its last update has one for one process, and none or one for
    the other."""
    config = even_config(tmp_path / "two", validate_every=3, **training)
    finish_in_two(config, reverse_corpus)
    alone = finish(even_config(tmp_path / "one", validate_every=3, **training), reverse_corpus)
    assert_close(config, alone.last["model"])
    assert len(state(config, "last.pt")["random_states"]) == 2
    found, wanted = (scalars(tmp_path / name) for name in ("two", "one"))
    assert found.keys() == wanted.keys()
    for tag in ("training/loss", "training/gradient_norm", "validation/loss"):
        assert [step for step, _ in found[tag]] == [step for step, _ in wanted[tag]]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in wanted[tag]], rel=1e-4)
    if "ema_decay" in training:
        averaged = state(config, "last.pt")["averaged"]
        torch.testing.assert_close(averaged, alone.last["averaged"], rtol=1e-5, atol=1e-6)
        assert [path.name for path in (tmp_path / "two" / "kept").iterdir()] == ["6.pt"]


def test_processes_have_dropout_of_their_own_and_continue_with_it(reverse_corpus: Corpus, tmp_path: Path) -> None:
    """A run of two that was stopped and continued is the run that was not, to the last bit."""
    changes = {"accumulate": 2, "schedule": "constant", "validate_every": 3}
    whole = tiny_config(tmp_path / "whole", training={**changes, "updates": 6})
    finish_in_two(whole, reverse_corpus)
    for updates in (3, 6):
        finish_in_two(tiny_config(tmp_path / "halves", training={**changes, "updates": updates}), reverse_corpus)
    halves = tiny_config(tmp_path / "halves")
    assert_same(state(halves, "last.pt"), state(whole, "last.pt"))
    one, other = (states["cpu"] for states in state(whole, "last.pt")["random_states"])
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("accumulate", "count"), [(1, 2), (3, 2), (4, 3)])
def test_batches_that_processes_cannot_share_are_refused(
    reverse_corpus: Corpus, tmp_path: Path, accumulate: int, count: int
) -> None:
    config = even_config(tmp_path, accumulate=accumulate)
    told = f"training.accumulate is {accumulate}, which {count} processes cannot share: make it a multiple"
    for rank in range(count):
        with pytest.raises(ConfigError, match=told):
            Trainer(config, reverse_corpus, Console(file=io.StringIO()), Processes(rank, count, CPU))
    assert not (tmp_path / "last.pt").exists()


def launched(config: Config, corpus: Corpus) -> subprocess.Popen[str]:
    """``torchrun --nproc-per-node 2``, and in each process the command ``heed-train train``."""
    directory = config.run_directory
    shutil.copytree(corpus.directory, directory / "data")
    path = write_config(directory / "tiny.yaml", config.model_dump(mode="json"))
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), "--no-python"]
    command = [sys.executable, "-c", "from training.cli import main; main()", "train", str(path)]
    return subprocess.Popen(
        [sys.executable, *torchrun, *command],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks /proc for the launcher's processes")
def test_a_launcher_that_is_terminated_stops_both_and_the_run_continues(reverse_corpus: Corpus, tmp_path: Path) -> None:
    """Here with one process, at the update where both stopped: the weights are those of one process throughout."""
    config = even_config(tmp_path / "run", accumulate=2, updates=100_000, save_every=3, learning_rate=0.1)
    launcher = launched(config, reverse_corpus)
    try:
        while saved_at(config) == 0 and launcher.poll() is None:
            time.sleep(0.01)
        workers = children(launcher.pid)
        launcher.send_signal(signal.SIGTERM)
        shown, _ = launcher.communicate()
    finally:
        launcher.kill()
    assert len(workers) == 2, shown
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert shown.count("stopping after this update") == 2, shown
    assert "continuing" not in shown
    done = state(config, "last.pt")["update"]
    assert done >= 3
    continued = even_config(tmp_path / "run", accumulate=2, updates=done + 2, learning_rate=0.1)
    assert f"continuing after update {done}" in finish(continued, reverse_corpus).console
    alone = finish(even_config(tmp_path / "alone", accumulate=2, updates=done + 2, learning_rate=0.1), reverse_corpus)
    assert_close(continued, alone.last["model"])


def test_a_mistake_under_the_launcher_is_told(reverse_corpus: Corpus, tmp_path: Path) -> None:
    launcher = launched(even_config(tmp_path / "run", accumulate=3), reverse_corpus)
    shown, _ = launcher.communicate()
    assert launcher.returncode != 0
    assert "heed-train: training.accumulate is 3, which 2 processes cannot share: make it a multiple" in shown
    assert not (tmp_path / "run" / "last.pt").exists()


# --- what is kept, and when a run ends by itself ---------------------------------------------------------------------


def script(monkeypatch: pytest.MonkeyPatch, *losses: float) -> list[dict[str, torch.Tensor]]:
    """Let the validations find these losses; returns the weights that were validated, as they come."""
    seen: list[dict[str, torch.Tensor]] = []
    wanted = iter(losses)

    def look(model: torch.nn.Module, _arrays: object, _batch_tokens: int) -> Validation:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return Validation(loss=next(wanted), accuracy=0.0, exact_match=0.0)

    monkeypatch.setattr(trainer_module, "validate", look)
    return seen


def kept(config: Config) -> list[int]:
    return sorted(int(path.stem) for path in (config.run_directory / "kept").iterdir())


def quick(run_directory: Path, **training: Any) -> Config:
    """A validation after every second update, selected by loss."""
    values = {"updates": 12, "validate_every": 2, "select_by": "loss", "schedule": "constant"}
    return tiny_config(run_directory, training=values | training)


def test_a_run_ends_when_it_gets_no_better(
    reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is then finished, until it is given more patience."""
    config = quick(tmp_path, patience=2)
    script(monkeypatch, 3.0, 2.0, 2.5, 2.0, 1.9, 1.8)
    assert finish(config, reverse_corpus).last["update"] == 8
    assert state(config, "best.pt")["update"] == 4
    trainer, _ = start(config, reverse_corpus)
    at_update(trainer, 1, crash)
    assert trainer.train()
    script(monkeypatch, 1.9, 1.8)
    finished = finish(quick(tmp_path, patience=3), reverse_corpus)
    assert finished.last["update"] == 12
    assert finished.best["update"] == 12


def test_a_run_without_patience_goes_on(
    reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert finish(quick(tmp_path), reverse_corpus).last["update"] == 12


def test_a_plateau_lowers_the_rate(reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the update after the validation on; also after a stop."""
    script(monkeypatch, 3.0, 3.0, 3.0, 3.0, 2.0, 2.0)
    plateau = {"schedule": "plateau", "plateau_patience": 1, "plateau_factor": 0.1, "warmup_updates": 0, "log_every": 1}
    config = quick(tmp_path, **plateau)
    trainer, _ = start(config, reverse_corpus)
    at_update(trainer, 6, interrupt)
    assert not trainer.train()
    finish(config, reverse_corpus)
    rates = [rate for _, rate in scalars(tmp_path)["training/learning_rate"]]
    assert rates == pytest.approx([0.01 * 0.1**n for n in (0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3)])


LOSSES = (5.0, 2.0, 4.0, 3.0, 6.0, 7.0)


@pytest.mark.parametrize(
    ("keep", "wanted"),
    [
        ({"keep_best": 2}, [4, 8]),
        ({"keep_best": 3, "keep_last": 1}, [4, 6, 8, 12]),
        ({"keep_last": 2}, [4, 10, 12]),
        ({"keep_best": 2, "keep_last": 9}, [2, 4, 6, 8, 10, 12]),
    ],
)
def test_the_weights_that_are_wanted_are_kept_and_no_others(
    reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: dict[str, int], wanted: list[int]
) -> None:
    config = quick(tmp_path, **keep)
    seen = script(monkeypatch, *LOSSES)
    finish(config, reverse_corpus)
    assert kept(config) == wanted
    for update in wanted:
        found = load(Weights, tmp_path / "kept" / f"{update}.pt", config.model.model_dump(), reverse_corpus.hashes)
        assert found.update == update
        assert_same(dict(found.model), seen[update // 2 - 1])
    assert_same(state(config, "best.pt")["model"], seen[1])


def test_by_default_the_best_alone_is_kept(whole: Run) -> None:
    names = sorted(path.name for path in whole.config.run_directory.iterdir())
    assert names == ["best.pt", "config.yaml", "last.pt", "log.txt", "tensorboard"]


def exported(config: Config, which: str) -> Config:
    return config.model_copy(update={"export": config.export.model_copy(update={"weights": which})})


@pytest.mark.parametrize("ema_decay", [None, 0.6])
def test_an_export_takes_the_best_or_the_mean_of_the_best_or_of_the_last(
    reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema_decay: float | None
) -> None:
    """Of the moving average where there is one: what was validated."""
    config = quick(tmp_path, keep_best=3, keep_last=2, ema_decay=ema_decay)
    seen = script(monkeypatch, *LOSSES)
    finished = finish(config, reverse_corpus)
    for which, updates in (("best", [4]), ("average_best", [4, 6, 8]), ("average_last", [10, 12])):
        model, found = load_weights(exported(config, which), reverse_corpus)
        assert found == updates
        assert not model.training
        mean = average(seen[update // 2 - 1] for update in updates)
        assert_same(dict(model.state_dict()), mean)
    assert torch.equal(seen[-1]["output.weight"], finished.last["model"]["output.weight"]) == (ema_decay is None)


def test_an_export_may_go_some_of_the_way_back_to_a_start(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    other = finish(quick(tmp_path / "other", seed=5), reverse_corpus)
    start = shutil.copytree(whole.config.run_directory, tmp_path / "start")
    (start / "data").mkdir()  # what tells a run's directory
    back = {"interpolation": {"start": str(start), "share": 0.25}}
    config = Config.model_validate(other.config.model_dump() | {"export": other.config.export.model_dump() | back})
    ends = [load_weights(run.config, reverse_corpus)[0].state_dict() for run in (other, whole)]
    model, _ = load_weights(config, reverse_corpus)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, 0.75 * ends[0][name] + 0.25 * ends[1][name])


def test_the_mean_of_the_last_needs_some(whole: Run, reverse_corpus: Corpus) -> None:
    with pytest.raises(CheckpointError, match=r"is average_last, and .* has kept none: train with training\.keep_last"):
        load_weights(exported(whole.config, "average_last"), reverse_corpus)


def test_the_mean_of_the_best_needs_some(whole: Run, reverse_corpus: Corpus) -> None:
    """A run that keeps one best has no second to take a mean with."""
    with pytest.raises(CheckpointError, match=r"is average_best, and .* has kept none: train with training\.keep_best"):
        load_weights(exported(whole.config, "average_best"), reverse_corpus)


def test_a_kill_leaves_the_weights_that_the_last_state_names(
    reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was validated behind that state is kept too, and does not push out what it names."""
    config = quick(tmp_path, keep_last=2, save_every=5)
    script(monkeypatch, *LOSSES)
    trainer, _ = start(config, reverse_corpus)
    at_update(trainer, 9, crash)
    with pytest.raises(MemoryError):
        trainer.train()
    assert state(config, "last.pt")["update"] == 5
    average = exported(config, "average_last")
    assert load_weights(average, reverse_corpus)[1] == [2, 4]
    (tmp_path / "kept" / "2.pt").unlink()
    with pytest.raises(CheckpointError, match=r"is average_last, and .* has kept no 2\.pt"):
        load_weights(average, reverse_corpus)


def test_the_moving_average_is_what_is_validated(full: Run, reverse_corpus: Corpus) -> None:
    model, _ = load_weights(full.config, reverse_corpus)
    update = full.best["update"]
    found = validate(model, reverse_corpus.arrays("validation"), full.config.training.batch_tokens)
    shown = dict(scalars(full.config.run_directory)["validation/loss"])
    assert found.loss == pytest.approx(shown[update])
    assert found.loss == pytest.approx(min(shown.values()))
    if update == 14:
        wanted = {name: full.last["averaged"][f"module.{name}"] for name in full.best["model"]}
        assert_same(full.best["model"], wanted)


# --- full disks, empty corpora ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["last.pt", "best.pt", "18.pt"])
def test_a_full_disk_ends_the_run_and_leaves_the_last_state(
    whole: Run, reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Whatever is being written then; given space, the run ends as if nothing had been."""
    config = tiny_config(tmp_path, training={"keep_last": 4})
    replace, before = Path.replace, list[bytes]()

    def fill(path: Path, target: Path) -> Path:
        if target.name == file and saved_updates(config) == 12:
            before.append((tmp_path / "last.pt").read_bytes())
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fill)
    with pytest.raises(CheckpointError, match=rf"cannot save .*{file}: No space left on device; .* is untouched"):
        start(config, reverse_corpus)[0].train()
    monkeypatch.undo()
    assert [(tmp_path / "last.pt").read_bytes()] == before
    found = load(Checkpoint, tmp_path / "last.pt", config.model.model_dump(), reverse_corpus.hashes)
    assert found.update == 12
    load_weights(config, reverse_corpus)
    assert not list(tmp_path.rglob("*.partial"))
    finished = finish(config, reverse_corpus)
    assert_same(finished.last["model"], whole.last["model"])
    assert_same(finished.best, whole.best)
    assert kept(config) == [6, 12, 18, 20]


def saved_updates(config: Config) -> int:
    return int(state(config, "last.pt")["update"]) if saved_at(config) else 0


@pytest.mark.parametrize("part", ["training", "validation"])
def test_an_empty_corpus_is_refused(reverse_corpus: Corpus, tmp_path: Path, part: str) -> None:
    directory = Path(shutil.copytree(reverse_corpus.directory, tmp_path / "data"))
    for side in SIDES:
        np.save(directory / f"{part}.{side}.offsets.npy", np.array([0]))
    with pytest.raises(CorpusError, match=f"{part}: 0 source and 0 target sentences; need as many of each"):
        start(tiny_config(tmp_path), Corpus(directory))
    assert not (tmp_path / "last.pt").exists()


def test_an_unknown_key_stops_a_run_before_it_begins(whole: Run, tmp_path: Path) -> None:
    path = write_config(tmp_path / "run.yaml", tiny_values(whole.config.run_directory, training={"learning_rat": 1}))
    before = (whole.config.run_directory / "last.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"unknown key training\.learning_rat$"):
        load_config(path)
    assert (whole.config.run_directory / "last.pt").read_bytes() == before


# --- precision -------------------------------------------------------------------------------------------------------


needs_bfloat16 = pytest.mark.skipif(not cpu_computes_bfloat16(), reason="needs a processor that computes bfloat16")


@needs_bfloat16
@pytest.mark.parametrize("family", ["recurrent", "transformer"])
def test_bf16_trains_and_keeps_its_weights_in_fp32(reverse_corpus: Corpus, tmp_path: Path, family: str) -> None:
    model = {"family": "transformer", "size": 8, "heads": 2, "feed_forward": 16, "encoder_layers": 1}
    values = tiny_values(tmp_path, training={"precision": "bf16", "device": "cpu", "ema_decay": 0.5})
    if family == "transformer":
        values["model"] = model
    dtypes: list[torch.dtype] = []
    config = Config.model_validate(values)
    trainer, _ = start(config, reverse_corpus)

    def listen(layer: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        if layer.training:
            dtypes.append(output.dtype)

    for layer in trainer.model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(listen)
    assert trainer.train()
    assert set(dtypes) == {torch.bfloat16}
    losses = [loss for _, loss in scalars(tmp_path)["validation/loss"]]
    assert losses[-1] < losses[0] - 0.01
    found = state(config, "last.pt")
    moments = [entry for entries in found["optimizer"]["state"].values() for entry in entries.values()]
    tensors = [*found["model"].values(), *state(config, "best.pt")["model"].values(), *moments]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@needs_bfloat16
def test_bf16_is_another_run(whole: Run, reverse_corpus: Corpus, tmp_path: Path) -> None:
    """A near one: why the test above says something."""
    other = finish(tiny_config(tmp_path, training={"precision": "bf16", "device": "cpu"}), reverse_corpus)
    one, found = (run.last["model"]["output.weight"] for run in (whole, other))
    assert not torch.equal(one, found)
    torch.testing.assert_close(one, found, rtol=0.0, atol=0.1)


def test_bf16_on_a_processor_without_it_is_fp32_and_told(
    whole: Run, reverse_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.cpu_computes_bfloat16", lambda: False)
    run = finish(tiny_config(tmp_path, training={"precision": "bf16", "device": "cpu"}), reverse_corpus)
    assert "training.precision is bf16, which this processor does not compute: fp32 in its place" in run.console
    assert "fp32 in its place" not in whole.console
    assert_same(run.last["model"], whole.last["model"])


def test_fp16_on_a_cpu_is_refused(reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"precision": "fp16", "device": "cpu"})
    with pytest.raises(ConfigError, match=r"training\.precision fp16 needs a CUDA device: choose bf16 or fp32"):
        start(config, reverse_corpus)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"training\.device is cuda, and there is no CUDA device here"):
        choose_device(tiny_config(tmp_path, training={"device": "cuda"}))
    assert choose_device(tiny_config(tmp_path)) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(tiny_config(tmp_path)).type == "cuda"
    assert choose_device(tiny_config(tmp_path, training={"device": "cpu"})) == CPU


# --- subword regularisation ------------------------------------------------------------------------------------------


def sampled_config(run_directory: Path, sampling: float, **training: Any) -> Config:
    """Of pieces of numbers, which are cut anew in each epoch."""
    side = {"kind": "bpe", "vocabulary_size": 290, "sampling": sampling}
    values = {"updates": 10, "validate_every": 5} | training
    return tiny_config(run_directory, training=values, tokenizers={"source": side, "target": side})


def test_text_that_is_cut_anew_is_cut_alike_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text all the same, each epoch in other pieces; validation is not cut anew."""
    config = sampled_config(tmp_path / "whole", 0.5, batch_sentences=100, updates=7)
    corpus = prepare(config, ignore_progress)
    trainer, _ = start(config, corpus)
    judged_features, read = trainer.model.judged_features, list[list[str]]()
    cut: list[list[list[int]]] = []

    def listen(inputs: Inputs, judged: torch.Tensor) -> torch.Tensor:
        if trainer.model.training:
            cut.append(inputs.source_ids.tolist())
            read.append([corpus.tokenizer("source").decode(ids).text for ids in inputs.source_ids.tolist()])
        return judged_features(inputs, judged)

    monkeypatch.setattr(trainer.model, "judged_features", listen)
    assert trainer.train()
    texts = [example.source for example in corpus.examples("training")]
    assert sorted(text for batch in read[:3] for text in batch) == sorted(texts)
    assert sorted(text for batch in read[3:6] for text in batch) == sorted(texts)
    ways = [{tuple(ids for ids in row if ids != PAD_ID) for batch in cut[i : i + 3] for row in batch} for i in (0, 3)]
    assert len(ways[0] & ways[1]) < 100
    stopped = sampled_config(tmp_path / "stopped", 0.5, batch_sentences=100, updates=7)
    shutil.copytree(corpus.directory, tmp_path / "stopped" / "data")
    other, _ = start(stopped, corpus)
    at_update(other, 4, interrupt)
    assert not other.train()
    assert_same(finish(stopped, corpus).last, state(config, "last.pt"))


# --- TensorBoard -----------------------------------------------------------------------------------------------------


def test_tensorboard_has_translations_and_attention_at_each_validation(full: Run, reverse_corpus: Corpus) -> None:
    events = EventAccumulator(str(full.config.run_directory / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    wanted = {f"training/{name}" for name in ("loss", "learning_rate", "target_tokens_per_second", "gradient_norm")}
    wanted |= {f"validation/{name}" for name in ("loss", "accuracy", "exact_match", "bleu", "chrf")}
    assert set(tags["scalars"]) == wanted
    validations = [4, 8, 12, 14]
    for tag in wanted:
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == (validations if tag.startswith("validation/") else [5, 10])
    assert tags["images"] == ["attention"]
    pictures = events.Images("attention")
    assert [picture.step for picture in pictures] == validations
    first = next(reverse_corpus.examples("validation"))
    columns, rows = (len(text.split()) + 1 for text in (first.source, first.target))
    for picture in pictures:
        assert picture.encoded_image_string.startswith(b"\x89PNG")
        assert picture.width / picture.height == pytest.approx((columns + 90 / 16) / (rows + 90 / 16))
    assert len({picture.encoded_image_string for picture in pictures}) > 1, "it changes as the model learns"
    assert set(tags["tensors"]) == {f"samples/{number}/text_summary" for number in range(3)}
    for number, example in zip(range(3), reverse_corpus.examples("validation"), strict=False):
        shown = events.Tensors(f"samples/{number}/text_summary")
        assert [event.step for event in shown] == validations
        text = shown[-1].tensor_proto.string_val[0].decode()
        assert text.startswith(example.source)
        assert text.endswith(f"({example.target})")


def test_a_model_that_attends_to_nothing_has_no_picture(reverse_corpus: Corpus, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, model={"attention": "none"}, training={"updates": 2, "validate_every": 1})
    finish(config, reverse_corpus)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == []
    assert len(events.Scalars("validation/loss")) == 2

"""The training loop: batches in, checkpoints out. Continues where a run stopped, and stops cleanly when asked.

Knows the model's ``forward`` and nothing of its inside. A run directory holds ``config.yaml``, ``log.txt``,
TensorBoard events, ``last.pt`` and ``best.pt``.
"""

from __future__ import annotations

import math
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.tensorboard import SummaryWriter

from training.batches import Batch, make_batch, plan_epoch, plan_epoch_of_any_length
from training.checkpoint import Checkpoint
from training.config import Config, TrainingConfig
from training.corpus import SIDES, Corpus, ParallelArrays
from training.errors import TrainingError
from training.models import build
from training.models.interface import NOT_JUDGED, TranslationModel


@dataclass(frozen=True)
class Validation:
    """``loss`` in nats per target token; ``exact_match`` the share of targets that greedy search would give whole.

    Greedy search gives a target when each of its tokens is the likeliest after those before it, so one teacher-forced
    pass tells.
    """

    loss: float
    exact_match: float

    def better_than(self, other: Validation) -> bool:
        return (self.exact_match, -self.loss) > (other.exact_match, -other.loss)


_LOG_LINE = "update {update}: validation loss {loss:.5f}, exact match {exact:.4f}%"
_LOG_PATTERN = re.compile(r"update (\d+): validation loss ([\d.]+), exact match ([\d.]+)%")


class LogPoint(NamedTuple):
    """One validation of a run."""

    update: int
    loss: float
    exact_match: float


def read_log(run_directory: Path) -> list[LogPoint]:
    """A run's validations in order; of one update that was reached twice, after a crash, the last."""
    text = (run_directory / "log.txt").read_text(encoding="utf-8")
    found = {int(update): (float(loss), float(exact) / 100) for update, loss, exact in _LOG_PATTERN.findall(text)}
    return [LogPoint(update, *found[update]) for update in sorted(found)]


def learning_rate(config: TrainingConfig, update: int) -> float:
    """Linear warm-up, then constant or half a cosine down to zero at the last update. ``update`` counts from 0."""
    if update < config.warmup_updates:
        return config.learning_rate * (update + 1) / config.warmup_updates
    if config.schedule == "constant":
        return config.learning_rate
    progress = (update - config.warmup_updates) / max(1, config.updates - config.warmup_updates)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def build_model(config: Config, corpus: Corpus) -> TranslationModel:
    """The model of a config, untrained."""
    source, target = (corpus.tokenizer(side).vocabulary_size for side in SIDES)
    return build(config.model, source, target)


class Trainer:
    """One run. ``train`` returns True when the last update is done, False when it was asked to stop before."""

    def __init__(self, config: Config, corpus: Corpus, console: Console) -> None:
        """Builds the model, or continues from ``last.pt``; raises TrainingError when that is of another model."""
        corpus.check(config)
        torch.manual_seed(config.training.seed)
        if config.training.threads:
            torch.set_num_threads(config.training.threads)
        self._config = config
        self._data_sha256 = corpus.hashes
        self._settings = config.training
        self._console = console
        self._training, self._validation = corpus.arrays("training"), corpus.arrays("validation")
        self.model = build_model(config, corpus)
        self._optimizer = torch.optim.Adam(
            self.model.parameters(), betas=self._settings.adam_betas, eps=self._settings.adam_epsilon
        )
        self._update, self._epoch, self._batch = 0, 0, 0
        self._best = Validation(loss=math.inf, exact_match=-1.0)
        self._stop = threading.Event()
        self._directory = config.run_directory
        self._directory.mkdir(parents=True, exist_ok=True)
        if (self._directory / "last.pt").is_file():
            self._restore()

    def train(self) -> bool:
        """Run to the last update or to the first SIGINT or SIGTERM; either way ``last.pt`` holds all that was done."""
        self._write_config()
        with SummaryWriter(str(self._directory / "tensorboard")) as board, self._progress() as progress:
            task = progress.add_task("training", total=self._settings.updates, completed=self._update, note="")
            with self._stopping_on_signals():
                for batch in self._batches():
                    started = time.perf_counter()
                    loss, norm = self._train_on(batch)
                    self._after_update(board, batch, loss, norm, time.perf_counter() - started)
                    progress.update(task, completed=self._update, note=f"loss {loss:.4f}")
                    if self._stop.is_set():
                        break
                self._save("last.pt")
        return self._update >= self._settings.updates

    def _batches(self) -> Iterator[Batch]:
        """From where the run stands to its last update, epoch after epoch."""
        while self._update < self._settings.updates:
            plan = self._plan_epoch()
            while self._batch < len(plan) and self._update < self._settings.updates:
                sentences = plan[self._batch]
                self._batch += 1
                yield make_batch(self._training, sentences)
            if self._batch >= len(plan):
                self._epoch, self._batch = self._epoch + 1, 0

    def _plan_epoch(self) -> list[npt.NDArray[np.int64]]:
        settings = self._settings
        if settings.batch_sentences is None:
            return plan_epoch(self._training, settings.batch_tokens, settings.seed, self._epoch)
        return plan_epoch_of_any_length(len(self._training), settings.batch_sentences, settings.seed, self._epoch)

    def _train_on(self, batch: Batch) -> tuple[float, float]:
        """One update; returns the loss per target token and the gradient's norm. Raises TrainingError on a NaN."""
        self.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, self._update)
        self._optimizer.zero_grad(set_to_none=True)
        logits = self.model(batch.source_ids, batch.source_lengths, batch.target_inputs, batch.context).logits
        judged = self.model.judged_targets(batch.target_ids)
        loss = _loss(logits, judged, self._settings.label_smoothing) / (judged != NOT_JUDGED).sum()
        if not torch.isfinite(loss):
            raise self._diverged(f"the loss is {loss.item()}")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self.model.parameters(), self._settings.gradient_norm)
        if not torch.isfinite(norm):  # clipping has already made NaN of every gradient: take no step
            raise self._diverged(f"the gradient's norm is {norm.item()}")
        self._optimizer.step()
        self._update += 1
        return loss.item(), norm.item()

    def _diverged(self, what: str) -> TrainingError:
        last = self._directory / "last.pt"
        rest = f"; {last} is the last good state" if last.is_file() else ""
        return TrainingError(f"{what} at update {self._update + 1}: lower the learning rate{rest}")

    def _after_update(self, board: SummaryWriter, batch: Batch, loss: float, norm: float, seconds: float) -> None:
        settings = self._settings
        if self._update % settings.log_every == 0:
            board.add_scalar("training/loss", loss, self._update)
            board.add_scalar("training/gradient_norm", norm, self._update)
            board.add_scalar("training/learning_rate", learning_rate(settings, self._update - 1), self._update)
            board.add_scalar("training/target_tokens_per_second", batch.target_tokens / seconds, self._update)
        if self._update % settings.validate_every == 0 or self._update == settings.updates:
            found = validate(self.model, self._validation, settings.batch_tokens)
            board.add_scalar("validation/loss", found.loss, self._update)
            board.add_scalar("validation/exact_match", found.exact_match, self._update)
            self._log(_LOG_LINE.format(update=self._update, loss=found.loss, exact=100 * found.exact_match))
            if found.better_than(self._best):
                self._best = found
                self._save("best.pt")
            self._save("last.pt")

    def _save(self, name: str) -> None:
        Checkpoint(
            model_config=self._config.model.model_dump(),
            data_sha256=self._data_sha256,
            model=self.model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            random_state=torch.get_rng_state(),
            update=self._update,
            epoch=self._epoch,
            batch=self._batch,
            best_exact_match=self._best.exact_match,
            best_loss=self._best.loss,
        ).save(self._directory / name)

    def _restore(self) -> None:
        state = Checkpoint.load(self._directory / "last.pt", self._config.model.model_dump(), self._data_sha256)
        self.model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(state.random_state)
        self._update, self._epoch, self._batch = state.update, state.epoch, state.batch
        self._best = Validation(loss=state.best_loss, exact_match=state.best_exact_match)
        self._log(f"continuing after update {self._update}")

    def _log(self, line: str) -> None:
        stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"
        self._console.print(stamped, highlight=False, markup=False, emoji=False)
        with (self._directory / "log.txt").open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")

    def _write_config(self) -> None:
        text = yaml.safe_dump(self._config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (self._directory / "config.yaml").write_text(text, encoding="utf-8")

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self._console)

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the run after the update at hand; the second ends it at once."""

        def stop(number: int, _frame: FrameType | None) -> None:
            self._stop.set()
            self._console.print("stopping after this update; once more to stop at once")
            signal.signal(number, before[signal.Signals(number)])

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in numbers:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, before[number])


def validate(model: TranslationModel, corpus: ParallelArrays, batch_tokens: int) -> Validation:
    """Loss and exact match over a whole corpus, teacher-forced."""
    model.eval()
    loss, tokens, exact = 0.0, 0, 0
    with torch.no_grad():
        for sentences in plan_epoch(corpus, batch_tokens, seed=0, epoch=0):
            batch = make_batch(corpus, sentences)
            logits = model(batch.source_ids, batch.source_lengths, batch.target_inputs, batch.context).logits
            judged = model.judged_targets(batch.target_ids)
            loss += _loss(logits, judged, label_smoothing=0.0).item()
            tokens += int((judged != NOT_JUDGED).sum())
            right = (logits.argmax(-1) == judged) | (judged == NOT_JUDGED)
            exact += int(right.all(dim=1).sum())
    return Validation(loss=loss / tokens, exact_match=exact / len(corpus))


def _loss(logits: Tensor, judged: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy summed over the positions that are judged, in nats."""
    return functional.cross_entropy(
        logits.flatten(0, 1),
        judged.flatten(),
        ignore_index=NOT_JUDGED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )


def load_best(config: Config, corpus: Corpus) -> tuple[TranslationModel, Path]:
    """The model of ``best.pt``, for evaluation and export, and where it came from."""
    path = config.run_directory / "best.pt"
    state = Checkpoint.load(path, config.model.model_dump(), corpus.hashes)
    model = build_model(config, corpus)
    model.load_state_dict(state.model)
    return model.eval(), path

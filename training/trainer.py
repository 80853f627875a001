"""The training loop: batches in, checkpoints out. Continues exactly where a run stopped, and stops cleanly when asked.

Knows the objective and nothing of the model's inside. A run directory holds ``config.yaml``, ``log.txt``, TensorBoard
events, ``last.pt`` (to continue from), ``best.pt`` and ``kept/<update>.pt`` (weights). Several processes: ``torchrun``.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import yaml
from rich.console import Console
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from training import checkpoint
from training.averaging import average, interpolated, moving_average
from training.batches import Batch, make_batch, plan_epoch, plan_epoch_of_any_length
from training.checkpoint import Checkpoint, Weights
from training.config import Config
from training.corpus import SIDES, Corpus
from training.distributed import Processes
from training.errors import CheckpointError, ConfigError, TrainingError
from training.guided_alignment import TrainingLinks
from training.journal import Journal, Update
from training.models import build
from training.models.interface import NOT_JUDGED, TranslationModel
from training.models.precision import cpu_computes_bfloat16
from training.objective import Objective
from training.schedules import learning_rate
from training.selection import Selection, Validation
from training.start import StartBundle, load_stored
from training.subwords import SubwordSampler
from training.validation import Sample, score, translate_validation, validate
from training.widening import widened

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def build_model(config: Config, corpus: Corpus) -> TranslationModel:
    """The model of a config, untrained."""
    source, target = (corpus.tokenizer(side).vocabulary_size for side in SIDES)
    return build(config.model, source, target)


def choose_device(config: Config) -> torch.device:
    """Raises ConfigError for a device that is not there, or a precision that it has not."""
    wanted, there = config.training.device, torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError("training.device is cuda, and there is no CUDA device here: choose auto or cpu")
    device = torch.device("cuda" if there and wanted != "cpu" else "cpu")
    if config.training.precision == "fp16" and device.type == "cpu":
        raise ConfigError("training.precision fp16 needs a CUDA device: choose bf16 or fp32")
    return device


class Share(NamedTuple):
    """A batch of an update, and what it weighs: 0 where it is there to keep a process in step."""

    batch: Batch
    weight: float = 1.0


class Trainer:
    """One run. ``train`` returns True when it is done, False when it was asked to stop before."""

    def __init__(self, config: Config, corpus: Corpus, console: Console, processes: Processes | None = None) -> None:
        """Builds the model, or continues from ``last.pt``; raises TrainingError when that is of another model."""
        corpus.check(config)
        self._config, self._settings, self._corpus, self._console = config, config.training, corpus, console
        self._processes = processes or Processes(0, 1, choose_device(config))
        settings, device = self._settings, self._processes.device
        if settings.accumulate % self._processes.count:
            raise ConfigError(
                f"training.accumulate is {settings.accumulate}, which {self._processes.count} processes cannot share: "
                "make it a multiple"
            )
        self._autocast_dtype = _AUTOCAST.get(settings.precision)
        if self._autocast_dtype == torch.bfloat16 and device.type == "cpu" and not cpu_computes_bfloat16():
            self._autocast_dtype = None
            self._console.print("training.precision is bf16, which this processor does not compute: fp32 in its place")
        torch.manual_seed(settings.seed)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._training, self._validation = corpus.arrays("training"), corpus.arrays("validation")
        self._samplers = {
            side: SubwordSampler(corpus.tokenizer_path(side), settings_of_side.kind, settings_of_side.sampling)
            for side, settings_of_side in (("source", config.tokenizers.source), ("target", config.tokenizers.target))
            if settings_of_side.sampling
        }
        self._texts = corpus.training_texts() if self._samplers else None
        guided = settings.guided_alignment
        self._links = None if guided is None else TrainingLinks(guided.links, corpus, len(self._training))
        self.model = build_model(config, corpus).to(device)
        self._objective = self._processes.share(Objective(self.model, settings))
        self._optimizer = torch.optim.Adam(
            self.model.parameters(), betas=settings.adam_betas, eps=settings.adam_epsilon, fused=True
        )
        self._averaged = None if settings.ema_decay is None else moving_average(self.model, settings.ema_decay)
        self._scaler = torch.amp.GradScaler(device.type) if settings.precision == "fp16" else None
        self._update, self._epoch, self._batch = 0, 0, 0
        self._selection = Selection()
        self._stop = threading.Event()
        self._directory = config.run_directory
        self._directory.mkdir(parents=True, exist_ok=True)
        if (self._directory / "last.pt").is_file():
            self._restore()
        else:
            if config.start_from is not None:
                _begin(self.model, config, config.start_from, corpus)
            if self._processes.count > 1:  # the same start everywhere, then dropout of its own in each process
                torch.manual_seed(settings.seed + self._processes.rank)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def train(self) -> bool:
        """Run to the end or to the first SIGINT or SIGTERM; either way ``last.pt`` holds all that was done."""
        self._write_config()
        with self._stopping_on_signals(), self._open_journal() as self._journal:
            if self._ended:
                return True
            for shares in self._updates():
                stopped = self._train_on(shares)
                if self._due(self._settings.validate_every):
                    self._validate()
                if stopped or self._ended or self._due(self._settings.save_every):
                    self._save_state()
                if stopped or self._ended:
                    break
        return self._ended

    @property
    def _ended(self) -> bool:
        return self._update >= self._settings.updates or self._selection.should_stop(self._settings)

    def _due(self, every: int | None) -> bool:
        return self._update % (every or self._settings.validate_every) == 0 or self._update == self._settings.updates

    def _train_on(self, shares: list[Share]) -> bool:
        """One update by this process's share of its batches; True when any process was asked to stop."""
        started = time.perf_counter()
        rate = learning_rate(self._settings, self._update, self._selection.reductions)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        judged = sum(self._count_judged(share.batch) * share.weight for share in shares)
        (tokens,) = self._processes.sum([judged])
        own_loss = sum(self._backward(share, tokens, last=share is shares[-1]) for share in shares)
        loss, asked = self._processes.sum([own_loss / tokens, float(self._stop.is_set())])
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        norm = self._step()
        self._update += 1
        self._journal.updated(Update(self._update, loss, norm, rate, int(tokens), time.perf_counter() - started))
        return asked > 0

    def _count_judged(self, batch: Batch) -> int:
        return int((self.model.judged_targets(batch.target_ids) != NOT_JUDGED).sum())

    def _backward(self, share: Share, tokens: float, last: bool) -> float:
        """Add a batch's part of the gradient of the loss per token; returns its summed loss."""
        wrapped = self._objective
        waiting = not last and isinstance(wrapped, DistributedDataParallel)
        with wrapped.no_sync() if waiting else nullcontext():  # type: ignore[operator]
            with self._autocast():
                loss: Tensor = wrapped(share.batch.to(self._processes.device)) * share.weight
            # Gradients of several processes are averaged: times their count it is their sum.
            scaled = loss * (self._processes.count / tokens)
            (scaled if self._scaler is None else self._scaler.scale(scaled)).backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        dtype = self._autocast_dtype
        return nullcontext() if dtype is None else torch.autocast(self._processes.device.type, dtype)

    def _step(self) -> float:
        """Clip, step, follow with the moving average; returns the gradient's norm before it was clipped."""
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        norm = clip_grad_norm_(self.model.parameters(), self._settings.gradient_norm).item()
        if self._scaler is not None:  # passes over a step whose gradient is no number, and lowers its scale
            self._scaler.step(self._optimizer)
            self._scaler.update()
        elif not math.isfinite(norm):  # clipping has already made NaN of every gradient: take no step
            raise self._diverged(f"the gradient's norm is {norm}")
        else:
            self._optimizer.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self.model)
        return norm

    def _diverged(self, what: str) -> TrainingError:
        last = self._directory / "last.pt"
        rest = f"; {last} is the last good state" if last.is_file() else ""
        return TrainingError(f"{what} at update {self._update + 1}: lower the learning rate{rest}")

    # --- batches ------------------------------------------------------------------------------------------------------

    def _updates(self) -> Iterator[list[Share]]:
        """This process's batches of each update, from where the run stands, epoch after epoch.

        An epoch's last update may have fewer batches than the others; a process that is left without one computes the
        first, which weighs nothing: all must take part in every backward pass.
        """
        count, rank = self._processes.count, self._processes.rank
        while True:
            plan = iter(self._plan_epoch()[self._batch :])
            while group := list(islice(plan, self._settings.accumulate)):
                first, self._batch = self._batch, self._batch + len(group)
                own = [Share(self._make(group[place], first + place)) for place in range(rank, len(group), count)]
                yield own or [Share(self._make(group[0], first), weight=0.0)]
            self._epoch, self._batch = self._epoch + 1, 0

    def _make(self, sentences: npt.NDArray[np.int64], number: int) -> Batch:
        """The epoch's batch of this number, which also decides how its text is cut where it is cut anew."""
        resampled = {}
        for side, sampler in self._samplers.items():
            examples = [self._texts[int(pair)] for pair in sentences if self._texts is not None]
            texts = [getattr(example, side) for example in examples]
            first_pieces = map(self._corpus.first_piece, examples) if side == "source" else None
            seed = np.random.SeedSequence([self._settings.seed, self._epoch, number, SIDES.index(side)])
            resampled[side] = sampler.encode(texts, int(seed.generate_state(1)[0]) % 2**31, first_pieces)
        batch = make_batch(self._training, sentences, resampled)
        return batch if self._links is None else replace(batch, links=self._links.of_batch(sentences, batch))

    def _plan_epoch(self) -> list[npt.NDArray[np.int64]]:
        settings = self._settings
        if settings.batch_sentences is None:
            return plan_epoch(self._training, settings.batch_tokens, settings.seed, self._epoch)
        return plan_epoch_of_any_length(len(self._training), settings.batch_sentences, settings.seed, self._epoch)

    # --- validation and state -----------------------------------------------------------------------------------------

    def _validate(self) -> None:
        """The first process looks, all take note; the weights that are wanted are kept."""
        found, samples = self._look() if self._processes.first else (None, list[Sample]())
        found = self._processes.from_first(found)
        if found is None:
            raise RuntimeError("the first process gave no validation")
        improved = self._selection.record(self._settings, self._update, found)
        self._journal.validated(self._update, found, samples)
        self._journal.attention(self._update, self._judged_model, self._corpus)
        if self._processes.first:
            self._keep_weights(improved)

    def _look(self) -> tuple[Validation, list[Sample]]:
        settings, model = self._settings, self._judged_model
        found = validate(model, self._validation, settings.batch_tokens)
        if not settings.validation_sentences:
            return found, []
        samples = translate_validation(
            model, self._corpus, self._validation, settings.validation_sentences, settings.batch_tokens
        )
        bleu, chrf = score(samples)
        return Validation(found.loss, found.accuracy, found.exact_match, bleu, chrf), samples

    @property
    def _judged_model(self) -> TranslationModel:
        """The moving average where there is one: what is validated is what is kept and exported."""
        model = self.model if self._averaged is None else self._averaged.module
        if not isinstance(model, TranslationModel):
            raise TypeError(f"{type(model).__name__} is no TranslationModel")
        return model

    def _keep_weights(self, improved: bool) -> None:
        settings, kept = self._settings, self._directory / "kept"
        state = Weights(
            self._config.model.model_dump(), self._corpus.hashes, self._judged_model.state_dict(), self._update
        )
        if improved:
            checkpoint.save(self._directory / "best.pt", state)
        if settings.keep_best == 1 and not settings.keep_last:
            return
        kept.mkdir(exist_ok=True)
        if self._update in self._selection.kept:
            checkpoint.save(kept / f"{self._update}.pt", state)

    def _save_state(self) -> None:
        random_states = [{"cpu": numbers} for numbers in self._processes.gather(torch.get_rng_state())]
        if self._processes.device.type == "cuda":
            for states, numbers in zip(random_states, self._processes.gather(torch.cuda.get_rng_state()), strict=True):
                states["cuda"] = numbers.cpu()
        if not self._processes.first:
            return
        state = Checkpoint(
            model_config=self._config.model.model_dump(),
            data_sha256=self._corpus.hashes,
            model=self.model.state_dict(),
            update=self._update,
            optimizer=self._optimizer.state_dict(),
            averaged=None if self._averaged is None else self._averaged.state_dict(),
            scaler=None if self._scaler is None else self._scaler.state_dict(),
            selection=self._selection.to_dict(),
            random_states=random_states,
            epoch=self._epoch,
            batch=self._batch,
        )
        checkpoint.save(self._directory / "last.pt", state)
        for path in (self._directory / "kept").glob("*.pt"):  # not before: the last.pt that a kill leaves names them
            if int(path.stem) not in self._selection.kept:
                path.unlink()

    def _restore(self) -> None:
        path = self._directory / "last.pt"
        state = checkpoint.load(Checkpoint, path, self._config.model.model_dump(), self._corpus.hashes)
        self.model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        for own, saved in ((self._averaged, state.averaged), (self._scaler, state.scaler)):
            if own is not None and saved is not None:
                own.load_state_dict(saved)
        self._selection = Selection.from_dict(state.selection)
        if len(state.random_states) == self._processes.count:  # of another number dropout differs, nothing else
            random_state = state.random_states[self._processes.rank]
            torch.set_rng_state(random_state["cpu"])
            if self._processes.device.type == "cuda" and "cuda" in random_state:
                torch.cuda.set_rng_state(random_state["cuda"])
        self._update, self._epoch, self._batch = state.update, state.epoch, state.batch

    def _write_config(self) -> None:
        if not self._processes.first:
            return
        text = yaml.safe_dump(self._config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (self._directory / "config.yaml").write_text(text, encoding="utf-8")

    # --- the outside --------------------------------------------------------------------------------------------------

    def _open_journal(self) -> Journal:
        settings = self._settings
        journal = Journal(
            self._directory,
            self._console,
            settings.updates,
            settings.log_every,
            self._update,
            not self._processes.first,
        )
        if self._update:
            journal.say(f"continuing after update {self._update}")
            if self._selection.measure not in ("", settings.select_by):
                journal.say(f"select_by is no longer {self._selection.measure}: the best is chosen anew")
        return journal

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


def _begin(model: TranslationModel, config: Config, start_from: Path, corpus: Corpus) -> None:
    """The weights that training begins with: those of ``start_from``, or on the line through them and others."""
    model_config = config.model.model_dump()
    if (line := config.start_interpolation) is None:
        _start_from(model, start_from, model_config, corpus)
        return
    _start_from(model, line.between, model_config, corpus)
    between = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _start_from(model, start_from, model_config, corpus)
    model.load_state_dict(interpolated(model.state_dict(), between, line.share))


def _start_from(model: TranslationModel, start: Path, model_config: dict[str, Any], corpus: Corpus) -> None:
    """A run's best weights or a bundle's. Raises CheckpointError for those of another model; its dropout may be
    another, and its feed-forward networks narrower."""
    if (bundle := StartBundle.at(start)) is None:
        weights = checkpoint.load_start(start / "best.pt", model_config, corpus.start_hashes)
        model.load_state_dict(widened(weights, model))
        return
    load_stored(model, bundle.weights(model_config, corpus.start_hashes), f"start_from: {start}")


def load_weights(config: Config, corpus: Corpus) -> tuple[TranslationModel, list[int]]:
    """The model that ``export.weights`` names, for evaluation and export, and the updates that its weights are of: of
    a run's start none.

    Raises CheckpointError.
    """
    directory, model_config = config.run_directory, config.model.model_dump()
    if config.export.weights == "start" and config.start_from is not None:
        model = build_model(config, corpus)
        _begin(model, config, config.start_from, corpus)
        return model.eval(), [0]
    paths = [directory / "best.pt"]
    if config.export.weights != "best":
        state = checkpoint.load(Checkpoint, directory / "last.pt", model_config, corpus.hashes)
        selection = Selection.from_dict(state.selection)
        of_best = config.export.weights == "average_best"
        updates = [update for _, update in selection.best] if of_best else selection.last
        paths = [directory / "kept" / f"{update}.pt" for update in sorted(updates)]
        missing = [path.name for path in paths if not path.is_file()]
        if missing or not paths:
            which = "none" if len(missing) == len(paths) else f"no {', '.join(missing)}"
            raise CheckpointError(
                f"export.weights is {config.export.weights}, and {directory} has kept {which}: "
                f"train with training.{'keep_best' if of_best else 'keep_last'} of 2 or more"
            )
    states = [checkpoint.load(Weights, path, model_config, corpus.hashes) for path in paths]
    model = build_model(config, corpus)
    weights = average(state.model for state in states)
    if (between := config.export.interpolation) is not None:
        _start_from(model, between.start, model_config, corpus)
        weights = interpolated(weights, model.state_dict(), between.share)
    model.load_state_dict(weights)
    return model.eval(), [state.update for state in states]

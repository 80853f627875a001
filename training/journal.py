"""What a run tells of itself: ``log.txt``, TensorBoard events, samples with their attention. Knows no optimiser."""

from __future__ import annotations

import re
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from service.attention.views import aligned
from service.bundle.tokenizer import BOS_ID
from training.corpus import Corpus
from training.models.interface import AutoregressiveModel, Context, TranslationModel
from training.selection import Validation
from training.validation import Sample

_LOG_LINE = "update {update}: validation loss {loss:.5f}, exact match {exact:.4f}%"
_LOG_PATTERN = re.compile(r"update (\d+): validation loss ([\d.]+), exact match ([\d.]+)%(?:, BLEU ([\d.]+))?")
_CELL, _LABEL = 0.22, 1.0  # inches of a picture: of a weight, and about those of the labels
_LONGEST_PICTURE, _PIECE = 60, 14  # tokens, and letters of each
_SAMPLES = 3


class LogPoint(NamedTuple):
    """One validation of a run."""

    update: int
    loss: float
    exact_match: float
    bleu: float | None = None  # where sentences were translated


def read_log(run_directory: Path) -> list[LogPoint]:
    """A run's validations in order; of one update that was reached twice, after a crash, the last."""
    text = (run_directory / "log.txt").read_text(encoding="utf-8")
    found = {
        int(update): LogPoint(int(update), float(loss), float(exact) / 100, float(bleu) if bleu else None)
        for update, loss, exact, bleu in _LOG_PATTERN.findall(text)
    }
    return [found[update] for update in sorted(found)]


@dataclass(frozen=True)
class Update:
    """What one update did: ``loss`` per target token, and the tokens of all processes' batches."""

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float
    target_tokens: int
    seconds: float


class Journal:
    """Open while a run runs. ``silent`` for every process but the first: it writes nothing."""

    def __init__(
        self, directory: Path, console: Console, updates: int, log_every: int, done: int, silent: bool
    ) -> None:
        self._directory, self._console, self._log_every, self._silent = directory, console, log_every, silent
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console, disable=silent
        )
        self._task = self._progress.add_task("training", total=updates, completed=done, note="")
        # What a killed run wrote after the state that this one continues from is passed over.
        self._board = None if silent else SummaryWriter(str(directory / "tensorboard"), purge_step=done + 1)
        self._tokens, self._seconds = 0, 0.0

    def __enter__(self) -> Journal:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._board is not None:
            self._board.close()

    def say(self, line: str) -> None:
        """A line for the console and for ``log.txt``."""
        if self._silent:
            return
        stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"
        self._console.print(stamped, highlight=False, markup=False, emoji=False)
        with (self._directory / "log.txt").open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")

    def updated(self, update: Update) -> None:
        self._tokens, self._seconds = self._tokens + update.target_tokens, self._seconds + update.seconds
        rate = self._tokens / self._seconds
        self._progress.update(self._task, completed=update.number, note=f"loss {update.loss:.4f}, {rate:,.0f} tokens/s")
        if self._board is None or update.number % self._log_every:
            return
        if not self._console.is_terminal:  # where the progress bar is not seen
            line = f"update {update.number}: training loss {update.loss:.4f}, {rate:,.0f} target tokens/s"
            self._console.print(line, highlight=False, markup=False, emoji=False)
        self._board.add_scalar("training/loss", update.loss, update.number)
        self._board.add_scalar("training/gradient_norm", update.gradient_norm, update.number)
        self._board.add_scalar("training/learning_rate", update.learning_rate, update.number)
        self._board.add_scalar("training/target_tokens_per_second", rate, update.number)
        self._tokens, self._seconds = 0, 0.0

    def validated(self, update: int, found: Validation, samples: list[Sample]) -> None:
        line = _LOG_LINE.format(update=update, loss=found.loss, exact=100 * found.exact_match)
        if found.bleu is not None and found.chrf is not None:
            line += f", BLEU {found.bleu:.2f}, chrF {found.chrf:.2f}"
        self.say(line)
        if self._board is None:
            return
        for name, value in vars(found).items():
            if value is not None:
                self._board.add_scalar(f"validation/{name}", value, update)
        for number, sample in enumerate(samples[:_SAMPLES]):
            text = f"{sample.source}\n\n→ {sample.translation}\n\n({sample.reference})"
            self._board.add_text(f"samples/{number}", text, update)

    def attention(self, update: int, model: TranslationModel, corpus: Corpus) -> None:
        """A picture of where the model looks while it is told the first validation sentence's target."""
        if self._board is None or (picture := attention_picture(model, corpus)) is None:
            return
        self._board.add_image("attention", picture, update, dataformats="HWC")


def attention_picture(model: TranslationModel, corpus: Corpus) -> npt.NDArray[np.uint8] | None:
    """Rows are the target's tokens, columns the source's, darker is more: (height, width, 3), or None without it."""
    if not isinstance(model, AutoregressiveModel) or (alignment := model.alignment) is None:
        return None
    was_training, device = model.training, next(model.parameters()).device
    example = next(corpus.examples("validation"))
    source, target = corpus.encode(example)
    context = None
    if model.context_sentences:
        before = [corpus.tokenizer("source").encode_ids(text) for text in example.context]
        context = Context.of_one(before, model.context_sentences)
    model.eval()
    with torch.no_grad():
        source_ids = torch.tensor([list(source.ids)], device=device)
        inputs = torch.tensor([[BOS_ID, *target.ids[:-1]]], device=device)
        lengths = torch.tensor([source_ids.shape[1]], dtype=torch.int32, device=device)
        decoded = model(
            source_ids, lengths, inputs, None if context is None else Context(*(t.to(device) for t in context))
        )
    model.train(was_training)
    weights = aligned(decoded.attention[alignment.map][0].transpose(0, 1).float().cpu().numpy(), alignment)
    pieces = [[token.piece for token in text.tokens] for text in (source, target)]
    return _draw(weights[:_LONGEST_PICTURE, :_LONGEST_PICTURE], *pieces)


def _draw(weights: npt.NDArray[np.float32], columns: list[str], rows: list[str]) -> npt.NDArray[np.uint8]:
    height, width = weights.shape
    figure = Figure(figsize=(_LABEL + _CELL * width, _LABEL + _CELL * height), layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    axes.imshow(weights, cmap="gray_r", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(width), [piece[:_PIECE] for piece in columns[:width]], rotation=90, parse_math=False)
    axes.set_yticks(range(height), [piece[:_PIECE] for piece in rows[:height]], parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    with warnings.catch_warnings():  # scripts that the font lacks are boxes
        warnings.filterwarnings("ignore", "Glyph")
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]

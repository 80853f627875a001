"""A run's state on disk: everything needed to continue as if it had never stopped."""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import CheckpointError
from training.files import write_atomically


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run. ``update`` is how many updates are done; ``epoch`` and ``batch`` say which batch is next."""

    model_config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    random_state: Tensor
    update: int
    epoch: int
    batch: int
    best_exact_match: float
    best_loss: float

    def save(self, path: Path) -> None:
        """Write at once or not at all: a full disk or a kill leaves the old file whole. Raises CheckpointError."""
        buffer = io.BytesIO()
        torch.save(asdict(self), buffer)
        try:
            write_atomically(path, buffer.getvalue())
        except OSError as error:
            raise CheckpointError(f"cannot save {path}: {error.strerror}; the last checkpoint is untouched") from error

    @classmethod
    def load(cls, path: Path, model_config: dict[str, Any]) -> Checkpoint:
        """Raises CheckpointError when the file is missing, damaged or of another model than ``model_config``."""
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
            checkpoint = cls(**values)
        except FileNotFoundError as error:
            raise CheckpointError(f"no checkpoint {path}: run `heed-train train CONFIG` first") from error
        except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path} is damaged: delete it, or restore it from a copy") from error
        if checkpoint.model_config != model_config:
            different = sorted(
                f"{key}: {checkpoint.model_config.get(key)!r} there, {model_config.get(key)!r} here"
                for key in checkpoint.model_config.keys() | model_config.keys()
                if checkpoint.model_config.get(key) != model_config.get(key)
            )
            raise CheckpointError(f"{path} is of another model ({'; '.join(different)}): use another run_directory")
        return checkpoint

"""A run's state on disk: everything needed to continue as if it had never stopped."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from training.config import ModelConfig
from training.errors import CheckpointError
from training.files import write_atomically

_MODEL_CONFIG: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run. ``update`` is how many updates are done; ``epoch`` and ``batch`` say which batch is next."""

    model_config: dict[str, Any]
    data_sha256: dict[str, str]
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
    def load(cls, path: Path, model_config: dict[str, Any], data_sha256: dict[str, str]) -> Checkpoint:
        """Raises CheckpointError when the file is missing, damaged, or of another model or corpus than these."""
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
            checkpoint = cls(**values)
            _check_types(checkpoint)
        except FileNotFoundError as error:
            raise CheckpointError(f"no checkpoint {path}: run `heed-train train CONFIG` first") from error
        except Exception as error:  # torch and pickle raise a dozen kinds for damaged bytes
            raise CheckpointError(f"{path} is damaged: delete it, or restore it from a copy") from error
        if different := _differences(_with_defaults(checkpoint.model_config), model_config):
            raise CheckpointError(f"{path} is of another model ({'; '.join(different)}): use another run_directory")
        if different := _differences(checkpoint.data_sha256, data_sha256):
            raise CheckpointError(
                f"{path} was trained on other data ({len(different)} files differ): use another run_directory"
            )
        return checkpoint


def _with_defaults(model_config: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of an older Heed lacks the keys that came later, whose defaults are what it did."""
    try:
        return _MODEL_CONFIG.validate_python(model_config).model_dump()
    except ValidationError:
        return model_config


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return sorted(
        f"{key}: {there.get(key)!r} there, {here.get(key)!r} here"
        for key in there.keys() | here.keys()
        if there.get(key) != here.get(key)
    )


def _check_types(checkpoint: Checkpoint) -> None:
    for name, kind in (("model_config", dict), ("data_sha256", dict), ("model", dict), ("update", int)):
        if not isinstance(getattr(checkpoint, name), kind):
            raise TypeError(f"{name} is no {kind.__name__}")

"""A run's state on disk: everything needed to continue as if it had never stopped, and the weights that are kept."""

from __future__ import annotations

import errno
import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from training.config import ModelConfig
from training.errors import CheckpointError
from training.files import write_atomically

_MODEL_CONFIG: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)


@dataclass(frozen=True)
class Weights:
    """The weights after an update: what an export needs."""

    model_config: dict[str, Any]
    data_sha256: dict[str, str]
    model: dict[str, Tensor]
    update: int


@dataclass(frozen=True)
class Checkpoint(Weights):
    """One moment of a run. ``update`` is how many updates are done; ``epoch`` and ``batch`` say which batch is next.

    ``averaged`` is the moving average, ``scaler`` that of fp16, None without; ``selection`` what was chosen so far;
    ``random_states`` those of each process, by device type.
    """

    optimizer: dict[str, Any]
    averaged: dict[str, Any] | None
    scaler: dict[str, Any] | None
    selection: dict[str, Any]
    random_states: list[dict[str, Tensor]]
    epoch: int
    batch: int


W = TypeVar("W", bound=Weights)


def save(path: Path, state: Weights) -> None:
    """Write at once or not at all: a full disk or a kill leaves the old file whole. Raises CheckpointError."""
    buffer = io.BytesIO()
    torch.save({field.name: getattr(state, field.name) for field in fields(state)}, buffer)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise CheckpointError(f"cannot save {path}: {error.strerror}; the last checkpoint is untouched") from error


def load(kind: type[W], path: Path, model_config: dict[str, Any], data_sha256: dict[str, str]) -> W:
    """Raises CheckpointError when the file is missing, damaged, or of another model or corpus than these."""
    state = _read(kind, path)
    if different := _differences(_with_defaults(state.model_config), model_config):
        raise CheckpointError(f"{path} is of another model ({'; '.join(different)}): use another run_directory")
    if different := _differences(state.data_sha256, data_sha256):
        raise CheckpointError(
            f"{path} was trained on other data ({len(different)} files differ): use another run_directory"
        )
    return state


def _read(kind: type[W], path: Path) -> W:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        state = kind(**{field.name: values[field.name] for field in fields(kind)})
        _check_types(state)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}: run `heed-train train CONFIG` first") from error
    except MemoryError:
        raise
    except Exception as error:  # torch and pickle raise a dozen kinds for damaged bytes
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is how torch reads half a file
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        raise CheckpointError(f"{path} is damaged, or of another Heed: delete it, or restore it from a copy") from error
    return state


def load_start(path: Path, model_config: dict[str, Any], data_sha256: dict[str, str]) -> dict[str, Tensor]:
    """The weights that another run begins with: of the same tokenizers, whatever its text, and of the same model but
    for its dropout and narrower feed-forward networks (``training.widening``). Raises CheckpointError."""
    state = _read(Weights, path)
    check_start(str(path), state.model_config, state.data_sha256, model_config, data_sha256)
    return state.model


def check_start(
    where: str,
    model_there: dict[str, Any],
    data_there: dict[str, str],
    model_config: dict[str, Any],
    data_sha256: dict[str, str],
) -> None:
    """Raises CheckpointError where the weights of ``where`` are of another model, or of other tokenizers."""
    there, here = ({**values, "dropout": None} for values in (_with_defaults(model_there), model_config))
    # Of a Transformer, which goes on as a wider one (``training.widening``).
    narrow, wide = there.get("feed_forward"), here.get("feed_forward")
    if isinstance(narrow, int) and isinstance(wide, int) and narrow < wide:
        there["feed_forward"] = wide
    if different := _differences(there, here):
        raise CheckpointError(f"start_from: {where} is of another model ({'; '.join(different)}): make them the same")
    for name in ("source.spm", "target.spm"):
        if data_there.get(name) != data_sha256[name]:
            raise CheckpointError(
                f"start_from: {where} is of other tokenizers ({name} differs): run `heed-train prepare CONFIG` again"
            )


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


def _check_types(state: Weights) -> None:
    for name, kind in (("model_config", dict), ("data_sha256", dict), ("model", dict), ("update", int)):
        if not isinstance(getattr(state, name), kind):
            raise TypeError(f"{name} is no {kind.__name__}")

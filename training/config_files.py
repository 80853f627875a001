"""YAML to plain values, before they are checked: ``training.config`` says what they must be."""

from __future__ import annotations

from pathlib import Path

import yaml

from training.errors import ConfigError


def read_values(path: Path) -> object:
    """What the file says. ``base: OTHER.yaml``, beside it, is read first: a key here replaces the one there, key by key
    in sections, lists as a whole.

    Raises ConfigError for a file that cannot be read, is no YAML, or is its own base.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> object:
    if path.resolve() in above:
        raise ConfigError(f"{path} is a base of itself")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or "base" not in values:
        return values
    base = values.pop("base")
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base = {base!r}: name a file beside it")
    return _merged(_read(path.parent / base, (*above, path.resolve())), values)


def _merged(below: object, above: object) -> object:
    """Sections are merged unless they are of different kinds, whose keys are not each other's."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    if any(below.get(tag) != above.get(tag, below.get(tag)) for tag in ("kind", "family", "task")):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}

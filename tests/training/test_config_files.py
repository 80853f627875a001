"""YAML files laid over others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from training.config_files import read_values
from training.errors import ConfigError


def write(path: Path, values: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_keys_replace_those_of_the_base_section_by_section(tmp_path: Path) -> None:
    write(
        tmp_path / "low.yaml", {"name": "low", "training": {"updates": 5, "seed": 1}, "list": [1, 2], "kept": {"a": 1}}
    )
    write(tmp_path / "middle.yaml", {"base": "low.yaml", "name": "middle", "training": {"seed": 2}})
    top = write(tmp_path / "top.yaml", {"base": "middle.yaml", "name": "top", "list": [3], "training": {"seed": None}})
    assert read_values(top) == {
        "name": "top",
        "training": {"updates": 5, "seed": None},
        "list": [3],
        "kept": {"a": 1},
    }


def test_a_section_of_another_kind_is_a_whole_one(tmp_path: Path) -> None:
    write(
        tmp_path / "low.yaml", {"model": {"family": "recurrent", "cell": "gru"}, "corpus": {"task": "dates", "seed": 1}}
    )
    top = {"base": "low.yaml", "model": {"family": "transformer"}, "corpus": {"kind": "files"}}
    assert read_values(write(tmp_path / "top.yaml", top)) == {
        "model": {"family": "transformer"},
        "corpus": {"kind": "files"},
    }


def test_a_base_is_beside_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "inner" / "low.yaml", {"a": 1})
    write(tmp_path / "inner" / "middle.yaml", {"base": "low.yaml", "b": 2})
    assert read_values(write(tmp_path / "top.yaml", {"base": "inner/middle.yaml"})) == {"a": 1, "b": 2}


@pytest.mark.parametrize("values", [["base"], "base", None, {"a": 1}], ids=str)
def test_a_file_without_a_base_is_as_it_is(tmp_path: Path, values: object) -> None:
    assert read_values(write(tmp_path / "file.yaml", values)) == values


def test_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", {"base": "two.yaml"})
    two = write(tmp_path / "two.yaml", {"base": "one.yaml"})
    with pytest.raises(ConfigError, match=r"two\.yaml is a base of itself"):
        read_values(two)


@pytest.mark.parametrize(
    ("base", "problem"),
    [
        ("absent.yaml", r"cannot read the config .*absent\.yaml: No such file"),
        (["low.yaml"], r"top\.yaml: base = \['low\.yaml'\]: name a file beside it"),
        (None, r"top\.yaml: base = None: name a file beside it"),
    ],
    ids=str,
)
def test_a_base_that_is_no_file_is_refused(tmp_path: Path, base: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_values(write(tmp_path / "top.yaml", {"base": base}))

"""A checkpoint comes back as it was, or is refused with the reason; the old one survives a failing save."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoint import Checkpoint, Weights, load, save
from training.config import ModelConfig, RecurrentConfig, SandGlassConfig, SoftFeedbackConfig, TransformerConfig
from training.errors import CheckpointError

MODEL = RecurrentConfig(decoder_size=256, dropout=0.0).model_dump()
DATA = {"training.source.ids.npy": "12ab", "source.spm": "34cd"}


def checkpoint(update: int = 7, **changes: Any) -> Checkpoint:
    """Of a model with one weight, two steps into Adam."""
    torch.manual_seed(update)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    for _ in range(2):
        layer(torch.randn(4, 3)).sum().backward()
        optimizer.step()
    values: dict[str, Any] = {
        "model_config": MODEL,
        "data_sha256": DATA,
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "averaged": None,
        "scaler": None,
        "selection": {"best": [[[0.25, float("-inf")], 5]], "last": [5], "reductions": 0},
        "random_states": [{"cpu": torch.get_rng_state()}],
        "update": update,
        "epoch": 2,
        "batch": 5,
    }
    return Checkpoint(**(values | changes))


def flat(value: object, name: str = "") -> dict[str, object]:
    """Every leaf of nested dictionaries and lists by its path; tensors as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: v for key, entry in value.items() for k, v in flat(entry, f"{name}.{key}").items()}
    if isinstance(value, list):
        return {k: v for i, entry in enumerate(value) for k, v in flat(entry, f"{name}.{i}").items()}
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value}


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = checkpoint()
    save(tmp_path / "last.pt", saved)
    loaded = load(Checkpoint, tmp_path / "last.pt", MODEL, DATA)
    assert flat(loaded) == flat(saved)
    leaves = {".model.weight", ".optimizer.state.0.exp_avg", ".optimizer.param_groups.0.lr", ".random_states.0.cpu"}
    assert leaves | {".selection.best.0.0.1", ".averaged", ".epoch"} <= flat(saved).keys()


def test_weights_are_all_that_an_export_needs(tmp_path: Path) -> None:
    """They come back as they were; so do those of a whole state; and they are no state to continue from."""
    path, whole = tmp_path / "last.pt", checkpoint()
    weights = Weights(whole.model_config, whole.data_sha256, whole.model, whole.update)
    save(path, weights)
    small = path.stat().st_size
    assert flat(load(Weights, path, MODEL, DATA)) == flat(weights)
    assert_damaged(path)
    save(path, whole)
    assert path.stat().st_size > small
    assert flat(load(Weights, path, MODEL, DATA)) == flat(weights)


def test_a_save_replaces_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save(path, checkpoint(update=1))
    save(path, checkpoint(update=2))
    assert load(Checkpoint, path, MODEL, DATA).update == 2
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


# --- saving fails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "last.pt"
    save(path, checkpoint(update=1))
    before = path.read_bytes()
    monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(
        CheckpointError, match=r"cannot save .*last\.pt: No space left on device; the last .* untouched"
    ):
        save(path, checkpoint(update=2))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    assert load(Checkpoint, path, MODEL, DATA).update == 1


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot save .*last\.pt: No such file or directory"):
        save(tmp_path / "none" / "last.pt", checkpoint())


# --- loading is refused ----------------------------------------------------------------------------------------------


def test_a_missing_checkpoint_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*last\.pt: run `heed-train train CONFIG` first"):
        load(Checkpoint, tmp_path / "last.pt", MODEL, DATA)


def assert_damaged(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged, or of another Heed: delete it, or"):
        load(Checkpoint, path, MODEL, DATA)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.95, 0.999])
def test_half_a_file_is_damaged(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.pt"
    save(path, checkpoint())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_damaged(path)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"PK\x03\x04", b"\x80\x02", b"\x00" * 5000])
def test_another_kind_of_file_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    assert_damaged(path)


@pytest.mark.parametrize(
    "content", [None, 5, [1, 2], {"update": 7}, {"other": 1}, {"model": {}, "model_config": MODEL}]
)
def test_other_contents_are_damaged(tmp_path: Path, content: object) -> None:
    path = tmp_path / "last.pt"
    torch.save(content, path)
    assert_damaged(path)


def test_a_checkpoint_runs_no_code_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": Path("a pickled object")}, path)
    assert_damaged(path)


def test_what_cannot_be_read_is_told_and_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "last.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"^cannot read .*last\.pt: Is a directory$"):
        load(Checkpoint, tmp_path / "last.pt", MODEL, DATA)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"decoder_size": 128}, ["decoder_size: 256 there, 128 here"]),
        ({"decoder_size": 128, "dropout": 0.1}, ["decoder_size: 256 there, 128 here", "dropout: 0.0 there, 0.1 here"]),
        ({"layers": 2}, ["layers: None there, 2 here"]),
    ],
)
def test_another_model_is_told_by_what_differs(tmp_path: Path, change: dict[str, object], told: list[str]) -> None:
    path = tmp_path / "last.pt"
    save(path, checkpoint())
    with pytest.raises(CheckpointError) as refused:
        load(Checkpoint, path, MODEL | change, DATA)
    assert f"is of another model ({'; '.join(told)}): use another run_directory" in str(refused.value)


@pytest.mark.parametrize(
    ("config", "lacking"),
    [
        (RecurrentConfig(decoder_size=256), ["context_sentences"]),
        (RecurrentConfig(decoder_size=256), ["attention", "score", "input_feeding", "decoder_layers", "max_positions"]),
        (TransformerConfig(size=64), ["positions"]),
        (SoftFeedbackConfig(encoder_size=32), ["decoder_size"]),
        (SandGlassConfig(gate="glu"), ["attention", "reduce_attention"]),
    ],
)
def test_a_checkpoint_of_an_older_heed_had_the_defaults_of_later_keys(
    tmp_path: Path, config: ModelConfig, lacking: list[str]
) -> None:
    whole, path = config.model_dump(), tmp_path / "last.pt"
    save(path, checkpoint(model_config={key: value for key, value in whole.items() if key not in lacking}))
    assert load(Checkpoint, path, whole, DATA).update == 7


def test_a_key_that_came_later_and_is_not_its_default_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save(path, checkpoint(model_config={key: value for key, value in MODEL.items() if key != "attention"}))
    with pytest.raises(CheckpointError, match=r"another model \(attention: 'additive' there, 'dot' here\)"):
        load(Checkpoint, path, MODEL | {"attention": "dot"}, DATA)


@pytest.mark.parametrize("here", [256, 128])
def test_a_checkpoint_that_is_no_model_of_this_heed_is_told_as_it_stands(tmp_path: Path, here: int) -> None:
    """No default is guessed for a model that this Heed does not know."""
    path = tmp_path / "last.pt"
    save(path, checkpoint(model_config={"family": "recurrent", "colour": "red", "decoder_size": 256}))
    with pytest.raises(CheckpointError) as refused:
        load(Checkpoint, path, MODEL | {"decoder_size": here}, DATA)
    assert "colour: 'red' there, None here" in str(refused.value)
    assert ("decoder_size: 256 there, 128 here" in str(refused.value)) == (here == 128)


def test_other_data_is_told(tmp_path: Path) -> None:
    """A corpus of as many pieces, whose ids mean other characters, would train on without a word."""
    path = tmp_path / "last.pt"
    save(path, checkpoint())
    with pytest.raises(
        CheckpointError, match=r"was trained on other data \(1 files differ\): use another run_directory"
    ):
        load(Checkpoint, path, MODEL, DATA | {"source.spm": "99"})


@pytest.mark.parametrize("change", [{"model_config": 3}, {"model": []}, {"update": "7"}, {"data_sha256": None}])
def test_a_field_of_another_type_is_damage(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "last.pt"
    if "update" in change:
        torch.save(dataclasses.asdict(checkpoint()) | change, path)
    else:
        save(path, checkpoint(**change))
    assert_damaged(path)

"""The command: its stages in order, its exit statuses, and one line for what the user can mend."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import tiny_values, write_config
from training import cli
from training.corpus import Corpus
from training.models.recurrent import RecurrentModel

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def heed_train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: exit status, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["heed-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return int(left.value.code or 0), shown.out, shown.err

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "tiny.yaml", tiny_values(tmp_path / "run"))


@pytest.fixture
def prepared(config: Path, reverse_corpus: Corpus, tmp_path: Path) -> Path:
    shutil.copytree(reverse_corpus.directory, tmp_path / "run" / "data")
    return config


def assert_one_line(answer: tuple[int, str, str], *parts: str) -> None:
    status, out, err = answer
    assert (status, out) == (1, "")
    assert err.startswith("heed-train: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in parts:
        assert part in err


# --- the stages ------------------------------------------------------------------------------------------------------


def test_preparing_training_and_training_again(heed_train: Command, config: Path, tmp_path: Path) -> None:
    status, out, err = heed_train("prepare", config)
    assert (status, err) == (0, "")
    assert "300 training pairs" in out
    assert "source tokenizer: word, 54 pieces" in out
    assert "already prepared" in heed_train("prepare", config)[1].replace("\n", " ")
    status, out, err = heed_train("train", config)
    assert (status, err) == (0, "")
    assert "update 20: validation loss" in out
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["update"] == 20
    assert heed_train("train", config)[0] == 0


def test_a_run_that_is_stopped_says_how_to_continue(
    heed_train: Command, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_features, calls = RecurrentModel.judged_features, 0

    def stop_in_the_third(model: RecurrentModel, *arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            signal.raise_signal(signal.SIGINT)
        return judged_features(model, *arguments)

    monkeypatch.setattr(RecurrentModel, "judged_features", stop_in_the_third)
    status, out, _ = heed_train("train", prepared)
    assert status == 130
    assert "stopped before the last update; the same command continues" in out
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["update"] == 3
    status, out, _ = heed_train("train", prepared)
    assert status == 0
    assert "continuing after update 3" in out


# --- what the user can mend ------------------------------------------------------------------------------------------

COMMANDS = pytest.mark.parametrize("command", ["prepare", "train", "export", "evaluate"])


@COMMANDS
def test_a_config_that_is_not_there(heed_train: Command, tmp_path: Path, command: str) -> None:
    assert_one_line(heed_train(command, tmp_path / "none.yaml"), "none.yaml", "No such file or directory")


@COMMANDS
def test_a_config_with_mistakes(heed_train: Command, tmp_path: Path, command: str) -> None:
    values = tiny_values(tmp_path, training={"updates": 0}) | {"colour": "red"}
    path = write_config(tmp_path / "wrong.yaml", values)
    assert_one_line(heed_train(command, path), "training.updates = 0: ", "unknown key colour")
    path = write_config(tmp_path / "wrong.yaml", tiny_values(tmp_path, model={"family": "perceptron"}))
    assert_one_line(heed_train(command, path), "model.family = 'perceptron': ")


def test_a_config_that_is_no_yaml(heed_train: Command, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("a: [1,\n\n2", encoding="utf-8")
    assert_one_line(heed_train("prepare", path), "is not valid YAML")


@pytest.mark.parametrize("command", ["train", "export", "evaluate"])
def test_a_corpus_that_is_not_prepared(heed_train: Command, config: Path, command: str) -> None:
    assert_one_line(heed_train(command, config), "no prepared corpus in", "run `heed-train prepare CONFIG` first")


@pytest.mark.parametrize("command", ["train", "export"])
def test_a_corpus_of_other_settings(heed_train: Command, prepared: Path, tmp_path: Path, command: str) -> None:
    write_config(prepared, tiny_values(tmp_path / "run", corpus={"seed": 4}))
    assert_one_line(heed_train(command, prepared), "prepared from another corpus or tokenizer setting")


def test_a_model_that_cannot_read_the_corpus(heed_train: Command, prepared: Path, tmp_path: Path) -> None:
    write_config(prepared, tiny_values(tmp_path / "run") | {"model": {"family": "sandglass"}})
    assert_one_line(heed_train("train", prepared), "SandGlass has 62 pieces on either side, this corpus has 54 and 54")


def test_a_model_that_was_never_trained(heed_train: Command, prepared: Path, tmp_path: Path) -> None:
    assert_one_line(heed_train("export", prepared, "--output", tmp_path / "models"), "no checkpoint", "best.pt")
    assert not (tmp_path / "models").exists()


def test_a_bundle_that_is_not_there(heed_train: Command, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert_one_line(heed_train("evaluate", prepared, "--models", tmp_path / "models"), "tiny")
    assert_one_line(heed_train("evaluate", prepared, "--models", tmp_path / "none"), "no directory", "none")


def test_a_checkpoint_that_is_damaged(heed_train: Command, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "last.pt").write_bytes(b"not a checkpoint")
    assert_one_line(heed_train("train", prepared), "last.pt is damaged")


def test_what_the_user_wrote_is_shown_as_it_is(heed_train: Command, tmp_path: Path) -> None:
    """Square brackets are markup to the console."""
    assert_one_line(heed_train("train", tmp_path / "[bold]none[/bold].yaml"), "[bold]none[/bold].yaml")


def test_a_long_line_is_not_broken_and_a_process_leaves_with_1(tmp_path: Path) -> None:
    path = tmp_path / ("long name " * 20) / "none.yaml"
    program = [sys.executable, "-c", "from training.cli import main; main()", "train", str(path)]
    left = subprocess.run(program, capture_output=True, text=True, check=False)
    assert_one_line((left.returncode, left.stdout, left.stderr), str(path))


# --- usage -----------------------------------------------------------------------------------------------------------


def test_the_command_is_a_module_too() -> None:
    """As torchrun starts it."""
    program = [sys.executable, "-m", "training.cli", "--help"]
    left = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (left.returncode, left.stderr) == (0, "")
    assert all(command in left.stdout for command in ("prepare", "train", "export", "evaluate"))


def test_help_names_the_four_stages(heed_train: Command) -> None:
    status, out, _ = heed_train("--help")
    assert status == 0
    assert all(command in out for command in ("prepare", "train", "export", "evaluate"))


@pytest.mark.parametrize("arguments", [["travel"], ["train"], ["evaluate", "tiny.yaml", "--limit", "0"]])
def test_a_wrong_call_is_told_on_standard_error(heed_train: Command, arguments: list[str]) -> None:
    status, out, err = heed_train(*arguments)
    assert (status, out) == (2, "")
    assert "Usage" in err


def test_an_error_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    """Only what the user can mend is one line; anything else keeps its traceback."""

    def fail(_path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "load_config", fail)
    monkeypatch.setattr(sys, "argv", ["heed-train", "prepare", str(config)])
    with pytest.raises(ZeroDivisionError):
        cli.main()

"""A file is the old one or the new one, whatever fails on the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from training.files import folder_to_replace, write_atomically


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("content", [b"", b"new", b"\x00\r\n\xff" * 50_000])
def test_a_file_is_written_or_replaced_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, content)
    assert path.read_bytes() == content
    write_atomically(path, content + b"again")
    assert path.read_bytes() == content + b"again"
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, old: bytes | None
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert names(tmp_path) == ([] if old is None else ["file.bin"])
    assert old is None or path.read_bytes() == old


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    seen: list[tuple[bytes, bytes]] = []

    def look(number: int) -> None:
        seen.append((path.read_bytes(), Path(f"/proc/self/fd/{number}").read_bytes()))

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(path, b"new")
    assert seen == [(b"old", b"new")]
    assert path.read_bytes() == b"new"


def test_what_a_crash_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file.bin.partial").write_bytes(b"half of a longer content")
    write_atomically(tmp_path / "file.bin", b"whole")
    assert (tmp_path / "file.bin").read_bytes() == b"whole"
    assert names(tmp_path) == ["file.bin"]


def test_a_missing_directory_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file.bin", b"new")


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "1"
    path.mkdir()
    (path / "old").write_text("as it was")
    return path


def test_a_folder_is_made_or_replaced_whole(tmp_path: Path, folder: Path) -> None:
    for path in (folder, tmp_path / "not" / "there"):
        with folder_to_replace(path) as partial:
            (partial / "new").write_text("new")
        assert names(path) == ["new"]
        assert names(path.parent) in (["1"], ["there"], ["1", "not"])


@pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["filling", "first rename", "second rename"])
def test_whatever_fails_the_old_folder_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, step: str
) -> None:
    rename, seen = Path.rename, list[Path]()

    def fail(path: Path, target: Path) -> Path:
        seen.append(path)
        if step != "filling" and len(seen) == (1 if step == "first rename" else 2):
            raise error
        return rename(path, target)

    def replace() -> None:
        with folder_to_replace(folder) as partial:
            (partial / "new").write_text("new")
            if step == "filling":
                raise error

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(type(error)):
        replace()
    assert names(folder) == ["old"]
    assert names(folder.parent) == ["1"]


@pytest.mark.parametrize("kill_before", [1, 2, 3])
def test_after_a_kill_the_next_call_finds_the_old_or_the_new_folder(folder: Path, kill_before: int) -> None:
    """Before the first rename, between the two, and before the old one is deleted; and the next call fails too."""
    partial, replaced = (folder.with_name(f".1.{kind}") for kind in ("partial", "replaced"))
    partial.mkdir()
    (partial / "new").write_text("new")
    if kill_before > 1:
        folder.rename(replaced)
    if kill_before > 2:
        partial.rename(folder)
    with pytest.raises(KeyboardInterrupt), folder_to_replace(folder):
        raise KeyboardInterrupt
    assert names(folder) == (["new"] if kill_before > 2 else ["old"])
    assert names(folder.parent) == ["1"]

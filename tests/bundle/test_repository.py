from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from service.bundle.errors import BundleError, UnknownModelError
from service.bundle.manifest import MANIFEST_FILE, MANIFEST_HASH_FILE
from service.bundle.repository import Repository
from tests.conftest import edit_manifest


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_the_repository_lists_models_newest_version_first(bundles: Path) -> None:
    for other in ("not-a-version", "٢", "03", "-1"):
        shutil.copytree(bundles / "numbers" / "2", bundles / "numbers" / other)
    for other in (".trash", "Numbers", "nümbers", os.fsdecode(b"n\xff")):
        shutil.copytree(bundles / "numbers", bundles / other)
    repository = Repository(bundles)
    assert repository.versions() == {"letters": [1], "numbers": [2, 1]}
    assert repository.settings.default_model == "letters"


def test_an_absent_directory_model_or_version_is_named(bundles: Path) -> None:
    with pytest.raises(BundleError, match="no directory"):
        Repository(bundles / "nowhere")
    with pytest.raises(UnknownModelError, match="numbers/9"):
        Repository(bundles).load("numbers", 9)


@pytest.mark.parametrize(
    "name",
    [
        MANIFEST_FILE,
        "encode.onnx",
        "decode_step.none.onnx",
        "decode_step.full.onnx",
        "weights.safetensors",
        "source.spm",
        "target.spm",
    ],
)
def test_a_changed_byte_is_refused_and_the_file_named(bundles: Path, name: str) -> None:
    _flip_a_byte(bundles / "letters" / "1" / name)
    with pytest.raises(BundleError, match=f"{name}.*sha256") as refused:
        Repository(bundles).load("letters", 1)
    assert "export" in str(refused.value)
    assert Repository(bundles).load("numbers", 1).manifest.name == "numbers"


@pytest.mark.parametrize("name", [MANIFEST_HASH_FILE, "weights.safetensors", "target.spm"])
def test_a_missing_file_is_refused_and_named(bundles: Path, name: str) -> None:
    (bundles / "letters" / "1" / name).unlink()
    with pytest.raises(BundleError, match=name):
        Repository(bundles).load("letters", 1)


def test_a_newer_format_is_refused_with_what_to_do(bundles: Path) -> None:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(format_version=2))
    with pytest.raises(BundleError, match="format version 2; this Heed reads 1 to 1: update Heed"):
        Repository(bundles).load("letters", 1)


def test_a_bundle_in_the_wrong_folder_is_refused(bundles: Path) -> None:
    (bundles / "letters").rename(bundles / "signs")
    with pytest.raises(BundleError, match=r"is of letters/1 and lies in signs/1"):
        Repository(bundles).load("signs", 1)


@pytest.mark.parametrize("name", ["../numbers/1/source.spm", "/etc/passwd", "a//b", "./x", "a\\b", ""])
def test_no_name_leads_out_of_the_bundle(bundles: Path, name: str) -> None:
    edit_manifest(bundles / "letters" / "1", lambda values: values["source_tokenizer"].update(file=name))
    with pytest.raises(BundleError, match=r"source_tokenizer\.file"):
        Repository(bundles).load("letters", 1)


def test_no_link_leads_out_of_the_bundle(bundles: Path, tmp_path: Path) -> None:
    inside = bundles / "letters" / "1" / "source.spm"
    inside.rename(tmp_path / "outside.spm")
    inside.symlink_to(tmp_path / "outside.spm")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Repository(bundles).load("letters", 1)


def test_a_vocabulary_that_does_not_fit_is_refused(bundles: Path) -> None:
    directory = bundles / "letters" / "1"
    edit_manifest(directory, lambda values: values["target_tokenizer"].update(vocabulary_size=7))
    with pytest.raises(BundleError, match="the manifest says 7"):
        Repository(bundles).load("letters", 1)


def test_logits_that_do_not_fit_the_vocabulary_are_refused(bundles: Path) -> None:
    directory = bundles / "letters" / "1"
    edit_manifest(directory, lambda values: values["graphs"][1]["outputs"][0]["axes"].__setitem__(-1, 7))
    with pytest.raises(BundleError, match="gives logits for 7 tokens"):
        Repository(bundles).load("letters", 1)


def test_wrong_repository_settings_are_refused(bundles: Path) -> None:
    (bundles / "repository.json").write_text('{"default": "letters"}')
    with pytest.raises(BundleError, match=r"repository\.json"):
        Repository(bundles)

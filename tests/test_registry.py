from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from service.bundle.errors import BundleError
from service.bundle.repository import Repository
from service.engine.engine import EngineSettings
from service.errors import InvalidFieldError
from service.metrics import Metrics
from service.registry import ModelRegistry
from tests.conftest import edit_manifest

SETTINGS = EngineSettings(workers=1)


def test_a_bundle_that_answers_its_golden_sentences_otherwise_is_refused(bundles: Path) -> None:
    directory = bundles / "letters" / "1"
    edit_manifest(directory, lambda values: values["golden_sentences"][0].update(target="something else"))
    registry = ModelRegistry(Repository(bundles), Metrics(), "cpu", SETTINGS)
    try:
        assert [model.name for model in registry.ready] == ["numbers"]
        (refused,) = registry.refused
        assert refused.name == "letters"
        assert "golden sentence 'abc'" in refused.error
        assert "'something else'" in refused.error
    finally:
        registry.stop(0)


def test_whatever_is_wrong_with_one_bundle_the_others_serve(bundles: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A graph that hashes right and is none, by somebody who knows the format."""
    directory = bundles / "letters" / "1"
    (directory / "encode.onnx").write_bytes(b"nothing that onnxruntime reads")
    content = (directory / "encode.onnx").read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    edit_manifest(directory, lambda values: values["files"].update({"encode.onnx": entry}))
    registry = ModelRegistry(Repository(bundles), Metrics(), "cpu", SETTINGS)
    try:
        assert [model.name for model in registry.ready] == ["numbers"]
        assert registry.refused[0].error == "it does not load (RuntimeFailureError); the log has the reason"
        assert "onnxruntime cannot load" in caplog.text
    finally:
        registry.stop(0)


def test_a_queue_that_holds_not_one_sentence_is_refused(bundles: Path) -> None:
    registry = ModelRegistry(Repository(bundles), Metrics(), "cpu", EngineSettings(workers=1, queue_tokens=80))
    assert registry.ready == []
    assert "may need 88 tokens for one sentence, queue_tokens is 80: raise it" in registry.refused[0].error


def test_without_a_default_a_request_must_name_its_model_unless_there_is_one(bundles: Path) -> None:
    (bundles / "repository.json").unlink()
    registry = ModelRegistry(Repository(bundles), Metrics(), "cpu", SETTINGS)
    try:
        assert registry.answering is None
        with pytest.raises(InvalidFieldError, match="name one of letters, numbers"):
            registry.resolve("", None, "", "")
    finally:
        registry.stop(0)
    for file in (bundles / "numbers").rglob("manifest.json"):
        file.unlink()
    registry = ModelRegistry(Repository(bundles), Metrics(), "cpu", SETTINGS)
    try:
        assert registry.resolve("", None, "", "").name == "letters"
    finally:
        registry.stop(0)


def test_a_default_model_that_is_not_there_is_refused(bundles: Path) -> None:
    with pytest.raises(BundleError, match=r"'nobody' is not in .* which has letters, numbers"):
        ModelRegistry(Repository(bundles), Metrics(), "cpu", SETTINGS, default_model="nobody")

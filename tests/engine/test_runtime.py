"""onnxruntime's telemetry is off: no device id is written, no uploader made. Tried in a process with an empty home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.bundle.repository import Bundle
from service.engine.errors import ProviderError
from service.engine.onnx_model import OnnxModel


def _written_by(statement: str, home: Path) -> list[str]:
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_", "CI"))}
    # onnxruntime also keeps quiet where it takes itself to be in a test; this must not hide what it does elsewhere.
    for name in ("GITHUB_ACTIONS", "TF_BUILD", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    environment |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True, capture_output=True)
    return [path.name for path in home.rglob("*") if path.is_file()]


def test_nothing_is_written_about_the_device(tmp_path: Path) -> None:
    if not _written_by("import onnxruntime", tmp_path / "bare"):
        pytest.skip("this onnxruntime writes no device id even by itself: nothing to turn off")
    assert _written_by("import service.engine.runtime", tmp_path / "ours") == []


def test_a_provider_that_is_not_there_is_refused_by_name(numbers: Bundle) -> None:
    from service.engine.runtime import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the provider")
    with pytest.raises(ProviderError, match="no CUDAExecutionProvider here"):
        OnnxModel(numbers, "cuda")
    assert OnnxModel(numbers, "auto").execution_provider == "CPUExecutionProvider"

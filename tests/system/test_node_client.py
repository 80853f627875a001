"""A client in Node, from the .proto files alone: installed and run for real by ``make test-node``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.test_commands import Running, golden

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not shutil.which("npm"), reason="NO NODE HERE: the Node client was not tried"),
]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, copied out of the repository and installed from the registry."""
    folder = Path(shutil.copytree(ROOT / "docs" / "examples" / "node", tmp_path_factory.mktemp("node") / "client"))
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    subprocess.run(command, cwd=folder, check=True, timeout=240)
    return folder


@pytest.fixture
def server() -> Iterator[Running]:
    running = Running("--pause-seconds", "0")
    yield running
    assert running.terminate() == 0


def test_translation_attention_models_and_errors(example: Path, server: Running) -> None:
    (source, target), *_ = golden("letters", 1)
    done = subprocess.run(
        ["node", "client.mjs", server.address, source, "", "a👍🏽 c"],
        cwd=example,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HEED_PROTO": str(ROOT / "proto")},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{source} -> {target}"
    assert " -> error 3: contents[1]: empty" in lines
    rows = [line for line in lines if "looked at" in line]
    assert rows
    assert all(line.endswith("sums to 1.000") for line in rows)
    assert "models: letters/1, numbers/2" in lines
    assert lines[-1].startswith("NOT_FOUND: no model 'nobody'; this server has letters, numbers (")

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.engine.cores import available_cores


@pytest.mark.parametrize(
    ("content", "cores"),
    [("50000 100000", 1), ("100000 100000", 1), ("1 100000", 1), ("max 100000", None), ("x", None)],
)
def test_a_quota_bounds_the_cores(tmp_path: Path, content: str, cores: int | None) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(content)
    assert available_cores(path) == (cores or len(os.sched_getaffinity(0)))
    assert available_cores(tmp_path / "absent") == len(os.sched_getaffinity(0))

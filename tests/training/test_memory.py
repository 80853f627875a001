"""Memory that an update frees serves the next: no page is fetched anew."""

from __future__ import annotations

import subprocess
import sys

import pytest

_UPDATES = """
import resource, sys
import numpy as np
from training.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [np.ones(2 * 2**20) for _ in range(8)]  # 16 MB each
    del tensors
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def faults_of_the_last_update(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", _UPDATES, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_what_is_freed_is_kept_for_the_next_update() -> None:
    pages = 8 * 16 * 2**20 // 4096
    assert faults_of_the_last_update("given back") > pages / 100, "where the kernel gives whole megabytes, by 512 pages"
    assert faults_of_the_last_update("kept") < pages / 1000

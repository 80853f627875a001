"""How the process's memory is kept between updates."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # that glibc takes


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next allocation, where the process has glibc.

    By default it gives large tensors back to the kernel, which clears every page of them again in the next update: a
    tenth to a third of a small model's training on a CPU. The process stays as large as its largest update.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)

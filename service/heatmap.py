"""Attention drawn in a terminal, in shades of Unicode. Pure functions: labels and weights in, lines out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len, set_cell_size

_SHADES = " ░▒▓█"
_LONGEST_LABEL = 16


def shade(weight: float) -> str:
    """The shade of a weight from 0 to 1: blank below 0.1, full from 0.9 on."""
    return _SHADES[min(len(_SHADES) - 1, max(0, int(weight * len(_SHADES) * 0.8 + 0.6)))]


def draw(rows: Sequence[str], columns: Sequence[str], weights: npt.NDArray[np.float32], width: int) -> list[str]:
    """One line for each row under a header of the columns; what is wider than ``width`` goes on in further panels.

    ``weights`` (rows, columns), from 0 to 1.
    """
    margin = min(_LONGEST_LABEL, max((cell_len(label) for label in rows), default=0))
    sizes = [max(1, min(_LONGEST_LABEL, cell_len(label))) for label in columns]
    gap = 0 if all(size == 1 for size in sizes) else 1
    lines: list[str] = []
    for begin, end in _panels(sizes, gap, max(1, width - margin - 2)):
        if lines:
            lines.append("")
        separator = " " * gap
        header = separator.join(
            _fit(label, size) for label, size in zip(columns[begin:end], sizes[begin:end], strict=True)
        )
        lines.append(" " * (margin + 2) + header.rstrip())
        for label, row in zip(rows, weights, strict=True):
            cells = separator.join(
                shade(float(weight)) * size for weight, size in zip(row[begin:end], sizes[begin:end], strict=True)
            )
            lines.append(
                f"{' ' * (margin - min(margin, cell_len(label)))}{_fit_right(label, margin)}  {cells}".rstrip()
            )
    return lines


def _panels(sizes: Sequence[int], gap: int, width: int) -> list[tuple[int, int]]:
    """Cut the columns where the line is full: each panel has at least one."""
    panels, begin, used = [], 0, 0
    for place, size in enumerate(sizes):
        if place > begin and used + gap + size > width:
            panels.append((begin, place))
            begin, used = place, size
        else:
            used += size + (gap if place > begin else 0)
    return [*panels, (begin, len(sizes))]


def _fit(label: str, size: int) -> str:
    return set_cell_size(label, size)


def _fit_right(label: str, margin: int) -> str:
    return label if cell_len(label) <= margin else set_cell_size(label, margin)

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from service.heatmap import draw, shade


def test_shades_rise_with_weight() -> None:
    shades = [shade(weight / 100) for weight in range(101)]
    assert shades[0] == " "
    assert shades[-1] == "█"
    order = " ░▒▓█"
    assert [order.index(one) for one in shades] == sorted(order.index(one) for one in shades)
    assert set(shades) == set(order)


def test_a_map_of_words() -> None:
    weights = np.array([[1.0, 0.0], [0.0, 0.5]], np.float32)
    assert draw(["eins", "zwei"], ["one", "two"], weights, width=40) == [
        "      one two",
        "eins  ███",
        "zwei      ▒▒▒",
    ]


def test_a_map_of_characters_is_one_cell_each() -> None:
    weights = np.eye(3, dtype=np.float32)
    assert draw(["x", "y", "z"], ["a", "b", "c"], weights, width=40)[1:] == ["x  █", "y   █", "z    █"]


@given(
    st.lists(st.text("aä年👍", min_size=1, max_size=20), min_size=1, max_size=30),
    st.lists(st.text("aä年👍", min_size=1, max_size=20), min_size=1, max_size=5),
    st.integers(30, 120),
)
def test_no_line_is_wider_than_the_terminal(columns: list[str], rows: list[str], width: int) -> None:
    weights = np.ones((len(rows), len(columns)), np.float32)
    lines = draw(rows, columns, weights, width)
    assert all(cell_len(line) <= max(width, 16 + 2 + 16) for line in lines)
    drawn = sum(line.count("█") for line in lines)
    assert drawn == len(rows) * sum(max(1, min(16, cell_len(label))) for label in columns)

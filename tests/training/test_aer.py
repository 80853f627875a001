"""The alignment error rate by its formula, and how gold links are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.aer import Gold, alignment_error_rate, parse_links, read_gold
from training.errors import CorpusError

LINKS = st.frozensets(st.tuples(st.integers(0, 5), st.integers(0, 5)))


def test_a_rate_by_hand() -> None:
    """|A and S| = 2, |A and P| = 3, |A| = 4, |S| = 3, counted over both sentences."""
    gold = [
        Gold(frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (1, 1), (1, 2)})),
        Gold(frozenset({(0, 1)}), frozenset({(0, 1)})),
    ]
    found = [[(0, 0), (1, 2), (3, 3)], [(0, 1)]]
    assert alignment_error_rate(found, gold) == pytest.approx(1 - (2 + 3) / (4 + 3))


@given(LINKS.filter(bool), LINKS)
def test_it_is_0_for_the_sure_links_and_whatever_is_possible_and_1_for_none_of_them(
    sure: frozenset[tuple[int, int]], more: frozenset[tuple[int, int]]
) -> None:
    gold = [Gold(sure, sure | more)]
    assert alignment_error_rate([sure | more], gold) == pytest.approx(0.0)
    assert alignment_error_rate([[(i + 6, j) for i, j in sure]], gold) == 1.0


def test_gold_is_read_with_sure_and_possible_links(tmp_path: Path) -> None:
    path = tmp_path / "gold"
    path.write_text("1-1 2p1\n\n", encoding="utf-8")
    nothing = frozenset[tuple[int, int]]()
    assert read_gold(path) == [Gold(frozenset({(0, 0)}), frozenset({(0, 0), (1, 0)})), Gold(nothing, nothing)]
    assert parse_links("0-1 2-0", "here") == [(0, 1), (2, 0)]


def test_a_byte_order_mark_is_no_link(tmp_path: Path) -> None:
    path = tmp_path / "gold"
    path.write_text("1-1 2p3\n", encoding="utf-8-sig")
    assert read_gold(path)[0].sure == {(0, 0)}


def test_what_cannot_be_judged_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="links of 1 sentences, 0 in the gold"):
        alignment_error_rate([[]], [])
    with pytest.raises(ValueError, match="no links"):
        alignment_error_rate([[]], [Gold(frozenset(), frozenset())])
    path = tmp_path / "gold"
    path.write_text("0-1\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="gold:1: '0-1' is no link: i-j or ipj, counted from 1"):
        read_gold(path)

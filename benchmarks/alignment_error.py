"""The alignment error rate that Heed measures, of two systems whose rates are published.

    python -m benchmarks.alignment_error data/alignments

Hansards English-French: ``enfr.gold`` of people, ``enfr.fastalign.talp`` and ``enfr.giza.talp`` of the systems.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.aer import alignment_error_rate, parse_links, read_gold

PUBLISHED = {"fastalign": 16.4, "giza": 8.0}  # per cent


def compare(folder: Annotated[Path, typer.Argument(help="With enfr.gold and the links of both systems.")]) -> None:
    """Print each system's rate beside the published one."""
    gold = read_gold(folder / "enfr.gold")
    for system, published in PUBLISHED.items():
        path = folder / f"enfr.{system}.talp"
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [parse_links(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
        print(f"{system}: {100 * alignment_error_rate(found, gold):.2f} %, published {published} %")


if __name__ == "__main__":
    typer.run(compare)

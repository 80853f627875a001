"""Learning curves of finished runs: validation loss against updates, drawn from each run's log.

    python -m benchmarks.learning_curves PICTURE LABEL=RUN_DIRECTORY ...

writes docs/pictures/PICTURE.svg, such as

    python -m benchmarks.learning_curves dates-learning ours=runs/dates published=runs/dates-soft-feedback
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.curves import Curve, draw_curves
from benchmarks.measuring import ROOT
from training.journal import read_log


def main() -> None:
    picture, *runs = sys.argv[1:]
    curves = []
    for run in runs:
        label, _, directory = run.partition("=")
        points = read_log(Path(directory))
        curves.append(Curve(label, [(point.update, point.loss) for point in points]))
        last = points[-1]
        print(f"{label}: loss {last.loss:.5f}, exact {last.exact_match:.2%} at update {last.update}")
    title = f"{picture}: validation loss"
    draw_curves(ROOT / "docs" / "pictures" / f"{picture}.svg", title, "update", "nats a token", curves)


if __name__ == "__main__":
    main()

"""Learning curves of runs: validation loss, or BLEU, against updates, drawn from each run's log.

    python -m benchmarks.learning_curves [--bleu] PICTURE LABEL=RUN_DIRECTORY ...

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
    bleu = sys.argv[1] == "--bleu"
    picture, *runs = sys.argv[1 + bleu :]
    curves = []
    for run in runs:
        label, _, directory = run.partition("=")
        points = read_log(Path(directory))
        values = [(point.update, point.bleu if bleu else point.loss) for point in points]
        curves.append(Curve(label, [(update, value) for update, value in values if value is not None]))
        last = points[-1]
        print(f"{label}: loss {last.loss:.5f}, exact {last.exact_match:.2%}, BLEU {last.bleu} at update {last.update}")
    measure, unit = ("BLEU", "BLEU") if bleu else ("loss", "nats a token")
    output = ROOT / "docs" / "pictures" / f"{picture}.svg"
    draw_curves(output, f"{picture}: validation {measure}", "update", unit, curves, logarithmic=not bleu)


if __name__ == "__main__":
    main()

"""SandGlass with and without its attention layers: loss curves, the same data, seed and updates for each.

    python -m benchmarks.sandglass_ablation            trains what is not trained yet, writes the picture and the table

Layers are added from the widest (1) inwards, and from the narrowest (4) outwards. Needs the prepared corpus of
training/configs/sandglass-reverse.yaml; some three minutes a run on one core.
"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from benchmarks.curves import Curve, draw_curves
from benchmarks.measuring import ROOT
from training.config import Config, load_config
from training.corpus import Corpus
from training.journal import read_log
from training.trainer import Trainer

UPDATES, EVERY = 2000, 50
FORMS: tuple[tuple[str, ...], ...] = (
    (),
    ("1",),
    ("1", "2"),
    ("1", "2", "3"),
    ("1", "2", "3", "4"),
    ("4",),
    ("3", "4"),
    ("2", "3", "4"),
)
_SHOWN = (50, 100, 200, 500, 1000, 2000)


def form_of(config: Config, attention: tuple[str, ...]) -> Config:
    """The shipped model's config with these layers attending, in a run of its own."""
    changes = {"updates": UPDATES, "validate_every": EVERY}
    return config.model_copy(
        update={
            "run_directory": Path("runs") / "sandglass-ablation" / ("".join(attention) or "none"),
            "model": config.model.model_copy(update={"attention": attention}),
            "training": config.training.model_copy(update=changes),
        }
    )


def main() -> None:
    config = load_config(ROOT / "training" / "configs" / "sandglass-reverse.yaml")
    corpus = Corpus(config.run_directory / "data")
    curves = []
    for attention in FORMS:
        form = form_of(config, attention)
        Trainer(form, corpus, Console()).train()
        points = read_log(form.run_directory)
        label = " + ".join(attention) or "none"
        curves.append(Curve(label, [(point.update, point.loss) for point in points]))
        losses = {point.update: point for point in points}
        print(f"| {label} | " + " | ".join(f"{losses[update].loss:.4f}" for update in _SHOWN), end="")
        print(f" | {100 * losses[UPDATES].exact_match:.2f} % |", flush=True)
    picture = ROOT / "docs" / "pictures" / "sandglass-ablation.svg"
    draw_curves(picture, "SandGlass: validation loss by the layers that attend", "update", "nats a token", curves)
    (ROOT / "docs" / "pictures" / "sandglass-ablation.json").write_text(
        json.dumps({curve.label: curve.points for curve in curves}) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()

"""How much memory a corpus of a million pairs takes, in preparing it and in training on it.

    python -m benchmarks.corpus_memory [FOLDER]

Pairs are Multi30k's (the prepared corpus of ``benchmarks.training prepare``), each repeated with a number in front of
it, so that no two are alike. A small model is trained for some updates on a million pairs and on ten thousand: what
the resident memory differs by at its peak is the corpus's. Files that are mapped count as far as they were read.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import yaml

from benchmarks.measuring import ROOT
from training.config import load_config
from training.corpus import Corpus

CONFIG = ROOT / "training" / "configs" / "benchmark-training.yaml"
MANY, FEW, UPDATES = 1_000_000, 10_000, 40


def main(folder: Annotated[Path | None, typer.Argument(help="Where to write; a temporary folder.")] = None) -> None:
    """Measure, and print the peaks."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        peaks = {pairs: _peaks(Path(directory), pairs) for pairs in (FEW, MANY)}
    for pairs, (preparing, training) in peaks.items():
        print(f"{pairs:,} pairs: {preparing:,.0f} MB at the peak of prepare, {training:,.0f} MB at that of train")
    for number, stage in enumerate(("prepare", "train")):
        print(f"{stage}: {peaks[MANY][number] - peaks[FEW][number]:,.0f} MB more for {MANY - FEW:,} pairs more")


def _peaks(directory: Path, pairs: int) -> tuple[float, float]:
    """MB of resident memory at the peak of ``heed-train prepare`` and of ``heed-train train``."""
    corpus = Corpus(load_config(CONFIG).run_directory / "data")
    examples = list(corpus.examples("training"))
    text = directory / f"{pairs}.tsv"
    with text.open("w", encoding="utf-8") as file:
        for number in range(pairs):
            example = examples[number % len(examples)]
            file.write(f"{number} {example.source}\t{number} {example.target}\n")
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    values["run_directory"] = str(directory / f"run-{pairs}")
    values["corpus"] = {"kind": "files", "training": [{"tsv": str(text)}], "held_out": {"validation": 100, "test": 100}}
    values["model"] |= {"size": 64, "heads": 2, "feed_forward": 64, "encoder_layers": 1, "decoder_layers": 1}
    values["training"] |= {"updates": UPDATES, "validate_every": UPDATES}
    config = directory / f"{pairs}.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return _peak("prepare", config), _peak("train", config)


def _peak(stage: str, config: Path) -> float:
    command = [sys.executable, "-m", "training.cli", stage, str(config)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    typer.run(main)

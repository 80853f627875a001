"""What it gains and costs to have the other direction read translations back (``service.reading_back``).

Of the shipped models as they are served, with their default search: BLEU of the held-out test, and of text of our own,
which the models were trained on and which has other words.

    heed-train prepare training/configs/tatoeba-de-en-v10.yaml      # and en-de: the test part
    python -m benchmarks.read_back [SENTENCES] [PAIRS] [MODELS]

The first SENTENCES of the test, PAIRS of each file of our own. Prints Markdown for docs/benchmarks.md, and on standard
error ten translations that are others.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.everyday import PAIRS
from benchmarks.measuring import ROOT
from benchmarks.own_text import drawn
from service.bundle.repository import Bundle, Repository
from training.config import load_config
from training.corpus import Corpus
from training.evaluate import translate_texts
from training.text_scores import score_texts, with_references

_SENTENCES, _PAIRS, _SHOWN = 1000, 40, 10


def main() -> None:
    sentences = int(sys.argv[1]) if len(sys.argv) > 1 else _SENTENCES
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else _PAIRS
    models = Repository(Path(sys.argv[3]) if len(sys.argv) > 3 else ROOT / "exported")
    print("| | sentences | BLEU as found first | read back | other translations | seconds | read back |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for source, target in PAIRS:
        name = f"tatoeba-{source}-{target}"
        bundle = models.load(name, models.versions()[name][0])
        if bundle.manifest.read_back_by not in models.versions():
            raise SystemExit(
                f"{bundle.label} is read back by {bundle.manifest.read_back_by}, which is not in {models.root}"
            )
        test = dict(itertools.islice(_test(bundle).items(), sentences))
        print(_compared(bundle, "test", list(test), list(test.values())))
        own = list(itertools.chain(*drawn(pairs).values()))
        reads = source == "en"
        print(_compared(bundle, "own text", [pair[reads] for pair in own], [[pair[not reads]] for pair in own]))


def _test(bundle: Bundle) -> dict[str, list[str]]:
    manifest = bundle.manifest
    config = load_config(ROOT / "training" / "configs" / f"{manifest.name}-v{manifest.version}.yaml")
    return with_references(Corpus(ROOT / config.run_directory / "data").examples("test"))


def _compared(bundle: Bundle, kind: str, texts: Sequence[str], references: Sequence[Sequence[str]]) -> str:
    alone = replace(bundle, manifest=bundle.manifest.model_copy(update={"read_back_by": None}))
    written, seconds = list[list[str]](), list[float]()
    for one in (alone, bundle):
        begun = time.perf_counter()
        written.append(translate_texts(one, texts))
        seconds.append(time.perf_counter() - begun)
    changed = [place for place, (first, read) in enumerate(zip(*written, strict=True)) if first != read]
    print(f"{bundle.label}, {kind}:", file=sys.stderr)
    for place in random.Random(1).sample(changed, min(_SHOWN, len(changed))):
        print(f"  {texts[place]} | {written[0][place]} | {written[1][place]}", file=sys.stderr)
    first, read = (score_texts(one, references, lower_case=False).bleu for one in written)
    return (
        f"| {bundle.label}, {kind} | {len(texts)} | {first:.2f} | {read:.2f} | {len(changed) / len(texts):.1%} | "
        f"{seconds[0]:.0f} | {seconds[1]:.0f} |"
    )


if __name__ == "__main__":
    main()

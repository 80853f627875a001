"""How often what is to be kept (``service.literals``) is kept by people: a literal that a person's translation lacks
is a false alarm, or a number in words.

    python -m benchmarks.literals [FILE.tsv ...]

Reads pairs of German and English, by default those of training/texts, both ways.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

from benchmarks.measuring import ROOT
from service.bundle.repository import Repository
from service.literals import literals, missing

OWN = ("sentences", "prose", "common")
_SHOWN = 10


def main() -> None:
    files = [Path(name) for name in sys.argv[1:]] or [ROOT / "training" / "texts" / f"{name}.de-en.tsv" for name in OWN]
    models = Repository(ROOT / "exported")
    bundle = models.load("tatoeba-de-en", max(models.versions()["tatoeba-de-en"]))
    texts = having = found = times = 0
    lost = []
    for path in files:
        lines = (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8")
        with lines as opened:
            for line in opened:
                one, other = line.rstrip("\n").split("\t")[:2]
                for text, translation, reads, writes in ((one, other, "de", "en"), (other, one, "en", "de")):
                    wanted = literals(text, bundle.is_foreign, reads)
                    texts, having, found = texts + 1, having + bool(wanted), found + len(wanted)
                    times += sum(literal.minute is not None for literal in wanted)
                    lost += [(literal.text, text, translation) for literal in missing(wanted, translation, writes)]
    print(f"{texts} texts, {having} with something to keep: {found}, of which {times} times of day")
    print(f"{len(lost)} not in the translation")
    for literal, text, translation in lost[:_SHOWN]:
        print(f"  {literal!r}: {text} | {translation}")


if __name__ == "__main__":
    main()

"""How much of the text that was written for them the shipped models write: BLEU of some pairs of each file of
training/texts that has sentences, both ways.

    python -m benchmarks.own_text [PAIRS] [MODELS]

That is no test of a model that was trained on it (which files a version read, its config says), but tells what more
training on the same text would still bring. The pairs are the same in every run, chosen by a seed; models as they are
served, with their default search.
"""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path

import sacrebleu

from benchmarks.everyday import PAIRS
from benchmarks.measuring import ROOT
from service.bundle.repository import Repository
from training.evaluate import translations

# No sentences; words by themselves, of which BLEU says nothing; pairs for German to English alone.
_NOT_READ = frozenset(("frames", "templates", "words", "more-words", "german"))
_SEED = 1


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    models = Repository(Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "exported")
    texts = drawn(count)
    print("| text | pairs |", *(f"{source} to {target} |" for source, target in PAIRS))
    print("|---|---:|", *("---:|" for _ in PAIRS), sep="")
    columns = [_scores(models, pair, texts) for pair in PAIRS]
    for place, (name, pairs) in enumerate(texts.items()):
        print(f"| `{name}` | {len(pairs)} |", *(f"{column[place]:.1f} |" for column in columns))
    print("| all | |", *(f"{column[-1]:.1f} |" for column in columns))


def drawn(count: int) -> dict[str, list[tuple[str, str]]]:
    """Of each file so many pairs, German and English, by its name."""
    paths = {path.name.partition(".")[0]: path for path in sorted((ROOT / "training" / "texts").glob("*.de-en.tsv"))}
    return {name: _of_file(path, count) for name, path in paths.items() if name not in _NOT_READ}


def _of_file(path: Path, count: int) -> list[tuple[str, str]]:
    """German and English."""
    lines = path.read_text(encoding="utf-8").splitlines()
    chosen = random.Random(_SEED).sample(lines, min(count, len(lines)))
    return [(german, english) for german, english, *_ in (line.split("\t") for line in chosen)]


def _scores(models: Repository, languages: tuple[str, str], texts: dict[str, list[tuple[str, str]]]) -> list[float]:
    """BLEU of every text, and of all together."""
    name = f"tatoeba-{languages[0]}-{languages[1]}"
    bundle = models.load(name, max(models.versions()[name]))
    reads = languages[0] == "en"
    sources = [[pair[reads] for pair in pairs] for pairs in texts.values()]
    references = [[pair[not reads] for pair in pairs] for pairs in texts.values()]
    found = iter(translations(bundle, [text for part in sources for text in part]))
    written = [[next(found).text for _ in part] for part in sources]
    of_each = [_bleu(part, wanted) for part, wanted in zip(written, references, strict=True)]
    return [*of_each, _bleu(list(itertools.chain(*written)), list(itertools.chain(*references)))]


def _bleu(written: list[str], references: list[str]) -> float:
    return float(sacrebleu.corpus_bleu(written, [references]).score)


if __name__ == "__main__":
    main()

"""Everyday sentences, hard ones (scripts, emoji, capitals, numbers, dates, names, quotation marks) that the training
text was mended by, fresh ones that it was not, and a paragraph of 300 words, of docs/everyday, as the shipped models
translate them: Markdown for docs/results.md.

    python -m benchmarks.everyday [MODELS]

Says on standard error how much of what is to be kept (``service.literals``) is left out, and of each sentence whether
the training text has it, where that was prepared here (``heed-train prepare``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measuring import ROOT
from service.bundle.repository import Bundle, Repository
from service.literals import missing
from service.recovery import kept_literals
from training.config import load_config
from training.corpus import Corpus
from training.errors import CorpusError
from training.evaluate import translations
from training.text_files import group_key

PAIRS = (("de", "en"), ("en", "de"))
FOLDER = ROOT / "docs" / "everyday"


def main() -> None:
    models = Repository(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "exported")
    for source, target in PAIRS:
        name = f"tatoeba-{source}-{target}"
        bundle = models.load(name, max(models.versions()[name]))
        texts = (FOLDER / f"{source}.txt").read_text(encoding="utf-8").splitlines()
        known = _trained_on(bundle, texts)
        marked = "The training text was not prepared here: none is marked."
        if known is not None:
            marked = f"{len(known)} of {len(texts)} are in the training text (marked *)."
        print(f"\n#### {bundle.label}\n\n{marked}\n")
        _print_table(bundle, texts, known or set())
        for kind in ("hard", "fresh"):
            print(f"\n#### {bundle.label}, {kind} ones\n")
            _print_table(bundle, (FOLDER / f"{kind}.{source}.txt").read_text(encoding="utf-8").splitlines(), set())
        paragraph = (FOLDER / f"paragraph.{source}.txt").read_text(encoding="utf-8").strip()
        print(f"\n#### {bundle.label}, a paragraph\n")
        (translated,) = translations(bundle, [paragraph])
        for text in (paragraph, translated.text):
            print(f"> {text}\n")
        print(f"Told to be left out, perhaps: {', '.join(translated.left_out) or 'nothing'}.\n")


def _print_table(bundle: Bundle, texts: list[str], marked: set[str]) -> None:
    source, target = (
        languages[0] for languages in (bundle.manifest.source_languages, bundle.manifest.target_languages)
    )
    print(f"| {source} | {target} | told to be left out, perhaps |\n|---|---|---|")
    found = translations(bundle, texts)
    kept = [kept_literals(bundle, text) for text in texts]
    lost = [missing(wanted, one.text, target) for wanted, one in zip(kept, found, strict=True)]
    print(f"{bundle.label}: {sum(map(len, lost))} of {sum(map(len, kept))} to be kept are left out", file=sys.stderr)
    for text, translation, literals in zip(texts, found, lost, strict=True):
        told = ", ".join([*translation.left_out, *(literal.text for literal in literals)])
        shown = [part.replace("|", "\\|") for part in (text, translation.text, told)]
        print(f"| {shown[0]}{' *' if text in marked else ''} | {shown[1]} | {shown[2]} |")


def _trained_on(bundle: Bundle, texts: list[str]) -> set[str] | None:
    """Those whose letters and digits are a source of the training part; None where that was not prepared here."""
    # Of a version in two parts the last: "-v8.yaml" comes behind "-v8-begin.yaml".
    configs = map(load_config, sorted((ROOT / "training" / "configs").glob("tatoeba-*.yaml"), reverse=True))
    of_bundle = (bundle.manifest.name, bundle.manifest.version)
    config = next((config for config in configs if (config.name, config.version) == of_bundle), None)
    if config is None:
        return None
    keys = {group_key(text): text for text in texts}
    try:
        examples = Corpus(ROOT / config.run_directory / "data").examples("training")
    except CorpusError:
        return None
    return {keys[key] for example in examples if (key := group_key(example.source)) in keys}


if __name__ == "__main__":
    main()

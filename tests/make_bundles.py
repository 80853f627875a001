"""Makes the tiny bundles in ``tests/bundles`` and ``tests/families``: real graphs and tokenizers, random weights.

    python -m tests.make_bundles

- ``letters/1``  characters in, characters out, NFD and emoji in its vocabulary
- ``numbers/1``, ``numbers/2``  words in, words out; the second has other weights
In ``tests/families``:

- ``transformer/1``  words in, words out; encoder-self, decoder-self and cross maps of two layers
- ``bottleneck/1``  words in, words out, without attention: a memory of one vector, and no maps
- ``stories/1``  words in, words out; reads up to three sentences before each by hierarchical attention
- ``polyglot/1``  words in, words out, in one of two languages, which a piece before the source names

Random weights make a model that is wrong but exact: it answers the same on every machine, ends some sentences early
and some never, and attends somewhere. Weights are larger than at the start of a training, so that no two tokens come
close in the search.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from service.bundle.manifest import Provenance
from training.config import Config, ModelConfig, RecurrentConfig, TokenizerConfig, TransformerConfig
from training.corpus import language_piece
from training.export import write_bundle
from training.models import build
from training.models.interface import TranslationModel
from training.tokenizers import train_tokenizer

Golden = str | list[str] | dict[str, str]  # of a config
BUNDLES = Path(__file__).parent / "bundles"
FAMILIES = Path(__file__).parent / "families"
_LETTERS = "abcdefghij ABC.,'0123456789äé\u0301👍🏽年月日"
_MODEL = RecurrentConfig(embedding_size=8, encoder_size=6, decoder_size=12, attention_size=8)
STORIES = _MODEL.model_copy(update={"context_sentences": 3})
BOTTLENECK = _MODEL.model_copy(update={"attention": "none"})
TRANSFORMER = TransformerConfig(
    size=16, heads=2, feed_forward=24, encoder_layers=2, decoder_layers=2, max_positions=24, dropout=0.0
)
_SCALE = 4.0


def tiny_model(
    source_pieces: int, target_pieces: int, seed: int, config: ModelConfig = _MODEL, scale: float = _SCALE
) -> TranslationModel:
    """A model of a few thousand weights, the same for the same seed."""
    torch.manual_seed(seed)
    model = build(config, source_pieces, target_pieces).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def tiny_config(
    name: str,
    version: int,
    kind: str,
    golden: Sequence[Golden],
    model: ModelConfig = _MODEL,
    languages: Sequence[str] = (),
) -> Config:
    """``languages``: those that the model is told to write."""
    task = "dates-in-context" if getattr(model, "context_sentences", 0) else "reverse"
    corpus: dict[str, object] = {"task": task, "training_pairs": 1, "validation_pairs": 1, "test_pairs": 1}
    if languages:
        files = [{"tsv": "unused.tsv", "target_language": language} for language in languages]
        corpus = {"kind": "files", "training": files, "held_out": {"validation": 1, "test": 1}}
    return Config.model_validate(
        {
            "name": name,
            "version": version,
            "run_directory": "unused",
            "languages": {"source": [f"x-{name}"], "target": list(languages) or [f"x-{name}-out"]},
            "corpus": corpus,
            "tokenizers": {"source": {"kind": kind}, "target": {"kind": kind}},
            "model": model.model_dump(),
            "training": {"updates": 1},
            "export": {
                "description": f"Random weights for tests: {name}.",
                "license": "Apache-2.0",
                "limits": {"max_source_tokens": 64, "max_target_tokens": 24},
                "golden_sentences": golden,
            },
        }
    )


def make(
    root: Path,
    name: str,
    version: int,
    kind: str,
    text: str,
    golden: Sequence[Golden],
    seed: int,
    config: ModelConfig = _MODEL,
    scale: float = _SCALE,
    languages: Sequence[str] = (),
) -> Path:
    """Write one bundle under ``root``; returns its directory."""
    pieces = [language_piece(language) for language in languages]
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.tsv"
        corpus.write_text(f"{text}\t{text}\t\n", encoding="utf-8")
        paths = {side: Path(scratch) / f"{side}.spm" for side in ("source", "target")}
        settings = TokenizerConfig.model_validate({"kind": kind})
        sizes = [
            train_tokenizer(settings, corpus, [column], path, pieces).vocabulary_size
            for column, path in enumerate(paths.values())
        ]
        provenance = Provenance(config={}, data_sha256={}, commit="unknown", updates=0, scores={"made_up": 0.5})
        model = tiny_model(*sizes, seed, config, scale)
        whole = tiny_config(name, version, kind, golden, config, languages)
        return write_bundle(root / name / str(version), model, whole, paths, provenance, lambda _: None)


def main() -> None:
    shutil.rmtree(BUNDLES, ignore_errors=True)
    shutil.rmtree(FAMILIES, ignore_errors=True)
    make(BUNDLES, "letters", 1, "char", _LETTERS, ["abc", "a b c.", "äé\u0301👍🏽"], seed=3)
    numbers = " ".join(str(number) for number in range(20))
    for version in (1, 2):
        make(BUNDLES, "numbers", version, "word", numbers, ["1 2 3", "7"], seed=10 + version)
    # A layer norm undoes a scale within; what is left to scale is enough.
    make(FAMILIES, "transformer", 1, "word", numbers, ["1 2 3", "7"], seed=29, config=TRANSFORMER, scale=1.6)
    make(FAMILIES, "bottleneck", 1, "word", numbers, ["1 2 3", "7"], seed=22, config=BOTTLENECK)
    told: list[Golden] = ["1 2 3", ["4 5", "6"], ["1", "2 3", "4", "5 6"]]
    make(FAMILIES, "stories", 1, "word", numbers, told, seed=41, config=STORIES)
    spoken = [{"source": "1 2 3", "target_language": language} for language in ("x-one", "x-two")]
    make(FAMILIES, "polyglot", 1, "word", numbers, spoken, seed=43, languages=["x-one", "x-two"])
    (BUNDLES / "repository.json").write_text(json.dumps({"default_model": "letters"}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

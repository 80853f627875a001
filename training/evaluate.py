"""Scores of an exported bundle, translated by the service's own engine: what is measured is what ships."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from service.bundle.errors import BundleError
from service.bundle.repository import Bundle, Repository
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import Hypothesis, SentenceRequest
from training.config import Config
from training.corpus import Corpus
from training.errors import TrainingError
from training.tasks import TASKS, Example


@dataclass(frozen=True)
class Scores:
    """``attention_accuracy`` counts target tokens whose greatest weight lies where the task says it should, over the
    sentences that were translated exactly (where the target is wrong, so is what it should have looked at)."""

    sentences: int
    exact_match: float
    attention_accuracy: float
    attention_judged: int


def evaluate_bundle(config: Config, models: Path, limit: int, console: Console) -> Scores:
    """Translate the test part; print and return its scores. Raises TrainingError when the bundle is refused."""
    examples = list(itertools.islice(Corpus(config.run_directory / "data").examples("test"), limit))
    try:
        bundle = Repository(models).load(config.name, config.version)
    except BundleError as error:
        raise TrainingError(str(error)) from error
    scores, wrong = score_examples(config, bundle, examples)
    table = Table(title=f"{bundle.label}: {scores.sentences} fresh sentences")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("exact match", f"{scores.exact_match:.3%}")
    table.add_row(
        f"attention on the right place ({scores.attention_judged} tokens)", f"{scores.attention_accuracy:.3%}"
    )
    console.print(table)
    for example, found in wrong[:10]:
        console.print(f"  {example.source!r} -> {found}, expected {example.target}", highlight=False, markup=False)
    return scores


def score_examples(config: Config, bundle: Bundle, examples: list[Example]) -> tuple[Scores, list[tuple[Example, str]]]:
    """The scores, and the examples that were translated otherwise, with what came out."""
    engine = Engine(OnnxModel(bundle), EngineSettings(queue_tokens=2**31))
    try:
        sources = [bundle.source_tokenizer.encode(example.source) for example in examples]
        requests = [
            SentenceRequest(tuple(source.ids), bundle.manifest.limits.max_target_tokens, attention=True)
            for source in sources
        ]
        results = engine.translate(requests)
    finally:
        engine.stop()
    wrong, hits = [], []
    for example, source, result in zip(examples, sources, results, strict=True):
        best = result.hypotheses[0]
        found = bundle.target_tokenizer.decode(best.target_ids).text
        if found != example.target:
            wrong.append((example, found))
            continue
        spans = [(token.begin, token.end) for token in source.tokens]
        looked_at = [spans[place] for place in _greatest(bundle, best)]
        hits += TASKS[config.corpus.task].attention_hits(example, looked_at)
    count = len(examples)
    return Scores(count, (count - len(wrong)) / count, sum(hits) / max(1, len(hits)), len(hits)), wrong


def _greatest(bundle: Bundle, hypothesis: Hypothesis) -> list[int]:
    """For each target token but `</s>`, the source token of greatest weight in the alignment map."""
    alignment = bundle.manifest.alignment
    weights = hypothesis.attention[alignment.map][:-1, alignment.head]
    return [int(place) for place in np.argmax(weights, axis=-1)]

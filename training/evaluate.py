"""Scores of an exported bundle, translated by the service's own engine: what is measured is what ships."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from service.attention.views import aligned
from service.bundle.errors import BundleError
from service.bundle.manifest import Precision
from service.bundle.repository import Bundle, Repository
from service.bundle.tokenizer import EOS_ID, PAD_ID, TokenizedText
from service.engine.decoding import Decoding
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest
from service.presenter import parts_of
from service.reading_back import Reader, is_reader_of
from service.recovery import Attempt, kept_literals, least_attention
from service.second_tries import checked
from service.sentences import rejoin
from training.config import Config, FileCorpus
from training.corpus import Corpus
from training.errors import TrainingError
from training.tasks import Example, Posterior
from training.text_scores import TextScores, score_by_length, with_references

_CLEAR = 0.9


@dataclass(frozen=True)
class Scores:
    """``attention_accuracy`` counts target tokens whose greatest weight lies where the task says it should, over the
    sentences that were translated exactly (where the target is wrong, so is what it should have looked at);
    ``context_accuracy`` those whose greatest weight over the sentences before must lie at one place there."""

    sentences: int
    exact_match: float
    attention_accuracy: float
    attention_judged: int
    context_accuracy: float = 0.0
    context_judged: int = 0


@dataclass(frozen=True)
class Ambiguity:
    """Scores apart by what a source may mean: one thing; several, of which any is right; and, among both, sources with
    an answer of probability 0.9 or more, where only that is right. Counts, and shares that were right."""

    single: int
    single_exact: float
    several: int
    several_within: float
    clear: int
    clear_exact: float


def evaluate_bundle(config: Config, models: Path, limit: int, seed: int | None, console: Console) -> Scores:
    """Translate the test part, or with ``seed`` strings made now; print and return the scores.

    Raises TrainingError when the bundle is refused.
    """
    task = config.task
    if seed is None:
        stream = Corpus(config.run_directory / "data").examples("test")
    elif task is None:
        raise TrainingError("--seed makes fresh strings of a task; this corpus comes from files: leave it out")
    else:
        stream = task.examples(seed)
    examples = list(itertools.islice(stream, limit))
    bundle = _load(config, models)
    scores, found = score_examples(config, bundle, examples)
    table = Table(title=f"{bundle.label}: {scores.sentences} fresh sentences")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("exact match", f"{scores.exact_match:.3%}")
    if scores.attention_judged:
        table.add_row(
            f"attention on the right place ({scores.attention_judged} tokens)", f"{scores.attention_accuracy:.3%}"
        )
    if scores.context_judged:
        table.add_row(
            f"attention to the sentences before on the right place ({scores.context_judged} tokens)",
            f"{scores.context_accuracy:.3%}",
        )
    if task is not None and task.posterior is not None:
        _add_ambiguity(table, judge_ambiguity(task.posterior(), examples, found))
    console.print(table)
    wrong = [(example, text) for example, text in zip(examples, found, strict=True) if text != example.target]
    for example, text in wrong[:10]:
        console.print(f"  {example.source!r} -> {text}, expected {example.target}", highlight=False, markup=False)
    return scores


def _load(config: Config, models: Path) -> Bundle:
    try:
        return Repository(models).load(config.name, config.version)
    except BundleError as error:
        raise TrainingError(str(error)) from error


def evaluate_texts(
    config: Config, models: Path, limit: int, console: Console, decoding: Decoding | None = None
) -> dict[Precision, dict[str, TextScores]]:
    """Translate the test part of a corpus of files, each source once; print and return BLEU, chrF and exact match, in
    each precision that the bundle has. ``decoding`` None: as the model is made. Raises TrainingError when the bundle is
    refused.
    """
    examples = list(itertools.islice(Corpus(config.run_directory / "data").examples("test"), limit))
    bundle = _load(config, models)
    lower_case = isinstance(config.corpus, FileCorpus) and config.corpus.lower_case
    table = Table(title=f"{bundle.label}: {len(examples)} translations by people")
    for title in ("sources", "number", "BLEU", "chrF", "exact"):
        table.add_column(title, justify="left" if title == "sources" else "right")
    scores: dict[Precision, dict[str, TextScores]] = {}
    signatures = set[str]()
    for precision in sorted({graph.precision for graph in bundle.manifest.graphs}):
        scores[precision] = {}
        for language in sorted(bundle.manifest.target_language_pieces) or [""]:
            references = with_references(one for one in examples if not language or one.annotation == language)
            if not references:
                continue
            found = translate_texts(bundle, list(references), precision, language, decoding)
            for name, score in score_by_length(found, references, lower_case).items():
                part = f"to {language}, {name}" if language else name
                scores[precision][part] = score
                numbers = (f"{score.bleu:.2f}", f"{score.chrf:.2f}", f"{score.exact_match:.1%}")
                table.add_row(f"{precision}, {part}", str(score.sentences), *numbers)
                signatures |= {score.bleu_signature, score.chrf_signature}
    console.print(table)
    used = decoding or default_decoding(bundle)
    search = f"beam {used.beam_size}, length penalty {used.length_penalty:g}"
    console.print("greedy search" if used.is_plain else search, highlight=False)
    with _reader_of(bundle, "fp32") as reader:
        if reader is not None and used.beam_size > 1:
            console.print(f"read back by {reader.bundle.label}", highlight=False)
    for signature in sorted(signatures):
        console.print(signature, highlight=False, markup=False)
    return scores


def translate_texts(
    bundle: Bundle,
    texts: Sequence[str],
    precision: Precision = "fp32",
    target_language: str = "",
    decoding: Decoding | None = None,
) -> list[str]:
    """The texts of ``translations``."""
    return [one.text for one in translations(bundle, texts, precision, target_language, decoding)]


@dataclass(frozen=True)
class Translation:
    """A text's, and the words of the text that it is told to leave out."""

    text: str
    left_out: tuple[str, ...]


def translations(
    bundle: Bundle,
    texts: Sequence[str],
    precision: Precision = "fp32",
    target_language: str = "",
    decoding: Decoding | None = None,
) -> list[Translation]:
    """As the service does: sentence by sentence where the bundle says so, by the model's own search where none is
    named, and read back by the newest version that stands beside it of the model that it names."""
    with _reader_of(bundle, precision) as reader:
        return _translations(bundle, texts, precision, target_language, decoding or default_decoding(bundle), reader)


def _translations(
    bundle: Bundle,
    texts: Sequence[str],
    precision: Precision,
    target_language: str,
    decoding: Decoding,
    reader: Reader | None,
) -> list[Translation]:
    most = bundle.manifest.limits.max_target_tokens
    parts = [parts_of(bundle, text, target_language=target_language) for text in texts]
    sentences = [part.of(text) for text, of_text in zip(texts, parts, strict=True) for part in of_text]
    sources = [bundle.encode(sentence, target_language) for sentence in sentences]
    attention = least_attention(bundle)
    requests = [SentenceRequest(tuple(source.ids), most, attention, decoding=decoding) for source in sources]
    engine = Engine(open_model(bundle, precision=precision), EngineSettings(queue_tokens=2**31))
    attempts = [
        Attempt(
            bundle,
            source,
            kept_literals(bundle, source.text, target_language),
            request,
            most_rows=engine.rows,
            target_language=target_language,
        )
        for source, request in zip(sources, requests, strict=True)
    ]
    try:
        results = engine.translate(requests)
        for place, attempt in enumerate(attempts):
            while (longer := attempt.longer(results[place])) is not None:
                (results[place],) = engine.translate([longer])
        found = asyncio.run(checked(engine, attempts, dict(enumerate(results)), reader=reader))
    finally:
        engine.stop()
    best = (
        bundle.decode(found[place].result.hypotheses[0].target_ids, bundle.answers_in_capitals(sentence)).text
        for place, sentence in enumerate(sentences)
    )
    words = (tuple(word.text for word in found[place].left_out) for place in range(len(sentences)))
    return [
        Translation(
            rejoin(text, of_text, list(itertools.islice(best, len(of_text))))[0],
            tuple(itertools.chain(*itertools.islice(words, len(of_text)))),
        )
        for text, of_text in zip(texts, parts, strict=True)
    ]


@contextmanager
def _reader_of(bundle: Bundle, precision: Precision) -> Iterator[Reader | None]:
    """The newest version of the model that reads its translations back, where it stands beside it.

    Raises TrainingError where that is refused: scores would not be those of what is served.
    """
    name, models = bundle.manifest.read_back_by, Repository(bundle.directory.parents[1])
    versions = models.versions().get(name, []) if name is not None else []
    try:
        reader = models.load(name, versions[0]) if name is not None and versions else None
    except BundleError as error:
        raise TrainingError(f"{bundle.label} is read back by a bundle that is refused: {error}") from error
    if reader is None or not is_reader_of(reader, bundle):
        yield None
        return
    engine = Engine(open_model(reader, precision=precision), EngineSettings(queue_tokens=2**31))
    try:
        yield Reader(reader, engine)
    finally:
        engine.stop()


def default_decoding(bundle: Bundle) -> Decoding:
    """That of a call that says nothing of it."""
    defaults = bundle.manifest.decoding
    return Decoding(beam_size=defaults.beam_size, length_penalty=defaults.length_penalty)


def _add_ambiguity(table: Table, scores: Ambiguity) -> None:
    table.add_row(f"exact where one answer is right ({scores.single})", f"{scores.single_exact:.3%}")
    table.add_row(f"one of the right answers elsewhere ({scores.several})", f"{scores.several_within:.3%}")
    table.add_row(f"the clear answer, of probability >= 0.9 ({scores.clear})", f"{scores.clear_exact:.3%}")


def judge_ambiguity(posterior: Posterior, examples: list[Example], found: list[str]) -> Ambiguity:
    """Judge what was found for each example by all that its source may mean."""
    single: list[bool] = []
    several: list[bool] = []
    clear: list[bool] = []
    for example, text in zip(examples, found, strict=True):
        shares = posterior(example.source)
        (single if len(shares) == 1 else several).append(text in shares)
        likeliest = max(shares, key=lambda target: shares[target])
        if shares[likeliest] >= _CLEAR:
            clear.append(text == likeliest)
    return Ambiguity(len(single), _share(single), len(several), _share(several), len(clear), _share(clear))


def _share(right: list[bool]) -> float:
    return sum(right) / max(1, len(right))


def score_examples(config: Config, bundle: Bundle, examples: list[Example]) -> tuple[Scores, list[str]]:
    """The scores, and what came out for each example."""
    engine = Engine(open_model(bundle), EngineSettings(queue_tokens=2**31))
    try:
        sources = [bundle.encode(example.source) for example in examples]
        read, decoding = bundle.manifest.context_sentences, default_decoding(bundle)
        contexts = [[bundle.encode(text) for text in example.context[-read:] if read] for example in examples]
        requests = [
            SentenceRequest(
                tuple(source.ids),
                bundle.manifest.limits.max_target_tokens,
                attention="full" if context else "alignment",
                context_ids=tuple(tuple(sentence.ids) for sentence in context),
                decoding=decoding,
            )
            for source, context in zip(sources, contexts, strict=True)
        ]
        results = engine.translate(requests)
    finally:
        engine.stop()
    task = config.task
    found, hits, context_hits = [], list[bool](), list[bool]()
    for example, source, context, result in zip(examples, sources, contexts, results, strict=True):
        best = result.hypotheses[0]
        found.append(bundle.decode(best.target_ids, bundle.answers_in_capitals(example.source)).text)
        if found[-1] != example.target or task is None:
            continue
        spans = [(token.begin, token.end) for token in source.padded(bundle.manifest.one_shot_length or 0).tokens]
        if looked_at := [spans[place] for place in greatest_weights(bundle, best)]:
            hits += task.attention_hits(example, looked_at)
        if task.context_hits is not None and context:
            context_hits += task.context_hits(example, _greatest_in_context(best, context))
    exact = _share([text == example.target for example, text in zip(examples, found, strict=True)])
    scores = Scores(len(examples), exact, _share(hits), len(hits), _share(context_hits), len(context_hits))
    return scores, found


def greatest_weights(bundle: Bundle, hypothesis: Hypothesis) -> list[int]:
    """For each target token that is no special one, the source token of greatest weight in the alignment map; nothing
    where there is no attention."""
    alignment = bundle.manifest.alignment
    if alignment is None:
        return []
    plain = [token not in (PAD_ID, EOS_ID) for token in hypothesis.target_ids]
    weights = aligned(hypothesis.attention[alignment.map], alignment)[plain]
    return [int(place) for place in np.argmax(weights, axis=-1)]


def _greatest_in_context(hypothesis: Hypothesis, context: list[TokenizedText]) -> list[tuple[int, int, int]]:
    """For each target token but `</s>` where in the sentences before its weight is greatest: sentence, begin, end."""
    places = [(number, token.begin, token.end) for number, text in enumerate(context) for token in text.tokens]
    plain = [token not in (PAD_ID, EOS_ID) for token in hypothesis.target_ids]
    weights = hypothesis.attention["context"].mean(axis=1)[plain]
    return [places[int(place)] for place in np.argmax(weights, axis=-1)]

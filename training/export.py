"""A trained model to a bundle: weights, graphs that point into them, tokenizers, manifest; proven before it is seen.

Reads the weights of a run. Writes ``<repository>/<name>/<version>`` in one step, after the parity proof has passed and
the golden sentences were translated; an export that fails leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from service.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MANIFEST_HASH_FILE,
    AlignmentEntry,
    DecodingDefaults,
    FileEntry,
    GoldenSentence,
    GraphEntry,
    Limits,
    Manifest,
    Precision,
    Provenance,
    StateTensor,
    TokenizerEntry,
)
from service.bundle.reading import in_capitals, raised, read_ids
from service.bundle.tokenizer import Tokenizer
from training.align import chosen_alignment
from training.alignment import measure_alignment
from training.config import Config, FileCorpus, GoldenText
from training.corpus import SIDES, Corpus, ParallelArrays, language_piece
from training.files import folder_to_replace
from training.graphs import WEIGHTS_FILE, round_weights, write_graphs, write_weights
from training.models.interface import AutoregressiveModel, TranslationModel
from training.omissions import unaligned_words
from training.parity import prove_parity, translate
from training.quantization import quantize
from training.trainer import load_weights
from training.validation import validate

_CALIBRATION_PAIRS = 200
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


def export_bundle(config: Config, corpus: Corpus, repository: Path, progress: Callable[[str], None]) -> Path:
    """Write the bundle of the weights that ``export.weights`` names; returns its directory.

    Raises ParityError, CheckpointError.
    """
    corpus.check(config)
    model, updates = load_weights(config, corpus)
    round_weights(model, _DTYPES[config.export.weights_dtype])  # what is measured is what is stored
    score = validate(model, corpus.arrays("validation"), config.training.batch_tokens)
    directory = repository / config.name / str(config.version)
    alignment = _chosen_alignment(config, model, corpus, updates)
    return write_bundle(
        directory,
        model,
        config,
        {side: corpus.tokenizer_path(side) for side in SIDES},
        Provenance(
            config=config.model_dump(mode="json"),
            data_sha256=corpus.hashes,
            commit=_commit(),
            updates=max(updates),
            scores={"validation_exact_match": score.exact_match, "validation_loss": score.loss},
        ),
        progress,
        alignment,
        corpus.arrays("validation").first(_CALIBRATION_PAIRS) if config.export.int8 else None,
        _unaligned_words(config, model, corpus, alignment or model.alignment),
    )


def _unaligned_words(
    config: Config, model: TranslationModel, corpus: Corpus, alignment: AlignmentEntry | None
) -> tuple[str, ...]:
    if not config.export.finds_omissions or alignment is None or not isinstance(model, AutoregressiveModel):
        return ()
    return unaligned_words(model, corpus, alignment)


def _chosen_alignment(
    config: Config, model: TranslationModel, corpus: Corpus, updates: list[int]
) -> AlignmentEntry | None:
    """By links of people, by what the training told the model, or measured; None: the model's own."""
    if not isinstance(model, AutoregressiveModel):
        return None
    if (by_people := chosen_alignment(config, updates)) is not None:
        return by_people
    guided = config.training.guided_alignment
    if guided is not None and config.task is None:
        return AlignmentEntry(map=guided.map, heads=(guided.head,), shift=0, chosen_by="guided in the training")
    return measure_alignment(model, corpus, config.task)


def write_bundle(
    directory: Path,
    model: TranslationModel,
    config: Config,
    tokenizers: dict[str, Path],
    provenance: Provenance,
    progress: Callable[[str], None],
    alignment: AlignmentEntry | None = None,
    calibration: ParallelArrays | None = None,
    unaligned: tuple[str, ...] = (),
) -> Path:
    """Export ``model`` into ``directory``, whose last two parts are the config's name and version.

    ``alignment``: the one that was measured; by default the model's own. ``calibration``: pairs whose activations give
    the ranges of int8 graphs, which are written where there are any. ``unaligned``: ``training.omissions``.
    """
    model.eval()
    alignment = alignment or model.alignment
    with folder_to_replace(directory) as partial:
        weights = write_weights(model, partial / WEIGHTS_FILE, _DTYPES[config.export.weights_dtype])
        graphs = write_graphs(model, partial, weights, alignment)
        worst = prove_parity(model, partial, graphs)
        progress(f"parity with PyTorch: greatest difference {worst:.2e}")
        entries = _copy_tokenizers(tokenizers, partial)
        limit = config.export.limits.max_target_tokens
        golden = _translate_golden(config, partial, entries, lambda ids, context: translate(model, ids, limit, context))
        if calibration is not None:
            int8 = quantize(partial, graphs, _arrays_of(model), calibration)
            progress(f"int8: {int8.agreement:.2%} of the validation tokens are the likeliest as in float32")
            provenance = _with_score(provenance, "int8_validation_agreement", int8.agreement)
            graphs += int8.graphs
            translated = _translate_golden(
                config, partial, entries, lambda ids, _: int8.stepper.greedy(ids, limit), "int8"
            )
            golden += translated
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=config.name,
            version=config.version,
            description=config.export.description,
            source_languages=tuple(config.languages.source),
            target_languages=tuple(config.languages.target),
            license=config.export.license,
            attribution=tuple(config.export.attribution),
            files={path.name: _file_entry(path) for path in sorted(partial.iterdir())},
            weights=WEIGHTS_FILE,
            source_tokenizer=entries["source"],
            target_tokenizer=entries["target"],
            target_language_pieces=_pieces_of(config),
            limits=Limits(**config.export.limits.model_dump()),
            reads_plainly=config.export.reads_plainly,
            splits_sentences=config.export.splits_sentences,
            decoding=DecodingDefaults(beam_size=config.export.beam_size, length_penalty=config.export.length_penalty),
            keeps_literals=config.export.keeps_literals,
            finds_omissions=config.export.finds_omissions,
            unaligned_words=unaligned,
            read_back_by=config.export.read_back_by,
            capabilities=model.capabilities,
            graphs=tuple(graphs),
            state=_state_of(graphs),
            attention_maps=model.attention_maps,
            alignment=alignment,
            golden_sentences=golden,
            provenance=provenance,
        )
        _write_manifest(manifest, partial)
        for path in partial.iterdir():
            path.chmod(0o644)  # safetensors writes for the owner alone; a container serves as another user
    return directory


def _state_of(graphs: Sequence[GraphEntry]) -> tuple[StateTensor, ...]:
    """What ``encode`` gives beside the memory, in each of its variants: nothing where there is no such graph."""
    names = dict.fromkeys(spec.name for graph in graphs if graph.role == "encode" for spec in graph.outputs)
    return tuple(StateTensor(name=name, form="rows") for name in names if name.startswith("state_"))


def _copy_tokenizers(tokenizers: dict[str, Path], directory: Path) -> dict[str, TokenizerEntry]:
    entries = {}
    for side, path in tokenizers.items():
        shutil.copyfile(path, directory / f"{side}.spm")
        pieces = Tokenizer.load(path).vocabulary_size
        entries[side] = TokenizerEntry(file=f"{side}.spm", vocabulary_size=pieces)
    return entries


def _translate_golden(
    config: Config,
    directory: Path,
    entries: dict[str, TokenizerEntry],
    translate_ids: Callable[[list[int], list[list[int]]], list[int]],
    precision: Precision = "fp32",
) -> tuple[GoldenSentence, ...]:
    """What PyTorch itself answers, so that a load checks the graphs, the weights and the runtime together; of int8,
    which PyTorch does not compute, what the graphs answer here, so that a load checks the machine."""
    source, target = (Tokenizer.load(directory / entries[side].file) for side in SIDES)
    golden = []
    for document in config.export.golden_sentences:
        language = document.target_language if isinstance(document, GoldenText) else ""
        plain = document.source if isinstance(document, GoldenText) else document
        *before, text = [plain] if isinstance(plain, str) else plain
        plainly = config.export.reads_plainly
        encode = read_ids if plainly else _encode_ids
        ids = encode(text, source, language_piece(language))
        written = target.decode(translate_ids(ids, [encode(sentence, source) for sentence in before]))
        golden.append(
            GoldenSentence(
                source=text,
                target=(raised(written) if plainly and in_capitals(text) else written).text,
                context=tuple(before),
                precision=precision,
                target_language=language,
            )
        )
    return tuple(golden)


def _encode_ids(text: str, tokenizer: Tokenizer, first: str = "") -> list[int]:
    return tokenizer.encode_ids(text, first)


def _pieces_of(config: Config) -> dict[str, str]:
    told = config.corpus.target_languages if isinstance(config.corpus, FileCorpus) else frozenset[str]()
    return {language: language_piece(language) for language in sorted(told)}


def _arrays_of(model: TranslationModel) -> dict[str, npt.NDArray[np.float32]]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def _with_score(provenance: Provenance, name: str, score: float) -> Provenance:
    return provenance.model_copy(update={"scores": {**provenance.scores, name: score}})


def _write_manifest(manifest: Manifest, directory: Path) -> None:
    content = manifest.to_bytes()
    (directory / MANIFEST_FILE).write_bytes(content)
    line = f"{hashlib.sha256(content).hexdigest()}  {MANIFEST_FILE}\n"
    (directory / MANIFEST_HASH_FILE).write_text(line, encoding="ascii")


def _file_entry(path: Path) -> FileEntry:
    content = path.read_bytes()
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def _commit() -> str:
    """The commit the weights were exported at, "unknown" outside a checkout."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

"""The prepared corpus of a run: TSV files to read, tokenizers, and token ids in memory-mapped arrays.

``prepare`` writes it; everything else reads it. Layout of ``<run>/data``::

    {training,validation,test}.tsv           source TAB target TAB annotation, UTF-8
    {source,target}.spm                      SentencePiece models
    {training,validation}.{source,target}.{ids,offsets}.npy
    {training,validation}.context.{ids,offsets,sentences}.npy    for a task of documents
    done.json                                written last: the config it was made from, sha256 of every file
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from service.bundle.errors import BundleError
from service.bundle.tokenizer import Tokenizer
from training.config import Config, CorpusConfig
from training.errors import CorpusError
from training.files import write_atomically
from training.tasks import TASKS, Example
from training.tokenizers import train_tokenizer

SIDES = ("source", "target")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class TokenArrays:
    """Sentences as one flat array of ids: sentence i is ``ids[offsets[i]:offsets[i + 1]]``. Memory-mapped when read."""

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[np.int32]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class ContextArrays:
    """The sentences before each source, at most ``most`` a pair.

    Those of pair i are ``sentences[counts[i]]`` to ``sentences[counts[i + 1] - 1]``.
    """

    sentences: TokenArrays
    counts: npt.NDArray[np.int64]
    most: int

    def __getitem__(self, index: int) -> list[npt.NDArray[np.int32]]:
        return [self.sentences[place] for place in range(self.counts[index], self.counts[index + 1])]


@dataclass(frozen=True)
class ParallelArrays:
    """Sentence pairs, each side ending in `</s>`; ``context`` for a task of documents."""

    source: TokenArrays
    target: TokenArrays
    context: ContextArrays | None = None

    def __len__(self) -> int:
        return len(self.source)


class Corpus:
    """Reads what ``prepare`` wrote."""

    def __init__(self, directory: Path) -> None:
        """Raises CorpusError when the directory holds no finished corpus."""
        self.directory = directory
        marker = directory / "done.json"
        if not marker.is_file():
            raise CorpusError(f"no prepared corpus in {directory}: run `heed-train prepare CONFIG` first")
        done = _read_marker(marker)
        if done is None:
            raise CorpusError(f"{marker} is damaged: run `heed-train prepare CONFIG` again")
        self._done = done

    def check(self, config: Config) -> None:
        """Raises CorpusError when the corpus was prepared from other settings."""
        if not _same_settings(self._done["prepared_from"], config):
            raise CorpusError(f"{self.directory} was prepared from another corpus or tokenizer setting: prepare again")

    @property
    def hashes(self) -> dict[str, str]:
        """File name to sha256."""
        return dict(self._done["sha256"])

    def tokenizer_path(self, side: str) -> Path:
        return self.directory / f"{side}.spm"

    def tokenizer(self, side: str) -> Tokenizer:
        """Raises CorpusError when the file is missing or damaged."""
        try:
            return Tokenizer.load(self.tokenizer_path(side))
        except (OSError, BundleError) as error:
            raise CorpusError(f"cannot read {self.tokenizer_path(side)}: delete done.json and prepare again") from error

    def arrays(self, part: str) -> ParallelArrays:
        """The token ids of "training" or "validation"."""

        def load(name: str) -> npt.NDArray[Any]:
            array: npt.NDArray[Any] = np.load(self.directory / f"{part}.{name}.npy", mmap_mode="r")
            return array

        source, target = (TokenArrays(load(f"{side}.ids"), load(f"{side}.offsets")) for side in SIDES)
        if not len(source) or len(source) != len(target):
            raise CorpusError(f"{part}: {len(source)} source and {len(target)} target sentences; need as many of each")
        most = TASKS[self._done["prepared_from"]["corpus"]["task"]].context_sentences
        if not most:
            return ParallelArrays(source, target)
        sentences = TokenArrays(load("context.ids"), load("context.offsets"))
        return ParallelArrays(source, target, ContextArrays(sentences, load("context.sentences"), most))

    def examples(self, part: str) -> Iterator[Example]:
        """The text of "training", "validation" or "test"."""
        with (self.directory / f"{part}.tsv").open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield _read_line(line)


def _read_line(line: str) -> Example:
    source, target, annotation, *context = line.rstrip("\n").split("\t")
    return Example(source, target, annotation, tuple(context))


def prepare(config: Config, progress: Progress) -> Corpus:
    """Generate the text, train the tokenizers, write the arrays; a finished corpus of the same settings is kept."""
    directory = config.run_directory / "data"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorpusError(f"cannot make the folder {directory}: {error.strerror}") from error
    marker = directory / "done.json"
    done = _read_marker(marker)
    if done is not None and _same_settings(done["prepared_from"], config):
        progress(f"{directory} is already prepared")
        return Corpus(directory)
    marker.unlink(missing_ok=True)
    _write_texts(config, directory, progress)
    for side, settings in zip(SIDES, (config.tokenizers.source, config.tokenizers.target), strict=True):
        tokenizer = train_tokenizer(settings, directory / "training.tsv", SIDES.index(side), directory / f"{side}.spm")
        progress(f"{side} tokenizer: {settings.kind}, {tokenizer.vocabulary_size} pieces")
        for part in ("training", "validation"):
            _write_arrays(tokenizer, directory, part, side)
            if side == "source" and TASKS[config.corpus.task].context_sentences:
                _write_context(tokenizer, directory, part)
    hashes = {path.name: _sha256(path) for path in sorted(directory.iterdir())}
    write_atomically(marker, json.dumps({"prepared_from": _prepared_from(config), "sha256": hashes}, indent=1).encode())
    return Corpus(directory)


def _read_marker(marker: Path) -> dict[str, Any] | None:
    """What ``done.json`` says, None when it is absent or damaged."""
    try:
        values = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(values, dict) and values.keys() >= {"prepared_from", "sha256"}
    return values if complete else None


def _prepared_from(config: Config) -> dict[str, object]:
    return {"corpus": config.corpus.model_dump(), "tokenizers": config.tokenizers.model_dump()}


def _same_settings(prepared_from: dict[str, Any], config: Config) -> bool:
    """What an older Heed prepared lacks the keys that came later, whose defaults are what it did."""
    try:
        corpus = CorpusConfig.model_validate(prepared_from["corpus"]).model_dump()
    except (KeyError, TypeError, ValidationError):
        return False
    return {**prepared_from, "corpus": corpus} == _prepared_from(config)


def _write_texts(config: Config, directory: Path, progress: Progress) -> None:
    """One stream of examples cut into parts; the test part never holds a source that training has seen.

    Validation and test come first so that they do not depend on the size of the training part.
    """
    settings = config.corpus
    stream = TASKS[settings.task].examples(settings.seed)
    held_out: set[str] = set()
    for part, count in (("validation", settings.validation_pairs), ("test", settings.test_pairs)):
        chosen = list(itertools.islice(stream, count))
        held_out.update(example.source for example in chosen)
        _write_tsv(directory / f"{part}.tsv", chosen)
    unseen = (example for example in _with_variations(settings, stream) if example.source not in held_out)
    _write_tsv(directory / "training.tsv", itertools.islice(unseen, settings.training_pairs))
    progress(f"{settings.training_pairs} training pairs, none of whose sources is in validation or test")


def _with_variations(settings: CorpusConfig, plain: Iterator[Example]) -> Iterator[Example]:
    """The plain examples, with ``varied_share`` of the task's variations among them."""
    variations = TASKS[settings.task].variations
    if not settings.varied_share or variations is None:
        yield from plain
        return
    varied = variations(settings.seed)
    generator = random.Random(settings.seed)
    while True:
        yield next(varied if generator.random() < settings.varied_share else plain)


def _write_tsv(path: Path, examples: Iterable[Example]) -> None:
    """Raises CorpusError for a text that cannot stand in a line of such a file."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            columns = (example.source, example.target, example.annotation, *example.context)
            if any(character in column for column in columns for character in "\t\r\n"):
                raise CorpusError(f"{path.name}: a tab or a line break in {example}")
            file.write("\t".join(columns) + "\n")


def _write_arrays(tokenizer: Tokenizer, directory: Path, part: str, side: str) -> None:
    column = SIDES.index(side)
    with (directory / f"{part}.tsv").open(encoding="utf-8", newline="\n") as lines:
        sentences = [tokenizer.encode_ids(line.rstrip("\n").split("\t")[column]) for line in lines]
    _save_sentences(directory / f"{part}.{side}", sentences)


def _write_context(tokenizer: Tokenizer, directory: Path, part: str) -> None:
    with (directory / f"{part}.tsv").open(encoding="utf-8", newline="\n") as lines:
        contexts = [[tokenizer.encode_ids(sentence) for sentence in _read_line(line).context] for line in lines]
    _save_sentences(directory / f"{part}.context", list(itertools.chain.from_iterable(contexts)))
    np.save(directory / f"{part}.context.sentences.npy", _offsets(contexts))


def _save_sentences(stem: Path, sentences: Sequence[Sequence[int]]) -> None:
    offsets = _offsets(sentences)
    ids = np.fromiter(itertools.chain.from_iterable(sentences), dtype=np.int32, count=int(offsets[-1]))
    np.save(stem.with_name(f"{stem.name}.ids.npy"), ids)
    np.save(stem.with_name(f"{stem.name}.offsets.npy"), offsets)


def _offsets(rows: Sequence[Sequence[object]]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

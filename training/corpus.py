"""The prepared corpus of a run: TSV files to read, tokenizers, and token ids in memory-mapped arrays.

``prepare`` writes it; everything else reads it. Layout of ``<run>/data``::

    {training,validation,test}.tsv           source TAB target TAB annotation, UTF-8
    {source,target}.spm                      SentencePiece models
    {training,validation}.{source,target}.{ids,offsets}.npy
    training.lines.npy                       where each line of training.tsv begins, for subword regularisation
    {training,validation}.context.{ids,offsets,sentences}.npy    for a task of documents
    report.json                              of files: what became of every line
    done.json                                the config it was made from, sha256 of every file here and of those read
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from service.bundle.errors import BundleError
from service.bundle.manifest import MANIFEST_FILE
from service.bundle.reading import with_spaced_marks
from service.bundle.tokenizer import TokenizedText, Tokenizer
from training.config import Config, CorpusConfig, FileCorpus, TaskCorpus, TokenizersConfig, TsvFile
from training.errors import CorpusError
from training.files import folder_to_replace, write_atomically
from training.judging import Judge
from training.start import StartBundle
from training.tasks import TASKS, Example
from training.text_files import SIDES as SIDES
from training.text_files import Report, group_key, split_files, without
from training.tokenizers import train_tokenizer, with_symbols_as_bytes

_CORPUS_CONFIG: TypeAdapter[CorpusConfig] = TypeAdapter(CorpusConfig)
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

    def first(self, pairs: int) -> ParallelArrays:
        """The first pairs alone."""
        source, target = (TokenArrays(side.ids, side.offsets[: pairs + 1]) for side in (self.source, self.target))
        return ParallelArrays(source, target, self.context)


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
        self._tokenizers: dict[str, Tokenizer] = {}

    def check(self, config: Config) -> None:
        """Raises CorpusError when the corpus was prepared from other settings."""
        if not _same_settings(self._done["prepared_from"], config):
            raise CorpusError(f"{self.directory} was prepared from another corpus or tokenizer setting: prepare again")

    @property
    def tokenizers(self) -> TokenizersConfig:
        """How they were made."""
        return TokenizersConfig.model_validate(self._done["prepared_from"]["tokenizers"])

    @property
    def hashes(self) -> dict[str, str]:
        """File name to sha256."""
        return dict(self._done["sha256"])

    @property
    def start_hashes(self) -> dict[str, str]:
        """The same of what the run started from, whose tokenizers may have been changed since."""
        return self.hashes | dict(self._done.get("taken", {}))

    def tokenizer_path(self, side: str) -> Path:
        return self.directory / f"{side}.spm"

    def tokenizer(self, side: str) -> Tokenizer:
        """Read once: it takes longer than a sentence. Raises CorpusError when the file is missing or damaged."""
        if side not in self._tokenizers:
            path = self.tokenizer_path(side)
            try:
                self._tokenizers[side] = Tokenizer.load(path)
            except (OSError, BundleError) as error:
                raise CorpusError(f"cannot read {path}: delete done.json and prepare again") from error
        return self._tokenizers[side]

    def first_piece(self, example: Example) -> str:
        """The piece before a source that says in which language its target is; "" where there is but one."""
        return (
            language_piece(example.annotation) if self._done["prepared_from"]["corpus"].get("kind") == "files" else ""
        )

    def encode(self, example: Example) -> tuple[TokenizedText, TokenizedText]:
        """Source and target as the model reads and writes them."""
        source, target = (self.tokenizer(side) for side in SIDES)
        return source.encode(example.source, self.first_piece(example)), target.encode(example.target)

    def arrays(self, part: str) -> ParallelArrays:
        """The token ids of "training" or "validation"."""

        def load(name: str) -> npt.NDArray[Any]:
            array: npt.NDArray[Any] = np.load(self.directory / f"{part}.{name}.npy", mmap_mode="r")
            return array

        source, target = (TokenArrays(load(f"{side}.ids"), load(f"{side}.offsets")) for side in SIDES)
        if not len(source) or len(source) != len(target):
            raise CorpusError(f"{part}: {len(source)} source and {len(target)} target sentences; need as many of each")
        task = self._done["prepared_from"]["corpus"].get("task")
        most = 0 if task is None else TASKS[task].context_sentences
        if not most:
            return ParallelArrays(source, target)
        sentences = TokenArrays(load("context.ids"), load("context.offsets"))
        return ParallelArrays(source, target, ContextArrays(sentences, load("context.sentences"), most))

    def training_texts(self) -> TrainingTexts:
        """The text of any training pair, by its number."""
        begins = np.load(self.directory / "training.lines.npy", mmap_mode="r")
        return TrainingTexts(Lines(self.directory / "training.tsv", begins))

    def examples(self, part: str) -> Iterator[Example]:
        """The text of "training", "validation" or "test"."""
        with (self.directory / f"{part}.tsv").open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield _read_line(line)


class Lines:
    """Reads single lines of a file without holding them."""

    def __init__(self, path: Path, begins: npt.NDArray[np.int64]) -> None:
        self._begins = begins
        with path.open("rb") as file:
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, number: int) -> str:
        return self._content[self._begins[number] : self._begins[number + 1]].decode("utf-8").rstrip("\n")


class TrainingTexts:
    """Reads single pairs of ``training.tsv``."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __getitem__(self, pair: int) -> Example:
        return _read_line(self._lines[pair])


def _read_line(line: str) -> Example:
    source, target, annotation, *context = line.rstrip("\n").split("\t")
    return Example(source, target, annotation, tuple(context))


def prepare(config: Config, progress: Progress) -> Corpus:
    """Generate or read the text, train the tokenizers, write the arrays.

    A finished corpus of the same settings and files is kept; one of others stays until the new one is whole. Raises
    CorpusError.
    """
    directory = config.run_directory / "data"
    inputs = _hash_inputs(config)
    done = _read_marker(directory / "done.json")
    if done is not None and _same_settings(done["prepared_from"], config):
        before = done.get("inputs", {})
        changed = [name for name, sha256 in inputs.items() if before.get(name, sha256) != sha256]
        if not changed:
            progress(f"{directory} is already prepared")
            return Corpus(directory)
        progress(f"{', '.join(changed)} changed since {directory} was prepared: preparing again")
    try:
        with folder_to_replace(directory) as partial:
            _prepare(config, partial, inputs, progress)
    except OSError as error:
        raise CorpusError(f"cannot write the folder {directory}: {error.strerror}; it is as it was") from error
    return Corpus(directory)


def _prepare(config: Config, directory: Path, inputs: dict[str, str], progress: Progress) -> None:
    if isinstance(config.corpus, TaskCorpus):
        _write_texts(config.corpus, directory, progress)
    else:
        _write_split_files(config.corpus, _two_languages(config), directory, progress)
    np.save(directory / "training.lines.npy", line_begins(directory / "training.tsv"))
    languages = config.corpus.target_languages if isinstance(config.corpus, FileCorpus) else frozenset[str]()
    pieces = [language_piece(language) for language in sorted(languages)]
    if config.start_from is not None and isinstance(config.corpus, FileCorpus):
        _check_start(config.start_from, directory, bool(languages), progress)
        if config.start_interpolation is not None:
            between = config.start_interpolation.between
            _check_start(between, directory, bool(languages), progress, "start_interpolation.between")
    taken = dict[str, str]()
    for side in SIDES:
        path = directory / f"{side}.spm"
        if config.start_from is None:
            tokenizer = _train_tokenizer(config.tokenizers, directory, side, pieces)
        else:
            tokenizer = _take_tokenizer(config, config.start_from, directory, side, pieces)
            taken[path.name] = _sha256(path)
        if config.tokenizers.symbols_as_bytes:
            write_atomically(path, with_symbols_as_bytes(path.read_bytes()))
            tokenizer = Tokenizer.load(path)
        progress(f"{side} tokenizer: {config.tokenizers.source.kind}, {tokenizer.vocabulary_size} pieces")
        for part in ("training", "validation"):
            _write_arrays(tokenizer, directory, part, side, config.corpus)
            if side == "source" and config.task is not None and config.task.context_sentences:
                _write_context(tokenizer, directory, part)
    hashes = {path.name: _sha256(path) for path in sorted(directory.iterdir())}
    done = {"prepared_from": _prepared_from(config), "inputs": inputs, "sha256": hashes, "taken": taken}
    write_atomically(directory / "done.json", json.dumps(done, indent=1).encode())


def _hash_inputs(config: Config) -> dict[str, str]:
    """The sha256 of every file that is read; without those that are not there (any more)."""
    corpus, paths = config.corpus, list[Path]()
    if isinstance(corpus, FileCorpus):
        for entry in (*corpus.training, *(corpus.validation or ()), *(corpus.test or ())):
            paths += [entry.tsv] if isinstance(entry, TsvFile) else [entry.source, entry.target]
        paths += [made.tsv for made in (corpus.augment.frames, corpus.augment.templates) if made is not None]
        paths += [] if corpus.judge is None else [corpus.judge / MANIFEST_FILE]
    if config.start_from is not None:
        of_run = ("training.tsv", *(f"{side}.spm" for side in SIDES))
        paths += [config.start_from / MANIFEST_FILE, *(config.start_from / "data" / name for name in of_run)]
    return {str(path): _sha256(path) for path in paths if path.is_file()}


def _read_marker(marker: Path) -> dict[str, Any] | None:
    """What ``done.json`` says, None when it is absent or damaged."""
    try:
        values = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(values, dict) and values.keys() >= {"prepared_from", "sha256"}
    return values if complete else None


def _prepared_from(config: Config) -> dict[str, object]:
    settings: dict[str, object] = {
        "corpus": config.corpus.model_dump(mode="json"),
        "tokenizers": config.tokenizers.model_dump(),
    }
    return settings if config.start_from is None else settings | {"start_from": str(config.start_from)}


def _same_settings(prepared_from: dict[str, Any], config: Config) -> bool:
    """What an older Heed prepared lacks the keys that came later, whose defaults are what it did."""
    wanted = _prepared_from(config)
    if prepared_from.keys() != wanted.keys() or prepared_from.get("start_from") != wanted.get("start_from"):
        return False
    try:
        corpus = _CORPUS_CONFIG.validate_python(prepared_from["corpus"])
        tokenizers = TokenizersConfig.model_validate(prepared_from["tokenizers"])
    except (KeyError, TypeError, ValidationError):
        return False
    return corpus == config.corpus and tokenizers == config.tokenizers


def language_piece(language: str) -> str:
    """What stands before a source whose target is in ``language`` (Johnson et al. 2017, section 3); "" for ""."""
    return f"<2{language}>" if language else ""


def _train_tokenizer(settings: TokenizersConfig, directory: Path, side: str, pieces: list[str]) -> Tokenizer:
    """A shared one is trained once, on both columns, and copied. ``pieces`` say the target language."""
    path, of_side = directory / f"{side}.spm", settings.source if side == "source" else settings.target
    if settings.shared and side == "target":
        write_atomically(path, (directory / "source.spm").read_bytes())
        return Tokenizer.load(path)
    columns = range(len(SIDES)) if settings.shared else (SIDES.index(side),)
    return train_tokenizer(of_side, directory / "training.tsv", columns, path, pieces)


def _take_tokenizer(config: Config, start: Path, directory: Path, side: str, pieces: list[str]) -> Tokenizer:
    """That of the run or bundle to start from, of the same settings and with the same target languages."""
    started = StartBundle.at(start) or Corpus(start / "data")
    there, here = started.tokenizers, config.tokenizers
    more_there = there.symbols_as_bytes and not here.symbols_as_bytes
    if (there.trained, there.shared) != (here.trained, here.shared) or more_there:
        raise CorpusError(f"start_from: the tokenizers of {start} are of other settings: use its `tokenizers`")
    tokenizer = started.tokenizer(side)
    if missing := [piece for piece in pieces if not tokenizer.is_control(piece)]:
        raise CorpusError(
            f"start_from: the tokenizers of {start} have no {', '.join(missing)}: it was trained without those target "
            "languages, and a model does not learn of new ones"
        )
    write_atomically(directory / f"{side}.spm", started.tokenizer_path(side).read_bytes())
    return tokenizer


def _check_start(start: Path, directory: Path, both_ways: bool, progress: Progress, field: str = "start_from") -> None:
    """Raises CorpusError where a run to start from was trained on what is the test here: no score would be clean.
    Tells where it was trained on what is validation, and of a bundle, which has no text, that it is not known."""
    if (bundle := StartBundle.at(start)) is not None:
        others = [
            part for part in ("validation", "test") if not bundle.holds_out(part, _sha256(directory / f"{part}.tsv"))
        ]
        if others:
            progress(
                f"{field}: {start} held out others than the {' and '.join(others)} here: it may have been trained "
                "on some of them, and then its measures are too good"
            )
        return
    for part in ("test", "validation"):
        held: list[set[str]] = [set(), set()]
        with (directory / f"{part}.tsv").open(encoding="utf-8", newline="\n") as lines:
            for example in map(_read_line, lines):
                for keys, side in zip(held, SIDES, strict=True):
                    keys.add(group_key(getattr(example, side)))
        seen = (held[0] | held[1],) * len(SIDES) if both_ways else tuple(held)
        report = Report()
        kept = sum(1 for _ in without(Corpus(start / "data").examples("training"), seen, report, part))
        if count := report.refused.total():
            found = f"{field}: {count} of the {kept + count} pairs that {start} was trained on are of the {part} here"
            if part == "test":
                raise CorpusError(f"{found}: hold out the same in both (corpus.held_out and corpus.filters)")
            progress(f"{found}: its measures are too good by as much")


def _two_languages(config: Config) -> tuple[str, str] | None:
    sides = config.languages.source, config.languages.target
    return None if any(len(side) != 1 for side in sides) else (sides[0][0], sides[1][0])


def _write_split_files(
    corpus: FileCorpus, languages: tuple[str, str] | None, directory: Path, progress: Progress
) -> None:
    report = Report()
    judge = None if corpus.judge is None else Judge(corpus.judge, languages)
    for part, pairs in split_files(corpus, report, languages, judge).items():
        report.kept[part] = _write_tsv(directory / f"{part}.tsv", pairs)
    for line in report.summary():
        progress(line)
    write_atomically(directory / "report.json", json.dumps(vars(report), indent=1).encode())
    if empty := [part for part, count in report.kept.items() if not count]:
        raise CorpusError(f"no pair is left for {', '.join(empty)}: {report.summary()[0]}")


def _write_texts(settings: TaskCorpus, directory: Path, progress: Progress) -> None:
    """One stream of examples cut into parts; the test part never holds a source that training has seen.

    Validation and test come first so that they do not depend on the size of the training part.
    """
    stream = TASKS[settings.task].examples(settings.seed)
    held_out: set[str] = set()
    for part, count in (("validation", settings.validation_pairs), ("test", settings.test_pairs)):
        chosen = list(itertools.islice(stream, count))
        held_out.update(example.source for example in chosen)
        _write_tsv(directory / f"{part}.tsv", chosen)
    unseen = (example for example in _with_variations(settings, stream) if example.source not in held_out)
    _write_tsv(directory / "training.tsv", itertools.islice(unseen, settings.training_pairs))
    progress(f"{settings.training_pairs} training pairs, none of whose sources is in validation or test")


def _with_variations(settings: TaskCorpus, plain: Iterator[Example]) -> Iterator[Example]:
    """The plain examples, with ``varied_share`` of the task's variations among them."""
    variations = TASKS[settings.task].variations
    if not settings.varied_share or variations is None:
        yield from plain
        return
    varied = variations(settings.seed)
    generator = random.Random(settings.seed)
    while True:
        yield next(varied if generator.random() < settings.varied_share else plain)


def _write_tsv(path: Path, examples: Iterable[Example]) -> int:
    """How many were written. Raises CorpusError for a text that cannot stand in a line of such a file."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            columns = (example.source, example.target, example.annotation, *example.context)
            if any(character in column for column in columns for character in "\t\r\n"):
                raise CorpusError(f"{path.name}: a tab or a line break in {example}")
            file.write("\t".join(columns) + "\n")
            count += 1
    return count


def line_begins(path: Path) -> npt.NDArray[np.int64]:
    """Where each line begins, and where the file ends."""
    begins = array("q", [0])
    with path.open("rb") as file:
        for line in file:
            begins.append(begins[-1] + len(line))
    return np.frombuffer(begins, dtype=np.int64)


def _write_arrays(tokenizer: Tokenizer, directory: Path, part: str, side: str, corpus: CorpusConfig) -> None:
    """Of files an annotation is a target language, which the source begins with."""
    of_files = isinstance(corpus, FileCorpus) and side == "source"

    def as_read(text: str) -> str:
        raw = side == "source" and part != "training"  # the training text has plain marks already
        return with_spaced_marks(text) if raw and isinstance(corpus, FileCorpus) and corpus.plain_marks else text

    with (directory / f"{part}.tsv").open(encoding="utf-8", newline="\n") as lines:
        examples = map(_read_line, lines)
        sentences = (
            tokenizer.encode_ids(
                as_read(getattr(example, side)), language_piece(example.annotation) if of_files else ""
            )
            for example in examples
        )
        _save_sentences(directory / f"{part}.{side}", sentences)


def _write_context(tokenizer: Tokenizer, directory: Path, part: str) -> None:
    with (directory / f"{part}.tsv").open(encoding="utf-8", newline="\n") as lines:
        contexts = [[tokenizer.encode_ids(sentence) for sentence in _read_line(line).context] for line in lines]
    _save_sentences(directory / f"{part}.context", itertools.chain.from_iterable(contexts))
    counts = np.cumsum([0, *(len(sentences) for sentences in contexts)], dtype=np.int64)
    np.save(directory / f"{part}.context.sentences.npy", counts)


def _save_sentences(stem: Path, sentences: Iterable[Sequence[int]]) -> None:
    """Four bytes a token and eight a sentence while it reads: a list of a million lists would be a gigabyte."""
    ids, ends = array("i"), array("q", [0])
    for sentence in sentences:
        ids.extend(sentence)
        ends.append(len(ids))
    np.save(stem.with_name(f"{stem.name}.ids.npy"), np.frombuffer(ids, dtype=np.int32))
    np.save(stem.with_name(f"{stem.name}.offsets.npy"), np.frombuffer(ends, dtype=np.int64))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Bundles on disk: which there are, and whether each may be trusted.

``<root>/<model>/<version>/manifest.json`` and, optionally, ``<root>/repository.json``. Reads files and checks hashes;
runs nothing. A bundle whose hashes match its manifest is trusted like code (``docs/decisions/0001-bundle.md``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from service.bundle.errors import BundleError, UnknownModelError
from service.bundle.manifest import MANIFEST_FILE, MANIFEST_HASH_FILE, MODEL_NAME, GraphEntry, Manifest, ModelName
from service.bundle.reading import in_capitals, raised, read, read_ids, truecased
from service.bundle.tokenizer import TokenizedText, Tokenizer

REPOSITORY_FILE = "repository.json"


class RepositorySettings(BaseModel):
    """``repository.json``: which model answers a request that names neither a model nor languages."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    default_model: ModelName | None = None


@dataclass(frozen=True)
class Bundle:
    """One checked bundle. Every file it names is inside ``directory`` and has the content its manifest promises."""

    directory: Path
    manifest: Manifest
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer

    @property
    def label(self) -> str:
        return f"{self.manifest.name}/{self.manifest.version}"

    def encode(self, text: str, target_language: str = "") -> TokenizedText:
        """A source text's tokens, as the model reads them: one that writes several languages is told which.

        Raises KeyError where that is none of its languages.
        """
        first = self._first_piece(target_language)
        if self.manifest.reads_plainly:
            return read(text, self.source_tokenizer, first)
        return self.source_tokenizer.encode(text, first)

    def encode_ids(self, text: str, target_language: str = "") -> list[int]:
        """The ids that ``encode`` gives, without the offsets."""
        first = self._first_piece(target_language)
        if self.manifest.reads_plainly:
            return read_ids(text, self.source_tokenizer, first)
        return self.source_tokenizer.encode_ids(text, first)

    def answers_in_capitals(self, text: str, begun: str = "") -> bool:
        """Is the translation of ``text`` given in capitals, as the text itself is?

        ``begun``: what the client gives of the translation, which is kept as it was written.
        """
        if not self.manifest.reads_plainly or not in_capitals(text):
            return False
        return raised(self.encode_begun(begun, True)).text == begun

    def encode_begun(self, begun: str, capitals: bool) -> TokenizedText:
        """What the client gives of a translation, as the model would have written it.

        ``capitals``: it is of a text that ``answers_in_capitals``.
        """
        tokenizer = self.target_tokenizer
        return tokenizer.encode(truecased(begun, tokenizer) if capitals else begun)

    def decode(self, ids: Sequence[int], capitals: bool = False) -> TokenizedText:
        """A translation and where in it each of ``ids`` stands; ``capitals`` as ``answers_in_capitals`` says."""
        target = self.target_tokenizer.decode(ids)
        return raised(target) if capitals else target

    @cached_property
    def unaligned_words(self) -> frozenset[str]:
        """Words in lower case that good translations often do not look at."""
        return frozenset(self.manifest.unaligned_words)

    def is_foreign(self, letter: str) -> bool:
        """Is a letter one of no word that the model reads or writes? Then it can only be copied."""
        return letter not in self.source_tokenizer.word_letters and letter not in self.target_tokenizer.word_letters

    def _first_piece(self, target_language: str) -> str:
        pieces = self.manifest.target_language_pieces
        return pieces[target_language] if pieces else ""

    def path(self, file_name: str) -> Path:
        return self.directory / file_name

    def graphs(self, role: str) -> list[GraphEntry]:
        return [graph for graph in self.manifest.graphs if graph.role == role]


_MODEL_NAME = re.compile(MODEL_NAME)
_VERSION = re.compile("[1-9][0-9]*")


class Repository:
    """A directory of bundles."""

    def __init__(self, root: Path) -> None:
        """Raises BundleError when ``root`` is no directory or its ``repository.json`` is wrong."""
        if not root.is_dir():
            raise BundleError(f"no directory {root}: name the folder that holds <model>/<version>/{MANIFEST_FILE}")
        self.root = root.resolve()
        self.settings = self._read_settings()

    def _read_settings(self) -> RepositorySettings:
        path = self.root / REPOSITORY_FILE
        if not path.is_file():
            return RepositorySettings()
        try:
            return RepositorySettings.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise BundleError(f"{path}: {error.errors()[0]['msg']}") from error

    def versions(self) -> dict[str, list[int]]:
        """Every model and its versions, the newest first; folders that are named otherwise are passed over."""
        found: dict[str, list[int]] = {}
        for manifest in self.root.glob(f"*/*/{MANIFEST_FILE}"):
            version, model = manifest.parent.name, manifest.parent.parent.name
            if _MODEL_NAME.fullmatch(model) and _VERSION.fullmatch(version):
                found.setdefault(model, []).append(int(version))
        return {model: sorted(found[model], reverse=True) for model in sorted(found)}

    def load(self, name: str, version: int) -> Bundle:
        """Read and check one bundle. Raises UnknownModelError when there is none, BundleError when it is refused."""
        if version not in self.versions().get(name, []):
            raise UnknownModelError(f"no {MANIFEST_FILE} in {self.root / name / str(version)}")
        return load_bundle(self.root / name / str(version))


def load_bundle(directory: Path) -> Bundle:
    """Check the bundle in ``directory``, whose last two parts are the model's name and version."""
    directory = directory.resolve()
    manifest = _read_manifest(directory)
    found = (manifest.name, str(manifest.version))
    expected = (directory.parent.name, directory.name)
    if found != expected:
        raise BundleError(
            f"{_place(directory, MANIFEST_FILE)} is of {'/'.join(found)} and lies in {'/'.join(expected)}: "
            "move the folder"
        )
    for name, entry in manifest.files.items():
        _check_file(directory, name, entry.sha256, entry.size_bytes)
    source, target = (
        _load_tokenizer(directory, entry.file, entry.vocabulary_size)
        for entry in (manifest.source_tokenizer, manifest.target_tokenizer)
    )
    _check_vocabulary(manifest, target.vocabulary_size, directory)
    for language, piece in manifest.target_language_pieces.items():
        if not source.is_control(piece):
            raise BundleError(
                f"{_place(directory, manifest.source_tokenizer.file)} has no control piece {piece!r}, which stands "
                f"for {language} in {MANIFEST_FILE}: export the bundle again"
            )
    return Bundle(directory, manifest, source, target)


def _place(directory: Path, name: str) -> str:
    """A file as clients may see it: without the server's own folders."""
    return f"{directory.parent.name}/{directory.name}/{name}"


def _read_manifest(directory: Path) -> Manifest:
    path, hash_path = directory / MANIFEST_FILE, directory / MANIFEST_HASH_FILE
    try:
        content = path.read_bytes()
        expected = hash_path.read_text(encoding="ascii").split()[:1]
    except (OSError, UnicodeDecodeError) as error:
        place = _place(directory, MANIFEST_FILE)
        raise BundleError(f"cannot read {place} and {hash_path.name}: copy the bundle again, whole") from error
    found = hashlib.sha256(content).hexdigest()
    if [found] != expected:
        raise BundleError(
            f"{_place(directory, MANIFEST_FILE)} has sha256 {found[:12]}…, "
            f"{MANIFEST_HASH_FILE} says {(expected or ['nothing'])[0][:12]}…: "
            "the bundle was changed after its export; copy or export it again"
        )
    return Manifest.from_bytes(content, _place(directory, MANIFEST_FILE))


def _check_file(directory: Path, name: str, sha256: str, size_bytes: int) -> None:
    path, place = directory / name, _place(directory, name)
    if not path.resolve().is_relative_to(directory.resolve()):
        raise BundleError(f"{place} leads out of the bundle: a bundle holds its own files")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
    except OSError as error:
        raise BundleError(f"{place} is in the manifest and cannot be read: copy the bundle again, whole") from error
    if (found, size) != (sha256, size_bytes):
        raise BundleError(
            f"{place} has sha256 {found[:12]}… and {size} bytes, the manifest says {sha256[:12]}… and {size_bytes}: "
            "the file was changed after the export; copy or export the bundle again"
        )


def _load_tokenizer(directory: Path, file_name: str, vocabulary_size: int) -> Tokenizer:
    tokenizer = Tokenizer.load(directory / file_name)
    if tokenizer.vocabulary_size != vocabulary_size:
        raise BundleError(
            f"{_place(directory, file_name)} has {tokenizer.vocabulary_size} pieces, "
            f"the manifest says {vocabulary_size}: export the bundle again"
        )
    return tokenizer


def _check_vocabulary(manifest: Manifest, target_pieces: int, directory: Path) -> None:
    for graph in manifest.graphs:
        for tensor in graph.outputs:
            if tensor.name == "logits" and tensor.axes[-1] != target_pieces:
                raise BundleError(
                    f"{_place(directory, graph.file)} gives logits for {tensor.axes[-1]} tokens, "
                    f"the target tokenizer has {target_pieces} pieces: export the bundle again"
                )

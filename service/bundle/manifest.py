"""The manifest: everything the service must know of a bundle before it runs it.

The reader owns this format; ``training.export`` imports it to write. See ``docs/decisions/0001-bundle.md``. Knows
nothing of onnxruntime, torch or grpc. Every value is checked here, once; the rest of the service trusts it.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.bundle.errors import BundleError

#: A reader refuses a newer format; a change that an older reader would misread raises it.
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
MANIFEST_HASH_FILE = "manifest.json.sha256"

Dtype = Literal["float32", "int64", "int32"]
Role = Literal["encode", "decode_step", "one_shot"]
#: What attention a graph emits: nothing, the map that alignments come from, or every map of the manifest.
AttentionVariant = Literal["none", "alignment", "full"]


def _check_file_name(name: str) -> str:
    path = PurePosixPath(name)
    plain = re.fullmatch(r"[A-Za-z0-9._/-]+", name) and not path.is_absolute() and ".." not in path.parts
    if not plain or str(path) != name:
        raise ValueError("a file name is relative, stays inside the bundle and has only letters, digits and . _ - /")
    return name


MapKind = Literal["cross", "encoder_self", "decoder_self", "context", "context_sentence"]
FileName = Annotated[str, AfterValidator(_check_file_name)]
MODEL_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
ModelName = Annotated[str, Field(pattern=MODEL_NAME)]
Count = Annotated[int, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """A file's content, so that a changed byte is noticed."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class TokenizerEntry(_Part):
    """One SentencePiece model. Its special ids are those of ``service.bundle.tokenizer``."""

    kind: Literal["sentencepiece"] = "sentencepiece"
    file: FileName
    vocabulary_size: Count


class Limits(_Part):
    """In tokens, `</s>` included."""

    max_source_tokens: Count
    max_target_tokens: Count


class Capabilities(_Part):
    """What the model can do by its nature; the service refuses the rest with FAILED_PRECONDITION."""

    generation: Literal["autoregressive", "one_shot"]
    scoring: bool
    prefix: bool
    beam: bool
    streaming: bool
    document_context: bool


class TensorSpec(_Part):
    """A graph's input or output: axes are names ("batch", "source", "rows") or fixed sizes."""

    name: str
    dtype: Dtype
    axes: tuple[str | int, ...]


#: In which numbers a graph multiplies.
Precision = Literal["fp32", "fp16", "int8"]


class GraphEntry(_Part):
    """One ONNX graph and what tells it from the others of its role; the engine picks."""

    role: Role
    file: FileName
    attention: AttentionVariant
    precision: Precision = "fp32"
    provider: Literal["any", "cpu", "cuda"] = "any"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class StateTensor(_Part):
    """One tensor that a hypothesis carries from step to step, on axis 0 of ``decode_step``.

    ``encode`` gives its first value and ``decode_step`` reads it under ``name``; the step's new value is
    ``next_<name>``. ``rows``: a plain row, replaced at every step (recurrent states). Growing caches will be another
    form: ``docs/decisions/0002-cache-form.md``.
    """

    name: str
    form: Literal["rows"]

    @property
    def next_name(self) -> str:
        return f"next_{self.name}"


class AttentionMapEntry(_Part):
    """What one attention tensor means. Heads lie on axis 1; a layer is counted from 0.

    ``encoder_self``: (batch, heads, source, source), emitted by ``encode``. ``decoder_self``: a step's row over the
    target so far, (rows, heads, places): place 0 is `<s>`, place j the j-th token that was written. ``context``: over
    the tokens of the sentences before, (rows, heads, sentences, context); ``context_sentence``: over those sentences,
    (rows, heads, sentences). Rows of these two are 0 where there is no sentence before.
    """

    name: ModelName
    tensor: str
    kind: MapKind
    layer: Annotated[int, Field(ge=0)]
    heads: Count
    scope_tokens: Annotated[int, Field(ge=0)]  # the span of source one key sees; 0: the whole sentence
    score_function: str
    rows_sum_to_one: bool
    includes_end_of_sentence: bool
    emitted_by: Role = "decode_step"
    tokens_per_unit: Count = 1  # rows and columns stand for blocks of so many tokens


class AlignmentEntry(_Part):
    """Which weights are the alignment: the mean of these heads of one map.

    ``shift`` 0: the weights read when the token is output; 1: when it is input.
    """

    map: ModelName
    heads: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    shift: Literal[0, 1]
    chosen_by: str


class GoldenSentence(_Part):
    """A sentence that the bundle translates at every load, to exactly this; ``context`` are the sentences before it.

    Of the graphs of one precision, whose answers may differ from another's.
    """

    source: str
    target: str
    context: tuple[str, ...] = ()
    precision: Precision = "fp32"
    target_language: str = ""  # of a model of several: which


class Provenance(_Part):
    """Where the weights come from and what they scored."""

    config: dict[str, Any]
    data_sha256: dict[str, str]
    commit: str
    updates: int
    scores: dict[str, float]


class DecodingDefaults(_Part):
    """How a call is decoded that does not say it (``service.decoding``). Without: greedy search."""

    beam_size: int = Field(default=1, ge=1, le=64)
    length_penalty: float = Field(default=0.0, ge=0.0, le=10.0)


class Manifest(_Part):
    """``manifest.json``."""

    format_version: int
    name: ModelName
    version: Count
    description: str
    source_languages: tuple[str, ...]
    target_languages: tuple[str, ...]
    license: str
    attribution: tuple[str, ...]
    files: dict[FileName, FileEntry]
    weights: FileName
    source_tokenizer: TokenizerEntry
    target_tokenizer: TokenizerEntry
    #: Of a model that writes several languages: the piece before a source that says which, by the language's code.
    target_language_pieces: dict[str, str] = {}
    limits: Limits
    reads_plainly: bool = False  # words in capitals truecased, quotation marks plain (``service.bundle.reading``)
    splits_sentences: bool = False  # a text is cut into its sentences, as the model's training was
    decoding: DecodingDefaults = DecodingDefaults()
    keeps_literals: bool = False  # emoji, addresses and the like are copied (``service.literals``): they are looked for
    finds_omissions: bool = False  # the alignment tells which words were left out (``service.coverage``)
    #: Words in lower case that the alignment of good translations often does not look at; they are not missed.
    unaligned_words: tuple[str, ...] = ()
    #: A model of the other direction: from what it makes of a translation, the truest of several is told
    #: (``service.reading_back``). Where it is not served, or reads other languages, nothing is read back.
    read_back_by: ModelName | None = None
    capabilities: Capabilities
    graphs: tuple[GraphEntry, ...]
    state: tuple[StateTensor, ...]
    attention_maps: tuple[AttentionMapEntry, ...]
    alignment: AlignmentEntry | None  # None: the model attends to nothing
    golden_sentences: tuple[GoldenSentence, ...]
    provenance: Provenance

    @model_validator(mode="after")
    def _check_references(self) -> Manifest:
        self._check_files()
        self._check_graphs()
        maps = {entry.name: entry for entry in self.attention_maps}
        if len(maps) != len(self.attention_maps):
            raise ValueError("attention_maps: two maps have one name")
        length = self.one_shot_length
        if length is not None and self.limits.max_source_tokens > length:
            raise ValueError(f"limits.max_source_tokens is {self.limits.max_source_tokens}; the graphs read {length}")
        if (self.context_sentences > 0) != self.capabilities.document_context:
            raise ValueError(
                f"capabilities.document_context is {self.capabilities.document_context}, and the graphs read "
                f"{self.context_sentences} sentences before each"
            )
        pieces = self.target_language_pieces
        if pieces and pieces.keys() != set(self.target_languages):
            raise ValueError(f"target_language_pieces are of {', '.join(pieces)}; target_languages are others")
        for golden in self.golden_sentences:
            if (golden.target_language or None) not in (pieces or [None]):
                raise ValueError(
                    f"golden_sentences has one of the target language {golden.target_language!r}, and "
                    f"target_language_pieces are of {', '.join(pieces) or 'none'}"
                )
        longest = max((len(golden.context) for golden in self.golden_sentences), default=0)
        if longest > self.context_sentences:
            raise ValueError(f"golden_sentences have {longest} before one; the graphs read {self.context_sentences}")
        if self.alignment is not None:
            self._check_alignment(self.alignment, maps)
        elif maps:
            raise ValueError("alignment is absent, and there are attention_maps: choose one of them")
        if self.finds_omissions and not (self.alignment and self.capabilities.prefix and self.capabilities.beam):
            raise ValueError("finds_omissions needs an alignment, and a model with a prefix and a beam")
        if self.read_back_by is not None and not (self.capabilities.prefix and self.capabilities.beam):
            raise ValueError(
                f"read_back_by is {self.read_back_by}, and the model has no prefix, or no beam to choose from"
            )
        return self

    def _check_alignment(self, alignment: AlignmentEntry, maps: dict[str, AttentionMapEntry]) -> None:
        chosen = maps.get(alignment.map)
        if chosen is None or max(alignment.heads) >= chosen.heads:
            heads = ", ".join(map(str, alignment.heads))
            raise ValueError(f"alignment names {alignment.map!r} heads {heads}, which is no map here")
        if chosen.kind != "cross":
            raise ValueError(
                f"alignment names {chosen.name!r}, a map of one side: an alignment is of source and target"
            )
        emitted = {tensor.name for graph in self.graphs if graph.role == chosen.emitted_by for tensor in graph.outputs}
        if chosen.tokens_per_unit != 1:
            raise ValueError(f"alignment names {chosen.name!r}, a map of blocks: an alignment is of tokens")
        if chosen.tensor not in emitted:
            raise ValueError(f"no {chosen.emitted_by} graph emits {chosen.tensor}, which the alignment comes from")

    def _check_files(self) -> None:
        named = {self.weights, self.source_tokenizer.file, self.target_tokenizer.file}
        named |= {graph.file for graph in self.graphs}
        if missing := sorted(named - self.files.keys()):
            raise ValueError(f"files has no entry for {', '.join(missing)}")

    def _check_graphs(self) -> None:
        roles = {graph.role for graph in self.graphs}
        wanted = {"encode", "decode_step"} if self.capabilities.generation == "autoregressive" else {"one_shot"}
        if missing := sorted(wanted - roles):
            raise ValueError(f"graphs has none of the role {', '.join(missing)}")
        for graph in self.graphs:
            outputs = {tensor.name for tensor in graph.outputs}
            tensors = {entry.tensor for entry in self.attention_maps if entry.emitted_by == graph.role}
            if graph.attention == "full" and (absent := sorted(tensors - outputs)):
                raise ValueError(f"{graph.file} should emit every attention map and lacks {', '.join(absent)}")
            states = {
                "decode_step": {state.next_name for state in self.state},
                "encode": {state.name for state in self.state},
                "one_shot": set[str](),
            }[graph.role]
            if absent := sorted(states - outputs):
                raise ValueError(f"{graph.file} lacks the state {', '.join(absent)}")

    @property
    def one_shot_length(self) -> int | None:
        """The source's and the target's fixed length in tokens, padding included; None where it is not fixed."""
        for graph in self.graphs:
            for spec in graph.inputs:
                if graph.role == "one_shot" and spec.name == "source_ids" and isinstance(spec.axes[1], int):
                    return spec.axes[1]
        return None

    @property
    def context_sentences(self) -> int:
        """How many sentences before a sentence the model reads; 0 for a model of single sentences."""
        for graph in self.graphs:
            for spec in graph.inputs:
                if graph.role == "encode" and spec.name == "context_ids" and isinstance(spec.axes[1], int):
                    return spec.axes[1]
        return 0

    def attention_map(self, name: str) -> AttentionMapEntry:
        """The map of this name; KeyError when there is none."""
        for entry in self.attention_maps:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Manifest:
        """Raises BundleError, naming the first wrong field, for anything but a manifest of a format we read."""
        try:
            version = _format_version(content)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{where} is not a JSON object: export the bundle again") from error
        if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise BundleError(
                f"{where} has format version {version!r}; this Heed reads 1 to {FORMAT_VERSION}: "
                "update Heed, or export the bundle again"
            )
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the manifest"
            unknown = first["type"] == "extra_forbidden"
            advice = "update Heed, or export the bundle again" if unknown else "export the bundle again"
            raise BundleError(f"{where}: {place}: {first['msg']}: {advice}") from error


def _format_version(content: bytes) -> object:
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("not an object")
    return values.get("format_version")

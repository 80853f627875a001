"""A trained model to a bundle: weights, graphs that point into them, tokenizers, manifest; proven before it is seen.

Reads the best checkpoint. Writes ``<repository>/<name>/<version>`` in one step, after the parity proof has passed and
the golden sentences were translated; an export that fails leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import shutil
import struct
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.export import Dim

from service.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MANIFEST_HASH_FILE,
    AlignmentEntry,
    Capabilities,
    Dtype,
    FileEntry,
    GoldenSentence,
    GraphEntry,
    Limits,
    Manifest,
    Provenance,
    StateTensor,
    TensorSpec,
    TokenizerEntry,
)
from service.bundle.tokenizer import Tokenizer
from training.config import Config
from training.corpus import SIDES, Corpus
from training.errors import TrainingError
from training.models.recurrent import Attention, Memory, RecurrentModel, State
from training.parity import greedy, prove_parity
from training.trainer import load_best, validate

WEIGHTS_FILE = "weights.safetensors"
_OPSET = 22
_ARCHITECTURE_LIMIT_BYTES = 1024  # a constant of the graph's own; anything larger must be a weight with a name
_DTYPES: dict[int, Dtype] = {
    TensorProto.FLOAT: "float32",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
}


class _Encode(nn.Module):
    def __init__(self, model: RecurrentModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, source_ids: Tensor, source_lengths: Tensor) -> tuple[Tensor, ...]:
        memory, state = self.model.encode(source_ids, source_lengths)
        return (*memory, *state)


class _DecodeStep(nn.Module):
    def __init__(self, model: RecurrentModel, with_attention: bool) -> None:
        super().__init__()
        self.model = model
        self.with_attention = with_attention

    def forward(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: list[Tensor], state: list[Tensor]
    ) -> tuple[Tensor, ...]:
        step = self.model.decode_step(token_ids, positions, source_lengths, Memory(*memory), State(*state))
        return (step.logits, *(step.attention if self.with_attention else ()), *step.state)


def export_bundle(config: Config, repository: Path, progress: Callable[[str], None]) -> Path:
    """Write the bundle of a config's best checkpoint; returns its directory. Raises ParityError, CheckpointError."""
    corpus = Corpus(config.run_directory / "data")
    corpus.check(config)
    model, checkpoint = load_best(config, corpus)
    score = validate(model, corpus.arrays("validation"), config.training.batch_tokens)
    directory = repository / config.name / str(config.version)
    return write_bundle(
        directory,
        model,
        config,
        {side: corpus.tokenizer_path(side) for side in SIDES},
        Provenance(
            config=config.model_dump(mode="json"),
            data_sha256=corpus.hashes,
            commit=_commit(),
            updates=int(torch.load(checkpoint, weights_only=True)["update"]),
            scores={"validation_exact_match": score.exact_match, "validation_loss": score.loss},
        ),
        progress,
    )


def write_bundle(
    directory: Path,
    model: RecurrentModel,
    config: Config,
    tokenizers: dict[str, Path],
    provenance: Provenance,
    progress: Callable[[str], None],
) -> Path:
    """Export ``model`` into ``directory``, whose last two parts are the config's name and version."""
    model.eval()
    partial, replaced = (directory.with_name(f".{directory.name}.{kind}") for kind in ("partial", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        weights = _write_weights(model, partial / WEIGHTS_FILE)
        graphs = _write_graphs(model, partial, weights)
        worst = prove_parity(model, partial, graphs)
        progress(f"parity with PyTorch: greatest difference {worst:.2e}")
        entries = _copy_tokenizers(tokenizers, partial)
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
            limits=Limits(**config.export.limits.model_dump()),
            capabilities=Capabilities(
                generation="autoregressive",
                scoring=True,
                prefix=True,
                beam=True,
                streaming=True,
                document_context=False,
            ),
            graphs=tuple(graphs),
            state=tuple(StateTensor(name=f"state_{name}", form="rows") for name in State._fields),
            attention_maps=model.attention_maps,
            alignment=AlignmentEntry(map="cross", heads=(0,), shift=0, chosen_by="the model's only attention map"),
            golden_sentences=_translate_golden(model, config, partial, entries),
            provenance=provenance,
        )
        _write_manifest(manifest, partial)
        for path in partial.iterdir():
            path.chmod(0o644)  # safetensors writes for the owner alone; a container serves as another user
        if directory.exists():  # a kill between these two lines leaves the old bundle beside, under another name
            directory.rename(replaced)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return directory


# --- weights ---------------------------------------------------------------------------------------------------------


def _write_weights(model: nn.Module, path: Path) -> dict[str, tuple[int, int]]:
    """Write the canonical weights; return each tensor's place in the file: (offset, length) in bytes."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path)
    with path.open("rb") as file:
        (header_length,) = struct.unpack("<Q", file.read(8))  # the safetensors format: u64 length, JSON header, data
        header = json.loads(file.read(header_length))
    start = 8 + header_length
    places = {name: header[name]["data_offsets"] for name in tensors}
    return {name: (start + begin, end - begin) for name, (begin, end) in places.items()}


# --- graphs ----------------------------------------------------------------------------------------------------------


def _write_graphs(model: RecurrentModel, directory: Path, weights: dict[str, tuple[int, int]]) -> list[GraphEntry]:
    batch, length = 3, 5  # an example batch of 1 would bake 1 into the graph
    source_ids = torch.randint(4, 10, (batch, length))
    source_lengths = torch.tensor([5, 3, 2], dtype=torch.int32)
    memory, state = model.encode(source_ids, source_lengths)
    memory_names = [f"memory_{name}" for name in Memory._fields]
    state_names = [f"state_{name}" for name in State._fields]
    attention_names = [f"attention_{name}" for name in Attention._fields]
    batch_axis, source_axis = Dim("batch"), Dim("source")
    graphs = [
        _export(
            _Encode(model),
            (source_ids, source_lengths),
            (["source_ids", "source_lengths"], [*memory_names, *state_names]),
            ({0: batch_axis, 1: source_axis}, {0: batch_axis}),
            ("encode", "none"),
            directory,
            weights,
        )
    ]
    for variant in ("none", "full"):
        with_attention = variant == "full"
        hypotheses = 2
        graphs.append(
            _export(
                _DecodeStep(model, with_attention),
                (
                    torch.randint(4, 10, (batch, hypotheses)),
                    torch.zeros(batch, dtype=torch.int64),
                    source_lengths,
                    list(memory),
                    [tensor.repeat_interleave(hypotheses, 0) for tensor in state],
                ),
                (
                    ["token_ids", "positions", "source_lengths", *memory_names, *state_names],
                    [
                        "logits",
                        *(attention_names if with_attention else []),
                        *(f"next_{name}" for name in state_names),
                    ],
                ),
                (
                    {0: batch_axis, 1: Dim("hypotheses")},
                    {0: batch_axis},
                    {0: batch_axis},
                    [{0: batch_axis, 1: source_axis} for _ in memory],
                    [{0: Dim.DYNAMIC} for _ in state],
                ),
                ("decode_step", variant),
                directory,
                weights,
            )
        )
    return graphs


def _export(
    module: nn.Module,
    example: tuple[object, ...],
    names: tuple[list[str], list[str]],
    dynamic_shapes: tuple[object, ...],
    kind: tuple[str, str],
    directory: Path,
    weights: dict[str, tuple[int, int]],
) -> GraphEntry:
    role, variant = kind
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            input_names=names[0],
            output_names=names[1],
            dynamic_shapes=dynamic_shapes,
            opset_version=_OPSET,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise TrainingError(f"PyTorch exported nothing for {role}")
    proto = program.model_proto
    file_name = f"{role}.onnx" if role == "encode" else f"{role}.{variant}.onnx"
    _strip_debris(proto)
    _point_at_weights(proto, module.get_submodule("model").state_dict(), weights, file_name)
    onnx.save(proto, directory / file_name)
    onnx.checker.check_model(directory / file_name)
    return _graph_entry(proto, role, variant, file_name)


def _strip_debris(proto: ModelProto) -> None:
    """Drop the exporter's traces (file paths of this machine among them); names and shapes stay."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]  # type: ignore[attr-defined]
        value.doc_string = ""  # type: ignore[attr-defined]
    del proto.metadata_props[:], proto.graph.metadata_props[:]
    proto.graph.doc_string = proto.doc_string = ""


def _point_at_weights(
    proto: ModelProto, state: dict[str, Tensor], weights: dict[str, tuple[int, int]], file_name: str
) -> None:
    """Make every large initializer a reference into the weights file, so that all graphs share one copy.

    The exporter folds the transposition of a linear layer's weight; the canonical weight is put back with a Transpose
    node, which onnxruntime folds when it loads. Raises TrainingError for a large constant that is no weight.
    """
    kept, added = [], {}
    for tensor in proto.graph.initializer:
        name = tensor.name.removeprefix("model.")
        if name in weights:
            added[tensor.name] = _external(tensor.name, tensor.dims, weights[name])
            continue
        value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        if value.nbytes < _ARCHITECTURE_LIMIT_BYTES and tensor.name.startswith("val_") and value.dim() < 2:
            kept.append(tensor)
            continue
        source = _transposed_weight(value, state)
        if source is None:
            if value.nbytes < _ARCHITECTURE_LIMIT_BYTES:
                kept.append(tensor)
                continue
            raise TrainingError(f"{file_name}: the constant {tensor.name} {list(tensor.dims)} is none of the weights")
        added[f"model.{source}"] = _external(f"model.{source}", list(reversed(tensor.dims)), weights[source])
        node = helper.make_node("Transpose", [f"model.{source}"], [tensor.name], perm=[1, 0])
        proto.graph.node.insert(0, node)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend([*kept, *added.values()])


def _transposed_weight(value: Tensor, state: dict[str, Tensor]) -> str | None:
    if value.dim() != 2:
        return None
    for name, weight in state.items():
        if weight.shape == value.t().shape and torch.equal(weight, value.t()):
            return name
    return None


def _external(name: str, dims: object, place: tuple[int, int]) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.dims.extend(dims)  # type: ignore[arg-type]
    for key, value in (("location", WEIGHTS_FILE), ("offset", str(place[0])), ("length", str(place[1]))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _graph_entry(proto: ModelProto, role: str, variant: str, file_name: str) -> GraphEntry:
    """Describe a graph by its own declared inputs and outputs; a batch axis that is not symbolic is refused."""
    inputs, outputs = (
        tuple(_tensor_spec(value) for value in values) for values in (proto.graph.input, proto.graph.output)
    )
    for spec in (*inputs, *outputs):
        if isinstance(spec.axes[0], int):
            raise TrainingError(f"{file_name}: the first axis of {spec.name} was frozen at {spec.axes[0]}")
    return GraphEntry.model_validate(
        {"role": role, "file": file_name, "attention": variant, "inputs": inputs, "outputs": outputs}
    )


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    axes = tuple(
        dim.dim_value if dim.HasField("dim_value") else _axis_name(value.name, position, dim.dim_param)
        for position, dim in enumerate(kind.shape.dim)
    )
    return TensorSpec(name=value.name, dtype=_DTYPES[kind.elem_type], axes=axes)


def _axis_name(tensor: str, position: int, exported: str) -> str:
    """Rows (batch x hypotheses) have an expression for a name in the graph; the manifest calls them rows."""
    hypothesis_wise = tensor in ("logits",) or tensor.startswith(("attention_", "next_state_"))
    if position == 0 and (hypothesis_wise or (tensor.startswith("state_") and exported != "batch")):
        return "rows"
    return exported


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own inside (axis names, absent torchvision); none of it is for our user."""
    names = ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


# --- the rest of the bundle ------------------------------------------------------------------------------------------


def _copy_tokenizers(tokenizers: dict[str, Path], directory: Path) -> dict[str, TokenizerEntry]:
    entries = {}
    for side, path in tokenizers.items():
        shutil.copyfile(path, directory / f"{side}.spm")
        pieces = Tokenizer.load(path).vocabulary_size
        entries[side] = TokenizerEntry(file=f"{side}.spm", vocabulary_size=pieces)
    return entries


def _translate_golden(
    model: RecurrentModel, config: Config, directory: Path, entries: dict[str, TokenizerEntry]
) -> tuple[GoldenSentence, ...]:
    """What PyTorch itself answers, so that a load checks the graphs, the weights and the runtime together."""
    source, target = (Tokenizer.load(directory / entries[side].file) for side in SIDES)
    limit = config.export.limits.max_target_tokens
    return tuple(
        GoldenSentence(source=text, target=target.decode(greedy(model, source.encode_ids(text), limit)).text)
        for text in config.export.golden_sentences
    )


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

"""PyTorch modules to ONNX graphs that point into one weights file.

``write_weights`` first, then ``write_graphs`` beside it. Knows the model's methods and the bundle's graph entries; the
rest of the bundle is ``training.export``.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.export import Dim

from service.bundle.manifest import AlignmentEntry, AttentionVariant, Dtype, GraphEntry, Role, TensorSpec
from training.errors import TrainingError
from training.models.interface import AutoregressiveModel, Context, Encoded, OneShotModel, TranslationModel

WEIGHTS_FILE = "weights.safetensors"
_OPSET = 22
# A constant of the graph's own is smaller, or whole numbers, such as places; any other must be a weight with a name.
_OWN_CONSTANT_BYTES = 1024
_DTYPES: dict[int, Dtype] = {
    TensorProto.FLOAT: "float32",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
}


class _Encode(nn.Module):
    """Emits the memory, the first state and these of the encoder's own maps."""

    def __init__(self, model: AutoregressiveModel, maps: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.maps = tuple(maps)

    def forward(
        self,
        source_ids: Tensor,
        source_lengths: Tensor,
        context_ids: Tensor | None = None,
        context_lengths: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        context = None if context_ids is None or context_lengths is None else Context(context_ids, context_lengths)
        memory, state, attention = self.model.encode(source_ids, source_lengths, context)
        return (*memory.values(), *state.values(), *(attention[name] for name in self.maps))


class _DecodeStep(nn.Module):
    """Takes tensors in lists: the exporter reads a dictionary at the end as keyword arguments. Emits these maps."""

    def __init__(self, model: AutoregressiveModel, names: Encoded, maps: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.memory_names, self.state_names = tuple(names.memory), tuple(names.state)
        self.maps = tuple(maps)

    def forward(
        self, token_ids: Tensor, positions: Tensor, source_lengths: Tensor, memory: list[Tensor], state: list[Tensor]
    ) -> tuple[Tensor, ...]:
        memory_by_name = dict(zip(self.memory_names, memory, strict=True))
        state_by_name = dict(zip(self.state_names, state, strict=True))
        step = self.model.decode_step(token_ids, positions, source_lengths, memory_by_name, state_by_name)
        return (step.logits, *(step.attention[name] for name in self.maps), *step.state.values())


class _OneShot(nn.Module):
    """Emits these maps."""

    def __init__(self, model: OneShotModel, maps: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.maps = tuple(maps)

    def forward(self, source_ids: Tensor) -> tuple[Tensor, ...]:
        decoded = self.model.translate(source_ids)
        return (decoded.logits, *(decoded.attention[name] for name in self.maps))


# --- weights ---------------------------------------------------------------------------------------------------------


class StoredWeights(NamedTuple):
    """Where in the file each tensor is: (offset, length) in bytes; and the type of its numbers there."""

    places: dict[str, tuple[int, int]]
    dtype: torch.dtype


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Make every weight a number of ``dtype``, so that the model is what its stored weights are.

    Raises TrainingError for one that is too large.
    """
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(rounded := tensor.to(dtype))
                if not bool(rounded.isfinite().all()):
                    raise TrainingError(f"{name} has a weight beyond {torch.finfo(dtype).max}: export it in float32")


def write_weights(model: nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> StoredWeights:
    """Write the canonical weights in ``dtype``, which must hold them exactly (``round_weights``).

    Tied weights are in the file once, under the first of their names, and have one place.
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if not all(torch.equal(stored[name].to(tensor.dtype), tensor) for name, tensor in state.items()):
        raise ValueError(f"weights that are no numbers of {dtype}: round them first")
    first: dict[tuple[int, torch.Size], str] = {}
    same = {name: first.setdefault((tensor.data_ptr(), tensor.shape), name) for name, tensor in state.items()}
    save_file({name: stored[name].contiguous() for name in dict.fromkeys(same.values())}, path)
    places = stored_places(path)
    return StoredWeights({name: places[same[name]] for name in state}, dtype)


def stored_places(path: Path) -> dict[str, tuple[int, int]]:
    """Where in a safetensors file each tensor is: (offset, length) in bytes."""
    with path.open("rb") as file:
        (header_length,) = struct.unpack("<Q", file.read(8))  # the format: u64 length, JSON header, data
        header = json.loads(file.read(header_length))
    offsets = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    start = 8 + header_length
    return {name: (start + begin, end - begin) for name, (begin, end) in offsets.items()}


# --- graphs ----------------------------------------------------------------------------------------------------------


def write_graphs(
    model: TranslationModel,
    directory: Path,
    weights: StoredWeights,
    alignment: AlignmentEntry | None = None,
) -> list[GraphEntry]:
    """Export a model of any family into ``directory``, where ``weights`` were written; ``alignment`` in place of the
    model's own. Raises TrainingError."""
    write = _Writer(model, directory, weights, alignment or model.alignment)
    if isinstance(model, OneShotModel):
        return _write_one_shot(model, write)
    if isinstance(model, AutoregressiveModel):
        return _write_autoregressive(model, write)
    raise TypeError(f"{type(model).__name__} is of no kind that has graphs")


def _write_one_shot(model: OneShotModel, write: _Writer) -> list[GraphEntry]:
    batch = 3  # an example batch of 1 would bake 1 into the graph
    source_ids = torch.randint(4, model.source_vocabulary, (batch, model.length))
    return [
        write.graph(
            _OneShot(model, maps),
            (source_ids,),
            (["source_ids"], ["logits", *_tensors(maps)]),
            ({0: Dim("batch")},),
            ("one_shot", variant),
        )
        for variant, maps in write.variants("one_shot").items()
    ]


def _write_autoregressive(model: AutoregressiveModel, write: _Writer) -> list[GraphEntry]:
    batch, length, hypotheses = 3, 5, 2
    source_ids = torch.randint(4, 10, (batch, length))
    source_lengths = torch.tensor([5, 3, 2], dtype=torch.int32)
    context = _example_context(model, batch)
    with torch.no_grad():
        encoded = model.encode(source_ids, source_lengths, context)
        wider = {"source": model.encode(torch.nn.functional.pad(source_ids, (0, 2)), source_lengths, context)}
        if context is not None:
            padded = Context(torch.nn.functional.pad(context.ids, (0, 2)), context.lengths)
            wider["context"] = model.encode(source_ids, source_lengths, padded)
    memory, state, _ = encoded
    memory_names, state_names = [f"memory_{name}" for name in memory], [f"state_{name}" for name in state]
    batch_axis = Dim("batch")
    growing = {name: Dim(name) for name in wider}
    encoders = [
        write.graph(
            _Encode(model, maps),
            (source_ids, source_lengths, *(context or ())),
            (
                ["source_ids", "source_lengths", *(["context_ids", "context_lengths"] if context else [])],
                [*memory_names, *state_names, *_tensors(maps)],
            ),
            (
                {0: batch_axis, 1: growing["source"]},
                {0: batch_axis},
                *([{0: batch_axis, 2: growing["context"]}, {0: batch_axis}] if context else []),
            ),
            ("encode", variant),
        )
        for variant, maps in write.variants("encode").items()
    ]
    steps = [
        write.graph(
            _DecodeStep(model, encoded, maps),
            (
                torch.randint(4, 10, (batch, hypotheses)),
                torch.zeros(batch, dtype=torch.int64),
                source_lengths,
                list(memory.values()),
                [tensor.repeat_interleave(hypotheses, 0) for tensor in state.values()],
            ),
            (
                ["token_ids", "positions", "source_lengths", *memory_names, *state_names],
                ["logits", *_tensors(maps), *(f"next_{name}" for name in state_names)],
            ),
            (
                {0: batch_axis, 1: Dim("hypotheses")},
                {0: batch_axis},
                {0: batch_axis},
                [
                    {0: batch_axis} | _growing_axes(memory[name], {a: wider[a].memory[name] for a in wider}, growing)
                    for name in memory
                ],
                [
                    {0: Dim.DYNAMIC} | _growing_axes(state[name], {a: wider[a].state[name] for a in wider}, growing)
                    for name in state
                ],
            ),
            ("decode_step", variant),
        )
        for variant, maps in write.variants("decode_step").items()
    ]
    return [*encoders, *steps]


def _example_context(model: AutoregressiveModel, batch: int) -> Context | None:
    """Of a model of documents: sentences of several lengths, one of them absent."""
    if not model.context_sentences:
        return None
    shape = (batch, model.context_sentences)
    return Context(
        torch.randint(4, 10, (*shape, 6)), torch.arange(batch * shape[1], dtype=torch.int32).reshape(shape) % 7
    )


def _growing_axes(tensor: Tensor, wider: dict[str, Tensor], axes: dict[str, Dim]) -> dict[int, Dim]:
    """Which axis is the source, which the context: the one that is wider where those are."""
    return {
        place: axes[name]
        for name, other in wider.items()
        for place, sizes in enumerate(zip(tensor.shape, other.shape, strict=True))
        if len({*sizes}) > 1
    }


def _tensors(maps: Sequence[str]) -> list[str]:
    return [f"attention_{name}" for name in maps]


@dataclass(frozen=True)
class _Writer:
    """What every graph of one bundle shares."""

    model: TranslationModel
    directory: Path
    weights: StoredWeights
    alignment: AlignmentEntry | None

    def variants(self, role: Role) -> dict[AttentionVariant, list[str]]:
        """The maps that each graph of a role emits. A variant that would be another's twin is not written."""
        of_role = [entry.name for entry in self.model.attention_maps if entry.emitted_by == role]
        alignment = self.alignment
        found: dict[AttentionVariant, list[str]] = {"none": []}
        if role == "decode_step" and alignment is not None and alignment.map in of_role and len(of_role) > 1:
            found["alignment"] = [alignment.map]
        if of_role:
            found["full"] = of_role
        return found

    def graph(
        self,
        module: nn.Module,
        example: tuple[object, ...],
        names: tuple[list[str], list[str]],
        dynamic_shapes: tuple[object, ...],
        kind: tuple[Role, AttentionVariant],
    ) -> GraphEntry:
        """Export ``module`` with these names of inputs and outputs; ``kind`` is its role and the attention it emits."""
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
        plain = role == "encode" and variant == "none"
        file_name = f"{role}.onnx" if plain else f"{role}.{variant}.onnx"
        _strip_debris(proto)
        _point_at_weights(proto, self.model.state_dict(), self.weights, file_name)
        onnx.save(proto, self.directory / file_name)
        onnx.checker.check_model(self.directory / file_name)
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


def _point_at_weights(proto: ModelProto, state: dict[str, Tensor], weights: StoredWeights, file_name: str) -> None:
    """Make every large initializer a reference into the weights file, so that all graphs share one copy.

    The exporter folds the transposition of a linear layer's weight; the canonical weight is put back with a Transpose
    node, which onnxruntime folds when it loads, as it does the Cast of weights that are stored in float16. Raises
    TrainingError for a large constant that is no weight.
    """
    kept, added = [], {}
    for tensor in proto.graph.initializer:
        name = tensor.name.removeprefix("model.")
        if name in weights.places:
            added[tensor.name] = external_tensor(tensor.name, TensorProto.FLOAT, tensor.dims, weights.places[name])
            continue
        value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        source = _transposed_weight(value, state)
        if source is None and (value.nbytes < _OWN_CONSTANT_BYTES or not value.is_floating_point()):
            kept.append(tensor)
            continue
        if source is None:
            raise TrainingError(f"{file_name}: the constant {tensor.name} {list(tensor.dims)} is none of the weights")
        dims, place = list(reversed(tensor.dims)), weights.places[source]
        added[f"model.{source}"] = external_tensor(f"model.{source}", TensorProto.FLOAT, dims, place)
        node = helper.make_node("Transpose", [f"model.{source}"], [tensor.name], perm=[1, 0])
        proto.graph.node.insert(0, node)
    if weights.dtype == torch.float16:
        for name, tensor in added.items():
            tensor.name, tensor.data_type = f"{name}.float16", TensorProto.FLOAT16
            proto.graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend([*kept, *added.values()])


def _transposed_weight(value: Tensor, state: dict[str, Tensor]) -> str | None:
    if value.dim() != 2:
        return None
    for name, weight in state.items():
        if weight.shape == value.t().shape and torch.equal(weight, value.t()):
            return name
    return None


def external_tensor(
    name: str, kind: int, dims: Sequence[int], place: tuple[int, int], file: str = WEIGHTS_FILE
) -> TensorProto:
    """An initializer of an ONNX type ``kind`` whose bytes are at ``place`` in ``file`` beside the graph."""
    tensor = TensorProto(name=name, data_type=kind, data_location=TensorProto.EXTERNAL)
    tensor.dims.extend(dims)
    for key, value in (("location", file), ("offset", str(place[0])), ("length", str(place[1]))):
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

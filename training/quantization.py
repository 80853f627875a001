"""int8 graphs of an exported bundle: 8-bit weights with a scale an output, 8-bit activations with scales set before.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 2; the ranges of activations are measured on validation sentences (calibration). A range is fixed when the
graph is written, so a sentence's numbers never depend on the sentences beside it. Every product with a stored weight
is quantised; attention's products of activations, the norms and the softmaxes stay in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from service.bundle.manifest import GraphEntry, Role
from service.bundle.tokenizer import BOS_ID, EOS_ID
from service.engine.runtime import onnxruntime
from service.engine.search import NEVER_CHOSEN
from training.corpus import ParallelArrays
from training.errors import TrainingError
from training.graphs import external_tensor, stored_places

INT8_WEIGHTS_FILE = "weights.int8.safetensors"
#: Beyond these shares of an activation's values the rest is clipped: an outlier would cost all others their precision.
_CLIPPED = (0.00005, 0.99995)
_LEAST_AGREEMENT = 0.9
_CONTRIB_DOMAIN = "com.microsoft"

Array = npt.NDArray[Any]


class _Product(NamedTuple):
    """A MatMul node with a stored weight, by the name that the weight has in the weights file."""

    node: NodeProto
    weight: str


class _Range(NamedTuple):
    """real = (quantised - zero_point) * scale, quantised from 0 to 255."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Quantized:
    """``graphs`` are the new entries; ``agreement`` is the share of target tokens, each after the tokens of a person's
    translation, whose likeliest is the same as in float32; ``stepper`` runs the new graphs."""

    graphs: list[GraphEntry]
    agreement: float
    stepper: Stepper


def quantize(
    directory: Path,
    graphs: Sequence[GraphEntry],
    weights: dict[str, Array],
    calibration: ParallelArrays,
) -> Quantized:
    """Write ``weights.int8.safetensors`` and an int8 twin of every float32 graph in ``directory``.

    ``weights``: float arrays by their names in the weights file. ``calibration``: its pairs give the ranges of the
    activations and judge the result. Raises TrainingError where more than a tenth of the tokens come out otherwise,
    which no 8 bits of a sound model do.
    """
    protos = {graph.file: onnx.load(directory / graph.file, load_external_data=False) for graph in graphs}
    ranges = _measure_ranges(directory, graphs, protos, calibration)
    _write_weights({name: weights[name] for name in ranges}, directory / INT8_WEIGHTS_FILE)
    places = stored_places(directory / INT8_WEIGHTS_FILE)
    written = []
    for graph in graphs:
        file = f"{graph.file.removesuffix('.onnx')}.int8.onnx"
        onnx.save(_with_int8_products(protos[graph.file], ranges, places), directory / file)
        onnx.checker.check_model(directory / file)
        written.append(graph.model_copy(update={"file": file, "precision": "int8", "provider": "cpu"}))
    exact, rounded = Stepper(directory, graphs), Stepper(directory, written)
    same = [
        exact.forced(source, target).argmax(-1) == rounded.forced(source, target).argmax(-1)
        for source, target in _pairs(calibration)
    ]
    agreement = float(np.concatenate(same).mean())
    if agreement < _LEAST_AGREEMENT:
        raise TrainingError(f"int8 changes {1 - agreement:.1%} of the tokens: export this model without int8")
    return Quantized(written, agreement, rounded)


def _pairs(calibration: ParallelArrays) -> list[tuple[Array, Array]]:
    return [(calibration.source[pair], calibration.target[pair]) for pair in range(len(calibration))]


# --- what is quantised, and in which range ---------------------------------------------------------------------------


def _products(proto: ModelProto) -> list[_Product]:
    """Every MatMul whose second factor is the transposition of a stored weight."""
    stored = {tensor.name for tensor in proto.graph.initializer if tensor.data_location == TensorProto.EXTERNAL}
    makers = {output: node for node in proto.graph.node for output in node.output}
    found = []
    for node in proto.graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        transposed = False
        while name in makers and makers[name].op_type in ("Transpose", "Cast"):
            transposed ^= makers[name].op_type == "Transpose"
            name = makers[name].input[0]
        if name in stored and transposed:
            found.append(_Product(node, name.removeprefix("model.").removesuffix(".float16")))
    return found


def _measure_ranges(
    directory: Path, graphs: Sequence[GraphEntry], protos: dict[str, ModelProto], calibration: ParallelArrays
) -> dict[str, _Range]:
    """For each quantised weight the range of what it is multiplied with, seen where the translations are people's."""
    tapped, factors = list[GraphEntry](), dict[str, tuple[Role, str]]()
    for graph in graphs:
        if graph.attention == "none":
            proto = ModelProto()
            proto.CopyFrom(protos[graph.file])
            found = {product.weight: (graph.role, product.node.input[0]) for product in _products(proto)}
            factors |= found
            taps = sorted({tensor for _, tensor in found.values()} - {value.name for value in proto.graph.output})
            proto.graph.output.extend(helper.make_tensor_value_info(tap, TensorProto.FLOAT, None) for tap in taps)
            tapped.append(graph.model_copy(update={"file": f"{graph.file}.calibration"}))
            onnx.save(proto, directory / tapped[-1].file)
    try:
        stepper = Stepper(directory, tapped, set(factors.values()))
    finally:
        for graph in tapped:
            (directory / graph.file).unlink()
    for source, target in _pairs(calibration):
        stepper.forced(source, target)
    ranges = {factor: _range_of(np.concatenate(values)) for factor, values in stepper.tapped.items()}
    return {weight: ranges[factor] for weight, factor in factors.items()}


def _range_of(values: Array) -> _Range:
    """Zero is a number of its own: what a ReLU cuts off stays nothing."""
    low, high = np.minimum(0.0, np.quantile(values, _CLIPPED[0])), np.maximum(0.0, np.quantile(values, _CLIPPED[1]))
    scale = max(float(high - low), 1e-6) / 255
    return _Range(scale, round(float(-low) / scale))


# --- writing ---------------------------------------------------------------------------------------------------------


def _write_weights(weights: dict[str, Array], path: Path) -> None:
    """Each (outputs, inputs) weight in int8 under its name, and the scale of each output under ``<name>.scale``."""
    tensors = {}
    for name, weight in weights.items():
        scale = np.maximum(np.abs(weight).max(axis=1), 1e-9).astype(np.float32) / 127
        tensors[name] = np.rint(weight / scale[:, None]).astype(np.int8)
        tensors[f"{name}.scale"] = scale
    save_file(tensors, path)


def _with_int8_products(
    original: ModelProto, ranges: dict[str, _Range], places: dict[str, tuple[int, int]]
) -> ModelProto:
    """The graph with every product of a stored weight in 8 bits, and without what only the old ones needed."""
    proto = ModelProto()
    proto.CopyFrom(original)
    weights = {product.node.output[0]: product.weight for product in _products(proto)}
    nodes: list[NodeProto] = []
    constants: dict[str, TensorProto] = {}
    for node in original.graph.node:
        weight = weights.get(node.output[0])
        if weight is None:
            nodes.append(node)
            continue
        factor, (scale, zero_point) = node.input[0], ranges[weight]
        if f"{factor}.int8" not in constants:  # one for all that multiply it
            constants[f"{factor}.int8"] = numpy_helper.from_array(np.array(scale, np.float32), f"{factor}.scale")
            constants[f"{factor}.zero_point"] = numpy_helper.from_array(
                np.array(zero_point, np.uint8), f"{factor}.zero_point"
            )
            nodes.append(_node("QuantizeLinear", [factor, f"{factor}.scale", f"{factor}.zero_point"], f"{factor}.int8"))
        outputs = places[f"{weight}.scale"][1] // 4
        shape = (outputs, places[weight][1] // outputs)
        for name, kind, dims in (
            (weight, TensorProto.INT8, shape),
            (f"{weight}.scale", TensorProto.FLOAT, (outputs,)),
        ):
            constants[name] = external_tensor(f"int8.{name}", kind, dims, places[name], INT8_WEIGHTS_FILE)
        nodes.append(_node("Transpose", [f"int8.{weight}"], f"int8.{weight}.transposed", perm=[1, 0]))
        factors = [f"{factor}.int8", f"int8.{weight}.transposed", f"{factor}.scale", f"int8.{weight}.scale"]
        nodes.append(
            _node("MatMulIntegerToFloat", [*factors, f"{factor}.zero_point"], node.output[0], domain=_CONTRIB_DOMAIN)
        )
    outputs_of_graph = {value.name for value in original.graph.output}
    del proto.graph.node[:]
    proto.graph.node.extend(_needed(nodes, outputs_of_graph))
    read = {name for node in proto.graph.node for name in node.input}
    initializers = [tensor for tensor in (*original.graph.initializer, *constants.values()) if tensor.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(initializers)
    proto.opset_import.append(helper.make_opsetid(_CONTRIB_DOMAIN, 1))
    return proto


def _node(kind: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], domain=domain, **attributes)


def _needed(nodes: Sequence[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """Those that lead to an output, in their order."""
    wanted, kept = set(outputs), list[NodeProto]()
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


# --- running ---------------------------------------------------------------------------------------------------------


class Stepper:
    """Runs the graphs without attention on one sentence at a time.

    ``tapped`` gathers every value that the tensors ``taps`` had: role and name to flat arrays.
    """

    def __init__(self, directory: Path, graphs: Sequence[GraphEntry], taps: Collection[tuple[Role, str]] = ()) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._entries = {graph.role: graph for graph in graphs if graph.attention == "none"}
        self._sessions = {
            role: onnxruntime.InferenceSession(str(directory / graph.file), options, providers=["CPUExecutionProvider"])
            for role, graph in self._entries.items()
        }
        self._feeds: dict[str, Array] = {}
        self.tapped: dict[tuple[Role, str], list[Array]] = {tap: [] for tap in taps}

    def forced(self, source: Array, target: Array) -> Array:
        """The logits (target, vocabulary) after each beginning of ``target``."""
        self._begin(source)
        return np.stack([self._step(token, place) for place, token in enumerate([BOS_ID, *target[:-1].tolist()])])

    def greedy(self, source: list[int], most: int) -> list[int]:
        """The likeliest translation's ids, `</s>` last unless the limit came first."""
        self._begin(np.array(source))
        found: list[int] = []
        while len(found) < most and found[-1:] != [EOS_ID]:
            logits = self._step(found[-1] if found else BOS_ID, len(found))
            logits[NEVER_CHOSEN] = -np.inf
            found.append(int(logits.argmax()))
        return found

    def _begin(self, source: Array) -> None:
        lengths = np.array([len(source)], dtype=np.int32)
        self._feeds = {"source_ids": source[None].astype(np.int64), "source_lengths": lengths}
        self._feeds |= self._run("encode")

    def _step(self, token: int, place: int) -> Array:
        self._feeds |= {"token_ids": np.array([[token]]), "positions": np.array([place])}
        outputs = self._run("decode_step")
        self._feeds |= {name.removeprefix("next_"): outputs[name] for name in outputs if name.startswith("next_")}
        logits: Array = outputs["logits"][0]
        return logits

    def _run(self, role: Role) -> dict[str, Array]:
        entry, session = self._entries[role], self._sessions[role]
        values = session.run(None, {spec.name: self._feeds[spec.name] for spec in entry.inputs})
        outputs = dict(zip((value.name for value in session.get_outputs()), values, strict=True))
        for tapped_role, name in self.tapped:
            if tapped_role == role:
                self.tapped[role, name].append(outputs[name].ravel())
        return {spec.name: outputs[spec.name] for spec in entry.outputs}

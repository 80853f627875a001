"""One bundle's graphs as onnxruntime sessions: arrays in, arrays out.

Knows the step contract's names and nothing of any model family, of text or of scheduling. Safe to call from several
threads: one session serves concurrent runs, so workers share the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from service.bundle.errors import BundleError
from service.bundle.manifest import AttentionVariant, GraphEntry, Precision, Role, TensorSpec
from service.bundle.repository import Bundle
from service.engine.characters import ByteTokens
from service.engine.errors import ProviderError, RuntimeFailureError
from service.engine.hypothesis import Floats
from service.engine.runtime import onnxruntime

Provider = Literal["auto", "cpu", "cuda"]
Array = npt.NDArray[Any]
_MEMORY = "memory_"
_PROVIDER_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class GrowingAxis(NamedTuple):
    """An axis as long as the longest of a batch: ``name`` "source", or "context" of the sentences before."""

    place: int
    name: str


@dataclass(frozen=True)
class StepOutput:
    """One step of ``rows`` hypotheses.

    ``logits`` (rows, vocabulary), ``attention`` by map (rows, heads, source_length), ``state`` by name (rows, …).
    """

    logits: Floats
    attention: dict[str, Floats]
    state: dict[str, Array]


@dataclass(frozen=True)
class EncodeOutput:
    """``memory`` and first ``state`` by name, sentences on axis 0; the encoder's own ``attention`` by map (rows, heads,
    source_length, source_length)."""

    memory: dict[str, Array]
    state: dict[str, Array]
    attention: dict[str, Floats]


@dataclass(frozen=True)
class OneShotOutput:
    """One pass over a batch: ``logits`` (rows, target_length, vocabulary), ``attention`` by map (rows, heads, target,
    source), in the map's units."""

    logits: Floats
    attention: dict[str, Floats]


class _Graph:
    """A session, the names of its inputs and outputs, and which of them are attention maps: tensor to map."""

    def __init__(self, entry: GraphEntry, session: onnxruntime.InferenceSession, maps: dict[str, str]) -> None:
        self.entry = entry
        self._session = session
        self._inputs = [spec.name for spec in entry.inputs]
        self._outputs = [spec.name for spec in entry.outputs]
        self.attention = {tensor: name for tensor, name in maps.items() if tensor in self._outputs}

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(self._outputs, {name: feeds[name] for name in self._inputs})
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise RuntimeFailureError(f"{self.entry.file}: {error}") from error
        return dict(zip(self._outputs, values, strict=True))

    def attention_in(self, outputs: dict[str, Array]) -> dict[str, Floats]:
        """The maps among ``outputs``, by name."""
        return {name: outputs[tensor] for tensor, name in self.attention.items()}


class _Graphs:
    """The graphs of one bundle that a provider runs, opened."""

    def __init__(self, bundle: Bundle, provider: Provider, threads: int, precision: Precision) -> None:
        """Raises ProviderError when ``provider`` cannot be had, RuntimeFailureError when a graph does not load."""
        self._bundle = bundle
        self._providers = _choose_providers(provider)
        self._threads = threads
        #: What is run: the wish where the bundle has such graphs for the provider, otherwise fp32.
        self.precision: Precision
        self.precision, self._usable = _of_precision(bundle.manifest.graphs, self._providers[0], precision)
        self._open: dict[str, onnxruntime.InferenceSession] = {}
        self._names = {entry.tensor: entry.name for entry in bundle.manifest.attention_maps}

    def of(self, role: Role) -> dict[AttentionVariant, _Graph]:
        """For each wish of attention the graph of this role that emits the least that serves it."""
        manifest = self._bundle.manifest
        found = _cover([entry for entry in self._usable if entry.role == role])
        alignment = manifest.alignment
        if found and (alignment is None or manifest.attention_map(alignment.map).emitted_by != role):
            found["alignment"] = found["none"]  # this role has nothing to give to it
        if not found:
            raise BundleError(f"{self._bundle.label} has no fp32 {role} graph for {self._providers[0]}: export it")
        return {variant: self._graph(entry) for variant, entry in found.items()}

    def _graph(self, entry: GraphEntry) -> _Graph:
        if entry.file not in self._open:
            self._open[entry.file] = _open_session(self._bundle.path(entry.file), self._providers, self._threads)
        return _Graph(entry, self._open[entry.file], self._names)

    @property
    def execution_provider(self) -> str:
        """What onnxruntime really runs on, which may differ from what was asked: it falls back without a word."""
        provider: str = next(iter(self._open.values())).get_providers()[0]
        return provider


class OnnxModel:
    """``encode`` and ``decode_step`` of an autoregressive bundle, in ``precision`` where it has such graphs."""

    def __init__(
        self, bundle: Bundle, provider: Provider = "auto", threads: int = 1, precision: Precision = "fp32"
    ) -> None:
        """Raises ProviderError when ``provider`` cannot be had, RuntimeFailureError when a graph does not load."""
        manifest = bundle.manifest
        graphs = _Graphs(bundle, provider, threads, precision)
        self._encoders = graphs.of("encode")
        self._steps = graphs.of("decode_step")
        self.execution_provider = graphs.execution_provider
        self.precision = graphs.precision
        outputs = self._encoders["none"].entry.outputs
        self.memory_names = tuple(spec.name for spec in outputs if spec.name.startswith(_MEMORY))
        self.state_names = tuple(state.name for state in manifest.state)
        #: Of each tensor of memory and state the axis that has a place for each token, None for one that has none.
        self.growing_axes = {
            spec.name: _growing_axis(spec) for spec in outputs if spec.name in (*self.memory_names, *self.state_names)
        }
        #: The maps that can be emitted, by name, and what each is of.
        self.attention_maps = _maps_of(self._encoders) | _maps_of(self._steps)
        #: Which weights say where a token comes from; None: the model attends to nothing.
        self.alignment = manifest.alignment
        self.map_kinds = {entry.name: entry.kind for entry in manifest.attention_maps}
        #: Sentences before each sentence that ``encode`` reads.
        self.context_sentences = manifest.context_sentences
        #: Of the target vocabulary; what is written is made of whole characters.
        self.byte_tokens = ByteTokens(bundle.target_tokenizer.byte_values)
        self._next_state = {state.next_name: state.name for state in manifest.state}

    def encode(self, feeds: dict[str, Array], attention: AttentionVariant) -> EncodeOutput:
        """``feeds`` are source_ids (batch, source_length) padded and source_lengths (batch,); for a model of documents
        also context_ids (batch, context_sentences, context_length) and context_lengths (batch, context_sentences)."""
        encoder = self._encoders[attention]
        outputs = encoder.run(feeds)
        return EncodeOutput(
            memory={name: outputs[name] for name in self.memory_names},
            state={name: outputs[name] for name in self.state_names},
            attention=encoder.attention_in(outputs),
        )

    def decode_step(self, feeds: dict[str, Array], attention: AttentionVariant) -> StepOutput:
        """One step; ``feeds`` are token_ids (batch, hypotheses), positions, source_lengths, memory_* and state_*.

        Runs the graph that emits the least that ``attention`` needs.
        """
        step = self._steps[attention]
        outputs = step.run(feeds)
        return StepOutput(
            logits=outputs["logits"],
            attention=step.attention_in(outputs),
            state={name: outputs[next_name] for next_name, name in self._next_state.items()},
        )


class OneShotOnnxModel:
    """``translate`` of a one-shot bundle, in ``precision`` where it has such graphs: every token in one pass."""

    def __init__(
        self, bundle: Bundle, provider: Provider = "auto", threads: int = 1, precision: Precision = "fp32"
    ) -> None:
        """Raises ProviderError when ``provider`` cannot be had, RuntimeFailureError when a graph does not load."""
        graphs = _Graphs(bundle, provider, threads, precision)
        self._passes = graphs.of("one_shot")
        self.execution_provider = graphs.execution_provider
        self.precision = graphs.precision
        self.attention_maps = _maps_of(self._passes)
        #: Tokens that every source is padded to; None where a batch is as wide as its longest.
        self.length = bundle.manifest.one_shot_length

    def translate(
        self, source_ids: npt.NDArray[np.int64], source_lengths: npt.NDArray[np.int32], attention: AttentionVariant
    ) -> OneShotOutput:
        """source_ids (batch, source_length) padded, source_lengths (batch,)."""
        graph = self._passes[attention]
        outputs = graph.run({"source_ids": source_ids, "source_lengths": source_lengths})
        return OneShotOutput(outputs["logits"], graph.attention_in(outputs))


def open_model(
    bundle: Bundle, provider: Provider = "auto", threads: int = 1, precision: Precision = "fp32"
) -> OnnxModel | OneShotOnnxModel:
    """The model of a bundle, by how it generates. Raises as they do."""
    one_shot = bundle.manifest.capabilities.generation == "one_shot"
    return (OneShotOnnxModel if one_shot else OnnxModel)(bundle, provider, threads, precision)


def _growing_axis(spec: TensorSpec) -> GrowingAxis | None:
    for name in ("source", "context"):
        if name in spec.axes:
            return GrowingAxis(spec.axes.index(name), name)
    return None


def _maps_of(graphs: dict[AttentionVariant, _Graph]) -> frozenset[str]:
    return frozenset(name for graph in graphs.values() for name in graph.attention.values())


def _of_precision(graphs: Sequence[GraphEntry], provider: str, wish: Precision) -> tuple[Precision, list[GraphEntry]]:
    """The graphs for a provider in the precision that is wished for, or in fp32 where there are none; never others."""
    usable = [entry for entry in graphs if entry.provider == "any" or _PROVIDER_NAMES[entry.provider] == provider]
    precision: Precision = wish if any(entry.precision == wish for entry in usable) else "fp32"
    return precision, [entry for entry in usable if entry.precision == precision]


def _cover(graphs: list[GraphEntry]) -> dict[AttentionVariant, GraphEntry]:
    """For each wish the graph that emits the least that serves it; a graph that emits more serves too."""
    by_variant = {entry.attention: entry for entry in graphs}
    order: tuple[AttentionVariant, ...] = ("none", "alignment", "full")
    found: dict[AttentionVariant, GraphEntry] = {}
    for place, wish in enumerate(order):
        enough = [by_variant[variant] for variant in order[place:] if variant in by_variant]
        less = [by_variant[variant] for variant in reversed(order[:place]) if variant in by_variant]
        if enough or less:
            found[wish] = (enough or less)[0]
    return found


def _choose_providers(provider: Provider) -> list[str]:
    available = onnxruntime.get_available_providers()
    if provider == "auto":
        return [name for name in (_PROVIDER_NAMES["cuda"], _PROVIDER_NAMES["cpu"]) if name in available]
    wanted = _PROVIDER_NAMES[provider]
    if wanted not in available:
        raise ProviderError(
            f"onnxruntime has no {wanted} here, only {', '.join(available)}: install heed[gpu] on a machine with a "
            "CUDA GPU, or choose the provider auto or cpu"
        )
    return [wanted] if provider == "cpu" else [wanted, _PROVIDER_NAMES["cpu"]]


def _open_session(path: Path, providers: list[str], threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Workers are many and often idle: a thread that spins between two steps takes the core from another worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # as above
        raise RuntimeFailureError(f"onnxruntime cannot load {path}: {error}") from error

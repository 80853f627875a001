"""One bundle's graphs as onnxruntime sessions: arrays in, arrays out.

Knows the step contract's names and nothing of any model family, of text or of scheduling. Safe to call from several
threads: one session serves concurrent runs, so workers share the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.bundle.errors import BundleError
from service.bundle.manifest import AttentionVariant, GraphEntry
from service.bundle.repository import Bundle
from service.engine.errors import ProviderError, RuntimeFailureError
from service.engine.runtime import onnxruntime
from service.engine.sentence import Floats

Provider = Literal["auto", "cpu", "cuda"]
Array = npt.NDArray[Any]
_MEMORY = "memory_"
_PROVIDER_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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
    """``memory`` and first ``state`` by name, sentences on axis 0."""

    memory: dict[str, Array]
    state: dict[str, Array]


class _Graph:
    """A session and the names of its inputs and outputs."""

    def __init__(self, entry: GraphEntry, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._inputs = [spec.name for spec in entry.inputs]
        self._outputs = [spec.name for spec in entry.outputs]
        self._file = entry.file

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(self._outputs, {name: feeds[name] for name in self._inputs})
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise RuntimeFailureError(f"{self._file}: {error}") from error
        return dict(zip(self._outputs, values, strict=True))


class OnnxModel:
    """``encode`` and ``decode_step`` of one bundle."""

    def __init__(self, bundle: Bundle, provider: Provider = "auto", threads: int = 1) -> None:
        """Raises ProviderError when ``provider`` cannot be had, RuntimeFailureError when a graph does not load."""
        manifest = bundle.manifest
        self._providers = _choose_providers(provider)
        usable = [entry for entry in manifest.graphs if _runs_on(entry, self._providers[0])]
        encoder = next((entry for entry in usable if entry.role == "encode"), None)
        steps = _cover(usable)
        if encoder is None or not steps:
            raise BundleError(f"{bundle.label} has no fp32 graphs for {self._providers[0]}: export them")
        files = {encoder.file, *(entry.file for entry in steps.values())}
        sessions = {file: _open_session(bundle.path(file), self._providers, threads) for file in sorted(files)}
        #: What onnxruntime really runs on, which may differ from what was asked: it falls back without a word.
        self.execution_provider: str = next(iter(sessions.values())).get_providers()[0]
        self._encode = _Graph(encoder, sessions[encoder.file])
        self._steps = {variant: _Graph(entry, sessions[entry.file]) for variant, entry in steps.items()}
        #: The source axis of each memory tensor, None for one that has no place for each source token.
        self.memory_axes = {
            spec.name: spec.axes.index("source") if "source" in spec.axes else None
            for spec in encoder.outputs
            if spec.name.startswith(_MEMORY)
        }
        self._maps = {entry.tensor: entry.name for entry in manifest.attention_maps}
        #: The maps that a step can emit, by name.
        self.attention_maps = frozenset(
            self._maps[spec.name] for entry in steps.values() for spec in entry.outputs if spec.name in self._maps
        )
        self._next_state = {state.next_name: state.name for state in manifest.state}
        self.state_names = tuple(state.name for state in manifest.state)

    def encode(self, source_ids: npt.NDArray[np.int64], source_lengths: npt.NDArray[np.int32]) -> EncodeOutput:
        """source_ids (batch, source_length) padded, source_lengths (batch,)."""
        outputs = self._encode.run({"source_ids": source_ids, "source_lengths": source_lengths})
        return EncodeOutput(
            memory={name: outputs[name] for name in self.memory_axes},
            state={name: outputs[name] for name in self.state_names},
        )

    def decode_step(self, feeds: dict[str, Array], attention: AttentionVariant) -> StepOutput:
        """One step; ``feeds`` are token_ids (batch, hypotheses), positions, source_lengths, memory_* and state_*.

        Runs the graph that emits the least that ``attention`` needs.
        """
        outputs = self._steps[attention].run(feeds)
        return StepOutput(
            logits=outputs["logits"],
            attention={name: outputs[tensor] for tensor, name in self._maps.items() if tensor in outputs},
            state={name: outputs[next_name] for next_name, name in self._next_state.items()},
        )


def _runs_on(entry: GraphEntry, provider: str) -> bool:
    """Other precisions wait for an engine that chooses among them; one that is not asked for is never run."""
    return entry.precision == "fp32" and (entry.provider == "any" or _PROVIDER_NAMES[entry.provider] == provider)


def _cover(graphs: list[GraphEntry]) -> dict[AttentionVariant, GraphEntry]:
    """For each wish the decode_step graph that emits the least that serves it; a graph that emits more serves too."""
    steps = {entry.attention: entry for entry in graphs if entry.role == "decode_step"}
    order: tuple[AttentionVariant, ...] = ("none", "alignment", "full")
    found: dict[AttentionVariant, GraphEntry] = {}
    for place, wish in enumerate(order):
        enough = [steps[variant] for variant in order[place:] if variant in steps]
        less = [steps[variant] for variant in reversed(order[:place]) if variant in steps]
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

"""A model of a few lines for the engine's tests: it copies its source, and can be held, broken or poisoned."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import numpy as np

from service.bundle.manifest import AlignmentEntry, MapKind, Precision
from service.bundle.tokenizer import EOS_ID
from service.engine.characters import NO_BYTES
from service.engine.errors import RuntimeFailureError
from service.engine.onnx_model import Array, EncodeOutput, GrowingAxis, StepOutput
from service.engine.sentence import SentenceRequest

VOCABULARY = 64
FORBIDDEN = 60  # a source with it makes onnxruntime "fail"
POISON = 61  # a source with it gives logits that are no numbers
UNFORESEEN = 62  # a source with it raises what no engine expects


class CopyModel:
    """Emits its source token by token; attention is all on the token that is copied."""

    execution_provider = "CPUExecutionProvider"
    precision: ClassVar[Precision] = "fp32"
    growing_axes: ClassVar[dict[str, GrowingAxis | None]] = {
        "memory_ids": GrowingAxis(1, "source"),
        "state_place": None,
    }
    map_kinds: ClassVar[dict[str, MapKind]] = {"cross": "cross"}
    context_sentences = 0
    byte_tokens = NO_BYTES
    attention_maps = frozenset({"cross"})
    alignment = AlignmentEntry(map="cross", heads=(0,), shift=0, chosen_by="")

    def __init__(self) -> None:
        self.steps: list[int] = []  # rows of each step
        self.encoded: list[tuple[int, int]] = []
        self.held = threading.Event()  # set while a step waits for `go`
        self.go = threading.Event()
        self.go.set()

    def encode(self, feeds: dict[str, Array], attention: str) -> EncodeOutput:
        source_ids = feeds["source_ids"]
        self.encoded.append(source_ids.shape)
        if (source_ids == FORBIDDEN).any():
            raise RuntimeFailureError("encode.onnx: a bad row")
        if (source_ids == UNFORESEEN).any():
            raise MemoryError("no room")
        memory = source_ids.astype(np.float32)[:, :, None]
        return EncodeOutput({"memory_ids": memory}, {"state_place": np.zeros((len(source_ids), 1), np.float32)}, {})

    def decode_step(self, feeds: dict[str, Array], attention: str) -> StepOutput:
        self.held.set()
        if not self.go.wait(timeout=10):
            raise AssertionError("the test never let the step go")
        self.held.clear()
        place = feeds["state_place"][:, 0].astype(int)
        rows, width = len(place), feeds["memory_ids"].shape[1]
        self.steps.append(rows)
        sources = feeds["memory_ids"][:, :, 0].astype(int)
        logits = np.full((rows, VOCABULARY), -1.0, np.float32)
        weights = np.zeros((rows, 1, width), np.float32)
        for row in range(rows):
            length = feeds["source_lengths"][row]
            assert feeds["positions"][row] == place[row]
            logits[row, sources[row, place[row]] if place[row] < length else EOS_ID] = 1.0
            weights[row, 0, min(place[row], length - 1)] = 1.0
            if (sources[row, :length] == POISON).any():
                logits[row] = np.nan
        maps = {"cross": weights} if attention != "none" else {}
        return StepOutput(logits, maps, {"state_place": feeds["state_place"] + 1})


def copying(*ids: int, **changes: Any) -> SentenceRequest:
    """A request for the copy model: ``ids`` and the closing `</s>`."""
    values: dict[str, Any] = {"source_ids": (*ids, EOS_ID), "max_target_tokens": 50}
    return SentenceRequest(**(values | changes))

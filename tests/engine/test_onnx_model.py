from __future__ import annotations

from typing import Any

import pytest

from service.bundle.manifest import GraphEntry
from service.engine.onnx_model import _cover, _runs_on


def _graph(attention: str, **changes: Any) -> GraphEntry:
    values = {"role": "decode_step", "file": f"{attention}.onnx", "attention": attention, "inputs": (), "outputs": ()}
    return GraphEntry.model_validate(values | changes)


@pytest.mark.parametrize(
    ("has", "runs"),
    [
        (["none", "alignment", "full"], ["none", "alignment", "full"]),
        (["none", "full"], ["none", "full", "full"]),
        (["alignment"], ["alignment", "alignment", "alignment"]),
        (["none", "alignment"], ["none", "alignment", "alignment"]),
        (["full"], ["full", "full", "full"]),
    ],
)
def test_the_graph_that_emits_the_least_that_serves_is_run(has: list[str], runs: list[str]) -> None:
    found = _cover([*map(_graph, has)])
    assert [found[wish].attention for wish in ("none", "alignment", "full")] == runs


def test_graphs_for_another_provider_or_precision_are_passed_over() -> None:
    assert _runs_on(_graph("none"), "CPUExecutionProvider")
    assert _runs_on(_graph("none", provider="cuda"), "CUDAExecutionProvider")
    assert not _runs_on(_graph("none", provider="cuda"), "CPUExecutionProvider")
    assert not _runs_on(_graph("none", precision="int8"), "CPUExecutionProvider")

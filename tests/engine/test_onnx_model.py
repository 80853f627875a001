from __future__ import annotations

from typing import Any

import pytest

from service.bundle.manifest import GraphEntry
from service.engine.onnx_model import _cover, _of_precision


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
    both, cuda, int8 = _graph("none"), _graph("none", provider="cuda"), _graph("none", provider="cpu", precision="int8")
    graphs = [both, cuda, int8]
    assert _of_precision(graphs, "CPUExecutionProvider", "fp32") == ("fp32", [both])
    assert _of_precision(graphs, "CPUExecutionProvider", "int8") == ("int8", [int8])
    assert _of_precision(graphs, "CUDAExecutionProvider", "fp32") == ("fp32", [both, cuda])


def test_where_the_precision_that_is_wished_for_is_not_there_float32_runs() -> None:
    both, int8 = _graph("none"), _graph("none", provider="cpu", precision="int8")
    assert _of_precision([both], "CPUExecutionProvider", "int8") == ("fp32", [both])
    assert _of_precision([both, int8], "CUDAExecutionProvider", "int8") == ("fp32", [both])

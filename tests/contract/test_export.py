"""PyTorch -> bundle -> engine: the same numbers all the way."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from service.bundle.manifest import Provenance
from service.bundle.repository import load_bundle
from service.bundle.tokenizer import BOS_ID, EOS_ID
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest
from tests.conftest import BUNDLES
from tests.make_bundles import make, tiny_config, tiny_model
from training.errors import ParityError
from training.export import write_bundle
from training.models.recurrent import RecurrentModel
from training.parity import HYPOTHESES, SHAPES, greedy, prove_parity


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[RecurrentModel, Path]:
    """A fresh export, and the model it was made of."""
    root = tmp_path_factory.mktemp("exported")
    numbers = " ".join(str(number) for number in range(20))
    directory = make(root, "numbers", 1, "word", numbers, ["1 2 3"], seed=11)
    pieces = load_bundle(directory).source_tokenizer.vocabulary_size
    return tiny_model(pieces, pieces, seed=11), directory


def test_graphs_equal_pytorch_at_ragged_shapes(exported: tuple[RecurrentModel, Path]) -> None:
    model, directory = exported
    assert len(SHAPES) >= 3
    assert max(HYPOTHESES) > 1
    assert prove_parity(model, directory, load_bundle(directory).manifest.graphs) < 1e-4


def test_the_proof_fails_for_other_weights(exported: tuple[RecurrentModel, Path]) -> None:
    model, directory = exported
    other = tiny_model(model.source_embedding.num_embeddings, model.output.out_features, seed=99)
    with pytest.raises(ParityError, match="differs from PyTorch"):
        prove_parity(other, directory, load_bundle(directory).manifest.graphs)


def test_the_engine_gives_pytorchs_tokens_probabilities_and_attention(
    exported: tuple[RecurrentModel, Path],
) -> None:
    model, directory = exported
    bundle = load_bundle(directory)
    generator = random.Random(4)
    sources = [[*(generator.randrange(4, 24) for _ in range(generator.randint(1, 40))), EOS_ID] for _ in range(30)]
    engine = Engine(OnnxModel(bundle, "cpu"), EngineSettings(workers=2, rows_per_worker=5))
    try:
        results = engine.translate([SentenceRequest(tuple(source), 24, attention="full") for source in sources])
    finally:
        engine.stop()
    for source, result in zip(sources, results, strict=True):
        best = result.hypotheses[0]
        assert list(best.target_ids) == greedy(model, source, 24)
        # Forced decoding by PyTorch's parallel pass, which shares no loop with the engine.
        with torch.no_grad():
            scored = model.score(
                torch.tensor([source]),
                torch.tensor([len(source)], dtype=torch.int32),
                torch.tensor([best.target_ids]),
                torch.tensor([len(best.target_ids)]),
            )
        np.testing.assert_allclose(best.log_probabilities, scored.log_probabilities[0].numpy(), rtol=1e-4, atol=1e-4)
        forced = scored.attention.cross[0].transpose(0, 1).numpy()
        np.testing.assert_allclose(best.attention["cross"], forced, rtol=1e-4, atol=1e-4)


def test_graphs_point_into_one_canonical_weights_file(exported: tuple[RecurrentModel, Path]) -> None:
    model, directory = exported
    weights = load_file(directory / "weights.safetensors")
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    names = set(weights)
    for path in directory.glob("*.onnx"):
        graph = onnx.load(path, load_external_data=False).graph
        external = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
        assert external
        for tensor in external:
            places = {entry.key: entry.value for entry in tensor.external_data}
            assert places["location"] == "weights.safetensors"
            assert tensor.name.removeprefix("model.") in names
        inside = sum(len(tensor.raw_data) for tensor in graph.initializer if tensor not in external)
        assert inside < 1024
        assert path.stat().st_size < 20_000
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param, f"{value.name} has a frozen first axis"


def test_nothing_of_the_makers_machine_is_in_a_graph(exported: tuple[RecurrentModel, Path]) -> None:
    _, directory = exported
    for path in directory.glob("*.onnx"):
        assert b"/training/" not in path.read_bytes()
        assert b".py" not in path.read_bytes()


def test_a_failing_export_leaves_the_old_bundle_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "letters" / "1"
    directory.mkdir(parents=True)
    (directory / "old").write_text("as it was")

    def differs(*_: object) -> float:
        raise ParityError("differs")

    monkeypatch.setattr("training.export.prove_parity", differs)
    config = tiny_config("letters", 1, "char", ["a"])
    tokenizers = {side: BUNDLES / "letters" / "1" / f"{side}.spm" for side in ("source", "target")}
    provenance = Provenance(config={}, data_sha256={}, commit="unknown", updates=0, scores={})
    with pytest.raises(ParityError):
        write_bundle(directory, tiny_model(50, 50, seed=1), config, tokenizers, provenance, lambda _: None)
    assert (directory / "old").read_text() == "as it was"
    assert [path.name for path in directory.parent.iterdir()] == ["1"]


def test_a_graph_that_points_outside_its_bundle_does_not_load(
    exported: tuple[RecurrentModel, Path], tmp_path: Path
) -> None:
    """onnxruntime itself refuses; should it ever stop to, this tells."""
    from service.engine.errors import RuntimeFailureError
    from service.engine.onnx_model import _open_session

    _, directory = exported
    (tmp_path / "outside.bin").write_bytes((directory / "weights.safetensors").read_bytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    for location in ("../outside.bin", str(tmp_path / "outside.bin")):
        proto = onnx.load(directory / "encode.onnx", load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (inside / "encode.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(RuntimeFailureError):
            _open_session(inside / "encode.onnx", ["CPUExecutionProvider"], threads=1)


def test_the_first_token_read_is_the_start(exported: tuple[RecurrentModel, Path]) -> None:
    """The engine's first step and PyTorch's agree on what a target begins with."""
    model, directory = exported
    onnx_model = OnnxModel(load_bundle(directory), "cpu")
    source_ids, lengths = np.array([[5, 6, EOS_ID]]), np.array([3], np.int32)
    encoded = onnx_model.encode(source_ids, lengths)
    feeds = {"token_ids": np.array([[BOS_ID]]), "positions": np.array([0]), "source_lengths": lengths}
    step = onnx_model.decode_step(feeds | encoded.memory | encoded.state, attention="none")
    with torch.no_grad():
        forced = model(torch.from_numpy(source_ids), torch.from_numpy(lengths), torch.tensor([[BOS_ID]]))
    np.testing.assert_allclose(step.logits, forced.logits[0].numpy(), rtol=1e-4, atol=1e-5)
    assert step.attention == {}

"""PyTorch -> bundle -> engine: the same numbers all the way, for every model family."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from service.bundle.manifest import Provenance
from service.bundle.repository import Repository, load_bundle
from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import OnnxModel, open_model
from service.engine.sentence import SentenceRequest
from service.metrics import Metrics
from service.registry import ModelRegistry
from tests.conftest import BUNDLES
from tests.make_bundles import tiny_config, tiny_model
from training.config import (
    Config,
    ModelConfig,
    SandGlassConfig,
    SoftFeedbackConfig,
    TokenizerConfig,
    TransformerConfig,
)
from training.errors import ConfigError, ParityError, TrainingError
from training.export import write_bundle
from training.graphs import round_weights
from training.models import build
from training.models.interface import Decoded, OneShotModel, TranslationModel
from training.models.recurrent import RecurrentModel
from training.parity import HYPOTHESES, SHAPES, greedy, prove_parity, translate
from training.tokenizers import train_tokenizer

#: Names of the fixtures below, a fresh export of each kind of graph; one is made when a test first asks for it.
FAMILIES = ["recurrent", "soft_feedback", "sandglass", "gated_sandglass"]
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
NUMBERS = range(2, 60)  # 58 words: with the special pieces a SandGlass's vocabulary
PIECES = 62
PROVENANCE = Provenance(config={}, data_sha256={}, commit="unknown", updates=0, scores={})


@dataclass(frozen=True)
class Export:
    """A bundle, and the model it was made of."""

    model: TranslationModel
    directory: Path


def config_of(model: ModelConfig | None = None) -> Config:
    """A tiny run whose sources fit the 24 places of a SandGlass; the recurrent model where no other is given."""
    config = tiny_config("numbers", 1, "word", ["2 3 4", "7"])
    limits = config.export.limits.model_copy(update={"max_source_tokens": 24})
    export = config.export.model_copy(update={"limits": limits})
    return config.model_copy(update={"export": export, "model": model or config.model})


def lively(model: TranslationModel, scale: float) -> TranslationModel:
    """Larger weights, and norms unlike at the start and unlike each other: every number in a graph matters."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(scale)
            if "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith(("mean", "var")):
                buffer.uniform_(0.1, 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    corpus, paths = root / "corpus.tsv", {side: root / f"{side}.spm" for side in ("source", "target")}
    text = " ".join(map(str, NUMBERS))
    corpus.write_text(f"{text}\t{text}\t\n", encoding="utf-8")
    for column, path in enumerate(paths.values()):
        assert train_tokenizer(TokenizerConfig(kind="word"), corpus, [column], path).vocabulary_size == PIECES
    return paths


def export(root: Path, config: Config, tokenizers: dict[str, Path], scale: float, seed: int) -> Export:
    torch.manual_seed(seed)
    model = lively(build(config.model, PIECES, PIECES), scale)
    directory = root / config.name / str(config.version)
    return Export(model, write_bundle(directory, model, config, tokenizers, PROVENANCE, lambda _: None))


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Path]) -> Export:
    return export(tmp_path_factory.mktemp("recurrent"), config_of(), tokenizers, scale=4.0, seed=11)


@pytest.fixture(scope="module")
def soft_feedback(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Path]) -> Export:
    config = config_of(SoftFeedbackConfig(encoder_size=6, decoder_size=8))
    return export(tmp_path_factory.mktemp("soft"), config, tokenizers, scale=3.0, seed=12)


@pytest.fixture(scope="module")
def sandglass(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Path]) -> Export:
    config = config_of(SandGlassConfig())
    return export(tmp_path_factory.mktemp("sandglass"), config, tokenizers, scale=2.0, seed=13)


@pytest.fixture(scope="module")
def gated_sandglass(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Path]) -> Export:
    """Of weights that are not as large: a gate's output has no bounds, and float32 is soon too coarse for the proof."""
    config = config_of(SandGlassConfig(gate="glu", reduce_attention=True))
    return export(tmp_path_factory.mktemp("gated"), config, tokenizers, scale=1.8, seed=18)


@pytest.fixture
def exported(request: pytest.FixtureRequest, family: str) -> Export:
    found: Export = request.getfixturevalue(family)
    return found


def random_sources(count: int, longest: int) -> list[list[int]]:
    """Of every length, unknown numbers among them."""
    generator = random.Random(4)
    lengths = [1 + i % (longest - 1) for i in range(count)]
    sources = [[generator.randrange(UNK_ID, PIECES) for _ in range(length)] for length in lengths]
    generator.shuffle(sources)
    return [[*source, EOS_ID] for source in sources]


def translate_by_engine(directory: Path, sources: list[list[int]]) -> list[Hypothesis]:
    engine = Engine(open_model(load_bundle(directory), "cpu"), EngineSettings(workers=2, rows_per_worker=5))
    try:
        results = engine.translate([SentenceRequest(tuple(source), 24, attention="full") for source in sources])
    finally:
        engine.stop()
    return [result.hypotheses[0] for result in results]


def by_pytorch(model: TranslationModel, source: list[int], target: tuple[int, ...]) -> Decoded:
    """Logits and attention while the model says ``target``, all at once: no loop that the engine shares."""
    with torch.no_grad():
        if isinstance(model, OneShotModel):
            return model.translate(torch.tensor([source + [PAD_ID] * (model.length - len(source))]))
        lengths = torch.tensor([len(source)], dtype=torch.int32)
        decoded: Decoded = model(torch.tensor([source]), lengths, torch.tensor([[BOS_ID, *target[:-1]]]))
        return decoded


# --- the same numbers ------------------------------------------------------------------------------------------------


@EVERY_FAMILY
def test_graphs_equal_pytorch_at_ragged_shapes(exported: Export) -> None:
    assert len(SHAPES) >= 3
    assert max(HYPOTHESES) > 1
    torch.manual_seed(2)
    assert prove_parity(exported.model, exported.directory, load_bundle(exported.directory).manifest.graphs) < 1e-4


@EVERY_FAMILY
def test_the_proof_fails_for_other_weights(exported: Export) -> None:
    """Whichever of them it is that differs."""
    graphs = load_bundle(exported.directory).manifest.graphs
    torch.manual_seed(1)
    for name, parameter in exported.model.named_parameters():
        other = copy.deepcopy(exported.model)
        other.load_state_dict({name: parameter + 0.1 * torch.randn_like(parameter)}, strict=False)
        with pytest.raises(ParityError, match="differs from PyTorch"):
            prove_parity(other, exported.directory, graphs)


@EVERY_FAMILY
def test_the_engine_gives_pytorchs_tokens_probabilities_and_attention(exported: Export) -> None:
    sources = random_sources(30, longest=24)
    found = translate_by_engine(exported.directory, sources)
    assert len({hypothesis.target_ids for hypothesis in found}) > 10, "the model says the same to everything"
    for source, best in zip(sources, found, strict=True):
        target = translate(exported.model, source, 24)
        assert list(best.target_ids) == target
        decoded = by_pytorch(exported.model, source, best.target_ids)
        wanted = torch.log_softmax(decoded.logits[0], -1)[range(len(target)), target]
        np.testing.assert_allclose(best.log_probabilities, wanted.numpy(), rtol=1e-4, atol=1e-4)
        assert best.attention.keys() == decoded.attention.keys()
        for name, weights in decoded.attention.items():
            np.testing.assert_allclose(best.attention[name], weights[0].transpose(0, 1).numpy(), rtol=1e-4, atol=1e-4)


def test_a_score_by_pytorch_is_what_the_engine_gave(recurrent: Export) -> None:
    """Forced decoding of what greedy search found, for the family that can be told what it has said."""
    assert isinstance(recurrent.model, RecurrentModel)
    sources = random_sources(10, longest=40)
    for source, best in zip(sources, translate_by_engine(recurrent.directory, sources), strict=True):
        assert list(best.target_ids) == greedy(recurrent.model, source, 24)
        lengths = torch.tensor([len(source)], dtype=torch.int32)
        with torch.no_grad():
            scored = recurrent.model.score(torch.tensor([source]), lengths, torch.tensor([best.target_ids]))
        np.testing.assert_allclose(best.log_probabilities, scored.log_probabilities[0].numpy(), rtol=1e-4, atol=1e-4)
        forced = scored.attention["cross"][0].transpose(0, 1).numpy()
        np.testing.assert_allclose(best.attention["cross"], forced, rtol=1e-4, atol=1e-4)


@EVERY_FAMILY
def test_golden_sentences_are_what_pytorch_says_and_the_engine_too(exported: Export) -> None:
    bundle = load_bundle(exported.directory)
    golden = bundle.manifest.golden_sentences
    assert [sentence.source for sentence in golden] == ["2 3 4", "7"]
    sources = [bundle.source_tokenizer.encode_ids(sentence.source) for sentence in golden]
    for sentence, source in zip(golden, sources, strict=True):
        assert bundle.target_tokenizer.decode(translate(exported.model, source, 24)).text == sentence.target
    found = translate_by_engine(exported.directory, sources)
    told = [bundle.target_tokenizer.decode(best.target_ids).text for best in found]
    assert told == [sentence.target for sentence in golden]


def test_golden_sentences_in_capitals_are_read_as_the_service_reads_them(tmp_path: Path) -> None:
    config = tiny_config("letters", 1, "char", ["abababa", "ABABABA", "«ab»"])
    config = config.model_copy(update={"export": config.export.model_copy(update={"reads_plainly": True})})
    text, settings = tmp_path / "text.tsv", TokenizerConfig(kind="char")
    text.write_text('abAB "\tab\t\n', encoding="utf-8")
    paths = {side: tmp_path / f"{side}.spm" for side in ("source", "target")}
    sizes = [train_tokenizer(settings, text, [at], path).vocabulary_size for at, path in enumerate(paths.values())]
    write_bundle(tmp_path / "letters" / "1", tiny_model(*sizes, seed=5), config, paths, PROVENANCE, lambda _: None)
    lower, capitals, _ = load_bundle(tmp_path / "letters" / "1").manifest.golden_sentences
    assert capitals.target == lower.target.upper() != lower.target
    registry = ModelRegistry(Repository(tmp_path), Metrics(), "cpu", EngineSettings(workers=1))
    try:  # which translates them again
        assert [model.name for model in registry.ready] == ["letters"]
    finally:
        registry.stop(0)


# --- what a bundle says of itself ------------------------------------------------------------------------------------


@EVERY_FAMILY
def test_the_manifest_is_the_models_own(exported: Export) -> None:
    manifest = load_bundle(exported.directory).manifest
    assert manifest.capabilities == exported.model.capabilities
    assert manifest.attention_maps == exported.model.attention_maps
    assert manifest.alignment == exported.model.alignment
    for graph in manifest.graphs:
        emitted = [spec.name for spec in graph.outputs if spec.name.startswith("attention_")]
        wanted = [entry.tensor for entry in manifest.attention_maps] if graph.attention == "full" else []
        assert emitted == wanted


@pytest.mark.parametrize(
    ("family", "memory", "state"),
    [
        ("recurrent", {"keys", "values"}, {"hidden_0"}),
        ("soft_feedback", {"keys", "values"}, {"hidden", "distribution"}),
    ],
)
def test_a_stepping_bundle_carries_the_models_memory_and_state(
    exported: Export, memory: set[str], state: set[str]
) -> None:
    manifest = load_bundle(exported.directory).manifest
    assert {graph.file for graph in manifest.graphs} == {
        "encode.onnx",
        "decode_step.none.onnx",
        "decode_step.full.onnx",
    }
    assert {entry.name for entry in manifest.state} == {f"state_{name}" for name in state}
    encode = next(graph for graph in manifest.graphs if graph.role == "encode")
    assert {spec.name for spec in encode.outputs if spec.name.startswith("memory_")} == {f"memory_{n}" for n in memory}
    assert manifest.one_shot_length is None


@pytest.mark.parametrize("family", ["sandglass", "gated_sandglass"])
def test_a_one_shot_bundle_has_one_graph_for_each_wish_and_no_state(exported: Export) -> None:
    manifest = load_bundle(exported.directory).manifest
    assert [graph.file for graph in manifest.graphs] == ["one_shot.none.onnx", "one_shot.full.onnx"]
    assert manifest.state == ()
    assert manifest.one_shot_length == 24
    for graph in manifest.graphs:
        assert [(spec.name, spec.axes) for spec in graph.inputs] == [("source_ids", ("batch", 24))]
        assert [spec.axes[1:] for spec in graph.outputs if spec.name == "logits"] == [(24, PIECES)]


def test_a_sandglass_without_an_alignment_becomes_no_bundle(
    tmp_path: Path, tokenizers: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.export.write_graphs", lambda *_: [])
    monkeypatch.setattr("training.export.prove_parity", lambda *_: 0.0)
    with pytest.raises(ConfigError, match="without attention layer 1"):
        export(tmp_path, config_of(SandGlassConfig(attention=("2",))), tokenizers, scale=1.0, seed=1)
    assert not (tmp_path / "numbers").exists()


# --- files -----------------------------------------------------------------------------------------------------------


#: Wide heads and many places, whose constants would be large.
ROTARY = TransformerConfig(
    size=32, heads=1, feed_forward=24, encoder_layers=1, decoder_layers=2, positions="rotary", max_positions=160
)


@pytest.mark.parametrize("model", [None, SandGlassConfig(), ROTARY], ids=["recurrent", "sandglass", "transformer"])
def test_weights_in_float16_take_half_the_room_and_are_the_models_own(
    tmp_path: Path, tokenizers: dict[str, Path], model: ModelConfig | None
) -> None:
    """The proof compares the graphs with a model whose weights are those that are stored."""
    config = config_of(model)
    torch.manual_seed(8)
    exact = lively(build(config.model, PIECES, PIECES), 2.0)
    rounded = copy.deepcopy(exact)
    round_weights(rounded, torch.float16)
    halved = config.model_copy(update={"export": config.export.model_copy(update={"weights_dtype": "float16"})})
    with pytest.raises(ValueError, match=r"no numbers of torch\.float16: round them first"):
        write_bundle(tmp_path / "not" / "1", exact, halved, tokenizers, PROVENANCE, lambda _: None)
    full, half = (
        write_bundle(tmp_path / kind.export.weights_dtype / "1", rounded, kind, tokenizers, PROVENANCE, lambda _: None)
        for kind in (config, halved)
    )
    stored, state = load_file(half / "weights.safetensors"), rounded.state_dict()
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    assert all(torch.equal(tensor.to(state[name].dtype), state[name]) for name, tensor in stored.items())
    sizes = [(directory / "weights.safetensors").stat().st_size for directory in (half, full)]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_weight_beyond_float16_is_refused() -> None:
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.bias.fill_(70_000.0)
    with pytest.raises(TrainingError, match=r"bias has a weight beyond 65504\.0: export it in float32"):
        round_weights(model, torch.float16)


@EVERY_FAMILY
def test_graphs_point_into_one_canonical_weights_file(exported: Export) -> None:
    model, directory = exported.model, exported.directory
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
        inside = [len(tensor.raw_data) for tensor in graph.initializer if tensor not in external]
        assert max(inside) < 1024
        assert sum(inside) < (1500 if isinstance(model, OneShotModel) else 1024)
        assert path.stat().st_size < (40_000 if isinstance(model, OneShotModel) else 20_000)
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param, f"{value.name} has a frozen first axis"


@EVERY_FAMILY
def test_nothing_of_the_makers_machine_is_in_a_graph(exported: Export) -> None:
    for path in exported.directory.glob("*.onnx"):
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
    with pytest.raises(ParityError):
        write_bundle(directory, tiny_model(50, 50, seed=1), config, tokenizers, PROVENANCE, lambda _: None)
    assert (directory / "old").read_text() == "as it was"
    assert [path.name for path in directory.parent.iterdir()] == ["1"]


def test_a_graph_that_points_outside_its_bundle_does_not_load(recurrent: Export, tmp_path: Path) -> None:
    """onnxruntime itself refuses; should it ever stop to, this tells."""
    from service.engine.errors import RuntimeFailureError
    from service.engine.onnx_model import _open_session

    directory = recurrent.directory
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


def test_the_first_token_read_is_the_start(recurrent: Export) -> None:
    """The engine's first step and PyTorch's agree on what a target begins with."""
    model, directory = recurrent.model, recurrent.directory
    onnx_model = OnnxModel(load_bundle(directory), "cpu")
    source_ids, lengths = np.array([[5, 6, EOS_ID]]), np.array([3], np.int32)
    encoded = onnx_model.encode({"source_ids": source_ids, "source_lengths": lengths}, "none")
    feeds = {"token_ids": np.array([[BOS_ID]]), "positions": np.array([0]), "source_lengths": lengths}
    step = onnx_model.decode_step(feeds | encoded.memory | encoded.state, attention="none")
    with torch.no_grad():
        forced = model(torch.from_numpy(source_ids), torch.from_numpy(lengths), torch.tensor([[BOS_ID]]))
    np.testing.assert_allclose(step.logits, forced.logits[0].numpy(), rtol=1e-4, atol=1e-5)
    assert step.attention == {}

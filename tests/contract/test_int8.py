"""int8 graphs of a fresh export: near those in float32, the same in any batch, guarded by golden sentences."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from service.bundle.manifest import Manifest, Precision, Provenance
from service.bundle.repository import Repository, load_bundle
from service.bundle.tokenizer import EOS_ID, UNK_ID
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest
from service.metrics import Metrics
from service.registry import ModelRegistry
from tests.make_bundles import tiny_config, tiny_model
from training.config import TokenizerConfig, TransformerConfig
from training.corpus import ParallelArrays, TokenArrays
from training.errors import TrainingError
from training.export import write_bundle
from training.models.interface import TranslationModel
from training.quantization import INT8_WEIGHTS_FILE
from training.tokenizers import train_tokenizer

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
PROVENANCE = Provenance(config={}, data_sha256={}, commit="unknown", updates=0, scores={"of_the_run": 1.0})
MODEL = TransformerConfig(
    size=32, heads=2, feed_forward=48, encoder_layers=2, decoder_layers=2, max_positions=32, dropout=0.0
)


def arrays(sentences: list[list[int]]) -> TokenArrays:
    offsets = np.cumsum([0, *map(len, sentences)], dtype=np.int64)
    return TokenArrays(np.concatenate([np.array(sentence, np.int32) for sentence in sentences]), offsets)


def random_sentences(count: int, pieces: int, seed: int) -> list[list[int]]:
    generator = random.Random(seed)
    return [
        [*(generator.randrange(UNK_ID, pieces) for _ in range(generator.randint(1, 15))), EOS_ID] for _ in range(count)
    ]


def write(root: Path, model: TranslationModel, tokenizer: Path, calibration: ParallelArrays) -> Path:
    config = tiny_config("numbers", 1, "word", ["2 3 4", "7"], MODEL)
    tokenizers = {"source": tokenizer, "target": tokenizer}
    directory = root / "numbers" / "1"
    return write_bundle(directory, model, config, tokenizers, PROVENANCE, lambda _: None, None, calibration)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("int8-tokenizer")
    corpus, path = root / "corpus.tsv", root / "both.spm"
    text = " ".join(map(str, range(2, 60)))
    corpus.write_text(f"{text}\t{text}\t\n", encoding="utf-8")
    train_tokenizer(TokenizerConfig(kind="word"), corpus, [0], path)
    return path


@pytest.fixture(scope="module")
def model() -> TranslationModel:
    return tiny_model(62, 62, seed=5, config=MODEL, scale=1.0)


@pytest.fixture(scope="module")
def calibration() -> ParallelArrays:
    return ParallelArrays(arrays(random_sentences(40, 62, 1)), arrays(random_sentences(40, 62, 2)))


@pytest.fixture(scope="module")
def directory(
    tmp_path_factory: pytest.TempPathFactory, model: TranslationModel, tokenizer: Path, calibration: ParallelArrays
) -> Path:
    return write(tmp_path_factory.mktemp("int8"), model, tokenizer, calibration)


def translate(directory: Path, precision: Precision, sources: list[list[int]], rows: int) -> list[Hypothesis]:
    model = open_model(load_bundle(directory), "cpu", precision=precision)
    assert model.precision == precision
    engine = Engine(model, EngineSettings(workers=1, rows_per_worker=rows))
    try:
        results = engine.translate([SentenceRequest(tuple(source), 20, attention="full") for source in sources])
    finally:
        engine.stop()
    return [result.hypotheses[0] for result in results]


def test_a_batch_changes_not_one_bit_of_an_answer(directory: Path) -> None:
    sources = random_sentences(40, 62, 3)
    alone, together = (translate(directory, "int8", sources, rows) for rows in (1, 16))
    assert len({best.target_ids for best in alone}) > 10, "the model says the same to everything"
    for one, other in zip(alone, together, strict=True):
        assert one.target_ids == other.target_ids
        assert np.array_equal(one.log_probabilities, other.log_probabilities)


def saturates() -> bool:
    """Does this processor clip sums of products (AVX2 alone; docs/decisions/0009-int8.md)?"""
    there = torch.cpu.get_capabilities()
    return there.get("architecture") == "x86_64" and not (there.get("avx512_vnni") or there.get("avx_vnni"))


@pytest.mark.skipif(
    saturates(), reason="without VNNI the sums of these random weights, unlike trained ones, are clipped"
)
def test_int8_says_nearly_what_float32_says_and_looks_nearly_there(directory: Path) -> None:
    sources = random_sentences(40, 62, 3)
    exact, rounded = (translate(directory, precision, sources, 8) for precision in PRECISIONS)
    same = [(one, other) for one, other in zip(exact, rounded, strict=True) if one.target_ids == other.target_ids]
    assert len(same) > 30
    assert any(not np.array_equal(one.log_probabilities, other.log_probabilities) for one, other in same)
    for one, other in same:
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=0.2)
        for name in one.attention:
            np.testing.assert_allclose(one.attention[name], other.attention[name], atol=0.1)


def test_every_stored_product_is_in_int8_and_nothing_else_is_read(directory: Path) -> None:
    manifest = load_bundle(directory).manifest
    assert {graph.precision for graph in manifest.graphs} == {"fp32", "int8"}
    names = [state.name for state in manifest.state]
    assert len(set(names)) == len(names) == 4  # keys and values of two layers, however many graphs give them
    for graph in manifest.graphs:
        if graph.precision == "int8":
            assert graph.provider == "cpu"
            proto = onnx.load(directory / graph.file, load_external_data=False)
            kinds = [node.op_type for node in proto.graph.node]
            exact = graph.file.replace(".int8", "")
            products = list(onnx.load(directory / exact, load_external_data=False).graph.node)
            of_weights = kinds.count("MatMulIntegerToFloat")
            assert of_weights
            assert of_weights + kinds.count("MatMul") == [node.op_type for node in products].count("MatMul")
            read = {name for node in proto.graph.node for name in node.input}
            assert {tensor.name for tensor in proto.graph.initializer} <= read


def test_the_stored_weights_are_the_models_to_half_a_step(directory: Path, model: TranslationModel) -> None:
    stored, state = load_file(directory / INT8_WEIGHTS_FILE), model.state_dict()
    weights = [name for name in stored if not name.endswith(".scale")]
    assert "encoder.0.feed_forward.inner.weight" in weights
    for name in weights:
        scale = stored[f"{name}.scale"][:, None]
        assert stored[name].dtype == np.int8
        assert np.abs(stored[name] * scale - state[name].numpy()).max() <= 0.501 * scale.max()


def test_a_server_runs_int8_where_it_is_told_to_and_checks_its_golden_sentences(directory: Path) -> None:
    manifest = load_bundle(directory).manifest
    assert [golden.precision for golden in manifest.golden_sentences] == ["fp32", "fp32", "int8", "int8"]
    assert manifest.provenance.scores.keys() == {"of_the_run", "int8_validation_agreement"}
    for precision in PRECISIONS:
        settings = EngineSettings(workers=1)
        registry = ModelRegistry(Repository(directory.parents[1]), Metrics(), "cpu", settings, precision=precision)
        try:
            assert [served.engine.precision for served in registry.ready] == [precision]
        finally:
            registry.stop(1.0)


def test_another_answer_of_the_int8_graphs_refuses_the_bundle_in_int8_alone(
    tmp_path: Path,
    model: TranslationModel,
    tokenizer: Path,
    calibration: ParallelArrays,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = Repository(write(tmp_path, model, tokenizer, calibration).parents[1])
    bundle = repository.load("numbers", 1)
    wrong = [
        golden.model_copy(update={"target": "nothing"}) if golden.precision == "int8" else golden
        for golden in bundle.manifest.golden_sentences
    ]
    manifest = bundle.manifest.model_copy(update={"golden_sentences": tuple(wrong)})
    monkeypatch.setattr(Manifest, "from_bytes", lambda *_: manifest)
    for precision, refused in zip(PRECISIONS, (0, 1), strict=True):
        registry = ModelRegistry(repository, Metrics(), "cpu", EngineSettings(workers=1), precision=precision)
        assert len(registry.refused) == refused
        registry.stop(1.0)


def test_a_model_that_8_bits_would_change_is_not_written(
    tmp_path: Path, tokenizer: Path, calibration: ParallelArrays
) -> None:
    """Larger random weights make a model whose tokens are close to each other and change with every small thing."""
    with pytest.raises(TrainingError, match=r"int8 changes \d+\.\d% of the tokens"):
        write(tmp_path, tiny_model(62, 62, seed=5, config=MODEL, scale=2.0), tokenizer, calibration)
    assert not list((tmp_path / "numbers").iterdir())

"""PyTorch -> bundle -> search: what search returns has PyTorch's own log-probabilities and attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from service.bundle.repository import Repository
from service.bundle.tokenizer import BOS_ID, EOS_ID
from service.engine.decoding import Decoding, Sampling
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest
from tests.conftest import FAMILIES
from tests.make_bundles import BOTTLENECK, STORIES, TRANSFORMER
from training.config import ModelConfig
from training.models import build
from training.models.interface import AutoregressiveModel, Context

MODELS: list[tuple[str, ModelConfig]] = [
    ("transformer", TRANSFORMER),
    ("bottleneck", BOTTLENECK),
    ("stories", STORIES),
]
MOST = 12
DECODINGS = [
    Decoding(beam_size=5, hypotheses=5, length_penalty=1.0),
    Decoding(beam_size=3, hypotheses=3, repetition_penalty=1.4, no_repeat_ngram=2),
    Decoding(hypotheses=4, sampling=Sampling((3,), temperature=1.3)),
    Decoding(beam_size=2, hypotheses=2, prefix_ids=(7, 9, 4), min_tokens=8),
    Decoding(prefix_ids=(5, 6, 7, EOS_ID)),
]


def by_pytorch(
    model: AutoregressiveModel, source: Sequence[int], context: Sequence[Sequence[int]], target: Sequence[int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Log-probabilities and attention while the model is told ``target``, all at once."""
    before = (
        Context.of_one([list(ids) for ids in context], model.context_sentences) if model.context_sentences else None
    )
    lengths = torch.tensor([len(source)], dtype=torch.int32)
    with torch.no_grad():
        decoded = model(torch.tensor([list(source)]), lengths, torch.tensor([[BOS_ID, *target[:-1]]]), before)
    own = torch.log_softmax(decoded.logits[0], -1)[range(len(target)), list(target)].numpy()
    return own, {name: weights[0].transpose(0, 1).numpy() for name, weights in decoded.attention.items()}


@pytest.mark.parametrize(("name", "config"), MODELS, ids=[name for name, _ in MODELS])
def test_every_hypothesis_has_pytorchs_numbers(name: str, config: ModelConfig) -> None:
    bundle = Repository(FAMILIES).load(name, 1)
    pieces = bundle.source_tokenizer.vocabulary_size
    model = build(config, pieces, pieces).eval()
    assert isinstance(model, AutoregressiveModel)
    loaded = model.load_state_dict(load_file(bundle.path(bundle.manifest.weights)), strict=False)
    assert set(loaded.missing_keys) <= {"output.weight"}  # tied to the embedding, and in the file once
    assert not loaded.unexpected_keys
    context = ((5, 6, EOS_ID), (7, EOS_ID)) if bundle.manifest.context_sentences else ()
    wish = "full" if bundle.manifest.attention_maps else "none"
    requests = [
        SentenceRequest((*source, EOS_ID), MOST, wish, None, context, decoding)  # type: ignore[arg-type]
        for source in ((4, 9, 12), (20,), (8, 8, 8, 15, 16, 17, 18))
        for decoding in DECODINGS
    ]
    engine = Engine(OnnxModel(bundle, "cpu"), EngineSettings(workers=1, rows_per_worker=16))
    try:
        results = engine.translate(requests)
    finally:
        engine.stop()
    count = 0
    for request, result in zip(requests, results, strict=True):
        assert len(result.hypotheses) == request.decoding.hypotheses
        for hypothesis in result.hypotheses:
            own, attention = by_pytorch(model, request.source_ids, context, hypothesis.target_ids)
            np.testing.assert_allclose(hypothesis.log_probabilities, own, atol=1e-4)
            for map_name in attention.keys() & {"cross", "cross-0", "cross-1", "decoder-self-0", "decoder-self-1"}:
                np.testing.assert_allclose(hypothesis.attention[map_name], attention[map_name], atol=1e-4)
                count += 1
    assert count or wish == "none"

"""Search on the shipped models: what is returned against PyTorch, and mixed batches against each sentence alone.

    python -m benchmarks.search

For each model: beams of five, draws and guarded searches of its sentences. Every hypothesis is told to PyTorch, which
gives log-probabilities and attention of its own; and every sentence is translated again, alone.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.measuring import ROOT, SEED
from service.bundle.repository import Bundle, Repository
from service.bundle.tokenizer import BOS_ID
from service.engine.decoding import Decoding, Sampling
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest
from training.config import Config
from training.models import build
from training.models.interface import AutoregressiveModel
from training.tasks import TASKS

MODELS = ("tatoeba-de-en", "tatoeba-en-de", "reverse-transformer", "reverse", "dates")
SENTENCES = 20
DECODINGS = (
    Decoding(),
    Decoding(beam_size=5, hypotheses=5, length_penalty=1.0, coverage_penalty=0.2),
    Decoding(hypotheses=3, sampling=Sampling((SEED,), temperature=0.8, top_p=0.95)),
    Decoding(beam_size=3, repetition_penalty=1.2, no_repeat_ngram=3, min_tokens=4),
)


@dataclass
class Differences:
    """The greatest that were seen."""

    hypotheses: int = 0
    log_probability: float = 0.0
    attention: dict[str, float] = field(default_factory=dict)


def main() -> None:
    repository = Repository(ROOT / "exported")
    for name in MODELS:
        bundle = repository.load(name, max(repository.versions()[name]))
        limit = bundle.manifest.limits.max_target_tokens
        requests = [
            SentenceRequest(tuple(bundle.encode_ids(text)), limit, "full", decoding=decoding)
            for text in sentences_of(bundle)
            for decoding in DECODINGS
        ]
        random.Random(SEED).shuffle(requests)
        model = OnnxModel(bundle)
        together = translate(model, requests, rows=64)
        told = compare_with_pytorch(bundle, requests, together)
        attention = max(told.attention.values())
        print(
            f"{bundle.label}: {told.hypotheses} hypotheses, greatest differences from PyTorch: "
            f"log-probability {told.log_probability:.1e}, weight {attention:.1e} in {len(told.attention)} maps",
            flush=True,
        )
        alone = [translate(model, [request], rows=8)[0] for request in requests]
        other = sum(
            [hypothesis.target_ids for hypothesis in one] != [hypothesis.target_ids for hypothesis in two]
            for one, two in zip(alone, together, strict=True)
        )
        print(
            f"{bundle.label}: {other} of {len(requests)} answers in a mixed batch of 64 rows differ from alone",
            flush=True,
        )


def sentences_of(bundle: Bundle) -> list[str]:
    """Everyday sentences, or strings of the task."""
    (language, *_) = bundle.manifest.source_languages
    path = ROOT / "docs" / "everyday" / f"{language}.txt"
    if path.is_file():
        return path.read_text(encoding="utf-8").splitlines()[:SENTENCES]
    task = TASKS[Config.model_validate(bundle.manifest.provenance.config).corpus.task]  # type: ignore[union-attr]
    return [example.source for example in itertools.islice(task.examples(SEED), SENTENCES)]


def translate(model: OnnxModel, requests: list[SentenceRequest], rows: int) -> list[tuple[Hypothesis, ...]]:
    engine = Engine(model, EngineSettings(rows_per_worker=rows, queue_tokens=2**31))
    try:
        return [result.hypotheses for result in engine.translate(requests)]
    finally:
        engine.stop()


def compare_with_pytorch(
    bundle: Bundle, requests: list[SentenceRequest], found: list[tuple[Hypothesis, ...]]
) -> Differences:
    """PyTorch reads the bundle's own weights, and is told every hypothesis at once."""
    config = Config.model_validate(bundle.manifest.provenance.config)
    sizes = (bundle.source_tokenizer.vocabulary_size, bundle.target_tokenizer.vocabulary_size)
    model = build(config.model, *sizes).eval()
    if not isinstance(model, AutoregressiveModel):
        raise TypeError(f"{bundle.label} cannot be told a translation")
    weights = load_file(bundle.path(bundle.manifest.weights))
    missing = model.load_state_dict(
        {name: tensor.float() for name, tensor in weights.items()}, strict=False
    ).missing_keys
    if set(missing) - {"output.weight", "target_embedding.weight"}:  # tied: in the file once
        raise ValueError(f"{bundle.label} lacks {missing}")
    seen = Differences()
    for request, hypotheses in zip(requests, found, strict=True):
        for hypothesis in hypotheses:
            target = list(hypothesis.target_ids)
            lengths = torch.tensor([len(request.source_ids)], dtype=torch.int32)
            with torch.no_grad():
                decoded = model(torch.tensor([request.source_ids]), lengths, torch.tensor([[BOS_ID, *target[:-1]]]))
            own = torch.log_softmax(decoded.logits[0], -1)[range(len(target)), target].numpy()
            difference = float(np.abs(own - hypothesis.log_probabilities).max())
            seen = replace(seen, hypotheses=seen.hypotheses + 1, log_probability=max(seen.log_probability, difference))
            for name, tensor in decoded.attention.items():
                if name in hypothesis.attention:
                    apart = np.abs(tensor[0].transpose(0, 1).numpy() - hypothesis.attention[name]).max()
                    seen.attention[name] = max(seen.attention.get(name, 0.0), float(apart))
    return seen


if __name__ == "__main__":
    main()

"""The engine against PyTorch eager: the same weights, sentences and greedy answers, attention returned by both.

    make bench

PyTorch decodes a padded batch until its last sentence ends, in one process on all cores; batches are cut from the
sentences sorted by length, which favours it. The engine gets the sentences as they come.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.measuring import alternate, ratio, shipped
from service.bundle.repository import Bundle
from service.bundle.tokenizer import BOS_ID, EOS_ID, PAD_ID
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest
from training.config import Config, RecurrentConfig
from training.models.recurrent import RecurrentModel

ROUNDS = 7


def pytorch_model(bundle: Bundle) -> RecurrentModel:
    """The bundle's canonical weights in the model they came from."""
    config = Config.model_validate(bundle.manifest.provenance.config)
    if not isinstance(config.model, RecurrentConfig):
        raise ValueError(f"{bundle.label} is a {config.model.family}; a recurrent model is timed here")
    sizes = (bundle.source_tokenizer.vocabulary_size, bundle.target_tokenizer.vocabulary_size)
    model = RecurrentModel(config.model, *sizes)
    model.load_state_dict(load_file(bundle.path(bundle.manifest.weights)))
    return model.eval()


@torch.inference_mode()
def pytorch_greedy(model: RecurrentModel, sources: list[list[int]], limit: int) -> list[list[int]]:
    """Greedy targets of one batch, with the attention of every step collected as the engine does."""
    lengths = torch.tensor([len(source) for source in sources], dtype=torch.int32)
    padded = torch.full((len(sources), int(lengths.max())), PAD_ID)
    for row, source in zip(padded, sources, strict=True):
        row[: len(source)] = torch.tensor(source)
    memory, state, _ = model.encode(padded, lengths)
    last = torch.full((len(sources), 1), BOS_ID)
    positions = torch.zeros(len(sources), dtype=torch.int64)
    ended = torch.zeros(len(sources), dtype=torch.bool)
    tokens, attention, log_probabilities = [], [], []
    for _ in range(limit):
        step = model.decode_step(last, positions, lengths, memory, state)
        state = step.state
        last = step.logits.argmax(-1, keepdim=True)
        log_probabilities.append(torch.log_softmax(step.logits, -1).gather(-1, last))
        attention.append(step.attention["cross"])
        tokens.append(last[:, 0])
        positions += 1
        ended |= last[:, 0] == EOS_ID
        if bool(ended.all()):
            break
    torch.stack(attention).numpy()
    columns = torch.stack(tokens, 1).tolist()
    return [row[: row.index(EOS_ID) + 1] if EOS_ID in row else row for row in columns]


def compare(name: str, sizes: tuple[int, ...], sentences: int) -> None:
    bundle, examples = shipped(name, sentences)
    model = pytorch_model(bundle)
    limit = bundle.manifest.limits.max_target_tokens
    sources = [bundle.source_tokenizer.encode_ids(example.source) for example in examples]
    cores = len(os.sched_getaffinity(0))
    for size in sizes:
        chosen = sources if size > 1 else sources[: sentences // 8]
        by_length = sorted(chosen, key=len)
        batches = [by_length[i : i + size] for i in range(0, len(by_length), size)]
        engine = Engine(OnnxModel(bundle), EngineSettings(rows_per_worker=max(1, size // cores), queue_tokens=2**31))
        requests = [SentenceRequest(tuple(source), limit, attention="full") for source in chosen]

        def ours(
            engine: Engine = engine, requests: list[SentenceRequest] = requests, size: int = size
        ) -> list[list[int]]:
            if size == 1:  # one sentence at a time, as a lone caller sends them
                return [list(engine.translate([request])[0].hypotheses[0].target_ids) for request in requests]
            return [list(result.hypotheses[0].target_ids) for result in engine.translate(requests)]

        def theirs(batches: list[list[list[int]]] = batches) -> list[list[int]]:
            return [target for batch in batches for target in pytorch_greedy(model, batch, limit)]

        same = sorted(map(tuple, ours())) == sorted(map(tuple, theirs()))
        own, other = alternate(ROUNDS, ours, theirs)
        engine.stop()
        rate = len(chosen) / float(np.median(own))
        print(
            f"{name:8} batch {size:4}: {ratio(own, other)} PyTorch eager; {rate:7.0f} sentences/s; "
            f"same answers: {same}",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for name in sys.argv[1:] or ("dates", "reverse"):
        compare(name, (1, 8, 32, 128), 1024)


if __name__ == "__main__":
    main()

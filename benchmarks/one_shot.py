"""One pass against one step a token: SandGlass and an autoregressive model on the same sentences, in the engine alone
and through the whole service.

    python -m benchmarks.one_shot [MODELS NAME]

Sentences of 22 numbers that both models know. By default the other model is the shipped reverse/1; with a repository
and a name, such as that of training/configs/sandglass-reverse-recurrent.yaml, one trained on SandGlass's own task.
Rounds alternate between the two, on one server each; answers are checked.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from heed.v1 import attention_pb2

from benchmarks.measuring import ROOT, SEED, alternate, ratio
from benchmarks.service import server
from service.bundle.repository import Repository
from service.client import Client
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest

ROUNDS, SENTENCES = 9, 512
VIEWS = {"no attention": None, "links": attention_pb2.ATTENTION_VIEW_ALIGNMENT}


def sentences() -> list[str]:
    """Numbers that either model knows, as many as SandGlass takes."""
    generator = random.Random(SEED)
    return [" ".join(str(generator.randint(2, 50)) for _ in range(22)) for _ in range(SENTENCES)]


def caller(
    client: Client, model: str, texts: list[str], per_call: int, view: attention_pb2.AttentionView | None
) -> Callable[[], list[str]]:
    """Translates all of ``texts``, ``per_call`` at a time, one call after the other."""

    def call() -> list[str]:
        found = []
        for i in range(0, len(texts), per_call):
            reply = client.translate(texts[i : i + per_call], model, attention=view)
            found += [translation.hypotheses[0].text for translation in reply.translations]
        return found

    return call


def compare_engines(models: Path, name: str, texts: list[str]) -> None:
    """Token ids in, token ids out: one sentence at a time, and all at once."""
    bundles = [Repository(ROOT / "exported").load("sandglass-reverse", 1), Repository(models).load(name, 1)]
    engines = [Engine(open_model(bundle), EngineSettings(queue_tokens=2**31)) for bundle in bundles]
    work = [
        [SentenceRequest(tuple(bundle.source_tokenizer.encode_ids(text)), 24) for text in texts] for bundle in bundles
    ]

    def one_by_one(engine: Engine, requests: list[SentenceRequest]) -> None:
        for request in requests[:64]:
            engine.translate([request])

    for label, run, count in (("one by one", one_by_one, 64), ("all at once", Engine.translate, len(texts))):
        own, other = alternate(ROUNDS, *(partial(run, *pair) for pair in zip(engines, work, strict=True)))
        milliseconds = [statistics.median(seconds) / count * 1e3 for seconds in (own, other)]
        print(
            f"engine alone, {label:11}: one pass {ratio(own, other)} {name}; a sentence takes "
            f"{milliseconds[0]:.2f} and {milliseconds[1]:.2f} ms",
            flush=True,
        )
    for engine in engines:
        engine.stop()


def main() -> None:
    models, name = (Path(sys.argv[1]), sys.argv[2]) if len(sys.argv) > 2 else (ROOT / "exported", "reverse")
    texts = sentences()
    wanted = [" ".join(reversed(text.split(" "))) for text in texts]
    compare_engines(models, name, texts)
    with (
        server() as one_shot,
        server(models=models) as autoregressive,
        Client(one_shot) as ours,
        Client(autoregressive) as theirs,
    ):
        for per_call, count in ((1, 64), (8, 256), (64, 512)):
            for label, view in VIEWS.items():
                callers = (
                    caller(ours, "sandglass-reverse", texts[:count], per_call, view),
                    caller(theirs, name, texts[:count], per_call, view),
                )
                exact = [
                    statistics.mean(found == right for found, right in zip(call(), wanted[:count], strict=True))
                    for call in callers
                ]
                own, other = alternate(ROUNDS, *callers)
                milliseconds = [statistics.median(seconds) / count * 1e3 for seconds in (own, other)]
                print(
                    f"{per_call:2} a call, {label:12}: one pass {ratio(own, other)} {name}; a sentence takes "
                    f"{milliseconds[0]:.2f} and {milliseconds[1]:.2f} ms; exact {exact[0]:.2%} and {exact[1]:.2%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

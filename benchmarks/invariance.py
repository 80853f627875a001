"""Does a batch change an answer? Each fresh sentence alone, and among others that join and leave.

python -m benchmarks.invariance
"""

from __future__ import annotations

import random

import numpy as np

from benchmarks.measuring import shipped
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest

SENTENCES = 2000


def main() -> None:
    for name in ("dates", "reverse"):
        bundle, examples = shipped(name, SENTENCES)
        limit = bundle.manifest.limits.max_target_tokens
        requests = [
            SentenceRequest(tuple(bundle.source_tokenizer.encode_ids(example.source)), limit, attention="full")
            for example in examples
        ]
        model = OnnxModel(bundle)
        alone = Engine(model, EngineSettings(workers=1, rows_per_worker=1, queue_tokens=2**31))
        expected = [alone.translate([request])[0].hypotheses[0] for request in requests]
        alone.stop()
        for rows in (7, 64, 128):
            order = random.Random(rows).sample(range(len(requests)), len(requests))
            engine = Engine(model, EngineSettings(rows_per_worker=rows, queue_tokens=2**31))
            results = engine.translate([requests[place] for place in order])
            engine.stop()
            found = dict(zip(order, (result.hypotheses[0] for result in results), strict=True))
            _report(name, rows, expected, [found[place] for place in range(len(requests))])


def _report(name: str, rows: int, expected: list[Hypothesis], found: list[Hypothesis]) -> None:
    pairs = list(zip(expected, found, strict=True))
    same = [(one, other) for one, other in pairs if one.target_ids == other.target_ids]
    attention = max(float(np.abs(one.attention["cross"] - other.attention["cross"]).max()) for one, other in same)
    identical = sum(
        np.array_equal(one.log_probabilities, other.log_probabilities)
        and np.array_equal(one.attention["cross"], other.attention["cross"])
        for one, other in same
    )
    print(
        f"{name:8} {rows:4} rows: {len(pairs) - len(same)} of {len(pairs)} sentences with other tokens, "
        f"greatest difference of attention {attention:.1e}, bit for bit the same {identical / len(pairs):.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()

"""The shipped date model on dates as people write them, and on what is no date.

    python -m benchmarks.dates_as_written [BUNDLE NAME]

Sixty strings of tests/contract/dates_as_written.tsv: how many come out right. The texts of tests/contract/nonsense.txt
against fresh dates of the generator: how well the log-probability of the translation tells them apart.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import ROOT, SEED, shipped
from service.bundle.repository import Bundle
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest
from training.tasks import TASKS
from training.tasks.date_variations import variations

WRITTEN = ROOT / "tests" / "contract" / "dates_as_written.tsv"
NONSENSE = ROOT / "tests" / "contract" / "nonsense.txt"
FRESH = 5000


def translate(bundle: Bundle, texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Each text's translation and its log-probability, in nats."""
    engine = Engine(open_model(bundle), EngineSettings(queue_tokens=2**31))
    limit = bundle.manifest.limits.max_target_tokens
    requests = [SentenceRequest(tuple(bundle.source_tokenizer.encode_ids(text)), limit) for text in texts]
    best = [result.hypotheses[0] for result in engine.translate(requests)]
    engine.stop()
    scores = np.array([float(hypothesis.log_probabilities.sum()) for hypothesis in best])
    return [bundle.target_tokenizer.decode(hypothesis.target_ids).text for hypothesis in best], scores


def written() -> list[tuple[str, str]]:
    """Text and ISO date of each of the sixty."""
    lines = WRITTEN.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [(text, date) for text, date, _ in (line.split("\t") for line in lines)]


def area_under_curve(real: npt.NDArray[np.float64], nonsense: npt.NDArray[np.float64]) -> float:
    """The probability that a real date scores above a nonsense text (ties count half): the area under the ROC curve."""
    higher = real[:, None] > nonsense[None, :]
    equal = real[:, None] == nonsense[None, :]
    return float(higher.mean() + 0.5 * equal.mean())


def nonsense_area(bundle: Bundle) -> tuple[float, list[tuple[float, str, str]]]:
    """The area under the curve, and the nonsense that the model is surest of: score, text, translation."""
    dates = [example.source for example in itertools.islice(TASKS["dates"].examples(SEED), FRESH)]
    nonsense = NONSENSE.read_text(encoding="utf-8").rstrip("\n").split("\n")
    _, real = translate(bundle, dates)
    found, scores = translate(bundle, nonsense)
    surest = sorted(zip(scores.tolist(), nonsense, found, strict=True), reverse=True)
    return area_under_curve(real, scores), surest


def main() -> None:
    bundle, _ = shipped(sys.argv[1] if len(sys.argv) > 1 else "dates", 0)
    pairs = written()
    found, _ = translate(bundle, [text for text, _ in pairs])
    wrong = [(text, got, date) for (text, date), got in zip(pairs, found, strict=True) if got != date]
    print(f"{len(pairs) - len(wrong)} of {len(pairs)} as people write them are right")
    for text, got, date in wrong:
        print(f"  {text!r} -> {got}, meant {date}")
    examples = list(itertools.islice(variations(SEED), FRESH))
    texts, _ = translate(bundle, [example.source for example in examples])
    dates = [(example, text) for example, text in zip(examples, texts, strict=True) if set(example.annotation) != {"."}]
    right = sum(text == example.target for example, text in dates)
    print(f"{right / len(dates):.2%} of {len(dates)} fresh variations are right")
    area, surest = nonsense_area(bundle)
    print(f"nonsense against {FRESH} fresh dates: area under the curve {area:.4f}")
    for score, text, got in surest[:8]:
        print(f"  {text!r} -> {got} ({score:.2f} nats)")


if __name__ == "__main__":
    main()

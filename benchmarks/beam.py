"""What the default beam of the shipped text models costs beside greedy search, by turns in one process: a batch of the
texts of docs/everyday, and each of them alone.

    python -m benchmarks.beam
"""

from __future__ import annotations

import time

from benchmarks.measuring import ROOT
from service.bundle.repository import Repository
from service.engine.decoding import GREEDY, Decoding
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest
from training.evaluate import default_decoding

_ROUNDS = 5


def main() -> None:
    models = Repository(ROOT / "exported")
    for name in ("tatoeba-de-en", "tatoeba-en-de"):
        bundle = models.load(name, max(models.versions()[name]))
        folder, language = ROOT / "docs" / "everyday", bundle.manifest.source_languages[0]
        texts = [
            text
            for kind in ("", "hard.", "fresh.")
            for text in (folder / f"{kind}{language}.txt").read_text(encoding="utf-8").splitlines()
        ]
        ids = [tuple(bundle.encode_ids(text)) for text in texts]
        most = bundle.manifest.limits.max_target_tokens
        engine = Engine(open_model(bundle), EngineSettings(workers=1, queue_tokens=2**31))

        def seconds(
            decoding: Decoding, alone: bool, ids: list[tuple[int, ...]] = ids, most: int = most, engine: Engine = engine
        ) -> float:
            requests = [SentenceRequest(one, most, decoding=decoding) for one in ids]
            begun = time.perf_counter()
            for part in [[one] for one in requests] if alone else [requests]:
                engine.translate(part)
            return time.perf_counter() - begun

        own = default_decoding(bundle)
        for alone in (False, True):
            ratios = sorted(seconds(own, alone) / seconds(GREEDY, alone) for _ in range(_ROUNDS))
            shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(
                f"{bundle.label}, {'one by one' if alone else 'a batch'}: a beam of {own.beam_size} takes {shown} times"
            )
        engine.stop()


if __name__ == "__main__":
    main()

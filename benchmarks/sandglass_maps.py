"""What SandGlass's five maps look at: numbers over 1,000 fresh inputs, and a picture of one.

    python -m benchmarks.sandglass_maps

Judged are rows of content alone (and columns of all 24 places, for the model may look at its padding). Row p of the
target writes what stands in place 23 - p of the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import ROOT, shipped
from docs.make_pictures import heatmaps
from service.bundle.tokenizer import EOS_ID, PAD_ID
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import open_model
from service.engine.sentence import SentenceRequest

INPUTS = 1000
SHIFTS = range(-4, 5)
TIME, BLOCKS = 24, 6
EXAMPLE = "7 12 7 31 5 44 7 59 18 27 12 9 50 41 33 22 7 3"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """One input, as the model read and wrote it: ids (24,), maps (24, 24), map 4 (6, 6)."""

    source: list[int]
    target: list[int]
    maps: dict[str, Floats]

    @property
    def content(self) -> list[int]:
        """The places of the target that hold a number."""
        return [place for place, token in enumerate(self.target) if token not in (PAD_ID, EOS_ID)]


def translate(texts: list[str]) -> list[Judged]:
    bundle, _ = shipped("sandglass-reverse", 0)
    sources = [bundle.source_tokenizer.encode_ids(text) for text in texts]
    engine = Engine(open_model(bundle), EngineSettings(queue_tokens=2**31))
    results = engine.translate([SentenceRequest(tuple(source), TIME, attention="full") for source in sources])
    engine.stop()
    return [
        Judged(
            [*source, *[PAD_ID] * (TIME - len(source))],
            list(result.hypotheses[0].target_ids),
            {name: weights[:, 0] for name, weights in result.hypotheses[0].attention.items()},
        )
        for source, result in zip(sources, results, strict=True)
    ]


def anti_diagonal(judged: list[Judged], name: str) -> tuple[int, float, float]:
    """The shift s for which most rows p look most at 23 - p + s; the share that does; their mean weight there."""
    return _mirrored([(one.maps[name], one.content) for one in judged])


def blocks(judged: list[Judged]) -> tuple[int, float, float]:
    """The same of map 4, for the blocks that hold a number: block i of the target writes block 5 - i of the source."""
    return _mirrored([(one.maps["4"], sorted({place * BLOCKS // TIME for place in one.content})) for one in judged])


def _mirrored(maps: list[tuple[Floats, list[int]]]) -> tuple[int, float, float]:
    """Of these rows of each map: the best shift, the share whose greatest weight lies there, the mean weight there."""
    hits, weights = dict.fromkeys(SHIFTS, 0), dict.fromkeys(SHIFTS, 0.0)
    for matrix, places in maps:
        for place in places:
            for shift in SHIFTS:
                wanted = len(matrix) - 1 - place + shift
                if 0 <= wanted < len(matrix):
                    hits[shift] += int(matrix[place].argmax() == wanted)
                    weights[shift] += float(matrix[place, wanted])
    rows = sum(len(places) for _, places in maps)
    best = max(hits, key=lambda shift: hits[shift])
    return best, hits[best] / rows, weights[best] / rows


def token_hits(judged: list[Judged], name: str) -> float:
    """The share of rows that look most at a token equal to the one they write, wherever it stands."""
    found = [
        one.source[int(one.maps[name][place].argmax())] == one.target[place] for one in judged for place in one.content
    ]
    return float(np.mean(found))


def row_distances(judged: list[Judged], name: str) -> tuple[float, float]:
    """Mean total variation distance of two rows of one input: that write the same token, that write different ones."""
    same, different = list[float](), list[float]()
    for one in judged:
        for i, first in enumerate(one.content):
            for second in one.content[i + 1 :]:
                distance = 0.5 * float(np.abs(one.maps[name][first] - one.maps[name][second]).sum())
                (same if one.target[first] == one.target[second] else different).append(distance)
    return float(np.mean(same)), float(np.mean(different))


def column_difference(judged: list[Judged], name: str) -> float:
    """The greatest difference between the weights that two equal source tokens get from one row."""
    worst = 0.0
    for one in judged:
        for token in set(one.source):
            columns = one.maps[name][:, np.array(one.source) == token]
            worst = max(worst, float(np.ptp(columns, axis=1).max()))
    return worst


def near(judged: list[Judged], name: str, shift: int, reach: int) -> float:
    """The mean weight of a row within ``reach`` places of the anti-diagonal shifted by ``shift``."""
    masses = []
    for one in judged:
        for place in one.content:
            middle = TIME - 1 - place + shift
            masses.append(float(one.maps[name][place, max(0, middle - reach) : middle + reach + 1].sum()))
    return float(np.mean(masses))


def perplexity(judged: list[Judged], name: str, rows: str = "content") -> float:
    """e to the mean entropy of a row: over how many columns it spreads."""
    entropies = []
    for one in judged:
        weights = one.maps[name][one.content] if rows == "content" else one.maps[name]
        entropies += (-(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=1)).tolist()
    return float(np.exp(np.mean(entropies)))


def draw(one: Judged, output_name: str) -> None:
    bundle, _ = shipped("sandglass-reverse", 0)
    labels = [
        [{PAD_ID: "·", EOS_ID: "¶"}.get(i) or tokenizer.decode([i]).text for i in ids]
        for tokenizer, ids in ((bundle.source_tokenizer, one.source), (bundle.target_tokenizer, one.target))
    ]
    titles = {
        "1": "1: scope 1",
        "2a": "2a: scope 4",
        "2b": "2b: scope 1",
        "3": "3: scope 6",
        "4": "4: scope 9, blocks of 4",
    }
    step = TIME // BLOCKS
    panels = []
    for name, title in titles.items():
        columns, rows = labels
        if name == "4":
            columns, rows = ([" ".join(side[i : i + step]) for i in range(0, TIME, step)] for side in labels)
        panels.append((title, columns, rows, one.maps[name]))
    heatmaps(ROOT / "docs" / "pictures" / output_name, panels)


def main() -> None:
    _, examples = shipped("sandglass-reverse", INPUTS)
    judged = translate([example.source for example in examples])
    rows = sum(len(one.content) for one in judged)
    print(f"{INPUTS} inputs, {rows} rows of content")
    for name in ("1", "2a", "2b", "3"):
        shift, share, weight = anti_diagonal(judged, name)
        same, different = row_distances(judged, name)
        print(f"map {name}")
        print(f"  argmax on the anti-diagonal shifted by {shift:+d}: {share:.2%}; mean weight there {weight:.3f}")
        print(f"  argmax on an equal token: {token_hits(judged, name):.2%}")
        print(f"  distance of rows of equal tokens {same:.3f}, of different tokens {different:.3f}")
        print(f"  greatest difference of columns of equal tokens: {column_difference(judged, name):.1e}")
        print(f"  weight within 3 places of that diagonal: {near(judged, name, shift, 3):.3f}")
        print(f"  spread over {perplexity(judged, name):.2f} columns")
    shift, share, weight = blocks(judged)
    print("map 4")
    print(f"  argmax on the block anti-diagonal shifted by {shift:+d}: {share:.2%}; mean weight there {weight:.3f}")
    print(f"  spread over {perplexity(judged, '4', 'all'):.2f} of 6 blocks")
    draw(translate([EXAMPLE])[0], "sandglass.svg")


if __name__ == "__main__":
    main()

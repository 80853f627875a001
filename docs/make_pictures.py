"""Draws the pictures of the docs from the shipped models: SVG, straight from the engine's weights.

python -m docs.make_pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.attention.views import aligned, word_matrix
from service.attention.words import words_of
from service.bundle.repository import Bundle, Repository
from service.bundle.tokenizer import TokenizedText
from service.engine.engine import Engine, EngineSettings
from service.engine.hypothesis import Hypothesis
from service.engine.onnx_model import OnnxModel
from service.engine.sentence import SentenceRequest

Weights = npt.NDArray[np.float32]
ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
_CELL, _MARGIN, _FONT = 22, 56, "font-family='ui-monospace,Menlo,Consolas,monospace' font-size='14'"
_INK, _PAPER, _HUE = "#1f2933", "#ffffff", (180, 83, 9)


def svg(title: str, columns: list[str], rows: list[str], weights: Weights) -> str:
    """A heatmap: rows of the target, columns of the source; a cell is as dark as its weight, and says it on hover."""
    width, height = _MARGIN + _CELL * len(columns) + 24, _MARGIN + _CELL * len(rows) + 12
    return _page(title, width, height, _cells(columns, rows, weights))


def heatmaps(output: Path, panels: Sequence[tuple[str, list[str], list[str], Weights]]) -> None:
    """Several heatmaps in one SVG, three in a row: title, column labels, row labels, weights (rows, columns) of each.

    Labels of more than three characters, those of blocks, run upwards above their columns.
    """
    turned = any(len(label) > 3 for _, columns, _, _ in panels for label in columns)
    side = _MARGIN + _CELL * max(len(columns) for _, columns, _, _ in panels) + (104 if turned else 40)
    tall = _MARGIN + _CELL * max(len(rows) for _, _, rows, _ in panels) + (104 if turned else 40)
    parts = []
    for number, (title, columns, rows, weights) in enumerate(panels):
        left, top = side * (number % 3), tall * (number // 3) + 20
        long = max(map(len, columns)) > 3
        offset = 64 if long else 0
        parts.append(f"<g transform='translate({left + offset},{top + offset})'>")
        parts.append(f"<text x='{_MARGIN - offset}' y='{8 - offset}' fill='{_INK}' {_FONT}>{escape(title)}</text>")
        parts += [*_cells(columns, rows, weights, upright=not long), "</g>"]
    height = tall * -(-len(panels) // 3) + 20
    output.write_text(_page(output.stem, side * min(3, len(panels)), height, parts), encoding="utf-8")
    print(output.relative_to(ROOT))


def _page(title: str, width: int, height: int, parts: list[str]) -> str:
    head = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'>",
        f"<title>{escape(title)}</title>",
        f"<rect width='100%' height='100%' fill='{_PAPER}'/>",
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _cells(columns: list[str], rows: list[str], weights: Weights, upright: bool = True) -> list[str]:
    parts = []
    for place, label in enumerate(columns):
        long = len(label) > 2  # `</s>`, last: it may run over the edge of its cell
        x = _MARGIN + _CELL * place + (4 if long else _CELL // 2)
        if upright:
            parts.append(_text(x, _MARGIN - 10, label, "start" if long else "middle"))
        else:
            turned = f"transform='translate({x + 10},{_MARGIN - 8}) rotate(-90)'"
            parts.append(f"<text {turned} fill='{_INK}' {_FONT}>{escape(label)}</text>")
    for place, label in enumerate(rows):
        y = _MARGIN + _CELL * place
        parts.append(_text(_MARGIN - 8, y + _CELL - 6, label, "end"))
        for column, weight in enumerate(weights[place]):
            red, green, blue = (round(255 - (255 - hue) * float(weight)) for hue in _HUE)
            parts.append(
                f"<rect x='{_MARGIN + _CELL * column}' y='{y}' width='{_CELL - 1}' height='{_CELL - 1}' "
                f"fill='rgb({red},{green},{blue})' stroke='#e4e7eb' stroke-width='0.5'>"
                f"<title>{escape(label)} looked at {escape(columns[column])}: {weight:.2f}</title></rect>"
            )
    return parts


def _text(x: int, y: int, label: str, anchor: str) -> str:
    return f"<text x='{x}' y='{y}' fill='{_INK}' text-anchor='{anchor}' {_FONT}>{escape(label)}</text>"


def _aligned(bundle: Bundle, hypothesis: Hypothesis) -> Weights:
    """The weights of the shipped model's alignment: (target tokens, source tokens)."""
    alignment = bundle.manifest.alignment
    if alignment is None:
        raise ValueError(f"{bundle.label} has no alignment to draw")
    return aligned(hypothesis.attention[alignment.map], alignment)


def draw(name: str, version: int, source: str, output: Path) -> None:
    """Translate one text with a shipped model and draw its alignment map by tokens."""
    bundle = Repository(ROOT / "exported").load(name, version)
    engine = Engine(OnnxModel(bundle), EngineSettings(workers=1))
    tokens = bundle.encode(source)
    request = SentenceRequest(tuple(tokens.ids), bundle.manifest.limits.max_target_tokens, attention="alignment")
    best = engine.translate([request])[0].hypotheses[0]
    engine.stop()
    target = bundle.decode(best.target_ids, bundle.answers_in_capitals(source))
    weights = _aligned(bundle, best)
    columns, rows = (
        [token.piece.replace("▁", "" if len(token.piece) > 1 else "␣") for token in side.tokens]
        for side in (tokens, target)
    )
    output.write_text(svg(f"{source} -> {target.text}", columns, rows, weights), encoding="utf-8")
    print(f"{output.relative_to(ROOT)}: {source} -> {target.text}")


def draw_words(name: str, sources: Sequence[str], output: Path) -> None:
    """Translate sentences with a shipped model and draw by words where each looked, three pictures in a row."""
    repository = Repository(ROOT / "exported")
    bundle = repository.load(name, max(repository.versions()[name]))
    engine = Engine(OnnxModel(bundle), EngineSettings(workers=1))
    limit = bundle.manifest.limits.max_target_tokens
    panels = []
    for source in sources:
        tokens = bundle.encode(source)
        best = engine.translate([SentenceRequest(tuple(tokens.ids), limit, "alignment")])[0].hypotheses[0]
        target = bundle.decode(best.target_ids, bundle.answers_in_capitals(source))
        rows, columns = words_of(target.text, target.tokens), words_of(source, tokens.tokens)
        weights = word_matrix(_aligned(bundle, best), rows, columns)
        panels.append(("", [word.text for word in columns], [word.text for word in rows], weights))
        print(f"{source} -> {target.text}")
    engine.stop()
    heatmaps(output, panels)


def draw_story(name: str, version: int, story: Sequence[str], output: Path) -> None:
    """Translate a document's last sentence and draw what each token looked at: words of the sentences before, those
    sentences, and words of the sentence itself."""
    bundle = Repository(ROOT / "exported").load(name, version)
    engine = Engine(OnnxModel(bundle), EngineSettings(workers=1))
    *before, own = [bundle.encode(text) for text in story]
    context_ids = tuple(tuple(text.ids) for text in before)
    limit = bundle.manifest.limits.max_target_tokens
    request = SentenceRequest(tuple(own.ids), limit, attention="full", context_ids=context_ids)
    best = engine.translate([request])[0].hypotheses[0]
    engine.stop()
    rows = [token.piece for token in bundle.target_tokenizer.decode(best.target_ids).tokens]

    def by_words(weights: Weights, texts: Sequence[TokenizedText]) -> tuple[list[str], Weights]:
        words = [words_of(text.text, text.tokens) for text in texts]
        ends = np.cumsum([0, *(len(text.tokens) for text in texts)])
        begins = [int(end) + word.begin_token for end, of_text in zip(ends, words, strict=False) for word in of_text]
        return [word.text for of_text in words for word in of_text], np.add.reduceat(weights, begins, axis=1)

    maps = {key: weights[:, 0] for key, weights in best.attention.items()}
    columns, weights = by_words(maps["context"], before)
    panels = [("words of the sentences before", columns, rows, weights)]
    panels.append(("the sentences before", [str(i + 1) for i in range(len(before))], rows, maps["context-sentences"]))
    own_columns, own_weights = by_words(maps["cross"], [own])
    panels.append(("the sentence itself", own_columns, rows, own_weights))
    heatmaps(output, panels)


def main() -> None:
    draw("dates", 1, "Wednesday, 9 May 2018", PICTURES / "dates.svg")
    story = ("In 1997 she moved to Rome.", "Flight 2031 was late.", "He left on June 3.")
    draw_story("dates-in-context", 1, story, PICTURES / "dates-in-context.svg")
    everyday = ("Ich muss morgen früh aufstehen.", "Hast du Lust, mit mir spazieren zu gehen?")
    draw_words("tatoeba-de-en", (*everyday, "Die Kinder spielen im Garten."), PICTURES / "everyday-de-en.svg")
    draw_words(
        "tatoeba-de-en",
        (
            "Ich habe mir bei IKEA ein Billy-Regal für 49,99 € gekauft.",
            "Unsere Nachbarin flicht Körbe und töpfert Teller.",
        ),
        PICTURES / "failures-de-en.svg",
    )
    draw("reverse", 1, "17 3 42 8 25 50 1 33 9 21", PICTURES / "reverse.svg")


if __name__ == "__main__":
    main()

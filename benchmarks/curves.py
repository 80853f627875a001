"""Line plots as plain SVG, for the docs: a logarithmic loss against updates, a legend beside the ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 440, 70, 150, 40, 50
_COLOURS = ("#1f2933", "#b45309", "#0f766e", "#1d4ed8", "#be123c", "#7c3aed", "#4d7c0f", "#0891b2", "#9d174d")
_FONT = "font-family='ui-sans-serif,system-ui,sans-serif' font-size='13'"


@dataclass(frozen=True)
class Curve:
    """A name and its points (x, y), y > 0 where the plot is logarithmic."""

    label: str
    points: list[tuple[float, float]]


def draw_curves(
    output: Path, title: str, x_label: str, y_label: str, curves: list[Curve], logarithmic: bool = True
) -> None:
    """Write one SVG with all the curves, each with its name at a place of its own on the right."""
    scale = math.log10 if logarithmic else float
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [scale(y) for curve in curves for _, y in curve.points]
    low, high = (math.floor(min(ys)), math.ceil(max(ys))) if logarithmic else _round_ends(min(0.0, *ys), max(ys))
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        right = _LEFT + plot_width * (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        return right, _TOP + plot_height * (high - scale(y)) / ((high - low) or 1)

    size = f"viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}'"
    turned = f"transform='translate(18,{_TOP + plot_height / 2}) rotate(-90)'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size}>",
        f"<title>{escape(title)}</title><rect width='100%' height='100%' fill='#ffffff'/>",
        _text(_LEFT, 24, title, "start"),
        _text(_LEFT + plot_width / 2, _HEIGHT - 12, x_label, "middle"),
        f"<text {turned} text-anchor='middle' {_FONT}>{escape(y_label)}</text>",
    ]
    for value in _ticks(low, high, logarithmic):
        _, y = place(min(xs), value)
        parts.append(f"<line x1='{_LEFT}' x2='{_LEFT + plot_width}' y1='{y:.1f}' y2='{y:.1f}' stroke='#e4e7eb'/>")
        parts.append(_text(_LEFT - 8, y + 4, f"{value:g}", "end"))
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = min(xs) + fraction * (max(xs) - min(xs))
        parts.append(_text(_LEFT + plot_width * fraction, _HEIGHT - _BOTTOM + 20, f"{value:g}", "middle"))
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve.points))
        parts.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='1.6'/>")
        y = _TOP + 12 + 22 * number
        parts.append(
            f"<line x1='{_LEFT + plot_width + 12}' x2='{_LEFT + plot_width + 34}' y1='{y - 4}' y2='{y - 4}' "
            f"stroke='{colour}' stroke-width='3'/>"
        )
        parts.append(_text(_LEFT + plot_width + 40, y, curve.label, "start"))
    output.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        return [10.0**power for power in range(int(low), int(high) + 1)]
    step = _step(high - low)
    return [low + step * number for number in range(round((high - low) / step) + 1)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are five to ten steps."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 10)


def _round_ends(low: float, high: float) -> tuple[float, float]:
    step = _step(high - low)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _text(x: float, y: float, label: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' fill='#1f2933' text-anchor='{anchor}' {_FONT}>{escape(label)}</text>"

"""Charts of the report as inline SVG: drawn for 360 units of width, so that text is readable on a phone too.

Colours come from the page's CSS variables (`--m0` … for models), so that charts follow its light or dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Point", "curves_chart", "rounds_chart", "scatter_chart"]

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 360.0, 42.0, 12.0, 14.0, 34.0
MODEL_COLOURS = 6


def colour(index: int) -> str:
    """The CSS colour of model `index`."""
    return f"var(--m{index % MODEL_COLOURS})"


@dataclass(frozen=True)
class Point:
    """A model in the scatter: its name, latency in ms, IoU, and bytes as sent."""

    name: str
    x: float
    y: float
    size_bytes: float


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(height: float, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" class="chart">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _axes(
    height: float,
    x: tuple[float, float],
    y: tuple[float, float] | None,
    x_title: str,
    y_title: str,
    x_format: str,
    y_format: str,
) -> str:
    inner_bottom = height - BOTTOM
    parts = []
    for value in ticks(*x):
        px = _place(value, x, LEFT, WIDTH - RIGHT)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{inner_bottom:.1f}"/>')
        parts.append(
            f'<text x="{px:.1f}" y="{inner_bottom + 13:.1f}" text-anchor="middle">{format(value, x_format)}</text>'
        )
    for value in ticks(*y) if y else []:
        py = _place(value, y or (0, 1), inner_bottom, TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{py + 3.5:.1f}" text-anchor="end">{format(value, y_format)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="title" x="{middle}" y="{height - 5}" text-anchor="middle">{escape(x_title)}</text>')
    if y_title:
        parts.append(f'<text class="title" x="2" y="9">{escape(y_title)}</text>')
    return "".join(parts)


def _place(value: float, domain: tuple[float, float], start: float, end: float) -> float:
    low, high = domain
    return start + (value - low) / (high - low or 1) * (end - start)


def scatter_chart(points: Sequence[Point], x_title: str) -> str:
    """IoU against latency; a circle's area is the model's size as sent."""
    height = 250.0
    top_x = max(point.x for point in points) * 1.15
    low, high = min(point.y for point in points), max(point.y for point in points)
    margin = max((high - low) * 0.25, 0.01)
    x, y = (0.0, top_x), (max(0.0, low - margin), min(1.0, high + margin))
    biggest = max(point.size_bytes for point in points)
    parts = [_axes(height, x, y, x_title, "mean IoU", "g", ".2f" if y[1] - y[0] > 0.06 else ".3f")]
    placed: list[float] = []
    for index, point in enumerate(points):
        px, py = _place(point.x, x, LEFT, WIDTH - RIGHT), _place(point.y, y, height - BOTTOM, TOP)
        radius = max(4.0, 16 * math.sqrt(point.size_bytes / biggest))
        label_y = py + 4
        while any(abs(label_y - other) < 12 for other in placed):
            label_y += 12
        placed.append(label_y)
        left = px > WIDTH * 0.55
        label_x, anchor = (px - radius - 5, "end") if left else (px + radius + 5, "start")
        parts.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}" fill="{colour(index)}" fill-opacity=".35"'
            f' stroke="{colour(index)}" stroke-width="1.5"><title>{escape(point.name)}: IoU {point.y:.4f},'
            f" {point.x:.0f} ms, {point.size_bytes / 1e6:.2f} MB</title></circle>"
            f'<text class="label" x="{label_x:.1f}" y="{label_y:.1f}" text-anchor="{anchor}">'
            f"{escape(point.name)}</text>"
        )
    return _svg(height, f"IoU against {x_title}", "".join(parts))


def curves_chart(curves: Sequence[tuple[str, Sequence[float]]], y_title: str) -> str:
    """One line per model: a measure at each threshold from 255 down to 0."""
    height = 210.0
    values = [value for _, curve in curves for value in curve[:-1]]
    x, y = (0.0, 255.0), (max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02))
    parts = [_axes(height, x, y, "threshold of 255", y_title, "g", ".2f")]
    for index, (name, curve) in enumerate(curves):
        path = " ".join(
            f"{_place(255 - i, x, LEFT, WIDTH - RIGHT):.1f},{_place(value, y, height - BOTTOM, TOP):.1f}"
            for i, value in list(enumerate(curve[:-1]))[::3]  # at threshold 0 everything is subject
        )
        dash = ' stroke-dasharray="5 3"' if index % 2 else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour(index)}" stroke-width="2"{dash}>'
            f"<title>{escape(name)}</title></polyline>"
        )
    return _svg(height, y_title, "".join(parts))


def rounds_chart(models: Sequence[tuple[int, str, Sequence[float]]]) -> str:
    """Every round's time as a dot, the median as a bar; `models` are (colour index, name, times in ms)."""
    row = 36.0
    height = TOP + row * len(models) + BOTTOM
    x = (0.0, max(max(times) for _, _, times in models) * 1.05)
    parts = [_axes(height, x, None, "ms per picture", "", "g", "g")]
    for place, (index, name, times) in enumerate(models):
        centre = TOP + row * place + row * 0.68
        median = sorted(times)[len(times) // 2]
        parts.append(f'<text class="label" x="{LEFT}" y="{centre - 10:.1f}">{escape(name)}</text>')
        for i, ms in enumerate(times):
            px = _place(ms, x, LEFT, WIDTH - RIGHT)
            parts.append(
                f'<circle cx="{px:.1f}" cy="{centre + (i % 5 - 2) * 1.6:.1f}" r="2.4" fill="{colour(index)}"'
                f' fill-opacity=".55"><title>round {i + 1}: {ms:.1f} ms</title></circle>'
            )
        px = _place(median, x, LEFT, WIDTH - RIGHT)
        parts.append(f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{centre - 7:.1f}" y2="{centre + 7:.1f}" class="median"/>')
    return _svg(height, "time of every round", "".join(parts))

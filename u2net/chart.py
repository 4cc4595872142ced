"""Curves over the same few points, one above the other, as an SVG that needs nothing to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Curve", "draw_curves"]

WIDTH, LEFT, RIGHT, TOP, BAND, ROOM = 820, 70, 50, 62, 174, 70  # pixels; ROOM is what a curve may rise


@dataclass(frozen=True)
class Curve:
    """One value for each point; `form` says how it is written, as `{:.1f}`."""

    title: str
    colour: str
    values: Sequence[float]
    form: str


def draw_curves(title: str, below: str, across: str, labels: Sequence[str], curves: Sequence[Curve]) -> str:
    """The SVG: `title`, a line `below` it, `labels` of the points, and `across`, what they are."""
    step = (WIDTH - LEFT - RIGHT) / max(1, len(labels) - 1)
    height = TOP + len(curves) * BAND + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="15" font-weight="600" fill="#222222">{escape(title)}</text>',
        f'<text x="16" y="42" fill="#666666">{escape(below)}</text>',
    ]
    for number, curve in enumerate(curves):
        top = TOP + number * BAND
        bottom = top + 44 + ROOM
        low, high = min(curve.values), max(curve.values)
        places = [
            (LEFT + step * index, bottom - (value - low) / ((high - low) or 1.0) * ROOM)
            for index, value in enumerate(curve.values)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts += [
            f'<text x="16" y="{top + 12}" font-weight="600" fill="#222222">{escape(curve.title)}</text>',
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}" stroke="#e4e4e4"/>',
            f'<polyline points="{line}" fill="none" stroke="{curve.colour}" stroke-width="2"/>',
        ]
        for (x, y), value, label in zip(places, curve.values, labels, strict=True):
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{curve.colour}"/>',
                f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle" fill="#222222">'
                f"{escape(curve.form.format(value))}</text>",
                f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle" fill="#666666">{escape(label)}</text>',
            ]
    parts.append(f'<text x="{WIDTH / 2}" y="{height - 8}" text-anchor="middle" fill="#666666">{escape(across)}</text>')
    return "\n".join([*parts, "</svg>", ""])

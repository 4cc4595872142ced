"""The learning curve of a run's `log.csv` as an SVG that needs nothing to be looked at."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from u2net.errors import DataError
from u2net.files import write_bytes

__all__ = ["draw_curve"]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 860, 250, 64, 18, 34, 22
INK, GRID = "#222", "#ddd"


@dataclass(frozen=True)
class Panel:
    """One plot: the columns of the log it shows, their names and colours."""

    title: str
    columns: tuple[tuple[str, str, str], ...]


PANELS = (
    Panel("loss", (("total", "total", "#1f77b4"), ("fused", "fused", "#ff7f0e"), ("iou", "1 − IoU", "#2ca02c"))),
    Panel("teacher's features that the student's do not explain", (("features", "part of variance", "#17becf"),)),
    Panel("agreement with the teacher on held-out pictures: mean IoU", (("val_iou", "IoU", "#d62728"),)),
    Panel("agreement with the teacher on held-out pictures: MAE", (("val_mae", "MAE", "#9467bd"),)),
)


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high]."""
    span = max(high - low, 1e-9)
    power = 10.0
    while power > span:
        power /= 10
    while power * 10 <= span:
        power *= 10
    step = next((power * m / 10 for m in (1, 2, 5, 10, 20, 50) if span / (power * m / 10) <= count), power)
    first = int(low / step) * step
    found = [first + i * step for i in range(count + 3)]
    return [t for t in found if low - 1e-9 <= t <= high + 1e-9]


def _panel(panel: Panel, rows: Sequence[dict[str, str]], top: float) -> list[str]:
    lines = {n: [(int(r["step"]), float(r[n])) for r in rows if r.get(n)] for n, _, _ in panel.columns}
    points = [p for line in lines.values() for p in line]
    if not points:
        return []
    last = max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad
    plot = HEIGHT - TOP - GAP

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / max(last, 1)
        return across, top + TOP + plot * (high - y) / (high - low)

    out = [f'<text x="{LEFT}" y="{top + 20:.0f}" font-size="14" font-weight="600">{escape(panel.title)}</text>']
    for y in _ticks(low, high):
        _, at = place(0, y)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{GRID}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for x in _ticks(0, last):
        at, _ = place(x, low)
        out.append(f'<text x="{at:.1f}" y="{top + HEIGHT - 4:.0f}" text-anchor="middle">{x:.0f}</text>')
    for index, (name, label, colour) in enumerate(panel.columns):
        line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in lines[name])
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if lines[name]:
            x, y = place(*lines[name][-1])
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            legend = f"{escape(label)} {lines[name][-1][1]:.4f}"
            at = WIDTH - RIGHT - 120 * (len(panel.columns) - 1 - index)
            out.append(f'<text x="{at}" y="{top + 20:.0f}" text-anchor="end" fill="{colour}">{legend}</text>')
    return out


def draw_curve(log: Path, picture: Path, title: str) -> None:
    """Write `picture` (SVG) from the CSV at `log`, atomically. Raises `DataError` where the log has no rows."""
    try:
        with log.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("step")]
    except OSError as error:
        raise DataError(f"{log} cannot be read: {error.strerror or error}") from error
    if not rows:
        raise DataError(f"{log} has no rows yet; wait for the first validation, or give another run")
    body = [f'<text x="{LEFT}" y="24" font-size="17" font-weight="700">{escape(title)}</text>']
    top = 34.0
    for panel in PANELS:
        drawn = _panel(panel, rows, top)
        if drawn:
            body += drawn
            top += HEIGHT
    body.append(f'<text x="{WIDTH / 2}" y="{top + 14:.0f}" text-anchor="middle">step</text>')
    height = top + 26
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>'
    )
    write_bytes(picture, (head + "\n".join(body) + "</svg>\n").encode())

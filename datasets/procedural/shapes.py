"""Closed outlines as polygons: float arrays (n, 2) of x to the right and y downwards, in any unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Outline", "capsule", "ellipse", "polygon", "profile", "ring", "smooth", "spline", "superellipse", "tube"]

Outline = npt.NDArray[np.float64]
Points = Sequence[tuple[float, float]] | npt.NDArray[np.float64]


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 48) -> Outline:
    """An ellipse about (x, y), turned by `angle` radians."""
    return superellipse(x, y, rx, ry, 2.0, angle, count)


def superellipse(
    x: float, y: float, rx: float, ry: float, power: float, angle: float = 0.0, count: int = 64
) -> Outline:
    """|u/rx|^power + |v/ry|^power = 1: 2 is an ellipse, 4 and above nearly a rounded rectangle."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    u = rx * np.sign(c) * np.abs(c) ** (2 / power)
    v = ry * np.sign(s) * np.abs(s) ** (2 / power)
    return np.stack((x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)), 1)


def polygon(*points: tuple[float, float]) -> Outline:
    """A polygon with straight sides."""
    return np.asarray(points, np.float64)


def spline(points: Points, count: int = 12, closed: bool = False) -> Outline:
    """A Catmull-Rom curve through `points`, with `count` samples between two of them."""
    p = np.asarray(points, np.float64)
    before, after = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    p = np.concatenate((before, p, after))
    t = (np.arange(count) / count)[None, :, None]
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    q = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = q.reshape(-1, 2)
    return curve if closed else np.concatenate((curve, p[-2:-1]))


def smooth(*points: tuple[float, float]) -> Outline:
    """A closed smooth outline through `points`."""
    return spline(points, closed=True)


def tube(points: Points, widths: Sequence[float], count: int = 10) -> Outline:
    """A smooth limb along `points`, `widths` wide at them, with round ends."""
    p = np.asarray(points, np.float64)
    path = spline(p, count) if len(p) > 2 else p[0] + np.linspace(0, 1, count)[:, None] * (p[-1] - p[0])
    half = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths) / 2
    along = np.gradient(path, axis=0)
    along /= np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-12
    normal = np.stack((-along[:, 1], along[:, 0]), 1)
    left, right = path + normal * half[:, None], path - normal * half[:, None]
    t = np.linspace(0, np.pi, 8)[1:-1, None]
    end = path[-1] + half[-1] * (np.cos(t) * normal[-1] + np.sin(t) * along[-1])
    start = path[0] + half[0] * (-np.cos(t) * normal[0] - np.sin(t) * along[0])
    return np.concatenate((left, end, right[::-1], start))


def capsule(x0: float, y0: float, x1: float, y1: float, w0: float, w1: float | None = None) -> Outline:
    """A straight limb from (x0, y0) to (x1, y1), `w0` and `w1` wide at its ends."""
    return tube(((x0, y0), (x1, y1)), (w0, w0 if w1 is None else w1))


def profile(points: Points) -> Outline:
    """A body of revolution seen from the side: (half width, y) pairs from top to bottom, smoothed and mirrored."""
    right = spline(points, 8)
    return np.concatenate((right, right[::-1] * (-1, 1)))


def ring(x: float, y: float, outer: float, inner: float, squash: float = 1.0) -> tuple[Outline, Outline]:
    """The outlines of a ring: its outside and its hole."""
    return ellipse(x, y, outer, outer * squash, count=64), ellipse(x, y, inner, inner * squash, count=64)

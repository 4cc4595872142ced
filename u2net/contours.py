"""The outline of a matte as polygons, and as an SVG path."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["contours", "simplify", "svg_path"]

Polygon = list[tuple[float, float]]


def contours(mask: npt.NDArray[np.bool_], tolerance: float = 0.0) -> list[Polygon]:
    """Outlines of `mask`, bool (H, W): closed polygons of (x, y) on pixel corners, the last corner not repeated.

    Each runs along the sides of pixels with the mask at its right hand, y pointing down: outer outlines clockwise as
    seen on a screen, holes counter-clockwise; filled by the non-zero or even-odd rule they give the mask again exactly
    (with `tolerance` 0). Where two pixels touch at a corner only, they are kept apart (4-connected). Polygons come in
    order of their first corner, rows before columns; each begins there. Straight runs have no corners inside.
    `tolerance`, in pixels, simplifies further (`simplify`).
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), bool)
    padded[1:-1, 1:-1] = mask
    stride = width + 1
    # Directed sides of pixels, corner to corner: right along tops, down right sides, left along bottoms, up left ones.
    following: dict[int, list[tuple[int, int]]] = {}
    for direction, (neighbour, start, step) in enumerate(
        (
            (padded[:-2, 1:-1], (0, 0), 1),
            (padded[1:-1, 2:], (0, 1), stride),
            (padded[2:, 1:-1], (1, 1), -1),
            (padded[1:-1, :-2], (1, 0), -stride),
        )
    ):
        y, x = np.nonzero(mask & ~neighbour)
        corners = (y + start[0]) * stride + x + start[1]
        for corner in corners.tolist():
            following.setdefault(corner, []).append((direction, corner + step))
    polygons: list[Polygon] = []
    for first in sorted(following):
        while following.get(first):
            polygons.append(_trace(following, first, stride))
    if tolerance > 0:
        polygons = [p for p in (simplify(polygon, tolerance) for polygon in polygons) if len(p) >= 3]
    return polygons


def _trace(following: dict[int, list[tuple[int, int]]], first: int, stride: int) -> Polygon:
    polygon: Polygon = []
    corner, direction = first, -1
    while True:
        ways = following[corner]
        # At a corner that two pixels share, turn right: the outline stays with its own pixel.
        index = next((i for i, (d, _) in enumerate(ways) if d == (direction + 1) % 4), 0) if direction >= 0 else 0
        turned, target = ways.pop(index)
        if turned != direction:
            polygon.append((float(corner % stride), float(corner // stride)))
        corner, direction = target, turned
        if corner == first and not _goes_on(following, first, direction):
            return polygon


def _goes_on(following: dict[int, list[tuple[int, int]]], corner: int, direction: int) -> bool:
    """Whether an outline that comes back to its first corner by `direction` turns right there, into another side."""
    return any(way == (direction + 1) % 4 for way, _ in following[corner])


def simplify(polygon: Polygon, tolerance: float) -> Polygon:
    """Douglas & Peucker (1973) on a closed polygon: corners nearer than `tolerance` to the kept outline are dropped.

    The first corner and the one farthest from it (the first such) are kept and split the outline in two.
    """
    count = len(polygon)
    if count < 4:
        return polygon
    points = np.array([*polygon, polygon[0]])
    far = int(np.argmax(((points[:-1] - points[0]) ** 2).sum(axis=1)))
    keep = {0, far}
    stack = [(0, far), (far, count)]
    while stack:
        low, high = stack.pop()
        if high - low < 2:
            continue
        a, b = points[low], points[high]
        inner = points[low + 1 : high]
        along = b - a
        length = float(np.hypot(*along))
        if length == 0:
            distances = np.hypot(*(inner - a).T)
        else:
            distances = np.abs(along[0] * (inner[:, 1] - a[1]) - along[1] * (inner[:, 0] - a[0])) / length
        farthest = int(np.argmax(distances))
        if distances[farthest] > tolerance:
            middle = low + 1 + farthest
            keep.add(middle)
            stack += [(low, middle), (middle, high)]
    return [polygon[index] for index in sorted(keep)]


def svg_path(polygons: list[Polygon]) -> str:
    """The `d` of an SVG `<path>`, to be filled with `fill-rule="evenodd"`: `M0 0L3 0L3 2ZM…`."""
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in polygon) + "Z" for polygon in polygons)

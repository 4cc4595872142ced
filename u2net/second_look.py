"""Looking again: a map that shows small subjects and wide pictures as well as a close crop would.

The network sees `size` × `size` pixels of whatever it is given, so a small subject, or everybody in a panorama, is a
few of them. This is the specification that every runner follows (`look_twice`). A **look** takes a part of the picture,
through steps 1 to 4 of `preprocess`, to its map (size, size); a **mirrored** look turns the network's input round, left
to right, and its map back. Boxes are (left, top, right, bottom) in picture pixels, right and bottom excluded; they are
reckoned in float64, values in float32. Sampling is bilinear, at half-pixel centres, clamped to the map's edges.

1. **First look.** A picture whose long side is at most `WIDE` times its short side is seen whole. A longer one is seen
   through `windows`, whose maps `merge_windows` joins: the map f, (h, w), of the whole picture.
2. **The box** (`subject_box`) around what f finds. There is no second look where f finds nothing, or where the box has
   `NEARLY_ALL` of the picture's area or more: f is the result.
3. **Second look** at the box: s. With g, (size, size), f sampled over the box (`sample_box`), and agreement(a, b) the
   IoU of a ≥ 0.5 and b ≥ 0.5 (1 where both are empty):

       agreement(g, s) ≥ `SURE`      seen = (2 · s + g) / 3
       otherwise                     seen = (s + m + g) / 3, m a mirrored look at the box

4. **Belief.** Where agreement(g, seen) < `BELIEVED`, two looks see different things, and f is the result.
5. Else `put_back`: f, brought to cells as fine as `seen` has, with `seen` in the box.

The first look keeps a share because each look errs in its own way; the rule was chosen on photographs that are not
those it is reported on (docs/runner.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import numpy.typing as npt

from .preprocess import resize_bilinear

__all__ = [
    "Box",
    "Seen",
    "agreement",
    "look_twice",
    "merge_windows",
    "put_back",
    "sample_box",
    "subject_box",
    "windows",
]

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Positions = npt.NDArray[np.floating]
Box = tuple[int, int, int, int]
Look = Callable[[ByteArray, bool], FloatArray]

WIDE = 2.0  # from there on a picture is seen through windows; squashed twofold, people are still found
WINDOW = 1.5  # a window's long side, of its short side: as photographs have it
MOST_WINDOWS = 16  # a longer strip than 24 : 1 has longer windows, half as many again at most: time stays bounded
FOUND = 0.3  # of the map, from where on it is a find: half-seen parts of a subject belong to it
MARGIN = (
    0.3  # of the find's width and height, on each side: what the first look has missed, and surroundings to compare
)
NEARLY_ALL = 0.9  # of the picture's area: a box that a second look could not see better
SURE = 0.9  # agreement from which a mirrored look would change nothing
BELIEVED = 0.5  # agreement under which the second look sees something else
FINEST = 4  # cells of the result along a side, at most, in sizes of the network: bounds the memory


@dataclass(frozen=True, eq=False)
class Seen:
    """What looking gave: `saliency`, float32 (h, w) in [0, 1], of the whole picture, and how it came about."""

    saliency: FloatArray
    looks: int  # passes of the network
    box: Box | None  # what the second look looked at, where it is believed


def look_twice(rgb: ByteArray, look: Look, size: int) -> Seen:
    """Steps 1 to 5 for a picture, uint8 (H, W, 3); `look(part, mirrored)` gives the map (size, size) of a part."""
    height, width = rgb.shape[:2]
    parts = windows(width, height)
    first = merge_windows([look(_cut(rgb, part), False) for part in parts], parts, width, height)
    box = subject_box(first, width, height)
    if box is None or (box[2] - box[0]) * (box[3] - box[1]) >= NEARLY_ALL * width * height:
        return Seen(first, len(parts), None)
    part = _cut(rgb, box)
    before = sample_box(first, box, width, height, size)
    second = look(part, False)
    looks = len(parts) + 1
    if agreement(before, second) >= SURE:
        seen = (2 * second + before) / np.float32(3)
    else:
        seen = (second + look(part, True) + before) / np.float32(3)
        looks += 1
    if agreement(before, seen) < BELIEVED:
        return Seen(first, looks, None)
    return Seen(put_back(first, seen, box, width, height), looks, box)


def _cut(rgb: ByteArray, box: Box) -> ByteArray:
    left, top, right, bottom = box
    return np.ascontiguousarray(rgb[top:bottom, left:right])


def windows(width: int, height: int) -> list[Box]:
    """The parts that the first look sees, in order: the picture, or n windows along the long side of a wide one.

    side = floor(max(WINDOW · short, long / MOST_WINDOWS) + 0.5); n = 1 + ceil((long − side) / (side · 2 / 3)), so that
    neighbours share a third of a window or more; window i starts at floor(i · (long − side) / (n − 1) + 0.5).
    """
    long, short = max(width, height), min(width, height)
    if long <= WIDE * short:
        return [(0, 0, width, height)]
    side = floor(max(WINDOW * short, long / MOST_WINDOWS) + 0.5)
    count = 1 + ceil((long - side) / (side * 2 / 3))
    starts = [floor(index * (long - side) / (count - 1) + 0.5) for index in range(count)]
    if width >= height:
        return [(start, 0, start + side, height) for start in starts]
    return [(0, start, width, start + side) for start in starts]


def merge_windows(maps: Sequence[FloatArray], parts: Sequence[Box], width: int, height: int) -> FloatArray:
    """One map, float32 (h, w), from those of `windows`, float32 (size, size) each.

    It has `size` cells along the short side and floor(size · long / side + 0.5) along the long one. A cell whose centre
    lies at x of the long side is the mean of the maps of all windows [a, b) with a ≤ x < b, sampled at
    (x − a) · size / (b − a) − 0.5, weighted by min(x − a, b − x): the nearer a window's end, the less it knows.
    """
    if len(parts) == 1:
        return maps[0]
    if height > width:
        turned = [(top, left, bottom, right) for left, top, right, bottom in parts]
        return np.ascontiguousarray(merge_windows([map_.T for map_ in maps], turned, height, width).T)
    size = maps[0].shape[1]
    side = parts[0][2] - parts[0][0]
    cells = floor(size * width / side + 0.5)
    x = (np.arange(cells) + 0.5) * (width / cells)
    total, weights = np.zeros((size, cells), np.float32), np.zeros(cells, np.float32)
    for map_, (start, _, end, _) in zip(maps, parts, strict=True):
        inside = np.flatnonzero((x >= start) & (x < end))
        weight = np.minimum(x[inside] - start, end - x[inside]).astype(np.float32)
        left, right, share = _taps((x[inside] - start) * (size / (end - start)) - 0.5, size)
        total[:, inside] += weight * (map_[:, left] + (map_[:, right] - map_[:, left]) * share)
        weights[inside] += weight
    return np.asarray(total / weights, np.float32)


def subject_box(saliency: FloatArray, width: int, height: int) -> Box | None:
    """The box around all cells ≥ FOUND of a map (h, w), with its margin; None where there are none.

    Columns i to j of w cover [i · W / w, (j + 1) · W / w); MARGIN of that length is added on both sides, and the box is
    the whole pixels that this touches within the picture. Rows alike.
    """
    found = saliency >= np.float32(FOUND)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    if not rows.size:
        return None

    def extent(cells: npt.NDArray[np.intp], count: int, length: int) -> tuple[int, int]:
        low, high = int(cells[0]) * length / count, (int(cells[-1]) + 1) * length / count
        room = MARGIN * (high - low)
        return max(0, floor(low - room)), min(length, ceil(high + room))

    left, right = extent(columns, saliency.shape[1], width)
    top, bottom = extent(rows, saliency.shape[0], height)
    return left, top, right, bottom


def sample_box(saliency: FloatArray, box: Box, width: int, height: int, size: int) -> FloatArray:
    """A map (h, w) of the whole picture sampled over a box: float32 (size, size).

    Column i is sampled at (left + (i + 0.5) · (right − left) / size) · w / W − 0.5. Rows alike.
    """

    def positions(low: int, high: int, cells: int, length: int) -> Positions:
        return (low + (np.arange(size) + 0.5) * ((high - low) / size)) * (cells / length) - 0.5

    left, top, right, bottom = box
    rows, columns = saliency.shape
    return _sampled(saliency, positions(top, bottom, rows, height), positions(left, right, columns, width))


def agreement(a: FloatArray, b: FloatArray) -> float:
    """Intersection over union of a ≥ 0.5 and b ≥ 0.5; 1 where both are empty."""
    first, second = a >= np.float32(0.5), b >= np.float32(0.5)
    either = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / either if either else 1.0


def put_back(saliency: FloatArray, seen: FloatArray, box: Box, width: int, height: int) -> FloatArray:
    """The map of the whole picture, float32, with `seen`, (size, size), in the box.

    It has max(w, min(W, FINEST · size, ceil(size · W / (right − left)))) columns, as fine as `seen` is, with
    `saliency`, (h, w), sampled as `preprocess` resizes; those whose centre x lies within the box take `seen` sampled
    at (x − left) · size / (right − left) − 0.5. Rows alike.
    """
    left, top, right, bottom = box
    size = seen.shape[0]

    def grid(cells: int, low: int, high: int, length: int) -> tuple[int, slice, Positions]:
        count = max(cells, min(length, FINEST * size, ceil(size * length / (high - low))))
        x = (np.arange(count) + 0.5) * (length / count)
        inside = np.flatnonzero((x >= low) & (x < high))
        part = slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)
        return count, part, (x[part] - low) * (size / (high - low)) - 0.5

    rows, row_part, y = grid(saliency.shape[0], top, bottom, height)
    columns, column_part, x = grid(saliency.shape[1], left, right, width)
    out = resize_bilinear(saliency, rows, columns)
    out[row_part, column_part] = _sampled(seen, y, x)
    return out


def _taps(positions: Positions, count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """Left neighbour, right neighbour and the right one's share, of positions among `count` cells."""
    positions = np.clip(positions, 0.0, count - 1.0)
    left = np.floor(positions).astype(np.intp)
    return left, np.minimum(left + 1, count - 1), (positions - left).astype(np.float32)


def _sampled(map_: FloatArray, y: Positions, x: Positions) -> FloatArray:
    left, right, wx = _taps(x, map_.shape[1])
    top, bottom, wy = _taps(y, map_.shape[0])
    upper = map_[top][:, left] + (map_[top][:, right] - map_[top][:, left]) * wx
    lower = map_[bottom][:, left] + (map_[bottom][:, right] - map_[bottom][:, left]) * wx
    return np.asarray(upper + (lower - upper) * wy[:, None], np.float32)

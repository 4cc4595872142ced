"""Planes of numbers from one grid to another, and means over windows: what the steps of `postprocess` are made of.

Whole pictures are worked on in bands of rows, so that memory stays bounded.

**Working grid**: k = max(1, floor(max(H, W) / `working_side` + 0.5)); the picture is box-reduced by k as in step 1 of
`preprocess` (h = ceil(H / k), w = ceil(W / k), means rounded half up); working pixel (x, y) covers picture pixels from
(k·x, k·y) on, and what is sampled at picture pixel (X, Y) is taken bilinearly at
((X + 0.5) / k − 0.5, (Y + 0.5) / k − 0.5), clamped.

**Box mean** of radius r: the mean over the (2r + 1)² window around a pixel, over those of its pixels that lie inside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from .preprocess import bilinear_taps

__all__ = [
    "TILE_COLUMNS",
    "Upsampler",
    "bands_of",
    "box_mean",
    "box_reduce",
    "cell_means",
    "cell_means_columns",
    "tiles_of",
    "to_alpha",
    "working_factor",
]

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]

BAND_PIXELS = 1 << 17  # bands and, where little is to do, tiles of them: small enough for the processor's cache
TILE_COLUMNS = 128


class Upsampler:
    """Bilinear resize of planes (C, h, w) to rows of (C, H, W), as they are asked for."""

    def __init__(self, planes: FloatArray, height: int, width: int, steps: tuple[float, float] | None = None) -> None:
        _, source_height, source_width = planes.shape
        step_y, step_x = steps if steps is not None else (source_height / height, source_width / width)
        self.planes = planes
        self.left, self.right, self.wx = bilinear_taps(source_width, width, step_x)
        self.top, self.bottom, self.wy = bilinear_taps(source_height, height, step_y)

    def rows(self, band: slice, columns: slice = slice(None), planes: slice = slice(None)) -> FloatArray:
        """float32 (planes, rows of `band`, columns)."""
        top, bottom = self.top[band], self.bottom[band]
        first, last = int(top[0]), int(bottom[-1]) + 1
        source = self.planes[planes, first:last]
        lines = source[:, :, self.left[columns]]
        lines += (source[:, :, self.right[columns]] - lines) * self.wx[columns]
        upper = lines[:, top - first]
        lower = lines[:, bottom - first]
        lower -= upper
        lower *= self.wy[band, None]
        upper += lower
        return upper


def bands_of(height: int, width: int) -> Iterator[slice]:
    """Bands of rows of a picture, from top to bottom, small enough for a dozen float32 copies."""
    rows = max(1, BAND_PIXELS // width)
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def tiles_of(wanted: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """Columns of a band, in tiles, of those tiles where anything is wanted."""
    width = wanted.shape[1]
    for tile in np.unique(np.flatnonzero(wanted.any(axis=0)) // TILE_COLUMNS).tolist():
        yield slice(tile * TILE_COLUMNS, min((tile + 1) * TILE_COLUMNS, width))


def to_alpha(values: FloatArray) -> ByteArray:
    """[0, 1] to 8 bits: floor(255 · v + 0.5), clipped."""
    return np.clip(values * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)


def box_mean(planes: FloatArray, radius: int) -> FloatArray:
    """Box mean of (C, h, w), float32 or float64 as the input, windows cut at the borders. O(log radius) a pixel."""
    _, height, width = planes.shape
    share = 1 / (_window_counts(height, radius)[:, None] * _window_counts(width, radius))
    share = share.astype(planes.dtype)
    padded = np.zeros((height + 2 * radius, width + 2 * radius), planes.dtype)
    out = np.empty_like(planes)
    for plane, mean in zip(planes, out, strict=True):  # one plane at a time stays in the processor's cache
        padded[radius : radius + height, radius : radius + width] = plane
        rows = _window_sums(padded, radius, height)
        np.multiply(_window_sums(rows.T, radius, width).T, share, out=mean)
    return out


def _window_counts(length: int, radius: int) -> npt.NDArray[np.int64]:
    at = np.arange(length)
    return np.minimum(at + radius + 1, length) - np.maximum(at - radius, 0)


def _window_sums(lines: FloatArray, radius: int, count: int) -> FloatArray:
    """Sums of 2 · radius + 1 lines from each of the first `count` on, of sums of 1, 2, 4, … lines."""
    window, size, start = 2 * radius + 1, 1, 0
    total: FloatArray | None = None
    while True:
        if window & size:
            part = lines[start : start + count]
            total = part if total is None else total + part
            start += size
        if 2 * size > window:
            assert total is not None
            return total
        lines = lines[:-size] + lines[size:]
        size *= 2


def working_factor(height: int, width: int, working_side: int) -> int:
    """k of the working grid."""
    return max(1, int(max(height, width) / working_side + 0.5))


def box_reduce(pixels: ByteArray, k: int) -> ByteArray:
    if k == 1:
        return pixels
    height, width = pixels.shape[:2]
    rows = k * max(1, BAND_PIXELS // (k * width))  # Pillow's copy of a whole picture has four bytes a pixel
    bands = (np.ascontiguousarray(pixels[top : top + rows]) for top in range(0, height, rows))
    return np.concatenate([np.asarray(Image.fromarray(band).reduce(k)) for band in bands])


def cell_means(planes: FloatArray, rows: int, columns: int, steps: tuple[float, float]) -> FloatArray:
    """float32 (C, rows, columns): means of (C, h, w) over cells of `steps` (height, width), the first from (0, 0) on.

    Pixels that a cell covers in part count with that part; what a cell has beyond the planes' edge does not count.
    """
    down = cell_means_columns(planes.transpose(1, 0, 2), rows, steps[0])
    return cell_means_columns(down.transpose(2, 1, 0), columns, steps[1]).transpose(1, 2, 0).astype(np.float32)


def cell_means_columns(lines: npt.NDArray[np.floating], count: int, step: float) -> DoubleArray:
    length = lines.shape[0]
    sums = np.zeros((length + 1, *lines.shape[1:]))
    np.cumsum(lines, axis=0, out=sums[1:], dtype=np.float64)
    edges = np.minimum(np.arange(count + 1) * step, length)
    left = np.minimum(np.floor(edges).astype(np.intp), length - 1)
    at = sums[left] + (sums[left + 1] - sums[left]) * (edges - left).reshape(-1, *(1,) * (lines.ndim - 1))
    return np.asarray(np.diff(at, axis=0) / np.diff(edges).reshape(-1, *(1,) * (lines.ndim - 1)))

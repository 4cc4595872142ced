"""From the network's map to a matte at the picture's full resolution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .preprocess import _taps

__all__ = ["to_alpha", "upsample_bands", "upsample_map"]

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

_BAND_PIXELS = 1 << 20  # working memory of one band: a few float32 copies of it


def upsample_bands(saliency: FloatArray, height: int, width: int) -> Iterator[tuple[slice, FloatArray]]:
    """The way back of `preprocess`, in bands of rows: (rows, float32 (rows, width)) from top to bottom.

    Identical to `preprocess.resize_bilinear(saliency, height, width)`, in bounded memory.
    """
    source_height, source_width = saliency.shape
    left, right, wx = _taps(source_width, width, source_width / width)
    top, bottom, wy = _taps(source_height, height, source_height / height)
    lines = saliency[:, left]  # every source row, resized horizontally once
    lines += (saliency[:, right] - lines) * wx
    rows = max(1, _BAND_PIXELS // width)
    for start in range(0, height, rows):
        band = slice(start, min(start + rows, height))
        upper = lines[top[band]]
        lower = lines[bottom[band]]
        lower -= upper
        lower *= wy[band, None]
        upper += lower
        yield band, upper


def upsample_map(saliency: FloatArray, height: int, width: int) -> FloatArray:
    """float32 (h, w) to float32 (height, width), bilinear with half-pixel centres."""
    out = np.empty((height, width), np.float32)
    for band, values in upsample_bands(saliency, height, width):
        out[band] = values
    return out


def to_alpha(values: FloatArray) -> ByteArray:
    """[0, 1] to 8 bits: floor(255 · v + 0.5), clipped."""
    return np.clip(values * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)

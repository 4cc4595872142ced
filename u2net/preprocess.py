"""Pixels in: the one specification of how a picture becomes the network's input, followed by every runner.

Version 1. Given the decoded picture as 8-bit sRGB (H, W, 3), orientation applied, alpha flattened:

1. **Box reduction** of large pictures. kx = max(1, W // (2 · size)), ky = max(1, H // (2 · size)). Each kx×ky block of
   pixels becomes its mean, rounded to the nearest integer, half up; blocks at the right and bottom edges average the
   pixels that they have. Pictures under four times the network's size are left alone, as the authors' weights expect
   (any smoothing measurably changes their masks); larger ones do not turn into sensor noise.
2. **Bilinear resize** to size×size, not antialiased, in float32: output pixel (x, y) samples the reduced picture at
   ((x + 0.5) · W / (size · kx) − 0.5, (y + 0.5) · H / (size · ky) − 0.5), clamped to its edges. This is
   `align_corners=False` in PyTorch and `half_pixel` in ONNX.
3. **Normalisation**: v / max(v), the maximum over the whole resized picture (1 if it is all black), then
   (v − mean) / std per channel with the ImageNet constants below.
4. **Layout**: float32 (1, 3, size, size), RGB.

The way back: the map (size, size) in [0, 1] is resized to (H, W) with the same bilinear rule, without the box
reduction, in float32; alpha in 8 bits is floor(255 · v + 0.5). Min-max stretching of the map, which the authors
apply for display, turns noise into subjects on empty scenes and is off unless asked for.

A graph may take pictures of another height than width: `size` is then its height in what is said of rows, its width in
what is said of columns.

Graphs with the `image` interface do steps 3 and 4 inside: they take uint8 (1, size, size, 4) RGBA, whose values are
those of step 2 rounded to the nearest integer, half up, and ignore A.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = [
    "MEAN",
    "STD",
    "Size",
    "bilinear_taps",
    "min_max",
    "network_input",
    "normalise",
    "read_size",
    "resize_bilinear",
    "resize_for_network",
    "sides",
    "to_pixels",
    "to_tensor",
    "write_size",
]

SPECIFICATION_VERSION = 1
MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB
STD = (0.229, 0.224, 0.225)

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
Size = int | tuple[int, int]  # of a network's picture in pixels: the side of a square, or (height, width)


def sides(size: Size) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int) else size


def read_size(text: str) -> Size | None:
    """What `320` or `256x320` (height × width) says; None where it is neither."""
    found = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text, re.ASCII)
    if found is None:
        return None
    height, width = int(found[1]), int(found[2] or found[1])
    return height if height == width else (height, width)


def write_size(size: Size) -> str:
    """`320`, or `256x320` (height × width)."""
    height, width = sides(size)
    return str(height) if height == width else f"{height}x{width}"


def bilinear_taps(
    source: int, target: int, step: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """For each of `target` samples `step` source pixels apart: left neighbour, right neighbour, weight of the right."""
    position = (np.arange(target, dtype=np.float64) + 0.5) * step - 0.5
    position = np.clip(position, 0.0, source - 1.0)
    left = np.floor(position).astype(np.intp)
    right = np.minimum(left + 1, source - 1)
    return left, right, (position - left).astype(np.float32)


def resize_bilinear(
    picture: npt.NDArray[np.generic], height: int, width: int, steps: tuple[float, float] | None = None
) -> FloatArray:
    """Bilinear resize without antialiasing, half-pixel centres, of (H, W) or (H, W, C) to float32 (height, width[, C]).

    `steps` are the vertical and horizontal distances between samples in source pixels; by default H / height and
    W / width.
    """
    source_height, source_width = picture.shape[:2]
    step_y, step_x = steps if steps is not None else (source_height / height, source_width / width)
    top, bottom, wy = bilinear_taps(source_height, height, step_y)
    left, right, wx = bilinear_taps(source_width, width, step_x)
    trailing = (1,) * (picture.ndim - 2)
    wy = wy.reshape(-1, 1, *trailing)
    wx = wx.reshape(1, -1, *trailing)

    def row(index: npt.NDArray[np.intp]) -> FloatArray:
        lines = picture[index]
        a = lines[:, left].astype(np.float32)
        b = lines[:, right].astype(np.float32)
        b -= a
        b *= wx
        a += b
        return a

    upper = row(top)
    lower = row(bottom)
    lower -= upper
    lower *= wy
    upper += lower
    return upper


def resize_for_network(rgb: ByteArray, size: Size) -> FloatArray:
    """Steps 1 and 2: uint8 (H, W, 3) to float32 (height, width, 3) in [0, 255]."""
    height, width = rgb.shape[:2]
    rows, columns = sides(size)
    kx, ky = max(1, width // (2 * columns)), max(1, height // (2 * rows))
    if kx > 1 or ky > 1:
        rgb = np.asarray(Image.fromarray(rgb).reduce((kx, ky)))
    return resize_bilinear(rgb, rows, columns, (height / (rows * ky), width / (columns * kx)))


def normalise(picture: FloatArray) -> FloatArray:
    """Steps 3 and 4: float32 (size, size, 3), any range from 0 up, to float32 (1, 3, size, size)."""
    peak = np.float32(picture.max()) or np.float32(1.0)
    scaled = (picture / peak - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)


def to_tensor(rgb: ByteArray, size: Size) -> FloatArray:
    """Steps 1 to 4: uint8 (H, W, 3) to float32 (1, 3, size, size)."""
    return normalise(resize_for_network(rgb, size))


def to_pixels(picture: FloatArray) -> ByteArray:
    """Step 2's float32 (size, size, 3) in [0, 255] as the `image` interface takes it: uint8 (1, size, size, 4)."""
    height, width, _ = picture.shape
    pixels = np.full((1, height, width, 4), 255, np.uint8)
    pixels[0, :, :, :3] = np.clip(np.floor(picture + np.float32(0.5)), 0, 255)
    return pixels


def network_input(rgb: ByteArray, size: Size, interface: str) -> FloatArray | ByteArray:
    """What a network takes for a picture, uint8 (H, W, 3).

    float32 (1, 3, size, size) for the `tensor` interface, uint8 (1, size, size, 4) for `image`.
    """
    picture = resize_for_network(rgb, size)
    return normalise(picture) if interface == "tensor" else to_pixels(picture)


def min_max(saliency: FloatArray) -> FloatArray:
    """Stretch a map linearly to [0, 1], as the authors do for display. A constant map is returned as it is."""
    low, high = float(saliency.min()), float(saliency.max())
    if high <= low:
        return saliency
    return ((saliency - low) / (high - low)).astype(np.float32)

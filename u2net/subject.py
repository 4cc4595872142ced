"""What a matte shows: whether there is a subject, where it is, and the cut to it. The browser package does the same.

A subject is **found** where at least `LEAST_AREA` of the picture is subject (the mean of the matte) and some pixel is
at least half subject; its **box** is the smallest around all those pixels. A **crop** leaves floor(margin · longer side
of the box + 0.5) pixels around the box, as far as the picture goes; a **square** one has the longer side and twice
that, the box in its middle (rounded down), and is transparent where it reaches beyond the picture.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import floor
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_doc import Doc

from .errors import ConfigError

__all__ = ["Box", "CropSettings", "Subject", "crop_box", "crop_pixels", "find_subject"]

ByteArray = npt.NDArray[np.uint8]

HALF = 128
LEAST_AREA = 0.001  # of the picture: a subject of 30 × 30 pixels in a megapixel


@dataclass(frozen=True)
class Box:
    """Pixels; `x` and `y` may be negative for a square crop at the picture's edge."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Subject:
    """What `find_subject` finds. `area`: the mean of the matte, 0 to 1; `box`: None where nothing is half subject."""

    found: bool
    box: Box | None
    area: float

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the log."""
        return asdict(self) | {"area": round(self.area, 6)}


@dataclass(frozen=True)
class CropSettings:
    """How a cut-out is cut to its subject."""

    crop: Annotated[bool, Doc("cut the picture to the subject")] = False  # the cut-out lies where it lay
    margin: Annotated[float, Doc("left around the subject by --crop, of its longer side")] = 0.05  # as shops leave
    square: Annotated[bool, Doc("cut to a square around the subject")] = False  # the subject's own shape

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise ConfigError(f"the margin must be 0 to 1, got {self.margin:g}")


def find_subject(alpha: ByteArray) -> Subject:
    """The subject of a matte, uint8 (H, W)."""
    half = alpha >= HALF
    rows, columns = np.flatnonzero(half.any(axis=1)), np.flatnonzero(half.any(axis=0))
    area = float(alpha.mean(dtype=np.float64)) / 255
    if not rows.size:
        return Subject(False, None, area)
    left, top = int(columns[0]), int(rows[0])
    box = Box(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)
    return Subject(area >= LEAST_AREA, box, area)


def crop_box(box: Box, height: int, width: int, margin: float, square: bool) -> Box:
    """The part of a picture of `height` × `width` pixels to keep around a subject's box."""
    room = floor(margin * max(box.width, box.height) + 0.5)
    if square:
        side = max(box.width, box.height) + 2 * room
        return Box(box.x - (side - box.width) // 2, box.y - (side - box.height) // 2, side, side)
    x, y = max(0, box.x - room), max(0, box.y - room)
    return Box(x, y, min(width, box.x + box.width + room) - x, min(height, box.y + box.height + room) - y)


def crop_pixels(pixels: ByteArray, part: Box) -> ByteArray:
    """`part` of uint8 (H, W) or (H, W, C) pixels, 0 outside the picture."""
    height, width = pixels.shape[:2]
    out = np.zeros((part.height, part.width, *pixels.shape[2:]), np.uint8)
    left, top = max(0, part.x), max(0, part.y)
    right, bottom = min(width, part.x + part.width), min(height, part.y + part.height)
    out[top - part.y : bottom - part.y, left - part.x : right - part.x] = pixels[top:bottom, left:right]
    return out

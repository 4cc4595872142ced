"""A soft shadow under a cut-out, as CSS's `drop-shadow` draws it.

It is the matte, moved down and blurred, in black: with a the matte and r the longer side of the subject's box, both
lengths in pixels, 8-bit values taken as [0, 1],

    s = opacity · G(a moved down by floor(drop · r + 0.5)), G a Gaussian of standard deviation blur · r
    o = a + s · (1 − a)               the alpha of both
    colour · a / o                    their colour: the shadow's is black

8 bits are floor(255 · v + 0.5). G is Pillow's `GaussianBlur`, three box means, which clamps at the picture's edges.

The shadow that the subject throws in the photograph is not kept: the network tells subject from background, not a
shadow from what it falls on.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_doc import Doc
from PIL import Image, ImageFilter

from .errors import ConfigError

__all__ = ["ShadowSettings", "cast_shadow"]

ByteArray = npt.NDArray[np.uint8]

_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class ShadowSettings:
    """The shadow that is drawn. Drop and blur together stay within the margin that `--crop` leaves."""

    shadow: Annotated[bool, Doc("draw a soft shadow under the cut-out")] = False  # nothing that was not in the picture
    shadow_opacity: Annotated[float, Doc("of the shadow, 0 to 1")] = 0.4  # dark enough to stand on white
    shadow_blur: Annotated[float, Doc("softness of the shadow, of the subject's longer side")] = 0.015  # a close ground
    shadow_drop: Annotated[float, Doc("how far the shadow lies below, of the longer side")] = 0.015  # light from above

    def __post_init__(self) -> None:
        for name, high in (("shadow_opacity", 1), ("shadow_blur", 0.5), ("shadow_drop", 1)):
            if not 0 <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be 0 to {high}, got {getattr(self, name):g}")


def cast_shadow(
    rgb: ByteArray, alpha: ByteArray, longer_side: int, settings: ShadowSettings
) -> tuple[ByteArray, ByteArray]:
    """A cut-out, uint8 (H, W, 3) and (H, W), with its shadow: the same again. `longer_side` is the subject's box's."""
    height, width = alpha.shape
    drop = min(height, floor(settings.shadow_drop * longer_side + 0.5))
    moved = np.zeros_like(alpha)
    moved[drop:] = alpha[: height - drop]
    blurred = Image.fromarray(moved).filter(ImageFilter.GaussianBlur(settings.shadow_blur * longer_side))
    shade = np.asarray(blurred)
    out, both = np.empty_like(rgb), np.empty_like(alpha)
    rows = max(1, _BAND_PIXELS // width)  # bands bound the memory
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        a = alpha[band] / np.float32(255)
        o = a + shade[band] * np.float32(settings.shadow_opacity / 255) * (1 - a)
        both[band] = o * 255 + np.float32(0.5)
        share = a / np.maximum(o, np.float32(1e-6))
        out[band] = rgb[band] * share[:, :, None] + np.float32(0.5)
        np.copyto(out[band], 0, where=(both[band] == 0)[:, :, None])
    return out, both

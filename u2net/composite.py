"""A cut-out in front of something: a colour, a picture, or nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from .decode import DecodeLimits, load_image
from .errors import ConfigError

__all__ = ["Background", "composite", "parse_background"]

ByteArray = npt.NDArray[np.uint8]

_HEX = re.compile(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class Background:
    """What lies behind a cut-out: a colour, or a picture that is scaled and cropped to cover it."""

    colour: tuple[int, int, int] = (255, 255, 255)
    picture: ByteArray | None = None  # uint8 (h, w, 3)

    def pixels(self, height: int, width: int) -> ByteArray:
        """uint8 (height, width, 3), or (1, 1, 3) where one colour is all there is."""
        if self.picture is None:
            return np.array(self.colour, np.uint8).reshape(1, 1, 3)
        image = Image.fromarray(self.picture)
        return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))


def parse_background(text: str, limits: DecodeLimits | None = None) -> Background | None:
    """`transparent` (None), a colour `#rgb` or `#rrggbb`, `white`, `black`, or the path of a picture.

    Raises `ConfigError` where it is none of these and `ImageError` where the picture cannot be decoded.
    """
    named = {"white": (255, 255, 255), "black": (0, 0, 0)}
    if text == "transparent":
        return None
    if text in named:
        return Background(named[text])
    match = _HEX.fullmatch(text)
    if match and (text.startswith("#") or not Path(text).exists()):
        digits = match[1] if len(match[1]) == 6 else "".join(2 * c for c in match[1])
        return Background((int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)))
    if not text or "\0" in text or not Path(text).exists():
        raise ConfigError(f"background {text!r} is neither 'transparent', a colour like #ff8800, nor a picture")
    return Background(picture=load_image(text, limits).flattened(255))


def composite(rgb: ByteArray, alpha: ByteArray, background: Background) -> ByteArray:
    """uint8 (H, W, 3): floor((rgb · a + background · (255 − a) + 127) / 255), in 8-bit sRGB, as browsers do."""
    height, width = alpha.shape
    behind = background.pixels(height, width)
    out = np.empty_like(rgb)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        a = alpha[band, :, None].astype(np.uint16)
        back = behind if behind.shape[0] == 1 and behind.shape[1] == 1 else behind[band]
        value = rgb[band] * a + back * (255 - a) + 127  # at most 255² + 127, which uint16 holds
        out[band] = (value // 255).astype(np.uint8)
    return out

"""A cut-out in front of something: a colour, a picture, or nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps

from .decode import DecodeLimits, load_image
from .errors import ConfigError

__all__ = ["Background", "composite", "parse_background", "parse_colour"]

ByteArray = npt.NDArray[np.uint8]

_BARE_HEX = re.compile(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}")
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class Background:
    """What lies behind a cut-out: a colour, or a picture that is scaled and cropped to cover it."""

    colour: tuple[int, int, int] = (255, 255, 255)
    opacity: int = 255  # of the colour: under 255 the result keeps some transparency
    picture: ByteArray | None = None  # uint8 (h, w, 3)

    def pixels(self, height: int, width: int) -> ByteArray:
        """uint8 (height, width, 3), or (1, 1, 3) where one colour is all there is."""
        if self.picture is None:
            return np.array(self.colour, np.uint8).reshape(1, 1, 3)
        image = Image.fromarray(self.picture)
        return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))


def parse_colour(text: str) -> tuple[int, int, int, int] | None:
    """A colour as CSS writes it (`tomato`, `#f80`, `#ff880080`, `rgb(…)`, `hsl(…)`), RGBA in 8 bits; None if none.

    Hexadecimal digits may go without their `#` where no file has that name.
    """
    if _BARE_HEX.fullmatch(text) and not Path(text).exists():
        text = f"#{text}"
    try:
        red, green, blue, *rest = ImageColor.getrgb(text)
    except ValueError:
        return None
    return red, green, blue, rest[0] if rest else 255


def parse_background(text: str, limits: DecodeLimits | None = None) -> Background | None:
    """`transparent` (None), a colour (`parse_colour`), or the path of a picture.

    Raises `ConfigError` where it is none of these and `ImageError` where the picture cannot be decoded.
    """
    if text == "transparent":
        return None
    colour = parse_colour(text)
    if colour is not None:
        return Background(colour[:3], colour[3]) if colour[3] else None
    if not text or "\0" in text or not Path(text).exists():
        raise ConfigError(f"background {text!r} is neither 'transparent', a colour like #ff8800, nor a picture")
    return Background(picture=load_image(text, limits).flattened(255))


def composite(rgb: ByteArray, alpha: ByteArray, background: Background) -> ByteArray:
    """uint8 (H, W, 3): floor((rgb · a + background · (255 − a) + 127) / 255), in 8-bit sRGB, as browsers do.

    In front of a colour of less than full opacity b, uint8 (H, W, 4), not premultiplied: with a and b in [0, 1] the
    result's alpha is o = a + b · (1 − a), its colour (rgb · a + background · b · (1 − a)) / o, rounded half up.
    """
    height, width = alpha.shape
    behind = background.pixels(height, width)
    rows = max(1, _BAND_PIXELS // width)
    if background.picture is None and background.opacity < 255:
        both = np.empty((height, width, 4), np.uint8)
        for top in range(0, height, rows):
            band = slice(top, top + rows)
            front = alpha[band, :, None] / np.float32(255)
            back = (1 - front) * np.float32(background.opacity / 255)
            total = front + back
            both[band, :, :3] = (rgb[band] * front + behind * back) / total + np.float32(0.5)
            both[band, :, 3:] = total * 255 + np.float32(0.5)
        return both
    out = np.empty_like(rgb)
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        a = alpha[band, :, None].astype(np.uint16)
        behind_band = behind if behind.shape[0] == 1 and behind.shape[1] == 1 else behind[band]
        value = rgb[band] * a + behind_band * (255 - a) + 127  # at most 255² + 127, which uint16 holds
        out[band] = (value // 255).astype(np.uint8)
    return out

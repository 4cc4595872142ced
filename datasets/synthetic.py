"""A procedural set: seeded pictures with exact alpha mattes, for calibrating and testing where there are no photographs.

Scene i of seed s is the same whatever the count. Its picture is exactly
`floor(foreground · alpha + background · (1 − alpha) + 0.5)`, with alpha a multiple of 1/255.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from u2net.errors import ConfigError

__all__ = ["Scene", "SyntheticSet"]

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
DEFAULT_SIZE = (480, 360)  # width, height: a little above the network's 320, as small photographs are


@dataclass(frozen=True, eq=False)
class Scene:
    """One procedural picture. All arrays share height H and width W.

    `rgb`, `foreground`, `background` are uint8 (H, W, 3) sRGB; `alpha` is float32 (H, W), multiples of 1/255. `tags`
    says what is in it ("hair", "translucent", "hard", …).
    """

    seed: int
    index: int
    rgb: ByteArray
    alpha: FloatArray
    foreground: ByteArray
    background: ByteArray
    tags: tuple[str, ...]


class SyntheticSet(Sequence[Scene]):
    """`count` procedural scenes of `size` (width, height), made when they are asked for.

    Raises `ConfigError` on a count below 1 or a size below 32.
    """

    def __init__(self, count: int, seed: int = 0, size: tuple[int, int] = DEFAULT_SIZE) -> None:
        if count < 1 or seed < 0 or min(size) < 32:
            raise ConfigError(f"no procedural set of {count} scenes, seed {seed}, size {size[0]}×{size[1]}")
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Scene, ...]: ...
    def __getitem__(self, index: int | slice) -> Scene | tuple[Scene, ...]:
        chosen = range(self.count)[index]
        if isinstance(chosen, range):
            return tuple(make_scene(self.seed, i, self.size) for i in chosen)
        return make_scene(self.seed, chosen, self.size)

    def __iter__(self) -> Iterator[Scene]:
        return (make_scene(self.seed, index, self.size) for index in range(self.count))


def _noise(rng: np.random.Generator, width: int, height: int, power: float = 1.0) -> FloatArray:
    """Noise with a 1/f^power amplitude spectrum, mean 0, standard deviation 1, as a sum of octaves."""
    total = np.zeros((height, width), np.float32)
    cells = 2
    while cells <= max(width, height):
        grid = rng.standard_normal((max(2, cells * height // width), cells), np.float32)
        octave = np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
        total += octave * np.float32(cells**-power)
        cells *= 2
    total -= total.mean()
    return total / np.float32(total.std() + 1e-6)


def make_scene(seed: int, index: int, size: tuple[int, int]) -> Scene:
    """Scene `index` of `seed` at `size` (width, height)."""
    rng = np.random.default_rng((seed, index))
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = x / width, y / height
    base, other = rng.uniform(30, 230, (2, 3)).astype(np.float32)
    t = np.clip(v + 0.15 * _noise(rng, width, height), 0, 1)[..., None]
    background = base * (1 - t) + other * t + 18 * _noise(rng, width, height)[..., None]
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = 0.3 + sum(rng.normal(0, 0.05 / k) * np.cos(k * angles + rng.uniform(0, 6.28)) for k in range(1, 7))
    cx, cy = rng.uniform(0.35, 0.65, 2)
    scale = 3
    points = [
        (float((cx * width + r * height * np.cos(a)) * scale), float((cy * height + r * height * np.sin(a)) * scale))
        for a, r in zip(angles, radius, strict=True)
    ]
    mask = Image.new("L", (width * scale, height * scale))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    alpha8 = np.asarray(mask.reduce(scale).filter(ImageFilter.BoxBlur(0.5)))
    colour = rng.uniform(20, 240, 3).astype(np.float32)
    light = 0.75 - 0.5 * (u - cx) - 0.6 * (v - cy) + 0.08 * _noise(rng, width, height)
    foreground = colour * light[..., None]
    return _compose(seed, index, foreground, background, alpha8, ("hard",))


def _compose(
    seed: int, index: int, foreground: FloatArray, background: FloatArray, alpha8: ByteArray, tags: tuple[str, ...]
) -> Scene:
    fg = np.clip(foreground + 0.5, 0, 255).astype(np.uint8)
    bg = np.clip(background + 0.5, 0, 255).astype(np.uint8)
    a = alpha8.astype(np.float32)[..., None]
    rgb = np.floor((fg * a + bg * (255 - a)) / 255 + np.float32(0.5)).astype(np.uint8)
    return Scene(seed, index, rgb, alpha8.astype(np.float32) / np.float32(255), fg, bg, tags)

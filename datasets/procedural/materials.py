"""Colours and surface textures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .noise import FloatArray, Size, fractal

__all__ = ["PATTERNS", "Material", "hsv", "material", "paint"]

#: Colour families: hue range in turns, saturation range, value range.
FAMILIES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "any": ((0.0, 1.0), (0.05, 0.95), (0.2, 1.0)),
    "vivid": ((0.0, 1.0), (0.5, 1.0), (0.6, 1.0)),
    "skin": ((0.035, 0.085), (0.22, 0.55), (0.45, 1.0)),
    "hair": ((0.03, 0.12), (0.2, 0.75), (0.05, 0.65)),
    "fur": ((0.04, 0.12), (0.05, 0.6), (0.2, 1.0)),
    "leaf": ((0.18, 0.38), (0.35, 0.9), (0.2, 0.7)),
    "wood": ((0.04, 0.1), (0.3, 0.75), (0.2, 0.75)),
    "dark": ((0.0, 1.0), (0.0, 0.5), (0.06, 0.28)),
    "light": ((0.0, 1.0), (0.0, 0.15), (0.8, 1.0)),
    "metal": ((0.55, 0.65), (0.0, 0.15), (0.35, 0.85)),
    "warm": ((-0.05, 0.16), (0.6, 1.0), (0.6, 1.0)),
    "cloth": ((0.0, 1.0), (0.1, 0.85), (0.1, 0.95)),
    "glass": ((0.4, 0.65), (0.03, 0.35), (0.65, 1.0)),
    "earth": ((0.03, 0.16), (0.15, 0.6), (0.2, 0.75)),
    "sky": ((0.52, 0.63), (0.05, 0.7), (0.7, 1.0)),
}
PATTERNS = ("plain", "grain", "stripes", "spots", "checks", "weave", "fur", "wood")


@dataclass(frozen=True)
class Material:
    """How a surface looks: two sRGB colours in [0, 255], the pattern that mixes them, and its gloss in [0, 1]."""

    colour: tuple[float, float, float]
    second: tuple[float, float, float]
    pattern: str = "plain"
    scale: float = 0.1  # size of the pattern's cells in subject heights
    gloss: float = 0.1
    roughness: float = 0.08  # depth of the fine 1/f texture, relative to the colour
    angle: float = 0.0  # radians


def hsv(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """sRGB in [0, 255] of a hue in turns, a saturation and a value in [0, 1]."""
    channels = []
    for offset in (5, 3, 1):
        k = (offset + hue * 6) % 6
        channels.append(255 * (value - value * saturation * max(0.0, min(k, 4 - k, 1.0))))
    return channels[0], channels[1], channels[2]


def colour(rng: np.random.Generator, family: str) -> tuple[float, float, float]:
    """A random colour of `family`."""
    hue, (dull, pure), (dark, bright) = FAMILIES[family]
    # Pale colours are commoner than pure ones; `vivid` and `warm` start high and stay so.
    saturation = dull + (pure - dull) * rng.random() ** 1.4
    return hsv(float(rng.uniform(*hue)), float(saturation), float(dark + (bright - dark) * rng.random() ** 0.8))


def material(
    rng: np.random.Generator,
    family: str = "any",
    patterns: tuple[str, ...] = ("plain", "grain"),
    gloss: tuple[float, float] = (0.0, 0.35),
) -> Material:
    """A random material of a colour family with one of `patterns`."""
    first = colour(rng, family)
    other = colour(rng, family if rng.random() < 0.5 or family in ("skin", "hair", "fur", "leaf") else "any")
    contrast = float(rng.uniform(0.25, 1.0))  # most patterns are tone in tone
    r, g, b = (a + contrast * (z - a) for a, z in zip(first, other, strict=True))
    return Material(
        first,
        (r, g, b),
        patterns[int(rng.integers(len(patterns)))],
        scale=float(rng.uniform(0.03, 0.14)),
        gloss=float(rng.uniform(*gloss)),
        roughness=float(0.02 + 0.13 * rng.random() ** 2),
        angle=float(rng.uniform(0, np.pi)),
    )


def paint(rng: np.random.Generator, what: Material, size: Size, unit: float) -> FloatArray:
    """The unlit surface (H, W, 3) in [0, 255]; `unit` is a subject height in pixels."""
    first = np.asarray(what.colour, np.float32)
    mix = None if what.pattern == "plain" else _pattern(rng, what, size, unit)
    texture = fractal(rng, size, 1.15)
    lit = np.float32(1) + np.float32(what.roughness) * texture
    if mix is None:
        return first * lit[..., None]
    second = np.asarray(what.second, np.float32)
    blended = first + (second - first) * mix[..., None]
    return blended * lit[..., None]


def _pattern(rng: np.random.Generator, what: Material, size: Size, unit: float) -> FloatArray:
    """How much of the second colour shows, (H, W) in [0, 1]."""
    width, height = size
    cell = max(3.0, what.scale * unit)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    along = x * np.cos(what.angle) + y * np.sin(what.angle)
    across = -x * np.sin(what.angle) + y * np.cos(what.angle)
    if what.pattern == "grain":
        return _step(fractal(rng, size, 1.3) * 0.4 + 0.3, 0.0, 1.0)
    wobble = fractal(rng, size, 1.8) * (0.25 * cell)
    if what.pattern == "stripes":
        return _step(np.sin((across + wobble) * (2 * np.pi / cell)), -0.15, 0.15)
    if what.pattern == "spots":
        return _step(fractal(rng, (width, height), 1.9) + 0.25 * fractal(rng, size, 0.9), 0.55, 0.75)
    if what.pattern == "checks":
        a = _step(np.sin(along * (np.pi / cell)), -0.1, 0.1)
        b = _step(np.sin(across * (np.pi / cell)), -0.1, 0.1)
        return 0.5 * (a + b)
    if what.pattern == "weave":
        fine = max(3.0, cell / 5)
        return (0.5 + 0.25 * (np.sin(along * (2 * np.pi / fine)) + np.sin(across * (2 * np.pi / fine)))).astype(
            np.float32
        )
    if what.pattern == "fur":
        return _step(fractal(rng, size, 0.8, 0.35 if np.sin(what.angle) > 0.5 else 3.0) * 0.35 + 0.4, 0.0, 1.0)
    rings = np.sin((across + 3 * wobble) * (2 * np.pi / cell)) * 0.35 + 0.4
    return _step(rings + 0.15 * fractal(rng, size, 0.8, 4.0), 0.0, 1.0)


def _step(value: FloatArray | np.ndarray, low: float, high: float) -> FloatArray:
    """A linear ramp from 0 at `low` to 1 at `high`."""
    return np.clip((value - low) / (high - low), 0, 1).astype(np.float32)

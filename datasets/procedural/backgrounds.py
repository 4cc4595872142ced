"""What subjects stand before: each function paints (H, W, 3) float32 in [0, 255] and says where the ground begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .materials import colour, material, paint
from .noise import FloatArray, Size, blur_bytes, colour_noise, curve, fractal, stretch_noise

__all__ = ["BACKGROUNDS", "Backdrop"]

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class Backdrop:
    """A painted background. `horizon` is the height at which the ground begins, as a share of the picture's."""

    rgb: FloatArray
    horizon: float
    tag: str


def _columns(first: tuple[float, ...], second: tuple[float, ...], share: FloatArray) -> FloatArray:
    """Blend from `first` to `second` by `share` (H, W)."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return a + (b - a) * share[..., None]


def _ramp(size: Size, low: float = 0.0, high: float = 1.0) -> FloatArray:
    return np.broadcast_to(np.linspace(low, high, size[1], dtype=np.float32)[:, None], (size[1], size[0]))


def studio(rng: Rng, size: Size) -> Backdrop:
    """A paper roll: a gradient, brightest behind the subject, with hardly any texture."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cx, cy = rng.uniform(0.3, 0.7, 2)
    glow = np.sqrt(((x / width - cx) ** 2 + (y / height - cy) ** 2).astype(np.float32))
    family = ("light", "any", "dark", "cloth")[int(rng.integers(4))]
    base = np.asarray(colour(rng, family), np.float32)
    falloff = np.float32(rng.uniform(0.1, 0.8))
    rgb = base * (1.12 - falloff * glow)[..., None] + 2.0 * colour_noise(rng, size, 0.2, 1.4)
    return Backdrop(rgb, float(rng.uniform(0.6, 0.85)), "gradient")


def room(rng: Rng, size: Size) -> Backdrop:
    """A wall and a floor, each of some material, with furniture-like blocks against the wall."""
    width, height = size
    horizon = float(rng.uniform(0.5, 0.8))
    split = int(height * horizon)
    wall = material(rng, "cloth" if rng.random() < 0.6 else "light", ("plain", "grain", "stripes", "checks", "spots"))
    floor = material(rng, "earth" if rng.random() < 0.6 else "any", ("wood", "grain", "checks", "plain"))
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:split] = paint(rng, wall, (width, split), height)
    rgb[split:] = _tilted(paint(rng, floor, (width, height - split), height))
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 7))):
        w, h = rng.uniform(0.05, 0.3) * width, rng.uniform(0.08, 0.6) * split
        x = rng.uniform(-0.1, 1) * width
        bottom = split + rng.uniform(0, 0.06) * height if rng.random() < 0.6 else rng.uniform(0.2, 0.8) * split
        tone = tuple(int(v) for v in colour(rng, "cloth"))
        dark = tuple(int(v * 0.6) for v in tone)
        draw.rectangle((x, bottom - h, x + w, bottom), fill=tone, outline=dark, width=max(1, int(0.006 * height)))
        for k in range(int(rng.integers(0, 5))):
            y = bottom - h * (k + 1) / 6
            draw.line((x, y, x + w, y), fill=dark, width=max(1, int(0.005 * height)))
    skirting = tuple(int(v) for v in colour(rng, "light" if rng.random() < 0.5 else "wood"))
    draw.rectangle((0, split - 0.02 * height, width, split), fill=skirting)
    rgb = np.asarray(image).astype(np.float32)
    return Backdrop(rgb * (1 + 0.12 * stretch_noise(rng, size, (3, 2)))[..., None], horizon, "interior")


def _tilted(rgb: FloatArray) -> FloatArray:
    """Lay a flat texture down, so that it is finer towards its top edge."""
    height, width = rgb.shape[:2]
    if height < 4:
        return rgb
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    squeeze = 0.28 * width
    corners = (-squeeze, -height * 0.95, 0.0, height, width, height, width + squeeze, -height * 0.95)
    # The quadrilateral is read from a mirrored tile, so that it never leaves the texture.
    tile = Image.new("RGB", (3 * width, 3 * height))
    flips = {0: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 1: image}
    for column in range(3):
        for row in range(3):
            piece = flips[column % 2]
            tile.paste(
                piece.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if row % 2 == 0 else piece,
                (column * width, row * height),
            )
    shifted = tuple(v + (width if k % 2 == 0 else height) for k, v in enumerate(corners))
    laid = tile.transform((width, height), Image.Transform.QUAD, shifted, Image.Resampling.BILINEAR)
    return np.asarray(laid).astype(np.float32)


def landscape(rng: Rng, size: Size) -> Backdrop:
    """Sky with clouds, hills that fade with distance, and a meadow, a beach, snow or water."""
    width, height = size
    horizon = float(rng.uniform(0.3, 0.65))
    sky = colour(rng, "sky" if rng.random() < 0.8 else "warm")
    low = tuple(0.5 * v + 120 for v in sky)
    rgb = _columns(sky, low, np.clip(_ramp(size) / horizon, 0, 1))
    clouds = np.clip(fractal(rng, size, 1.6, 0.6) - rng.uniform(-0.5, 1.2), 0, 1.5) / 1.5
    rgb += (np.asarray((250, 250, 252), np.float32) - rgb) * (clouds * rng.uniform(0.3, 1))[..., None]
    rows = np.arange(height, dtype=np.float32)[:, None]
    family = "leaf" if rng.random() < 0.7 else "earth"
    hills = int(rng.integers(1, 5))
    for index in range(hills):
        haze = 1 - (index + 1) / (hills + 0.5)
        top = height * (
            horizon
            - 0.12 * haze
            - rng.uniform(0, 0.08) * (hills - index)
            + 0.035 * curve(rng, width, rng.uniform(0.9, 1.8))
        )
        tone = np.asarray(colour(rng, family), np.float32) * (1 - haze) + np.asarray(low, np.float32) * haze
        share = np.clip(rows - top[None, :], 0, 1)[..., None]
        textured = tone * (1 + (0.25 * (1 - haze)) * fractal(rng, size, 1.05))[..., None]
        rgb = rgb * (1 - share) + textured * share
    split = int(height * horizon)
    kind = rng.random()
    ground = material(rng, "leaf" if kind < 0.5 else "earth" if kind < 0.75 else "light" if kind < 0.85 else "sky")
    texture = fractal(rng, (width, height - split), 0.9, 0.6 if kind < 0.85 else 0.2)
    near = _ramp((width, height - split), 0.35, 1.0)
    depth = rng.uniform(0.1, 0.4)
    grass = np.asarray(ground.colour, np.float32) * (1 + depth * texture * near + 0.12 * (near - 0.6))[..., None]
    rgb[split:] = (
        grass + 0.25 * (np.asarray(ground.second, np.float32) - grass) * np.clip(0.5 * texture, 0, 1)[..., None]
    )
    return Backdrop(rgb, horizon, "landscape")


def bokeh(rng: Rng, size: Size) -> Backdrop:
    """Lights and leaves far out of focus."""
    height = size[1]
    dark = rng.random() < 0.55
    base = _columns(colour(rng, "dark" if dark else "leaf"), colour(rng, "dark" if dark else "any"), _ramp(size))
    rgb = base * (1 + 0.25 * fractal(rng, size, 1.8))[..., None]
    lights = Image.new("RGB", size)
    reach = rng.uniform(0.02, 0.09) * height
    for _ in range(int(rng.integers(8, 60))):
        disc = Image.new("L", size)
        x, y = rng.uniform(0, 1, 2) * size
        r = reach * rng.uniform(0.6, 1.3)
        ImageDraw.Draw(disc).ellipse((x - r, y - r, x + r, y + r), fill=int(rng.uniform(40, 190)))
        tone = tuple(int(v) for v in colour(rng, "warm" if rng.random() < 0.6 else "vivid"))
        lights.paste(Image.new("RGB", size, tone), mask=disc)
    shine = np.asarray(lights).astype(np.float32) / np.float32(255)
    rgb = 255 - (255 - np.clip(rgb, 0, 255)) * (1 - shine)  # light adds up: a screen blend
    return Backdrop(blur_bytes(rgb.astype(np.float32), 0.006 * height), float(rng.uniform(0.7, 1.0)), "blurred")


def leaves(rng: Rng, size: Size) -> Backdrop:
    """Overlapping patches of all sizes: the dead leaves model, whose statistics are those of photographs.

    Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 2001: radii with density ∝ r⁻³.
    """
    height = size[1]
    family = ("leaf", "earth", "cloth", "any")[int(rng.integers(4))]
    image = Image.new("RGB", size, tuple(int(v) for v in colour(rng, family)))
    draw = ImageDraw.Draw(image)
    small, large = 0.02 * height, rng.uniform(0.15, 0.5) * height
    long = rng.uniform(1, 3.5) if family in ("leaf", "earth") else 1.0
    palette = [np.asarray(colour(rng, family)) for _ in range(6)]
    tilt = rng.uniform(0, np.pi)
    for _ in range(550):
        u = rng.random()
        radius = 1 / np.sqrt(u / small**2 + (1 - u) / large**2)
        x, y = rng.uniform(-0.05, 1.05, 2) * size
        tone = palette[int(rng.integers(6))] * rng.uniform(0.6, 1.3) + rng.normal(0, 12, 3)
        fill = tuple(int(v) for v in np.clip(tone, 0, 255))
        angle = tilt + rng.normal(0, 0.6)
        t = np.linspace(0, 2 * np.pi, 4 if family == "cloth" else 14, endpoint=False) + 0.785
        px, py = long * radius * np.cos(t), radius * np.sin(t)
        points = zip(
            x + px * np.cos(angle) - py * np.sin(angle), y + px * np.sin(angle) + py * np.cos(angle), strict=True
        )
        draw.polygon([(float(a), float(b)) for a, b in points], fill=fill)
    rgb = np.asarray(image).astype(np.float32) * (1 + 0.1 * fractal(rng, size, 0.9))[..., None]
    return Backdrop(rgb, float(rng.uniform(0.55, 1.0)), "texture")


def surface(rng: Rng, size: Size) -> Backdrop:
    """A close-up of one material, seen from above: planks, cloth, sand, a lawn, a tiled floor."""
    family = ("wood", "earth", "leaf", "cloth", "any", "light")[int(rng.integers(6))]
    what = material(rng, family, ("wood", "grain", "weave", "stripes", "checks", "spots", "fur"))
    rgb = paint(rng, what, size, size[1])
    rgb *= (1 + rng.uniform(0.03, 0.2) * fractal(rng, size, 0.85))[..., None]
    if rng.random() < 0.35:
        rgb = _tilted(rgb)
    return Backdrop(rgb, float(rng.uniform(0.4, 0.9)), "texture")


def street(rng: Rng, size: Size) -> Backdrop:
    """House fronts with windows above a road."""
    width, height = size
    horizon = float(rng.uniform(0.5, 0.75))
    split = int(horizon * height)
    image = Image.fromarray(
        np.clip(_columns(colour(rng, "sky"), colour(rng, "light"), _ramp(size)), 0, 255).astype(np.uint8)
    )
    draw = ImageDraw.Draw(image)
    x = -rng.uniform(0, 0.2) * width
    while x < width:
        w, top = rng.uniform(0.12, 0.4) * width, split * rng.uniform(-0.3, 0.55)
        tone = np.asarray(colour(rng, "earth" if rng.random() < 0.6 else "cloth"))
        draw.rectangle((x, top, x + w, split), fill=tuple(int(v) for v in tone))
        cell_w, cell_h = w / int(rng.integers(2, 6)), rng.uniform(0.08, 0.18) * height
        pane = tuple(int(v) for v in colour(rng, "dark" if rng.random() < 0.7 else "sky"))
        frame = tuple(int(v) for v in np.clip(tone * 1.3 + 20, 0, 255))
        y = top + 0.3 * cell_h
        while y + cell_h * 0.6 < split - 0.05 * height:
            for k in range(int(w / cell_w)):
                left = x + (k + 0.25) * cell_w
                draw.rectangle(
                    (left, y, left + 0.5 * cell_w, y + 0.6 * cell_h),
                    fill=pane,
                    outline=frame,
                    width=max(1, height // 200),
                )
            y += cell_h
        x += w
    rgb = np.asarray(image).astype(np.float32)
    road = material(rng, "dark" if rng.random() < 0.5 else "earth", ("grain", "plain", "checks"))
    rgb[split:] = _tilted(paint(rng, road, (width, height - split), height)) + 25
    rgb *= (1 + 0.08 * fractal(rng, size, 0.9) + 0.12 * stretch_noise(rng, size, (3, 2)))[..., None]
    return Backdrop(rgb, horizon, "street")


def water(rng: Rng, size: Size) -> Backdrop:
    """Waves or ripples under a strip of sky."""
    width, height = size
    horizon = float(rng.uniform(0.0, 0.4))
    tone = np.asarray(colour(rng, "sky"), np.float32) * np.float32(rng.uniform(0.4, 1.0))
    ripple = fractal(rng, size, 1.0, 0.25)
    rgb = tone * (1 + rng.uniform(0.08, 0.3) * ripple * _ramp(size, 0.4, 1.0))[..., None]
    rgb += (90 * np.clip(ripple - 1.2, 0, 1))[..., None]
    split = int(horizon * height)
    if split:
        rgb[:split] = _columns(colour(rng, "sky"), colour(rng, "light"), _ramp((width, split)))
    return Backdrop(rgb, horizon, "landscape")


#: How often each background is drawn.
BACKGROUNDS: dict[Callable[[Rng, Size], Backdrop], float] = {
    studio: 2.0,
    room: 2.0,
    landscape: 3.0,
    bokeh: 1.2,
    leaves: 2.0,
    surface: 1.5,
    street: 1.6,
    water: 1.0,
}

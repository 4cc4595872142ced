"""Subjects drawn as layers: coverage at four times the resolution, inflated surfaces, one light.

A subject is a stack of parts and strands in its own units (height 1, y downwards from 0 to 1, x about 0). A surface
is inflated from its outline, lit by one distant light, and continued past its edge, so that the foreground colour is
known wherever alpha is above 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .materials import Material, paint
from .noise import ByteArray, FloatArray, Size
from .shapes import Outline

__all__ = ["Layer", "Light", "Part", "Placement", "Strand", "Subject", "directional_blur", "render", "soften"]

SUPERSAMPLING = 4  # 16 levels of coverage, which the lens blur smooths; 3 shows steps in hair


@dataclass(frozen=True, eq=False)
class Part:
    """One surface of a subject."""

    outline: Outline
    material: int
    bulge: float = 1.0  # 1 is as round as it is wide, 0 flat
    shade: float = 1.0  # multiplies the colour: below 1 for what lies in shadow
    hole: bool = False  # cuts through everything drawn before
    opacity: float = 1.0  # below 1 the part is glass-like: clear in the middle, opaque at its rim


@dataclass(frozen=True, eq=False)
class Strand:
    """A hair, a whisker, a wire: a curve `width` subject heights wide."""

    points: Outline
    width: float
    material: int
    shade: float = 1.0
    behind: bool = False  # drawn before the parts


@dataclass(frozen=True, eq=False)
class Subject:
    """Parts and strands in the order in which they are drawn, and what they are made of."""

    name: str
    parts: tuple[Part, ...]
    materials: tuple[Material, ...]
    strands: tuple[Strand, ...] = ()
    tags: tuple[str, ...] = ()
    grounded: bool = True  # stands on something, so it throws a shadow there
    cut: bool = False  # goes on below the picture, like a portrait


@dataclass(frozen=True)
class Placement:
    """Where a subject stands: its bottom centre and height in pixels, mirrored or not, turned by `angle` radians."""

    x: float
    y: float
    height: float
    mirrored: bool = False
    angle: float = 0.0

    def apply(self, points: Outline) -> Outline:
        """Subject units to pixels."""
        p = np.asarray(points, np.float64) * (-1 if self.mirrored else 1, 1)
        p = p - (0, 0.5)
        c, s = np.cos(self.angle), np.sin(self.angle)
        p = np.stack((p[:, 0] * c - p[:, 1] * s, p[:, 0] * s + p[:, 1] * c + 0.5 - 1), 1)
        return np.asarray(p * self.height + (self.x, self.y))


@dataclass(frozen=True)
class Light:
    """A distant light: direction towards it (x right, y down, z to the viewer), colour factors, ambient share."""

    direction: tuple[float, float, float]
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ambient: float = 0.45


@dataclass(frozen=True, eq=False)
class Layer:
    """A rendered subject: `rgb` (h, w, 3) in [0, 255], not premultiplied, and `alpha` (h, w) in [0, 1], at `box`."""

    rgb: FloatArray
    alpha: FloatArray
    box: tuple[int, int, int, int]  # left, top, right, bottom in the picture
    tags: tuple[str, ...] = field(default=())


def render(rng: np.random.Generator, subject: Subject, place: Placement, size: Size, light: Light) -> Layer | None:
    """`subject` as a layer of a picture of `size`; None where nothing of it is in the picture."""
    outlines = [place.apply(part.outline) for part in subject.parts]
    curves = [place.apply(strand.points) for strand in subject.strands]
    everything = np.concatenate([*outlines, *curves])
    margin = 4
    low = np.floor(everything.min(0)).astype(int) - margin
    high = np.ceil(everything.max(0)).astype(int) + margin
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(size[0], int(high[0])), min(size[1], int(high[1]))
    if right - left < 8 or bottom - top < 8:
        return None
    width, height = right - left, bottom - top
    outlines = [o - (left, top) for o in outlines]
    curves = [c - (left, top) for c in curves]

    coverage, opacity = _coverage(subject, outlines, (width, height))
    owner = _owners(outlines, subject, (width, height))
    relief, rim = _relief(subject, outlines, (width, height))
    rgb = _surface(rng, subject, place, owner, relief, light)
    if subject.parts and any(part.opacity < 1 for part in subject.parts):
        alpha = coverage * np.clip(opacity + (1 - opacity) * rim, 0, 1)
    else:
        alpha = coverage
    for behind in (True, False):
        chosen = [(s, c) for s, c in zip(subject.strands, curves, strict=True) if s.behind == behind]
        if chosen:
            rgb, alpha = _add_strands(subject, place, chosen, rgb, alpha, light, behind)
    return Layer(rgb, alpha.astype(np.float32), (left, top, right, bottom), subject.tags)


def _draw(draw: ImageDraw.ImageDraw, outline: Outline, fill: int, scale: int) -> None:
    draw.polygon([(float(x), float(y)) for x, y in outline * scale - 0.5], fill=fill)


def _coverage(subject: Subject, outlines: list[Outline], size: Size) -> tuple[FloatArray, FloatArray]:
    """How much of each pixel the parts cover, and how opaque they are there, both (h, w) in [0, 1]."""
    scaled = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    cover = Image.new("L", scaled)
    draw = ImageDraw.Draw(cover)
    for part, outline in zip(subject.parts, outlines, strict=True):
        _draw(draw, outline, 0 if part.hole else 255, SUPERSAMPLING)
    coverage = np.asarray(cover.reduce(SUPERSAMPLING)).astype(np.float32) / np.float32(255)
    opaque = Image.new("L", size, 255)
    draw = ImageDraw.Draw(opaque)
    for part, outline in zip(subject.parts, outlines, strict=True):
        if not part.hole:
            fill = round(255 * part.opacity)
            draw.polygon([(float(x), float(y)) for x, y in outline], fill=fill, outline=fill, width=2)
    opacity = np.asarray(opaque.filter(ImageFilter.BoxBlur(1))).astype(np.float32) / np.float32(255)
    return coverage, opacity


def _owners(outlines: list[Outline], subject: Subject, size: Size) -> ByteArray:
    """Which part shows at each pixel, 1-based, a little past the outlines; 0 where none does."""
    canvas = Image.new("L", size)
    draw = ImageDraw.Draw(canvas)
    for index, (part, outline) in enumerate(zip(subject.parts, outlines, strict=True), 1):
        if not part.hole:
            draw.polygon([(float(x), float(y)) for x, y in outline], fill=index, outline=index, width=2)
    return np.asarray(canvas)


def _relief(subject: Subject, outlines: list[Outline], size: Size) -> tuple[FloatArray, FloatArray]:
    """Height of the surface above the picture plane in pixels, and how much of a rim each pixel is, in [0, 1]."""
    relief = np.zeros((size[1], size[0]), np.float32)
    rim = np.zeros_like(relief)
    for part, outline in zip(subject.parts, outlines, strict=True):
        if part.hole:
            continue
        low = np.maximum(np.floor(outline.min(0)).astype(int) - 2, 0)
        high = np.minimum(np.ceil(outline.max(0)).astype(int) + 2, size)
        w, h = (int(v) for v in high - low)
        if w < 3 or h < 3:
            continue
        mask = Image.new("L", (w, h))
        ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in outline - low], fill=255)
        inside = np.asarray(mask) > 127
        covered = float(inside.sum())
        # The mean thickness of a shape is about its area over half its perimeter.
        steps = np.diff(outline, axis=0, append=outline[:1])
        thickness = 2 * covered / (float(np.hypot(steps[:, 0], steps[:, 1]).sum()) + 1e-6)
        wide = np.asarray(mask.filter(ImageFilter.GaussianBlur(max(1.0, 0.55 * thickness)))).astype(np.float32)
        narrow = np.asarray(mask.filter(ImageFilter.GaussianBlur(max(0.6, 0.2 * thickness)))).astype(np.float32)
        share = np.clip((0.65 * wide + 0.35 * narrow) / 255 - 0.45, 0, 0.55) / 0.55
        dome = np.sqrt(share * (2 - share))
        rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
        target, edge = relief[rows, columns], rim[rows, columns]
        target[inside] = (dome * (0.9 * thickness * part.bulge))[inside]
        edge[inside] = ((1 - share) ** 3)[inside]
    return relief, rim


def _surface(
    rng: np.random.Generator, subject: Subject, place: Placement, owner: ByteArray, relief: FloatArray, light: Light
) -> FloatArray:
    """Lit colours (h, w, 3), continued beyond the parts."""
    height, width = owner.shape
    of_part = np.array([0] + [part.material for part in subject.parts])
    shade = np.array([1.0] + [part.shade for part in subject.parts], np.float32)
    which = of_part[owner]
    albedo = np.zeros((height, width, 3), np.float32)
    gloss = np.zeros((height, width), np.float32)
    for index, what in enumerate(subject.materials):
        here = (which == index) & (owner > 0)
        if not here.any():
            continue
        rows, columns = np.flatnonzero(here.any(1)), np.flatnonzero(here.any(0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        surface = paint(rng, what, (int(right - left), int(bottom - top)), place.height)
        inside = here[top:bottom, left:right]
        albedo[top:bottom, left:right][inside] = surface[inside]
        gloss[here] = what.gloss
    dy, dx = np.gradient(relief)
    steepness = np.sqrt(dx * dx + dy * dy)
    limit = np.minimum(1, 2.5 / (steepness + 1e-6))
    nx, ny = -dx * limit, -dy * limit
    length = np.sqrt(nx * nx + ny * ny + 1)
    lx, ly, lz = light.direction
    facing = (nx * lx + ny * ly + lz) / length
    diffuse = np.clip(facing, 0, 1)
    # Blinn-Phong with the viewer straight ahead; the half vector is fixed because light and viewer are distant.
    hx, hy, hz = lx, ly, lz + 1
    norm = float(np.sqrt(hx * hx + hy * hy + hz * hz))
    half = np.clip((nx * hx + ny * hy + hz) / (norm * length), 0, 1)
    shine = half**2
    for _ in range(4):
        shine = shine * shine
    lit = light.ambient + (1.35 - light.ambient) * diffuse
    rgb = albedo * (lit * shade[owner])[..., None] * np.asarray(light.colour, np.float32)
    rgb += (235 * gloss * shine)[..., None]
    return _continue(rgb, owner > 0)


def _continue(rgb: FloatArray, known: np.ndarray) -> FloatArray:
    """Fill what is not `known` with the colours beside it."""
    if known.all() or not known.any():
        return rgb
    source = Image.fromarray(np.clip(rgb * known[..., None], 0, 255).astype(np.uint8))
    weight = Image.fromarray(np.where(known, 255, 0).astype(np.uint8))
    result = np.where(known[..., None], rgb, rgb[known].mean(0))
    reach = max(rgb.shape[:2])
    for radius in (reach / 6, 6.0, 2.0):
        near = np.asarray(source.filter(ImageFilter.BoxBlur(radius))).astype(np.float32)
        share = np.asarray(weight.filter(ImageFilter.BoxBlur(radius))).astype(np.float32)
        use = ~known & (share >= 8)
        result[use] = near[use] / share[use][:, None] * 255
    return np.clip(result, 0, 255).astype(np.float32)


def _add_strands(
    subject: Subject,
    place: Placement,
    chosen: list[tuple[Strand, Outline]],
    rgb: FloatArray,
    alpha: FloatArray,
    light: Light,
    behind: bool,
) -> tuple[FloatArray, FloatArray]:
    height, width = alpha.shape
    points = np.concatenate([curve for _, curve in chosen])
    low = np.clip(np.floor(points.min(0)).astype(int) - 3, 0, (width, height))
    high = np.clip(np.ceil(points.max(0)).astype(int) + 3, 0, (width, height))
    w, h = (int(v) for v in high - low)
    if w < 2 or h < 2:
        return rgb, alpha
    s = SUPERSAMPLING
    cover = Image.new("L", (w * s, h * s))
    base = np.asarray(subject.materials[chosen[0][0].material].colour)
    tint = np.asarray(light.colour) * (light.ambient + 0.45)
    colours = Image.new("RGB", (w * s, h * s), _rgb(base * tint * 0.8))
    draw_cover, draw_colour = ImageDraw.Draw(cover), ImageDraw.Draw(colours)
    for strand, curve in chosen:
        path = [(float(x), float(y)) for x, y in (curve - low) * s]
        thick = max(1, round(strand.width * place.height * s))
        fill = _rgb(np.asarray(subject.materials[strand.material].colour) * tint * strand.shade)
        tip = len(path) * 2 // 3
        for canvas, value in ((draw_cover, 255), (draw_colour, fill)):
            canvas.line(path[: tip + 1], fill=value, width=thick)
            canvas.line(path[tip:], fill=value, width=max(1, thick // 2))
    over = np.asarray(cover.reduce(s)).astype(np.float32) / 255
    colour = np.asarray(colours.reduce(s)).astype(np.float32)
    rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    rgb, alpha = rgb.copy(), alpha.copy()
    under = alpha[rows, columns]
    front, back = (under, over) if behind else (over, under)
    first, second = (rgb[rows, columns], colour) if behind else (colour, rgb[rows, columns])
    total = front + back * (1 - front)
    mixed = first * front[..., None] + second * (back * (1 - front))[..., None]
    rgb[rows, columns] = np.where(total[..., None] > 0, mixed / np.maximum(total, 1e-6)[..., None], second)
    alpha[rows, columns] = total
    return rgb, alpha


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in np.clip(colour, 0, 255))
    return r, g, b


def soften(layer: Layer, radius: float, size: Size) -> Layer:
    """`layer` out of focus or through a lens: Gaussian blur of standard deviation `radius` pixels."""
    from scipy.ndimage import gaussian_filter

    grown = _grow(layer, int(np.ceil(3 * radius)) + 1, size)
    alpha = gaussian_filter(grown.alpha, radius, mode="nearest", truncate=3.0)
    weighted = grown.rgb * grown.alpha[..., None]
    colour = np.stack([gaussian_filter(weighted[..., c], radius, mode="nearest", truncate=3.0) for c in range(3)], 2)
    return _unweight(grown, colour, alpha)


def directional_blur(layer: Layer, length: float, angle: float, size: Size) -> Layer:
    """`layer` moving `length` pixels along `angle` radians while the shutter is open."""
    reach = int(np.ceil(length / 2)) + 1
    grown = _grow(layer, reach, size)
    h, w = grown.alpha.shape
    weighted = np.dstack((grown.rgb * grown.alpha[..., None], grown.alpha))
    padded = np.pad(weighted, ((reach,) * 2, (reach,) * 2, (0, 0)), mode="edge")
    total = np.zeros((h, w, 4), np.float32)
    steps = max(2, round(length))
    for t in np.linspace(-length / 2, length / 2, steps):
        dx, dy = round(float(t * np.cos(angle))), round(float(t * np.sin(angle)))
        total += padded[reach + dy : reach + dy + h, reach + dx : reach + dx + w]
    total /= steps
    return _unweight(grown, total[..., :3], total[..., 3])


def _grow(layer: Layer, margin: int, size: Size) -> Layer:
    """The same layer with up to `margin` more pixels on each side. What lies beyond the picture is as at its edge."""
    left, top, right, bottom = layer.box
    box = (max(0, left - margin), max(0, top - margin), min(size[0], right + margin), min(size[1], bottom + margin))
    pads = ((top - box[1], box[3] - bottom), (left - box[0], box[2] - right))
    return replace(layer, rgb=np.pad(layer.rgb, (*pads, (0, 0)), mode="edge"), alpha=np.pad(layer.alpha, pads), box=box)


def _unweight(layer: Layer, weighted: FloatArray, alpha: FloatArray) -> Layer:
    share = np.maximum(alpha, 1 / 512)[..., None]
    rgb = np.where(alpha[..., None] > 1 / 512, weighted / share, layer.rgb)
    return replace(layer, rgb=np.clip(rgb, 0, 255).astype(np.float32), alpha=np.clip(alpha, 0, 1).astype(np.float32))

"""A procedural set: seeded pictures with exact alpha mattes, for work and tests where there are no photographs.

Scene i of seed s is the same whatever the count, and on every machine of one kind. Its picture is exactly
`floor((foreground · a + background · (255 − a)) / 255 + 1/2)` with a = 255 · alpha a whole number, so masks saved as
8-bit PNG lose nothing, and the true foreground colours are known for judging decontamination.

Backgrounds, subjects, lighting, focus, shadows and grain are drawn to resemble photographs: on 64 scenes the range of
nearly every activation of U²-Net is within a third of its range on photographs, which is what calibration needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, overload

import numpy as np
from PIL import Image, ImageFilter

from u2net.errors import ConfigError

from .procedural.backgrounds import BACKGROUNDS, Backdrop
from .procedural.noise import ByteArray, FloatArray, Size, blur_bytes, fractal, stretch_noise
from .procedural.render import Layer, Light, Placement, Subject, directional_blur, render, soften
from .procedural.subjects import subjects_tagged

__all__ = ["DEFAULT_SIZE", "KINDS", "Scene", "SyntheticSet"]

DEFAULT_SIZE = (480, 360)  # width, height: above the network's 320 as photographs are, small enough to be quick
MIN_SIDE = 64  # below it there is nothing to see
#: What a whole set can be asked to show: the subject's own character, or how it is photographed.
KINDS = ("hard", "holes", "thin", "hair", "translucent", "motion", "defocus", "several", "shadow")
Choice = TypeVar("Choice")
REFERENCE_HEIGHT = 360  # blurs and grain are given in pixels at this height


@dataclass(frozen=True, eq=False)
class Scene:
    """One procedural picture. All arrays share height H and width W.

    `rgb`, `foreground`, `background` are uint8 (H, W, 3) sRGB; `alpha` is float32 (H, W), multiples of 1/255. `tags`
    says what is in it: any of `KINDS`, the kind of background, and the names of the subjects.
    """

    seed: int
    index: int
    rgb: ByteArray
    alpha: FloatArray
    foreground: ByteArray
    background: ByteArray
    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        """A file stem: `procedural_0-00012`, so that its set name is `procedural`."""
        return f"procedural_{self.seed}-{self.index:05d}"

    def mask(self) -> ByteArray:
        """The matte in 8 bits, (H, W) uint8, without loss."""
        return np.floor(self.alpha * np.float32(255) + np.float32(0.5)).astype(np.uint8)


class SyntheticSet(Sequence[Scene]):
    """`count` procedural scenes of `size` (width, height), made when they are asked for.

    With `kind` every scene shows it: "hair", "translucent", "hard", …; see `KINDS`. Raises `ConfigError` on a count
    below 1, a negative seed, a side below 64 pixels or an unknown kind.
    """

    def __init__(self, count: int, seed: int = 0, size: Size = DEFAULT_SIZE, kind: str | None = None) -> None:
        if count < 1:
            raise ConfigError(f"a procedural set needs at least one scene, not {count}; say --count N")
        if seed < 0:
            raise ConfigError(f"--seed must be a whole number from 0 up, not {seed}")
        if min(size) < MIN_SIDE:
            raise ConfigError(
                f"a procedural scene must be at least {MIN_SIDE}×{MIN_SIDE} pixels, not {size[0]}×{size[1]}"
            )
        if kind is not None and kind not in KINDS:
            raise ConfigError(f"no procedural scenes are of kind {kind!r}; there are {', '.join(KINDS)}")
        self._indices = range(count)
        self.seed, self.size, self.kind = seed, size, kind

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Scene, ...]: ...
    def __getitem__(self, index: int | slice) -> Scene | tuple[Scene, ...]:
        if isinstance(index, slice):
            return tuple(self._make(i) for i in self._indices[index])
        return self._make(self._indices[index])

    def __iter__(self) -> Iterator[Scene]:
        return (self._make(index) for index in self._indices)

    def _make(self, index: int) -> Scene:
        return _make_scene(self.seed, index, self.size, self.kind)


@dataclass(frozen=True)
class Camera:
    """How the picture is taken; lengths in pixels at a height of 360."""

    light: Light
    exposure: float
    vignette: float
    grain: float  # standard deviation of the noise, in 8-bit steps
    sharpening: float  # strength of the unsharp mask that cameras apply
    background_blur: float
    subject_blur: float
    motion: float
    motion_angle: float


def _make_scene(seed: int, index: int, size: Size, kind: str | None) -> Scene:
    rng = np.random.default_rng((seed, index, 0 if kind is None else 1 + KINDS.index(kind)))
    scale = size[1] / REFERENCE_HEIGHT
    backdrop = _backdrop(rng, size)
    camera = _camera(rng, kind, backdrop)
    background = blur_bytes(backdrop.rgb, camera.background_blur * scale)
    background *= np.asarray(camera.light.colour, np.float32)
    tags = [backdrop.tag] + (["blurred"] if camera.background_blur > 2 else [])

    layers: list[Layer] = []
    for subject, place in _cast(rng, kind, size, backdrop):
        layer = render(rng, subject, place, size, camera.light)
        if layer is None or layer.alpha.max() < 0.2:
            continue
        if camera.motion:
            layer = directional_blur(layer, camera.motion * scale, camera.motion_angle, size)
            tags.append("motion")
        if camera.subject_blur > 1:
            tags.append("defocus")
        layer = soften(layer, max(0.45, camera.subject_blur * scale), size)
        if kind == "shadow" or rng.random() < (0.85 if subject.grounded and not subject.cut else 0.15):
            _cast_shadow(rng, background, layer, place, camera.light, subject.grounded)
            tags.append("shadow")
        layers.append(layer)
        tags += [subject.name, *subject.tags]
    if len(layers) > 1:
        tags.append("several")
    if "motion" in tags or "defocus" in tags:
        tags = [tag for tag in tags if tag != "hard"]
    foreground, alpha = _stack(layers, size)
    foreground, background = _expose(rng, camera, size, foreground, background)
    return _compose(seed, index, foreground, background, alpha, tuple(dict.fromkeys(tags)))


def _pick(rng: np.random.Generator, weights: dict[Choice, float]) -> Choice:
    """One key of `weights`, drawn by its value."""
    total = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


def _backdrop(rng: np.random.Generator, size: Size) -> Backdrop:
    return _pick(rng, BACKGROUNDS)(rng, size)


def _camera(rng: np.random.Generator, kind: str | None, backdrop: Backdrop) -> Camera:
    angle = rng.uniform(-2.6, -0.5)  # from above, more or less from one side
    height = rng.uniform(0.4, 1.1)
    direction = np.array((np.cos(angle), np.sin(angle), height))
    direction /= np.sqrt((direction * direction).sum())
    warmth = rng.normal(0, 0.07)
    light = Light(
        (float(direction[0]), float(direction[1]), float(direction[2])),
        (1 + warmth, 1.0, 1 - warmth),
        ambient=float(rng.uniform(0.45, 0.8)),
    )
    moving = kind == "motion" or (kind is None and rng.random() < 0.08)
    soft = kind == "defocus" or (kind is None and rng.random() < 0.08)
    deep = rng.random() < 0.45  # everything in focus
    return Camera(
        light,
        exposure=float(np.exp2(rng.normal(0.2, 0.25))),
        vignette=float(rng.uniform(0, 0.35)),
        grain=float(rng.uniform(0.5, 5.0)),
        sharpening=float(rng.uniform(0.0, 1.2)),
        background_blur=0.0 if deep else float(rng.uniform(0.8, 7.0)),
        subject_blur=float(rng.uniform(1.5, 4.0)) if soft else float(rng.uniform(0.45, 0.8)),
        motion=float(rng.uniform(8, 32)) if moving else 0.0,
        motion_angle=float(rng.normal(0, 0.5)),
    )


def _cast(
    rng: np.random.Generator, kind: str | None, size: Size, backdrop: Backdrop
) -> list[tuple[Subject, Placement]]:
    """Who is in the picture and where, from the farthest to the nearest."""
    width, height = size
    choices = subjects_tagged(kind)
    first = _pick(rng, choices)(rng)
    several = kind == "several" or (rng.random() < 0.25 and not first.cut)
    count = int(rng.integers(2, 5)) if several else 1
    alike = rng.random() < 0.6
    cast = []
    for number in range(count):
        subject = first
        if number and not alike:
            subject = _pick(rng, choices)(rng)
        elif number:
            subject = replace(first, materials=_pick(rng, {first.materials: 1.0}))
        outline = np.concatenate([part.outline for part in subject.parts])
        wide = float(np.ptp(outline[:, 0]))
        tall = rng.uniform(0.5, 0.92) if count == 1 else rng.uniform(0.35, 0.7)
        tall = min(tall * height, rng.uniform(0.7, 1.0) * width / max(wide, 0.1) / (1 if count == 1 else 1.6))
        if subject.cut:
            tall = height * rng.uniform(0.75, 1.0)
            place = Placement(width * rng.uniform(0.35, 0.65), height * 1.02, tall)
        else:
            lane = (number + 0.5 + rng.normal(0, 0.12)) / count if count > 1 else rng.normal(0.5, 0.1)
            if subject.grounded:
                lowest = min(0.98, max(backdrop.horizon + 0.12, tall / height + 0.02))
                y = rng.uniform(lowest, 0.98)
            else:
                y = min(0.97, rng.uniform(0.5, 0.8) + 0.5 * tall / height)
            place = Placement(width * lane, height * y, tall)
        lean = rng.normal(0, 0.06) if subject.grounded else rng.normal(0, 0.5)
        cast.append((subject, replace(place, mirrored=bool(rng.random() < 0.5), angle=float(lean))))
    return sorted(cast, key=lambda entry: entry[1].y)


def _cast_shadow(
    rng: np.random.Generator, background: FloatArray, layer: Layer, place: Placement, light: Light, grounded: bool
) -> None:
    """Darken `background` where the light does not reach it for `layer`: along the ground, or on a wall behind."""
    height, width = background.shape[:2]
    full = np.zeros((height, width), np.uint8)
    left, top, right, bottom = layer.box
    full[top:bottom, left:right] = np.clip(layer.alpha * 255, 0, 255)
    image = Image.fromarray(full)
    if grounded:
        flat = rng.uniform(0.12, 0.4)
        lean = -light.direction[0] * 1.2
        base = place.y
        # A point h above the ground throws its shadow lean·h to the side and flat·h up the picture.
        affine = (1.0, lean / flat, -base * lean / flat, 0.0, 1 / flat, base - base / flat)
        image = image.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    else:
        dx, dy = -light.direction[0] * 0.12 * place.height, 0.06 * place.height
        affine = (1.0, 0.0, -dx, 0.0, 1.0, -dy)
        image = image.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    soft = image.filter(ImageFilter.GaussianBlur(max(1.0, place.height * rng.uniform(0.008, 0.03))))
    dark = np.asarray(soft).astype(np.float32) / 255 * np.float32(rng.uniform(0.3, 0.65))
    if grounded:  # and a tight one where it touches
        contact = Image.fromarray(full).transform(
            (width, height),
            Image.Transform.AFFINE,
            (1.0, 0.0, 0.0, 0.0, 10.0, place.y - 10.0 * (place.y + 0.004 * place.height)),
            Image.Resampling.BILINEAR,
        )
        touch = np.asarray(contact.filter(ImageFilter.GaussianBlur(max(1.0, place.height * 0.012))))
        dark = np.maximum(dark, touch.astype(np.float32) / 255 * np.float32(0.6))
    background *= (1 - dark)[..., None]


def _stack(layers: list[Layer], size: Size) -> tuple[FloatArray, FloatArray]:
    """Layers from the farthest to the nearest as one foreground, not premultiplied, and its alpha.

    Where alpha is 0 the foreground goes on with the last layer's colours, or is grey.
    """
    width, height = size
    rgb = np.full((height, width, 3), 128, np.float32)
    alpha = np.zeros((height, width), np.float32)
    for layer in layers:
        left, top, right, bottom = layer.box
        rows, columns = slice(top, bottom), slice(left, right)
        over, under = layer.alpha, alpha[rows, columns] * (1 - layer.alpha)
        total = over + under
        mixed = layer.rgb * over[..., None] + rgb[rows, columns] * under[..., None]
        rgb[rows, columns] = np.where(total[..., None] > 1e-4, mixed / np.maximum(total, 1e-4)[..., None], layer.rgb)
        alpha[rows, columns] = total
    return rgb, alpha


def _expose(
    rng: np.random.Generator, camera: Camera, size: Size, foreground: FloatArray, background: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Light falloff, exposure with a shoulder, sharpening and grain, the same for both layers."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
    gain = np.float32(camera.exposure) * (1 - camera.vignette * radius + 0.06 * stretch_noise(rng, size, (3, 3)))
    scale = size[1] / REFERENCE_HEIGHT
    noise = rng.standard_normal((height, width), np.float32) if scale <= 1 else fractal(rng, size, 0.3)
    grain = np.float32(camera.grain) * noise

    knee = np.float32(0.8 * 255)  # above it values are rolled off, as cameras do, and still reach white
    rest = np.float32(0.2 * 255)

    def take(layer: FloatArray) -> FloatArray:
        v = layer * gain[..., None]
        over = np.maximum(v - knee, 0)
        np.minimum(v, knee, out=v)
        v += over * (np.float32(1.25) * rest) / (over + rest)
        v += np.float32(camera.sharpening) * (v - blur_bytes(v, 0.8 * scale))
        v += grain[..., None]
        return v

    return take(foreground), take(background)


def _compose(
    seed: int, index: int, foreground: FloatArray, background: FloatArray, alpha: FloatArray, tags: tuple[str, ...]
) -> Scene:
    fg = np.clip(foreground + 0.5, 0, 255).astype(np.uint8)
    bg = np.clip(background + 0.5, 0, 255).astype(np.uint8)
    # Below 2/255 and above 253/255 is the tail of a blur, not an edge.
    a = np.clip(np.floor((alpha * 255 - 2) * (255 / 251) + 0.5), 0, 255).astype(np.int32)
    mixed = fg * a[..., None] + bg * (255 - a[..., None])
    rgb = ((2 * mixed + 255) // 510).astype(np.uint8)
    return Scene(seed, index, rgb, a.astype(np.float32) / np.float32(255), fg, bg, tags)

"""One training batch out of the teacher cache, as a pure function of (seed, step, rank).

Nothing here keeps a random state: a resumed run draws the batches that the killed one would have drawn.

Pictures and maps are cropped, mirrored and scaled together; the colour, blur and JPEG changes touch the picture alone,
so the student learns to give the clean picture's mask. Composites paste a subject that the teacher is sure of onto
another background: the mask is then exact by construction.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .cache import Cache

__all__ = ["Augmentation", "Batch", "Group", "batch_rows", "make_batch"]


@dataclass(frozen=True)
class Augmentation:
    """Chances and strengths. Every one may be 0."""

    flip: float = 0.5  # saliency has no left and right
    crop: float = 0.5  # the other half stays whole: that is what the model is asked to do
    crop_least: float = 0.75  # of each side; smaller crops no longer have the whole picture's subject
    colour: float = 0.5  # chance of new brightness, contrast, saturation and white balance
    colour_strength: float = 0.25  # ±25 %: lighting, not another world
    blur: float = 0.08  # chance of a soft picture
    jpeg: float = 0.08  # chance of a strongly compressed picture
    composite: float = 0.08  # chance of a subject on another background, where the teacher is sure of both

    def scaled(self, factor: float) -> Augmentation:
        """The same with every chance multiplied by `factor`."""
        chances = ("flip", "crop", "colour", "blur", "jpeg", "composite")
        return Augmentation(
            crop_least=self.crop_least,
            colour_strength=self.colour_strength,
            **{name: min(1.0, getattr(self, name) * factor) for name in chances},
        )


@dataclass(frozen=True, eq=False)
class Group:
    """Cache rows of which `count` are shown in an epoch."""

    rows: npt.NDArray[np.intp]
    count: int


@dataclass(frozen=True)
class Batch:
    """`pictures` float32 (N, 3, S, S) in [0, 255]; `targets` seven float32 (N, 1, s, s) in [0, 1]."""

    pictures: Tensor
    targets: tuple[Tensor, ...]


def batch_rows(groups: Sequence[Group], step: int, batch: int, seed: int) -> npt.NDArray[np.intp]:
    """The `batch` cache rows of step `step`: consecutive slices of a new shuffle each epoch.

    An epoch has `count` different rows of each group of `groups`, drawn anew.
    """
    length = sum(group.count for group in groups)
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs, places = positions // length, positions % length
    picked = np.empty(batch, dtype=np.intp)
    for epoch in np.unique(epochs):
        rng = np.random.default_rng([seed, 1, int(epoch)])
        order = rng.permutation(np.concatenate([rng.permutation(group.rows)[: group.count] for group in groups]))
        picked[epochs == epoch] = order[places[epochs == epoch]]
    return picked


def _thetas(count: int, a: Augmentation, rng: np.random.Generator) -> Tensor:
    thetas = np.zeros((count, 2, 3), dtype=np.float32)
    for theta in thetas:
        height = width = 1.0
        x = y = 0.0
        if rng.random() < a.crop:
            height, width = rng.uniform(a.crop_least, 1.0, 2)
            x, y = rng.uniform(-1, 1, 2) * (1 - width, 1 - height)
        mirror = -1.0 if rng.random() < a.flip else 1.0
        theta[:] = ((mirror * width, 0.0, x), (0.0, height, y))
    return torch.from_numpy(thetas)


def _sample(source: Tensor, thetas: Tensor, side: int) -> Tensor:
    grid = F.affine_grid(thetas, [len(thetas), 1, side, side], align_corners=False)
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolour(picture: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    gains = 1.0 + strength * torch.from_numpy(rng.uniform(-0.5, 0.5, 3).astype(np.float32)).view(3, 1, 1)
    contrast, saturation, gamma = 1.0 + strength * rng.uniform(-1, 1, 3)
    x = picture * gains
    grey = x.mean(0, keepdim=True)
    x = grey + (x - grey) * float(saturation)
    x = (x - grey.mean()) * float(contrast) + grey.mean()
    return (x.clamp(0, 255) / 255.0) ** float(gamma) * 255.0


def _soften(picture: Tensor, rng: np.random.Generator) -> Tensor:
    side = picture.shape[-1]
    coarse = max(8, int(side / rng.uniform(1.3, 3.0)))
    small = F.interpolate(picture[None], size=coarse, mode="bilinear", antialias=True)
    return F.interpolate(small, size=side, mode="bilinear")[0]


def _compress(picture: Tensor, rng: np.random.Generator) -> Tensor:
    pixels = picture.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(15, 60)))
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float()


def _background(size: int, other: Tensor, other_mask: Tensor, rng: np.random.Generator) -> Tensor:
    if float(other_mask.mean()) < 0.02 and float(other_mask.amax()) < 0.5:
        return other  # the teacher sees no subject there: a real background
    cells = int(rng.choice((2, 4, 8, 16)))
    coarse = F.interpolate(other[None], size=cells, mode="area")
    smooth = F.interpolate(coarse, size=size, mode="bicubic")[0].clamp(0, 255)
    noise = torch.from_numpy(rng.normal(0.0, rng.uniform(0, 12), (1, size, size)).astype(np.float32))
    return smooth + noise


def _composites(pictures: Tensor, fused: Tensor, chance: float, rng: np.random.Generator) -> list[int]:
    """Paste some subjects onto other backgrounds in place; the rows that changed. `fused` stays their matte."""
    count, size = len(pictures), pictures.shape[-1]
    chosen = [i for i in range(count) if rng.random() < chance]
    changed = []
    originals, mattes = pictures.clone() if chosen else pictures, fused.clone() if chosen else fused
    for i in chosen:
        matte = mattes[i]
        sure = float(((matte - 0.5).abs() > 0.4).float().mean())
        if not (sure > 0.96 and 0.03 < float(matte.mean()) < 0.6):
            continue
        j = (i + 1 + int(rng.integers(0, max(1, count - 1)))) % count
        # A sharper matte leaves no halo of the old background, and is then the truth.
        sharp = ((matte - 0.5) * 2.0 + 0.5).clamp(0, 1)
        pictures[i] = originals[i] * sharp + _background(size, originals[j], mattes[j], rng) * (1 - sharp)
        fused[i] = sharp
        changed.append(i)
    return changed


def make_batch(
    cache: Cache, rows: npt.NDArray[np.intp], size: int, sides: Sequence[int], a: Augmentation, seed: Sequence[int]
) -> Batch:
    """Rows `rows` of `cache`, augmented as `a` says: pictures at `size`, the target of map k at `sides[k]`."""
    rng = np.random.default_rng(list(seed))
    thetas = _thetas(len(rows), a, rng)
    images = torch.from_numpy(np.ascontiguousarray(cache.images[rows].transpose(0, 3, 1, 2))).float()
    whole = size == cache.size and bool(torch.equal(thetas, torch.eye(2, 3).expand_as(thetas)))
    pictures = images if whole else _sample(images, thetas, size)
    targets = []
    for store, side in zip(cache.maps, sides, strict=True):
        source = torch.from_numpy(store[rows][:, None]).float() / 255.0
        targets.append(source if whole and source.shape[-1] == side else _sample(source, thetas, side))
    for i in _composites(pictures, targets[0], a.composite, rng):
        for k in range(1, len(targets)):
            targets[k][i] = F.interpolate(targets[0][i][None], size=targets[k].shape[-1], mode="area")[0]
    for i in range(len(pictures)):
        if rng.random() < a.colour:
            pictures[i] = _recolour(pictures[i], a.colour_strength, rng)
        if rng.random() < a.blur:
            pictures[i] = _soften(pictures[i], rng)
        if rng.random() < a.jpeg:
            pictures[i] = _compress(pictures[i], rng)
    if not all(math.isfinite(float(t.sum())) for t in (pictures, *targets)):
        raise FloatingPointError("augmentation made a value that is not finite")
    return Batch(pictures, tuple(targets))

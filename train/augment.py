"""One training batch as a pure function of (seed, step, rank), made on the device of the model.

Pictures and maps lie on the device as uint8; views, composites, colours, blur and noise are operations on whole
batches. What is drawn comes from one generator on the CPU, so a batch is the same on every device, and a resumed run
draws the batches that the killed one would have drawn.

Pictures and maps are cut, mirrored and scaled together; colour, blur and noise touch the picture alone, so the student
learns to give the clean picture's mask. Composites paste a subject that the teacher is sure of, at 0.4 to 1 of its
size, onto another background: the mask is then exact by construction.

The runner looks twice: once at the whole picture and, where the subject's box is small, once at that box with
`MARGIN` on each side. `look` is the share of pictures that are shown in this second way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from u2net.second_look import FOUND, MARGIN, NEARLY_ALL

from .cache import Cache

__all__ = ["PLAIN", "Augmentation", "Batch", "Group", "Pictures", "batch_rows", "make_batch", "side_targets"]

LOOK_SMALLEST = 0.25  # of the picture's side; a smaller box is too blurred when it is enlarged from the cache


@dataclass(frozen=True)
class Augmentation:
    """Chances and strengths. Every one may be 0."""

    flip: float = 0.5  # saliency has no left and right
    look: float = 0.35  # the runner's second look is about as frequent, and worth most at the end
    crop: float = 0.3  # of those not looked at twice; the rest stays whole, as the runner's first look
    crop_least: float = 0.75  # of each side; smaller crops no longer have the whole picture's subject
    colour: float = 0.5  # chance of new brightness, contrast, saturation and white balance
    colour_strength: float = 0.25  # ±25 %: lighting, not another world
    blur: float = 0.08  # chance of a soft picture
    noise: float = 0.08  # chance of a grainy picture, of 2 to 12 levels
    composite: float = 0.12  # chance of a subject on another background, where the teacher is sure of it


PLAIN = Augmentation(flip=0, look=0, crop=0, colour=0, blur=0, noise=0, composite=0)


@dataclass(frozen=True, eq=False)
class Group:
    """Cache rows of which `count` are shown in an epoch."""

    rows: npt.NDArray[np.intp]
    count: int


@dataclass(frozen=True)
class Batch:
    """`pictures` float32 (N, 3, S, S) in [0, 255]; `maps` float32 (N, 1, S, S) in [0, 1]."""

    pictures: Tensor
    maps: Tensor


@dataclass(frozen=True, eq=False)
class Pictures:
    """A cache where the model is: `images` uint8 (N, S, S, 3), `maps` uint8 (N, S, S), and what is known of each map.

    On a CPU the arrays stay where they are, memory-mapped. `boxes` float64 (N, 4) are left, top, right and bottom of
    the subject in parts of the side, NaN where there is none; `sure` says where a subject can be pasted; `empty` are
    rows without any subject.
    """

    images: Tensor
    maps: Tensor
    boxes: npt.NDArray[np.float64]
    sure: npt.NDArray[np.bool_]
    empty: npt.NDArray[np.intp]

    @classmethod
    def of(cls, cache: Cache, device: torch.device) -> Pictures:
        """All of `cache` on `device`."""
        count, size = len(cache), cache.size
        boxes, sure, empty = np.full((count, 4), np.nan), np.zeros(count, bool), []
        for row in np.flatnonzero(cache.done):
            found = cache.maps[row]
            inside = found > 255 * FOUND
            if inside.any():
                x, y = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
                boxes[row] = np.array([x[0], y[0], x[-1] + 1, y[-1] + 1]) / size
            mean = float(found.mean()) / 255
            sure[row] = bool(((found < 26) | (found > 229)).mean() > 0.96) and 0.02 < mean < 0.6
            if mean < 0.02 and int(found.max()) < 128:
                empty.append(row)

        def placed(array: npt.NDArray[np.uint8]) -> Tensor:
            if device.type == "cpu":
                return torch.from_numpy(array)
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return cls(placed(cache.images), placed(cache.maps), boxes, sure, np.array(empty, np.intp))

    def take(self, rows: npt.NDArray[np.intp]) -> Batch:
        """Rows `rows` as they are, at the cache's own size."""
        index = torch.from_numpy(rows).to(self.images.device)
        return Batch(self.images[index].permute(0, 3, 1, 2).float(), self.maps[index][:, None].float() / 255.0)


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


def _views(boxes: npt.NDArray[np.float64], a: Augmentation, rng: np.random.Generator) -> Tensor:
    """What part of each picture is seen: affine maps (N, 2, 3) for `F.affine_grid`."""
    count = len(boxes)
    view = np.tile([0.0, 0.0, 1.0, 1.0], (count, 1))
    sides = rng.uniform(a.crop_least, 1.0, (count, 2))
    corner = rng.uniform(0.0, 1.0, (count, 2)) * (1.0 - sides)
    cropped = rng.random(count) < a.crop
    view[cropped] = np.concatenate([corner, corner + sides], 1)[cropped]
    # Half of the margins are the runner's; the others differ, since the first look's box is never quite right.
    margins = np.where(rng.random((count, 1)) < 0.5, MARGIN, rng.uniform(0.15, 0.45, (count, 4)))
    reach = margins * np.tile(boxes[:, 2:] - boxes[:, :2], 2) * [-1, -1, 1, 1]
    look = (boxes + reach).clip(0.0, 1.0)
    width, height = look[:, 2] - look[:, 0], look[:, 3] - look[:, 1]
    near = (rng.random(count) < a.look) & (width * height < NEARLY_ALL) & (np.minimum(width, height) > LOOK_SMALLEST)
    view[near] = look[near]
    mirror = np.where(rng.random(count) < a.flip, -1.0, 1.0)
    thetas = np.zeros((count, 2, 3))
    thetas[:, 0, 0] = mirror * (view[:, 2] - view[:, 0])
    thetas[:, 0, 2] = view[:, 0] + view[:, 2] - 1
    thetas[:, 1, 1] = view[:, 3] - view[:, 1]
    thetas[:, 1, 2] = view[:, 1] + view[:, 3] - 1
    return torch.from_numpy(thetas).float()


def _sample(source: Tensor, thetas: Tensor, side: int, outside: str = "border") -> Tensor:
    grid = F.affine_grid(thetas.to(source.device), [len(thetas), 1, side, side], align_corners=False)
    return F.grid_sample(source, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def _normal(shape: Sequence[int], device: torch.device, rng: np.random.Generator) -> Tensor:
    """Normal noise, drawn where it is needed: a GPU would wait for the processor's."""
    generator = torch.Generator(device).manual_seed(int(rng.integers(1 << 62)))
    return torch.randn(tuple(shape), generator=generator, device=device)


def _smooth(pictures: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Backgrounds out of pictures that have a subject: their colours alone, with grain."""
    coarse = F.interpolate(pictures, size=int(rng.choice((4, 8, 16, 24))), mode="area")
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 255)
    return smooth + _normal((len(pictures), 1, size, size), pictures.device, rng) * float(rng.uniform(0, 12))


def _composite(
    data: Pictures, rows: npt.NDArray[np.intp], chosen: npt.NDArray[np.intp], size: int, rng: np.random.Generator
) -> Batch:
    """The subjects of `rows[chosen]`, smaller and elsewhere, on other backgrounds."""
    count = len(chosen)
    part = rng.uniform(0.4, 1.0, count)
    place = rng.uniform(-1.0, 1.0, (count, 2)) * (1 - part[:, None])
    thetas = np.zeros((count, 2, 3))
    thetas[:, 0, 0] = thetas[:, 1, 1] = 1 / part
    thetas[:, :, 2] = -place / part[:, None]
    source = data.take(rows[chosen])
    matrix = torch.from_numpy(thetas).float()
    # A sharper matte leaves no halo of the old background, and is then the truth.
    matte = ((_sample(source.maps, matrix, size, "zeros") - 0.5) * 2.0 + 0.5).clamp(0, 1)
    if len(data.empty) and rng.random() < 0.5:
        backs = data.take(rng.choice(data.empty, count)).pictures
        backs = _sample(backs, torch.eye(2, 3).expand(count, 2, 3), size)
    else:
        backs = _smooth(data.take(rng.permutation(rows)[:count]).pictures, size, rng)
    return Batch(_sample(source.pictures, matrix, size) * matte + backs * (1 - matte), matte)


def _recolour(pictures: Tensor, on: npt.NDArray[np.bool_], strength: float, rng: np.random.Generator) -> Tensor:
    count = len(pictures)
    drawn = (
        strength * on[:, None] * np.concatenate([rng.uniform(-0.5, 0.5, (count, 3)), rng.uniform(-1, 1, (count, 3))], 1)
    )
    factors = torch.from_numpy(1.0 + drawn).float().to(pictures.device).view(count, 6, 1, 1)
    gains, contrast, saturation, gamma = factors[:, :3], factors[:, 3:4], factors[:, 4:5], factors[:, 5:]
    x = pictures * gains
    grey = x.mean(1, keepdim=True)
    level = grey.mean((2, 3), keepdim=True)
    x = (grey + (x - grey) * saturation - level) * contrast + level
    return (x.clamp(0, 255) / 255.0) ** gamma * 255.0


def _soften(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    side = pictures.shape[-1]
    small = F.interpolate(pictures, size=max(8, int(side / rng.uniform(1.3, 3.0))), mode="area")
    return F.interpolate(small, size=side, mode="bilinear", align_corners=False)


def make_batch(data: Pictures, rows: npt.NDArray[np.intp], size: int, a: Augmentation, seed: Sequence[int]) -> Batch:
    """Rows `rows` of `data` at `size` pixels, augmented as `a` says, on the device of `data`."""
    rng = np.random.default_rng(list(seed))
    count = len(rows)
    source = data.take(rows)
    thetas = _views(data.boxes[rows], a, rng)
    if a == PLAIN and size == source.maps.shape[-1]:
        return source
    pictures, maps = _sample(source.pictures, thetas, size), _sample(source.maps, thetas, size)
    chosen = np.flatnonzero((rng.random(count) < a.composite) & data.sure[rows])
    if len(chosen):
        made, index = _composite(data, rows, chosen, size, rng), torch.from_numpy(chosen).to(pictures.device)
        pictures, maps = pictures.index_copy(0, index, made.pictures), maps.index_copy(0, index, made.maps)
    coloured = rng.random(count) < a.colour
    if coloured.any():
        pictures = _recolour(pictures, coloured, a.colour_strength, rng)
    for chance, change in ((a.blur, _soften), (a.noise, _grain)):
        chosen = np.flatnonzero(rng.random(count) < chance)
        if len(chosen):
            index = torch.from_numpy(chosen).to(pictures.device)
            pictures = pictures.index_copy(0, index, change(pictures[index], rng))
    return Batch(pictures.clamp(0, 255), maps.clamp(0, 1))


def _grain(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    return pictures + _normal(pictures.shape, pictures.device, rng) * float(rng.uniform(2, 12))


def side_targets(maps: Tensor, sides: Sequence[int]) -> tuple[Tensor, ...]:
    """The target (N, 1, s, s) of each of the seven maps: `maps` itself, averaged where a map is coarser."""
    return tuple(maps if side == maps.shape[-1] else F.adaptive_avg_pool2d(maps, side) for side in sides)

"""Pictures decoded once and the teacher's maps for them, in memory-mapped files that training reads.

Notable choices:

- everything is uint8 at the map's own resolution: a picture with its seven maps is 0.5 MB, and 5,000 pictures fit the
  page cache, so a training step waits neither for JPEG nor for the teacher;
- the teacher may be averaged over the mirrored picture and over other scales, which is stronger than one pass;
- the cache is filled in a fixed shuffled order and every record is marked when it is complete, so an interrupted run
  continues and training may start on the part that is there;
- `fast` runs the teacher in bfloat16 except the stages with a folded bias above `LARGE_BIAS`: the almost constant
  channels of the authors' small model lose their signal in eight bits of mantissa (mask IoU 0.954; with `stage2d` left
  in float32, 0.997).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.folder import ImageFolder, PairFolder, PairRecord
from u2net.errors import ConfigError, DataError
from u2net.files import sha256_bytes, write_json
from u2net.network.model import RSU, STAGE_NAMES, U2Net
from u2net.preprocess import MEAN, STD, resize_bilinear, resize_for_network

__all__ = ["LARGE_BIAS", "MAP_NAMES", "Cache", "build_cache", "normalise_batch", "prepare_teacher", "teacher_maps"]

MAP_NAMES = ("fused", "side1", "side2", "side3", "side4", "side5", "side6")
MAP_DIVISORS = (1, 1, 2, 4, 8, 16, 32)  # of the picture's side, as the paper's network computes them
LARGE_BIAS = 200.0  # small: stage2d has 228 and 1361, stage1d 113, every other stage is below 60

ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cache:
    """An opened cache: `images` uint8 (N, S, S, 3), `maps[k]` uint8 (N, s, s) of 255 · probability, `done` bool (N)."""

    folder: Path
    stems: tuple[str, ...]
    size: int
    images: ByteArray
    maps: tuple[ByteArray, ...]
    done: npt.NDArray[np.bool_]

    @classmethod
    def open(cls, folder: str | Path, mode: str = "r") -> Cache:
        """Open the cache in `folder` ("r" or "r+"). Raises `DataError` where there is none or it is damaged."""
        folder = Path(folder)
        try:
            about = json.loads((folder / "cache.json").read_text())
            images = np.load(folder / "images.npy", mmap_mode=mode)  # type: ignore[arg-type]
            maps = tuple(np.load(folder / f"{name}.npy", mmap_mode=mode) for name in MAP_NAMES)  # type: ignore[arg-type]
            done = np.load(folder / "done.npy", mmap_mode=mode)  # type: ignore[arg-type]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder} is not a teacher cache: {error}") from error
        return cls(folder, tuple(about["stems"]), int(about["size"]), images, maps, done)

    def __len__(self) -> int:
        return len(self.stems)


def side_of(size: int, divisor: int) -> int:
    """Side in pixels of the map `divisor` pooling steps down, rounded up at each halving as the network does."""
    while divisor > 1:
        size, divisor = (size + 1) // 2, divisor // 2
    return size


def normalise_batch(pictures: Tensor) -> Tensor:
    """Steps 3 and 4 of `u2net.preprocess` for a batch: (N, 3, H, W) in any range from 0 up to normalised float32."""
    x = pictures.float()
    peak = x.amax((1, 2, 3), keepdim=True)
    x = x / torch.where(peak > 0, peak, torch.ones_like(peak))
    mean = torch.tensor(MEAN, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=x.device).view(1, 3, 1, 1)
    return (x - mean) / std


def _keep_float32(stage: RSU) -> None:
    forward: Callable[[Tensor], Tensor] = stage.forward

    def in_float32(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    stage.forward = in_float32  # type: ignore[method-assign]


def prepare_teacher(model: U2Net, fast: bool) -> U2Net:
    """A copy of `model` to ask for maps or features: in evaluation mode and, with `fast`, fit to be run in 16 bits."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if fast:
        for name in STAGE_NAMES:
            stage = model.get_submodule(name)
            largest = max(float(p.abs().max()) for n, p in stage.named_parameters() if n.endswith("bias"))
            if largest > LARGE_BIAS and isinstance(stage, RSU):
                _keep_float32(stage)
    prepared: U2Net = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return prepared


@torch.inference_mode()
def _logits(teacher: U2Net, x: Tensor, fast: bool) -> list[Tensor]:
    device = next(teacher.parameters()).device
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16) if fast else nullcontext():
        return [m.float() for m in teacher.native_logits(x)]


def teacher_maps(
    teacher: U2Net, pictures: Tensor, flip: bool, scales: Sequence[int], fast: bool = False
) -> list[Tensor]:
    """The seven probability maps (N, 1, s, s) of uint8 (N, 3, S, S), averaged in the logits' domain.

    `teacher` is what `prepare_teacher` gave for the same `fast`, which is bfloat16; `scales` are further input sides in
    pixels beside S; their maps are resized to those of S.
    """
    size = pictures.shape[-1]
    total: list[Tensor] = []
    passes = 0
    for side in (size, *scales):
        x = normalise_batch(pictures)
        if side != size:
            x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        for mirrored in (False, True) if flip else (False,):
            maps = _logits(teacher, x.flip(-1) if mirrored else x, fast)
            if mirrored:
                maps = [m.flip(-1) for m in maps]
            passes += 1
            total = [t + _resized(m, t.shape[-1]) for t, m in zip(total, maps, strict=True)] if total else maps
    return [torch.sigmoid(t / passes) for t in total]


def _resized(maps: Tensor, side: int) -> Tensor:
    return maps if maps.shape[-1] == side else F.interpolate(maps, size=side, mode="bilinear", align_corners=False)


def _create(folder: Path, stems: Sequence[str], size: int, settings: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    count = len(stems)
    shapes: dict[str, tuple[int, ...]] = {"images": (count, size, size, 3)}
    shapes |= {n: (count, side_of(size, d), side_of(size, d)) for n, d in zip(MAP_NAMES, MAP_DIVISORS, strict=True)}
    for name, shape in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape).flush()
    np.lib.format.open_memmap(folder / "done.npy", mode="w+", dtype=np.bool_, shape=(count,)).flush()
    write_json(folder / "cache.json", {"size": size, "stems": list(stems), "settings": settings})


def _fingerprint(teacher: U2Net | None) -> str:
    if teacher is None:
        return ""
    return sha256_bytes(b"".join(v.detach().cpu().numpy().tobytes() for _, v in sorted(teacher.state_dict().items())))


def build_cache(
    pictures: ImageFolder | PairFolder,
    teacher: U2Net | None,
    folder: str | Path,
    *,
    size: int,
    flip: bool = True,
    scales: Sequence[int] = (),
    fast: bool = False,
    truth: float = 0.5,
    batch: int = 4,
    seed: int = 0,
) -> Iterator[tuple[int, int]]:
    """Fill the cache in `folder` and yield (records complete, records in all) after each batch.

    Where a picture has a mask (`PairFolder`), every map is `truth` parts of the mask, area-reduced to the map's
    resolution, and 1 − `truth` parts of the teacher's; without a teacher all of it is the mask. Continues an
    interrupted fill. Raises `DataError` where the folder holds a cache of other pictures or settings.
    """
    if teacher is None and not isinstance(pictures, PairFolder):
        raise ConfigError("without a teacher the pictures need masks: a folder with images/ and masks/")
    folder = Path(folder)
    stems = [record.stem for record in pictures]
    settings: dict[str, object] = {
        "flip": flip,
        "scales": list(scales),
        "fast": fast,
        "truth": truth if isinstance(pictures, PairFolder) else 0.0,
        "teacher": teacher.config.name if teacher else "",
        "teacher_sha256": _fingerprint(teacher),
    }
    if isinstance(pictures, PairFolder) and pictures[0].mask_values is not None:
        settings["mask_values"] = pictures[0].mask_values
    if not (folder / "cache.json").exists():
        _create(folder, stems, size, settings)
    about = json.loads((folder / "cache.json").read_text())
    if about != {"size": size, "stems": stems, "settings": settings}:
        raise DataError(f"{folder} holds a cache of other pictures or settings; give another folder")
    cache = Cache.open(folder, "r+")
    prepared = prepare_teacher(teacher, fast) if teacher else None
    order = np.random.default_rng(seed).permutation(len(stems))
    order = order[~cache.done[order]]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        for row in rows:
            picture = resize_for_network(pictures[int(row)].image(), size)
            cache.images[row] = np.floor(picture + 0.5).clip(0, 255).astype(np.uint8)
        maps: list[Tensor] = []
        if prepared:
            rgb = torch.from_numpy(cache.images[rows].transpose(0, 3, 1, 2))
            found = teacher_maps(prepared, rgb, flip, scales, fast)
            # A teacher with a stem computes its maps at a lower resolution than the paper's network.
            maps = [_resized(m, store.shape[-1]) for m, store in zip(found, cache.maps, strict=True)]
        if isinstance(pictures, PairFolder):
            masks = torch.stack([_mask(pictures[int(row)], size) for row in rows])
            sides = [store.shape[-1] for store in cache.maps]
            truths = [F.interpolate(masks, size=side, mode="area") for side in sides]
            maps = [t * truth + m.cpu() * (1 - truth) for t, m in zip(truths, maps, strict=True)] if maps else truths
        for store, values in zip(cache.maps, maps, strict=True):
            store[rows] = (values[:, 0] * 255.0 + 0.5).to(torch.uint8).cpu().numpy()
        cache.done[rows] = True
        yield int(cache.done.sum()), len(cache)


def _mask(record: PairRecord, size: int) -> Tensor:
    """The record's mask as float32 (1, size, size) in [0, 1]: soft mattes stay soft."""
    return torch.from_numpy(resize_bilinear(record.alpha(), size, size))[None]

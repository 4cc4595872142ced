"""How well a student agrees with its teacher on pictures that training never sees, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from u2net.errors import DataError
from u2net.files import write_bytes
from u2net.network.model import U2Net

from .cache import Cache
from .forward import memory_format, normalise_batch

__all__ = ["copy_held_out", "fit_temperature", "held_out", "map_sides", "scale_logits", "validate"]


def held_out(cache: Cache, holdout: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows to train on and rows to validate on, the complete ones of `cache`; a stem's side never changes.

    At most a quarter of the pictures are held out: a shop's 40 product shots are still enough to do both.
    """
    holdout = min(holdout, len(cache) // 4)
    order = np.random.default_rng(20260101).permutation(len(cache))
    validation, training = np.sort(order[:holdout]), np.sort(order[holdout:])
    done = np.asarray(cache.done)
    training, validation = training[done[training]], validation[done[validation]]
    if not len(training) or not len(validation):
        raise DataError(f"{cache.folder}: too few pictures ({int(done.sum())}) to hold any out; give at least 4")
    return training, validation


def copy_held_out(data: Path, cache: Cache, holdout: int, folder: Path) -> None:
    """Copy the pictures of `data` that are never trained on, with their masks, to `folder`/images and /masks."""
    from datasets.folder import PairFolder  # not above: `train.run` must do without what reads pictures

    _, rows = held_out(cache, holdout)
    stems = {cache.stems[row] for row in rows}
    for record in PairFolder(data):
        if record.stem in stems:
            for name, path in (("images", record.image_path), ("masks", record.mask_path)):
                (folder / name).mkdir(parents=True, exist_ok=True)
                write_bytes(folder / name / path.name, path.read_bytes())


def _halved(side: int, times: int) -> int:
    """`side` after `times` poolings, rounded up at each as the network does."""
    for _ in range(times):
        side = (side + 1) // 2
    return side


def map_sides(model: U2Net, size: int) -> list[int]:
    """Sides in pixels at which the seven maps of a `size` input are compared: the fused one at full resolution."""
    base = size // model.config.stem
    first = int(model.config.first_pool)  # halvings between stages 1 and 2
    return [size, base, *(_halved(base, first + k) for k in range(5))]


@torch.no_grad()
def _fused(
    model: U2Net, cache: Cache, rows: npt.NDArray[np.intp], device: torch.device, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits of the fused map, and the teacher's map, of pictures as they are: float32 (N, 1, S, S) both."""
    model.eval()
    for start in range(0, len(rows), batch):
        picked = rows[start : start + batch]
        pictures = torch.from_numpy(np.ascontiguousarray(cache.images[picked].transpose(0, 3, 1, 2)))
        target = (torch.from_numpy(cache.maps[picked][:, None]).float() / 255.0).to(device)
        x = normalise_batch(pictures.to(device)).contiguous(memory_format=memory_format(device))
        fused = model.native_logits(x)[0].float()
        yield F.interpolate(fused, size=target.shape[2:], mode="bilinear", align_corners=False), target


def validate(
    model: U2Net, cache: Cache, rows: npt.NDArray[np.intp], device: torch.device, batch: int = 8
) -> dict[str, float]:
    """Agreement with the cached teacher on `rows`, pictures as they are: MAE, mean IoU at 0.5 and largest MAE of one.

    Two empty masks agree (IoU 1). Runs in float32, in evaluation mode.
    """
    errors: list[float] = []
    ious: list[float] = []
    for logits, target in _fused(model, cache, rows, device, batch):
        mask = torch.sigmoid(logits)
        errors += (mask - target).abs().mean((1, 2, 3)).tolist()
        a, b = mask > 0.5, target > 0.5
        either = (a | b).sum((1, 2, 3)).double()
        ious += torch.where(either > 0, (a & b).sum((1, 2, 3)) / either.clamp(min=1), 1.0).tolist()
    return {"val_mae": float(np.mean(errors)), "val_iou": float(np.mean(ious)), "val_max_error": float(np.max(errors))}


def fit_temperature(
    model: U2Net, cache: Cache, rows: npt.NDArray[np.intp], device: torch.device, batch: int = 8
) -> tuple[float, dict[float, float]]:
    """The factor, of those 1.1ⁿ from 0.5 to 4, by which the fused map's logits come nearest the teacher's on `rows`.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) by the maps' mean absolute
    error: a student that was trained by cross-entropy hedges wherever it cannot see what its teacher sees, and a hedge
    is a grey veil over the picture. Masks at 0.5 do not change. Also returns the error of every factor.
    """
    factors = [1.1**n for n in range(math.ceil(math.log(0.5, 1.1)), math.floor(math.log(4, 1.1)) + 1)]
    sums = dict.fromkeys(factors, 0.0)
    for logits, target in _fused(model, cache, rows, device, batch):
        for factor in factors:
            sums[factor] += float((torch.sigmoid(logits * factor) - target).abs().mean((1, 2, 3)).sum())
    errors = {factor: total / len(rows) for factor, total in sums.items()}
    return min(errors, key=errors.__getitem__), errors


@torch.no_grad()
def scale_logits(model: U2Net, factor: float) -> None:
    """Multiply the logits of the fused map by `factor`, in place; the side maps stay as they are."""
    for parameter in model.outconv.parameters():
        parameter.mul_(factor)

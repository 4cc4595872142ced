"""How well a quantized model's masks agree with the float model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from u2net.agreement import EMPTY_SHARE

from .sessions import open_session

__all__ = ["Agreement", "agreement", "mask_share", "run_maps", "to_map"]

FloatArray = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Masks cut at 0.5 and raw maps of two models, picture by picture.

    Two masks that are both empty agree in nothing: such pictures are counted, and left out of every figure of IoU.
    """

    intersection: Array64  # (pictures,) share of the picture
    union: Array64  # (pictures,) likewise
    mae: FloatArray  # (pictures,) mean absolute difference of the raw maps
    spread: FloatArray  # (pictures,) standard deviation of the quantized model's map

    @property
    def iou(self) -> Array64:
        """IoU of each picture in which either model sees a subject."""
        shown = self.union >= EMPTY_SHARE
        return self.intersection[shown] / self.union[shown]

    @property
    def iou_mean(self) -> float:
        """Mean of the single IoUs; 0 where no picture shows a subject."""
        return float(self.iou.mean()) if self.iou.size else 0.0

    @property
    def iou_pooled(self) -> float:
        """IoU over the pixels of all pictures, so that a picture weighs as much as its subject is large."""
        union = float(self.union.sum())
        return float(self.intersection.sum()) / union if union else 0.0

    def summary(self) -> dict[str, float | int]:
        """Figures for the sidecar and for tables."""
        single = self.iou if self.iou.size else np.zeros(1)
        return {
            "pictures": len(self.mae),
            "empty_pictures": len(self.mae) - self.iou.size,
            "iou_mean": round(self.iou_mean, 6),
            "iou_pooled": round(self.iou_pooled, 6),
            "iou_p5": round(float(np.percentile(single, 5)), 6),
            "iou_min": round(float(single.min()), 6),
            "mae_mean": round(float(self.mae.mean()), 6),
            "mae_max": round(float(self.mae.max()), 6),
        }


def mask_share(found: FloatArray) -> float:
    """Share of the picture that a map cut at 0.5 covers."""
    return float(np.count_nonzero(found > 0.5)) / found.size


def agreement(reference: Sequence[FloatArray], found: Sequence[FloatArray]) -> Agreement:
    """Compare the maps of one model with those of another, picture by picture."""
    pairs = list(zip(reference, found, strict=True))
    return Agreement(
        np.array([np.mean((a > 0.5) & (b > 0.5)) for a, b in pairs]),
        np.array([np.mean((a > 0.5) | (b > 0.5)) for a, b in pairs]),
        np.array([np.abs(a - b).mean(dtype=np.float64) for a, b in pairs], np.float32),
        np.array([b.std() for _, b in pairs], np.float32),
    )


def to_map(output: npt.NDArray[Any]) -> FloatArray:
    """What a network gives, float or 8 bits, as float32 in [0, 1]."""
    values: FloatArray = output.astype(np.float32)
    return values / np.float32(255) if output.dtype == np.uint8 else values


def run_maps(
    session: Any, input_name: str, inputs: Sequence[npt.NDArray[Any]], progress: Any = None
) -> list[FloatArray]:
    """The first output of a session for each input, as float32 in [0, 1]."""
    name = session.get_outputs()[0].name
    maps = []
    for index in range(len(inputs)):
        maps.append(to_map(session.run([name], {input_name: inputs[index]})[0]))
        if progress is not None:
            progress(index + 1)
    return maps


def maps_of(
    model: onnx.ModelProto | str,
    input_name: str,
    inputs: Sequence[npt.NDArray[Any]],
    threads: int,
    progress: Callable[[str, int, int], None],
    what: str,
) -> list[FloatArray]:
    """The maps of a model, or of the file that holds it, as it is deployed: quantized operators in integer kernels."""
    session = open_session(model, threads, fuse=True)
    return run_maps(session, input_name, inputs, lambda done: progress(what, done, len(inputs)))

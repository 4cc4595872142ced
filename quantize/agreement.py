"""How well a quantized model's masks agree with the float model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Agreement", "agreement", "mask_iou", "run_maps"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """IoU of the masks at 0.5 and mean absolute difference of the raw maps, over pictures."""

    iou: FloatArray  # (pictures,)
    mae: FloatArray  # (pictures,)
    spread: FloatArray  # (pictures,) standard deviation of the quantized model's map

    def summary(self) -> dict[str, float | int]:
        """Figures for the sidecar and for tables."""
        return {
            "pictures": len(self.iou),
            "iou_mean": round(float(self.iou.mean()), 6),
            "iou_p5": round(float(np.percentile(self.iou, 5)), 6),
            "iou_min": round(float(self.iou.min()), 6),
            "mae_mean": round(float(self.mae.mean()), 6),
            "mae_max": round(float(self.mae.max()), 6),
        }


def mask_iou(first: FloatArray, second: FloatArray) -> float:
    """Intersection over union of two maps cut at 0.5; 1 where both are empty."""
    a, b = first > 0.5, second > 0.5
    union = int(np.count_nonzero(a | b))
    return 1.0 if union == 0 else int(np.count_nonzero(a & b)) / union


def agreement(reference: Sequence[FloatArray], found: Sequence[FloatArray]) -> Agreement:
    """Compare the maps of one model with those of another, picture by picture."""
    pairs = list(zip(reference, found, strict=True))
    return Agreement(
        np.array([mask_iou(a, b) for a, b in pairs], np.float32),
        np.array([np.abs(a - b).mean(dtype=np.float64) for a, b in pairs], np.float32),
        np.array([b.std() for _, b in pairs], np.float32),
    )


def run_maps(session: Any, input_name: str, inputs: Sequence[npt.NDArray], progress: Any = None) -> list[FloatArray]:
    """The first output of a session for each input, as float32 in [0, 1]."""
    name = session.get_outputs()[0].name
    maps = []
    for index in range(len(inputs)):
        found = session.run([name], {input_name: inputs[index]})[0]
        maps.append(found.astype(np.float32) / (255 if found.dtype == np.uint8 else 1))
        if progress is not None:
            progress(index + 1)
    return maps

"""How much two masks agree. One definition for all stages that compare masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mask_iou"]


def mask_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Intersection over union of two bool masks of one shape, in [0, 1]; 1 where both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0

"""How much two masks agree. One definition for all stages that compare masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["EMPTY_SHARE", "agreement_iou", "holds_subject", "mask_iou"]

#: A mask that covers less of the picture than this holds no subject: 102 pixels of 320×320.
EMPTY_SHARE = 1e-3


def holds_subject(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether a bool mask covers `EMPTY_SHARE` of its picture or more."""
    return bool(mask.mean() >= EMPTY_SHARE)


def mask_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Intersection over union of two bool masks of one shape, in [0, 1]; 1 where both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def agreement_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """`mask_iou` of two models' masks of one picture; 1 where neither holds a subject.

    On a picture whose map hardly reaches one half, a few stray pixels of either model would otherwise weigh as much as
    a subject that is lost.
    """
    return mask_iou(a, b) if holds_subject(a | b) else 1.0

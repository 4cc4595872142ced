"""What is measured of a mask: the name of each measure, which way is better, and what it says in one line.

Everything that lists measures (the report, its Markdown, the gate, the tables in the terminal) takes them from here.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AGREEMENT", "FLAWS", "MASK", "MATTE", "MEASURES", "Measure", "higher_is_better"]


@dataclass(frozen=True)
class Measure:
    """`title` stands in tables; `meaning` is one line for somebody who sees it for the first time."""

    title: str
    higher_is_better: bool
    meaning: str
    percent: bool = False  # shown as a share of a hundred


#: The mask cut at one half, or at all thresholds, against the true mask.
MASK = {
    "iou": Measure("IoU", True, "shared area over joint area of the mask cut at ½ and the truth; 1 is perfect"),
    "iou_mean": Measure("IoU, mean", True, "the same, as the mean over all 256 cut-offs"),
    "iou_max": Measure("IoU, best", True, "the same, at the one cut-off that is best for the whole set"),
    "mae": Measure("MAE", False, "mean absolute error of the mask's pixels, from 0 to 1"),
    "f_adaptive": Measure("Fβ, adaptive", True, "precision and recall in one figure (β² = 0.3), cut at twice the mean"),
    "f_mean": Measure("Fβ, mean", True, "the same, as the mean over all 256 cut-offs"),
    "f_max": Measure("Fβ, best", True, "the same, at the one cut-off that is best for the whole set"),
    "f_weighted": Measure("weighted Fβ", True, "Fβ that counts errors by where they are (Margolin et al. 2014)"),
    "s_measure": Measure("S-measure", True, "likeness of structure, of the subject and by region (Fan et al. 2017)"),
    "e_adaptive": Measure("E-measure, adaptive", True, "likeness pixel by pixel and as a whole (Fan et al. 2018)"),
    "e_mean": Measure("E-measure, mean", True, "the same, as the mean over all 256 cut-offs"),
    "e_max": Measure("E-measure, best", True, "the same, at the one cut-off that is best for the whole set"),
    "boundary_f": Measure("boundary Fβ", True, "how much of the outline lies within 3 pixels of the true one"),
    "boundary_iou": Measure("boundary IoU", True, "IoU of the bands along both outlines, 2 % of the diagonal wide"),
}
#: What people see as mistakes, by kind. Absent from reports that are older than these measures.
FLAWS = {
    "holes": Measure("holes", False, "share of the subject lost in holes that the mask encloses", percent=True),
    "islands": Measure("islands", False, "share of the picture kept in parts that touch no subject", percent=True),
    "grey_interior": Measure(
        "grey interior",
        False,
        "share of the subject's inside that is neither kept nor removed (10 to 90 %)",
        percent=True,
    ),
}
#: Against true mattes alone (Rhemann et al. 2009).
MATTE = {
    "sad": Measure("SAD", False, "sum of absolute differences to the true matte, in thousands"),
    "mse": Measure("MSE", False, "mean squared difference to the true matte"),
    "gradient": Measure("gradient error", False, "difference of the mattes' edges, in thousands"),
    "connectivity": Measure("connectivity error", False, "parts that hang loose from the subject, in thousands"),
}
#: Of one model's masks with the first model's.
AGREEMENT = {
    "iou": Measure("IoU, mean", True, "IoU of this model's mask and the first model's; 1 is the same mask"),
    "iou_p5": Measure("IoU, 5th percentile", True, "one picture in twenty agrees less than this"),
    "iou_worst": Measure("IoU, worst picture", True, "the picture on which the two differ most"),
    "mae": Measure("mean absolute difference", False, "of the masks' pixels, from 0 to 1"),
}
MEASURES = {**MASK, **FLAWS, **MATTE}


def higher_is_better(name: str) -> bool:
    """Whether more of the figure `name` (the last part of a path that a policy names) is better."""
    known = MEASURES.get(name) or AGREEMENT.get(name)
    return known.higher_is_better if known else name in ("iou_with_native", "integer_share")

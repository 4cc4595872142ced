"""What people see as mistakes in a cut-out, by kind: holes in the subject, islands beside it, an inside that is grey.

- **Holes**: pixels of the subject that the mask leaves out and encloses (connected background, four neighbours, that
  does not reach the picture's frame), as a share of the subject. A cat's eye; not the gap between an arm and a body.
- **Islands**: pixels of those parts of the mask (eight neighbours) that touch no pixel of the subject, as a share of
  the picture. A fence post, a bystander.
- **Grey interior**: pixels of the subject's inside with a value of 10 to 90 %, as a share of that inside. A torso that
  can be seen through. The inside is what lies deeper than boundary IoU's band (2 % of the diagonal), without what a
  true matte has softer than 95 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["flaws"]

BoolArray = npt.NDArray[np.bool_]

GREY = (26, 230)  # of 255: from here on, and below that, a pixel is neither removed nor kept
OPAQUE = 0.95  # of a true matte: what is softer is grey by right
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def flaws(
    prediction: npt.NDArray[np.uint8],
    binary: BoolArray,
    truth: BoolArray,
    edge: BoolArray,
    alpha: npt.NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """ "holes", "islands" and "grey_interior", each in [0, 1], of an 8-bit mask (H, W).

    `binary` is the mask cut at one half, `truth` the subject, `edge` its pixels along the outline and `alpha` its true
    matte, where there is one; all (H, W).
    """
    subject = int(np.count_nonzero(truth))
    interior = truth & ~edge if alpha is None else truth & ~edge & (alpha >= OPAQUE)
    inside = prediction[interior]
    return {
        "holes": np.count_nonzero(_enclosed(binary) & truth) / subject if subject else 0.0,
        "islands": np.count_nonzero(_apart(binary, truth)) / truth.size,
        "grey_interior": np.count_nonzero((inside >= GREY[0]) & (inside < GREY[1])) / max(inside.size, 1),
    }


def _enclosed(binary: BoolArray) -> BoolArray:
    """Background that does not reach the frame."""
    labels, count = ndimage.label(~binary)
    open_parts = np.zeros(count + 1, bool)
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        open_parts[border] = True
    open_parts[0] = True  # the mask itself
    return ~open_parts[labels]


def _apart(binary: BoolArray, truth: BoolArray) -> BoolArray:
    """Parts of the mask that touch no pixel of the truth."""
    labels, count = ndimage.label(binary, EIGHT_NEIGHBOURS)
    touching = np.zeros(count + 1, bool)
    touching[labels[truth]] = True
    touching[0] = True
    return ~touching[labels]

"""What a student knows of its teacher's features, beside the maps: more to learn from every picture.

The seven maps say little about most of what a network sees, and a student that is asked for them alone finds other
features, which agree with the teacher on the pictures it is trained on and less on others. Asking for the teacher's
features as well (Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015) keeps it general.

Notable choices:

- **no adapters**: the student's channels are fewer and have an order of their own, so they are compared through the
  linear map that explains the teacher's best, solved in closed form for every batch (ridge regression). There is
  nothing more to train, to store or to continue from;
- **inner stages only**: stage 1 is where a fast student has to differ, and stages 2d and 1d are what the maps show. So
  the teacher also stops before the two stages that cost it most.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FEATURE_STAGES", "feature_loss", "unexplained"]

#: Compared stages, in forward order.
FEATURE_STAGES = ("stage2", "stage3", "stage4", "stage5", "stage6", "stage5d", "stage4d", "stage3d")


def _rows(features: Tensor) -> Tensor:
    """(N, C, H, W) as centred float32 (N·H·W, C)."""
    rows = features.float().movedim(1, -1).flatten(0, 2)
    return rows - rows.mean(0)


def unexplained(student: Tensor, teacher: Tensor, ridge: float = 1e-3) -> Tensor:
    """The part of the teacher's variance that no linear map of the student's channels explains: a scalar in [0, 1].

    `student` (N, C, h, w), `teacher` (N, D, H, W); the teacher's are averaged down to (h, w), and its channels count
    alike whatever their scale. `ridge` is relative to the student's mean variance.
    """
    wanted = _rows(F.adaptive_avg_pool2d(teacher.float(), (student.shape[2], student.shape[3])))
    given = _rows(student)
    with torch.no_grad():
        variance = wanted.square().mean(0)
        wanted = wanted / torch.sqrt(variance + 1e-3 * variance.mean() + 1e-12)
        gram = given.T @ given
        gram.diagonal().add_(ridge * gram.diagonal().mean() + 1e-12)
        linear = torch.linalg.solve(gram, given.T @ wanted)
    # The best linear map is held fixed: at an optimum its own derivative is zero.
    return (given @ linear - wanted).square().mean()


def feature_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean of `unexplained` over `FEATURE_STAGES`; the arguments are what `U2Net.stage_outputs` gives."""
    return torch.stack([unexplained(student[name], teacher[name]) for name in FEATURE_STAGES]).mean()

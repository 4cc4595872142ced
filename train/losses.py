"""What the student is asked for: the teacher's seven maps, weighted towards the fused one and towards edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LossWeights", "distillation_loss"]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss's terms."""

    fused: float = 1.0  # cross-entropy of the map that is shipped
    iou: float = 0.6  # counts a small subject as much as a large one, as IoU and Fβ do
    edge: float = 3.0  # extra weight of a pixel on the teacher's edge, relative to a flat one
    sides: float = 0.4  # deep supervision, each of the six maps
    features: float = 0.0  # the teacher's inner features; needs the teacher at every step


def _cross_entropy(logits: Tensor, target: Tensor, edge: float) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if edge:
        rows = F.avg_pool2d(target, (1, 9), stride=1, padding=(0, 4), count_include_pad=False)
        neighbourhood = F.avg_pool2d(rows, (9, 1), stride=1, padding=(4, 0), count_include_pad=False)
        weight = 1.0 + edge * (neighbourhood - target).abs()
        return (loss * weight).sum() / weight.sum()
    return loss.mean()


def soft_iou(probability: Tensor, target: Tensor) -> Tensor:
    """Σ min / Σ max of two maps (N, 1, H, W) in [0, 1], per picture (N,). 1 only where they are equal."""
    both = torch.minimum(probability, target).sum((1, 2, 3))
    either = torch.maximum(probability, target).sum((1, 2, 3))
    # A picture without a subject would turn every stray 0.01 into a loss of 1: half a percent of the area damps it.
    floor = 0.005 * target[0].numel()
    return (both + floor) / (either + floor)


def distillation_loss(logits: tuple[Tensor, ...], targets: tuple[Tensor, ...], w: LossWeights) -> dict[str, Tensor]:
    """Scalar terms `total`, `fused`, `iou`, `sides` of seven float32 logit maps against targets of the same shapes.

    The fused map is resized to its target's resolution first, as the network does at its end.
    """
    fused = logits[0]
    if fused.shape != targets[0].shape:
        fused = F.interpolate(fused, size=targets[0].shape[2:], mode="bilinear", align_corners=False)
    terms = {"fused": _cross_entropy(fused, targets[0], w.edge)}
    terms["iou"] = (1.0 - soft_iou(torch.sigmoid(fused), targets[0])).mean()
    sides = [_cross_entropy(z, t, 0.0) for z, t in zip(logits[1:], targets[1:], strict=True)]
    terms["sides"] = torch.stack(sides).mean()
    terms["total"] = w.fused * terms["fused"] + w.iou * terms["iou"] + w.sides * len(sides) * terms["sides"]
    return terms

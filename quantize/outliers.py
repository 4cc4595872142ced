"""Pictures on which int8 masks agree least with float ones, and whether the float masks were any more certain.

A mask is a map cut at 0.5. Where the network is unsure, its map has that value over a wide area, and a change too small
to see gives another mask: int8's rounding, or the next version of a runtime. How much of a mask hangs on the threshold
is its stability, the IoU of the masks at thresholds a little above and below (the stability score of Kirillov et al.,
"Segment Anything", 2023). A mask that agrees as well as it is stable is no fault of the quantization.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datasets.calibration import calibration_images
from u2net.agreement import holds_subject, mask_iou

from .agreement import maps_of, mask_share
from .graph import load_graph
from .inputs import network_inputs
from .plan import Progress

__all__ = ["OFFSET", "Outlier", "outliers", "stability"]

FloatArray = npt.NDArray[np.float32]

OFFSET = 0.05  # of the thresholds around 0.5, either way: a difference that nobody sees


@dataclass(frozen=True)
class Outlier:
    """One picture. Shares are of the picture's area."""

    picture: str
    iou: float  # of the int8 mask with the float one
    stability: float  # of the float mask
    float_share: float  # that the float mask covers
    int8_share: float
    mae: float  # mean absolute difference of the maps


def stability(found: FloatArray) -> float:
    """IoU of the masks that a map in [0, 1] gives at 0.5 ± `OFFSET`; 1 where neither shows anything."""
    outer, inner = found > 0.5 - OFFSET, found > 0.5 + OFFSET
    return float(mask_iou(outer, inner)) if outer.any() else 1.0


def outliers(
    source: str | os.PathLike[str],
    quantized: str | os.PathLike[str],
    data: str | os.PathLike[str] | None,
    count: int,
    worst: int,
    threads: int,
    progress: Progress,
) -> tuple[list[dict[str, Any]], str]:
    """The `worst` of `count` pictures of `data` (None: the procedural set), and a Markdown table.

    Pictures in which neither model sees a subject are left out.
    """
    graph = load_graph(source)
    pictures = calibration_images(data, count)
    inputs = network_inputs(graph, pictures)
    reference = maps_of(graph.to_model(), graph.input, inputs, threads, progress, "measuring float")
    found = maps_of(str(quantized), graph.input, inputs, threads, progress, "measuring int8")
    rows = [
        Outlier(
            name,
            round(float(mask_iou(a > 0.5, b > 0.5)), 6),
            round(stability(a), 6),
            round(mask_share(a), 6),
            round(mask_share(b), 6),
            round(float(np.abs(a - b).mean(dtype=np.float64)), 6),
        )
        for name, a, b in zip(pictures.names, reference, found, strict=True)
        if holds_subject((a > 0.5) | (b > 0.5))
    ]
    rows = sorted(rows, key=lambda row: row.iou)[:worst]
    lines = [
        "| picture | IoU of int8 with float | stability of the float mask | float, int8 cover | maps differ by |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        cover = f"{row.float_share:.1%}, {row.int8_share:.1%}"
        lines.append(f"| {row.picture} | {row.iou:.3f} | {row.stability:.3f} | {cover} | {row.mae:.4f} |")
    return [asdict(row) for row in rows], "\n".join([*lines, "", f"The {len(rows)} worst of {len(pictures)} pictures."])

"""How close models' masks are to those of the report's first model, and how all stand to the truth: one table."""

from __future__ import annotations

import os
from collections.abc import Sequence

from u2net.errors import ModelError

from .report import load_report

__all__ = ["closeness_table"]

HEADINGS = (
    "| masks of | against | pictures | mean IoU | 5th percentile | worst | MAE | IoU with the truth | theirs |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|",
)


def closeness_table(reports: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table with a row for each model of each report but its first.

    Raises `ArtifactError` for what is no report, `ModelError` for one without masks of two models.
    """
    rows = []
    for path in reports:
        quality = load_report(path).quality
        if len(quality.models) < 2:
            raise ModelError(f"{path} judges no masks of two models: run `u2net eval A B`, without --no-quality")
        first = quality.models[quality.reference]
        for name, judged in quality.models.items():
            if name == quality.reference:
                continue
            close = judged.agreement
            rows.append(
                f"| {name} | {quality.reference} | {quality.pictures} | {close.iou:.4f} | {close.iou_p5:.4f} | "
                f"{close.iou_worst:.4f} | {close.mae:.5f} | {judged.overall.iou:.4f} | {first.overall.iou:.4f} |"
            )
    return "\n".join([*HEADINGS, *rows])

"""Whether a measurement may be believed, and whether what it says is good enough."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.calibration import CalibrationSplit
from datasets.folder import some
from u2net.agreement import EMPTY_SHARE
from u2net.errors import DataError, QualityError

from .agreement import Agreement
from .pipeline import Quantized
from .settings import QuantizeSettings

__all__ = ["falls_short", "refuse_dishonest", "refuse_poor", "refuse_subjectless", "warnings_of"]

#: A quantized map whose standard deviation is below this on every picture is a blank mask.
BLANK = 1e-3
FEW_PICTURES = 8  # calibrated on; below it, what the next picture holds is anybody's guess
CURE = (
    "nothing was written; calibrate on more pictures (--calib DIR, --count N), keep layers in float with --budget "
    "iou=X, "
    "or move the limit with --floor and --max-mae"
)
LOSS_ELSEWHERE = 0.02  # of mean IoU on procedural scenes, against the folder's own pictures, that is worth a warning


def refuse_subjectless(split: CalibrationSplit, coverage: Sequence[float]) -> tuple[str, ...]:
    """The pictures in which the float model sees no subject.

    `coverage` is the share of each picture that its mask covers, in the split's order. Raises `DataError` where those
    are most of them, or all that would be measured on: empty masks always agree.
    """
    names = (*split.calibration.names, *split.check.names)[-len(coverage) :]
    empty = [name for name, share in zip(names, coverage, strict=True) if share < EMPTY_SHARE]
    measured = coverage[-len(split.check) :]
    if 2 * len(empty) > len(names) or max(measured) < EMPTY_SHARE:
        raise DataError(
            f"the float model sees no subject in {len(empty)} of {len(names)} pictures of {split.calibration.source} "
            f"({some(sorted(empty), ', ')}), and empty masks always agree; give pictures of the kind that it was "
            "taught with --calib DIR"
        )
    return tuple(sorted(empty))


def refuse_dishonest(found: Quantized, settings: QuantizeSettings) -> None:
    """Raise `QualityError` where nothing was quantized or the masks are blank or poor."""
    if settings.format != "weights" and not found.kernels.integer:
        raise QualityError(
            "no convolution runs in an integer kernel once the runtime has optimised the model; use --format fp16, "
            "or a wider network"
        )
    if float(found.agreement.spread.max()) < BLANK:
        raise QualityError(f"the quantized model's mask is blank on every picture; {CURE}")
    refuse_poor(found.agreement, settings)
    if settings.budget is not None and found.agreement.iou_mean < settings.budget:
        raise QualityError(
            f"the budget of iou={settings.budget:g} cannot be met: the best mean IoU is "
            f"{found.agreement.iou_mean:.4f}; "
            "ask for less, or calibrate on more pictures with --calib DIR --count N"
        )


def refuse_poor(agreed: Agreement, settings: QuantizeSettings, what: str = "quantized masks") -> None:
    """Raise `QualityError` where the mean of single IoUs, the pooled IoU or the maps' difference is too bad."""
    for value, name in ((agreed.iou_mean, "mean"), (agreed.iou_pooled, "pooled")):
        if value < settings.floor:
            raise QualityError(
                f"the {what} agree with float to a {name} IoU of {value:.4f} only, below the floor of "
                f"{settings.floor:g}; {CURE}"
            )
    mae = float(agreed.mae.mean())
    if mae > settings.max_mae:
        raise QualityError(
            f"the {what} differ from float by {mae:.4f} on average, above the limit of {settings.max_mae:g}; {CURE}"
        )


def falls_short(agreed: Agreement, elsewhere: Agreement) -> bool:
    """Whether masks of procedural scenes, in most of which the float model sees a subject, agree less than others."""
    seen = 2 * elsewhere.iou.size >= len(elsewhere.mae)
    return seen and elsewhere.iou_mean < agreed.iou_mean - LOSS_ELSEWHERE


def warnings_of(
    split: CalibrationSplit, empty: Sequence[str], agreed: Agreement, elsewhere: Agreement | None
) -> list[str]:
    """What a reader of the figures should know; `elsewhere` was measured on procedural scenes."""
    warnings = [f"left out: {reason}" for reason in split.left_out]
    if empty:
        warnings.append(f"the float model sees no subject in {len(empty)} pictures: {some(list(empty), ', ')}")
    if len(split.calibration) < FEW_PICTURES:
        warnings.append(f"calibrated on {len(split.calibration)} pictures only; give {FEW_PICTURES} or more")
    if elsewhere is not None and 2 * elsewhere.iou.size < len(elsewhere.mae):
        warnings.append("the float model sees no subject in most procedural scenes: only the folder says how it does")
    elif elsewhere is not None and falls_short(agreed, elsewhere):
        warnings.append(
            f"masks of procedural scenes agree to {elsewhere.iou_mean:.4f} only, {agreed.iou_mean:.4f} on the folder's "
            "pictures: the folder does not show all that a photograph may; add other kinds of pictures to it"
        )
    return warnings

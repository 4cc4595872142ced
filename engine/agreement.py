"""How well the engine's maps agree with those of onnxruntime, which runs the same int8 model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from u2net.agreement import agreement_iou
from u2net.errors import ModelError, QualityError
from u2net.preprocess import normalise, resize_bilinear

from .runtime import EngineSession

__all__ = ["MAX_DIFFERENCE", "measure_agreement"]

#: Mean absolute difference of the maps, in [0, 1], beyond which a file is not written. Both round at other places; over
#: photographs that makes under 0.001, on a single picture with a doubtful subject a few times that.
MAX_DIFFERENCE = 0.01


def measure_agreement(
    model: onnx.ModelProto, file: bytes, pictures: Sequence[npt.NDArray[np.uint8]]
) -> dict[str, float | int]:
    """Figures over `pictures`, uint8 (H, W, 3): IoU of the masks at 0.5 and mean absolute difference of the maps.

    Raises `QualityError` where the maps differ by more than `MAX_DIFFERENCE` on average.
    """
    session = EngineSession(file)
    reference = _onnxruntime(model)
    iou, difference = [], []
    for picture in pictures:
        tensor = normalise(resize_bilinear(picture, *session.input_size))
        ours, theirs = session.run(tensor), reference(tensor)
        iou.append(agreement_iou(ours > 0.5, theirs > 0.5))
        difference.append(float(np.abs(ours - theirs).mean(dtype=np.float64)))
    figures: dict[str, float | int] = {
        "pictures": len(pictures),
        "iou_mean": round(float(np.mean(iou)), 6),
        "iou_min": round(float(np.min(iou)), 6),
        "mae_mean": round(float(np.mean(difference)), 6),
        "mae_max": round(float(np.max(difference)), 6),
    }
    if not figures["mae_mean"] <= MAX_DIFFERENCE:
        raise QualityError(f"the engine's maps differ from onnxruntime's by {figures['mae_mean']:.2g} on average")
    return figures


def _onnxruntime(model: onnx.ModelProto):  # type: ignore[no-untyped-def]
    """The model's map of a tensor, by onnxruntime."""
    try:
        from u2net.runtime import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )  # fmt: skip
    except Exception as error:  # onnxruntime raises its own family, which derives from Exception alone
        raise ModelError(f"onnxruntime refuses the model: {' '.join(str(error).split())[:200]}") from error
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0][0, 0]

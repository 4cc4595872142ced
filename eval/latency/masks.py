"""What an engine computed: its masks, beside native onnxruntime's and the truth."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.runtime import EngineSession
from u2net.agreement import mask_iou
from u2net.errors import ModelError
from u2net.files import write_bytes
from u2net.preprocess import resize_bilinear
from u2net.sampling import to_alpha

from .engines import BACKENDS, EngineError
from .pictures import Picture
from .prepared import Prepared

__all__ = ["MaskArray", "compare", "decode", "reference_masks", "write_mask"]

MaskArray = npt.NDArray[np.float32]


def decode(answer: dict[str, Any]) -> MaskArray:
    """The mask of an answer as float32 (s, s) in [0, 1]."""
    raw = np.frombuffer(base64.b64decode(answer["mask"]), np.dtype(answer["type"]))
    mask = raw.reshape(answer["dims"]).squeeze().astype(np.float32)
    return mask / np.float32(255) if answer["type"] == "uint8" else mask


def reference_masks(prepared: Prepared, origin: str) -> list[list[MaskArray]]:
    """Native onnxruntime's masks, per model and picture; of packed models the engine's own, outside of a browser.

    Raises `ModelError` where a model does not run there.
    """
    engine = BACKENDS["native"].open(origin)
    try:
        engine.call("start", {"provider": "cpu", "threads": 1})
        masks = []
        for index, model in enumerate(prepared.models):
            if model.is_packed:
                session = EngineSession(model.path)
                masks.append([session.run(feed) for feed in prepared.feeds[index]])
                continue
            try:
                engine.call("load", {"index": index})
                answers = [
                    engine.call("run", prepared.question(index, p, mask=True)) for p in range(len(prepared.pictures))
                ]
            except EngineError as error:
                raise ModelError(
                    f"{model.path} does not run in onnxruntime ({error}); export it again with `u2net export`"
                ) from error
            masks.append([decode(answer) for answer in answers])
        return masks
    finally:
        engine.close()


def compare(mask: MaskArray, native: MaskArray, picture: Picture) -> dict[str, Any]:
    """How far `mask` is from native onnxruntime's, and how near each is to the truth where there is one."""
    difference = np.abs(mask - native)
    row = {
        "picture": picture.name,
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "iou_with_native": mask_iou(mask > 0.5, native > 0.5),
    }
    if picture.truth is not None:
        row["iou_with_truth"] = _truth_iou(mask, picture.truth)
        row["native_iou_with_truth"] = _truth_iou(native, picture.truth)
    return row


def _truth_iou(mask: MaskArray, truth: npt.NDArray[np.bool_]) -> float:
    return mask_iou(resize_bilinear(mask, *truth.shape) > 0.5, truth)


def write_mask(path: Path, mask: MaskArray) -> None:
    """Write `mask` as an 8-bit grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(to_alpha(mask)).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())

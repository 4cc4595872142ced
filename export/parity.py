"""Proof that an exported graph computes what the PyTorch network computes, on pictures, in onnxruntime.

PyTorch computes the expected maps in float64. In float32 its own rounding depends on the processor and reaches 1e-4
with the large folded biases of the authors' small model. The graph's own is 6e-5.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from u2net.errors import QualityError
from u2net.network.model import U2Net
from u2net.preprocess import Size, normalise, resize_bilinear, resize_for_network, sides

from .settings import ExportSettings

__all__ = ["MAX_DIFFERENCE", "Expected", "Parity", "expected_maps", "measure_parity", "size_agreement"]

MAX_DIFFERENCE = 1e-4  # of a probability; float32 sums of the authors' weights are off by up to 6e-5

CURE = (
    "nothing was written; weights that are not finite or very large do this (`u2net train finetune` heals them), "
    "and so do "
    "other versions of torch and onnx than constraints.txt has (`make setup`)"
)

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Parity:
    """Differences between PyTorch's maps and the graph's over `pictures` pictures, absolute, of values in [0, 1].

    `max_levels` is the largest difference of the 8-bit alpha where the graph gives one.
    """

    pictures: int
    max_difference: float
    mean_difference: float
    max_levels: int | None = None

    def as_figures(self) -> dict[str, float | int]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, eq=False)
class Expected:
    """What the graph is given for a picture, and the seven maps that PyTorch makes of it, float64 (N, 1, H, W)."""

    feed: Array
    maps: list[npt.NDArray[np.float64]]


def expected_maps(
    reference: U2Net, settings: ExportSettings, pictures: Iterable[npt.NDArray[np.uint8]]
) -> Iterator[Expected]:
    """What a graph exported from `reference` with `settings` has to compute on `pictures`, uint8 (H, W, 3) sRGB.

    A dynamic graph gets every other picture at a second size, one that takes several pictures at a time each picture
    and its mirror image in turn.
    """
    size = settings.size or reference.config.size
    height = sides(size)[0]
    exact = copy.deepcopy(reference).double()
    for index, picture in enumerate(pictures):
        resized = resize_for_network(picture, size)
        if settings.dynamic and index % 2:
            resized = resized[: max(32, height // 2 // 32 * 32)]
        if settings.interface == "image":
            resized = np.floor(resized + np.float32(0.5))
            feed: Array = np.dstack([resized, np.zeros(resized.shape[:2])]).astype(np.uint8)[None]
        else:
            feed = normalise(resized)
        tensor = normalise(resized)
        pictures_at_once = 1 + index % 2 if settings.batch == "dynamic" else settings.batch
        if pictures_at_once > 1:
            tensor = np.concatenate([tensor[..., :: 1 - 2 * (place % 2)] for place in range(pictures_at_once)])
            feed = tensor
        with torch.inference_mode():
            yield Expected(feed, [m.numpy() for m in exact(torch.from_numpy(tensor).double())])


def measure_parity(
    proto: onnx.ModelProto,
    expected: Iterable[Expected],
    *,
    limit: float | None = MAX_DIFFERENCE,
    progress: Callable[[], None] = lambda: None,
) -> Parity:
    """Compare what `proto` computes with what `expected_maps` has of its network and settings.

    Raises `QualityError` where any value differs by more than `limit` or an 8-bit alpha by more than one level; with
    `limit` None differences are measured and allowed.
    """
    from u2net.runtime import onnxruntime

    proto = _with_float_alpha(proto)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    worst, total, count, seen = 0.0, 0.0, 0, 0
    levels: int | None = None
    for one in expected:
        results = dict(zip(names, session.run(None, {"input": one.feed}), strict=True))
        if "saliency" in results:
            alpha = results.pop("alpha")
            rounded = np.floor(one.maps[0][0] * 255 + 0.5)
            levels = max(levels or 0, int(np.abs(alpha.astype(np.float32) - rounded).max()))
        for wanted, found in zip(one.maps, results.values(), strict=False):
            difference = np.abs(wanted.reshape(found.shape) - found)
            # NaN compares false with everything, so it is looked for by name.
            worst = float("inf") if np.isnan(found).any() else max(worst, float(difference.max()))
            total += float(difference.sum(dtype=np.float64))
            count += difference.size
        seen += 1
        progress()
    if not seen:
        raise QualityError("parity was measured on no picture at all; give some with --parity-images DIR")
    if limit is None:
        return Parity(seen, worst, total / count, levels)
    if worst > limit:
        raise QualityError(f"the exported graph differs from PyTorch by {worst:.2g}, more than {limit:.0e}; {CURE}")
    if levels is not None and levels > 1:
        raise QualityError(f"the exported graph's 8-bit alpha differs from PyTorch's by {levels} levels; {CURE}")
    return Parity(seen, worst, total / count, levels)


def size_agreement(reference: U2Net, size: Size, pictures: Iterable[npt.NDArray[np.uint8]]) -> dict[str, Any]:
    """Mean IoU of the masks that `reference` makes at `size` with those at the size that it was taught at.

    Both maps are brought to `size` and cut at 0.5; pictures without a subject at either size are left out.
    """
    shares: list[float] = []
    for picture in pictures:
        maps = []
        for side in (reference.config.size, size):
            with torch.inference_mode():
                found = reference(torch.from_numpy(normalise(resize_for_network(picture, side))))[0][0, 0].numpy()
            maps.append(resize_bilinear(found, *sides(size)) > 0.5)
        union = np.count_nonzero(maps[0] | maps[1])
        if union:
            shares.append(float(np.count_nonzero(maps[0] & maps[1])) / float(union))
    return {"size": size, "pictures": len(shares), "iou_mean": round(float(np.mean(shares or [0.0])), 6)}


def _with_float_alpha(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto`, with the map before its conversion to bytes as a further output where it gives bytes."""
    if proto.graph.output[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return proto
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.append(onnx.helper.make_tensor_value_info("saliency", onnx.TensorProto.FLOAT, None))
    return shown

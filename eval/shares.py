"""What pruning costs and gains: packed models of several shares of the multiplications beside the whole one.

The engine that the browser runs is run here under wasmtime, one thread, every model once for each picture, so that what
else the machine does falls on all alike. A further row has half of the whole model's weights set to zero, the smallest
of each convolution, where they lie: what pruning single weights would give, before any healing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import brotli
import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from datasets.calibration import calibration_images
from engine.format import write_model
from engine.runtime import EngineSession
from engine.stage import pack_model
from u2net.agreement import mask_iou
from u2net.chart import Curve, draw_curves
from u2net.commandline import table_file
from u2net.errors import ModelError
from u2net.files import check_path, write_bytes, write_json
from u2net.preprocess import to_tensor

from .models import BROTLI_QUALITY, packed_facts

__all__ = ["Share", "measure_shares", "scattered_zeros"]

ROUNDS = 7  # of timing
SCATTERED = 0.5  # of the weights, that the row of single weights sets to zero


@dataclass(frozen=True)
class Share:
    """One model: its share of the multiplications, its time, its bytes, its masks' IoU with the whole one's."""

    name: str
    share: float
    latency_ms: float  # median, engine under wasmtime, one thread
    size_bytes: int
    brotli_bytes: int
    iou_mean: float
    pictures: int  # with a subject in either mask


def scattered_zeros(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """A copy of an int8 model in which the smallest `share` of each convolution's integers are zero."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
            values = numpy_helper.to_array(tensor).copy()
            order = np.abs(values.astype(np.int16)).ravel().argsort(kind="stable")
            values.ravel()[order[: int(share * values.size)]] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def measure_shares(
    models: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    count: int = 24,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[dict[str, Any]], str]:
    """Rows for `models`, `.u2e` files of which the first is the whole one, and a Markdown table.

    `data` is a folder of pictures, None the procedural set. Writes PREFIX.svg, .md and .json where `out` is PREFIX. The
    row of single weights is made of the `.onnx` beside the first model, where there is one.
    """
    prefix = check_path(out)
    for path in models:
        if Path(path).suffix != ".u2e":
            raise ModelError(f"{path} is not packed; make it with `u2net engine`")
    files = [(Path(path).parent.name, check_path(path).read_bytes()) for path in models]
    gmacs = [packed_facts(path).gmacs for path in models]
    shares = [each / gmacs[0] for each in gmacs]
    source = Path(models[0]).with_suffix(".onnx")
    if source.is_file():
        sparse = scattered_zeros(onnx.load(source), SCATTERED)
        files.append((f"{files[0][0]}, {SCATTERED:.0%} of its weights zero", write_model(pack_model(sparse).model)))
        shares.append(1.0)
    sessions = [EngineSession(file) for _, file in files]
    pictures = calibration_images(data, count, seed=2)
    masks: list[list[npt.NDArray[np.bool_]]] = [[] for _ in files]
    times: list[list[float]] = [[] for _ in files]
    for index in range(len(pictures)):
        picture = pictures[index]
        for session, found, taken in zip(sessions, masks, times, strict=True):
            tensor = to_tensor(picture, session.input_size)
            start = perf_counter()
            found.append(session.run(tensor) > 0.5)
            if index < ROUNDS:
                taken.append(1000 * (perf_counter() - start))
        progress("running the engine", index + 1, len(pictures))
    rows = []
    for (name, file), share, found, taken in zip(files, shares, masks, times, strict=True):
        pairs = [(a, b) for a, b in zip(masks[0], found, strict=True) if a.any() or b.any()]
        iou = float(np.mean([mask_iou(a, b) for a, b in pairs])) if pairs else 0.0
        packed = len(brotli.compress(file, quality=BROTLI_QUALITY, lgwin=24))
        rows.append(Share(name, share, median(taken), len(file), packed, iou, len(pairs)))
    table = _table(rows)
    value = [asdict(row) for row in rows]
    write_json(
        prefix.with_name(f"{prefix.name}.json"), {"pictures": len(pictures), "source": pictures.source, "rows": value}
    )
    write_bytes(prefix.with_name(f"{prefix.name}.md"), table_file(table))
    write_bytes(prefix.with_name(f"{prefix.name}.svg"), _picture(rows[: len(models)], len(pictures)).encode())
    return value, table


def _table(rows: Sequence[Share]) -> str:
    whole = rows[0]
    lines = [
        "| | multiplications | engine | time | bytes | brotli | mean IoU with the whole |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row.name} | {row.share:.0%} | {row.latency_ms:.0f} ms | {row.latency_ms / whole.latency_ms:.2f} "
            f"| {row.size_bytes:,} | {row.brotli_bytes:,} | {row.iou_mean:.4f} |"
        )
    return "\n".join(
        [*lines, "", f"Over {rows[0].pictures} pictures that show a subject; engine under wasmtime, one thread."]
    )


def _picture(rows: Sequence[Share], pictures: int) -> str:
    return draw_curves(
        "What a share of the multiplications costs and gains",
        f"over {pictures} pictures; int8 models in the engine, under wasmtime, one thread",
        "share of the whole network's multiplications",
        [f"{row.share:.0%}" for row in rows],
        (
            Curve("mean IoU with the whole network's masks", "#4e79a7", [row.iou_mean for row in rows], "{:.4f}"),
            Curve("milliseconds a picture", "#f28e2b", [row.latency_ms for row in rows], "{:.0f}"),
            Curve("kilobytes as brotli", "#59a14f", [row.brotli_bytes / 1000 for row in rows], "{:.0f}"),
        ),
    )

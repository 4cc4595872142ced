"""What it brings and costs to leave the most harmful layers in float: a point for each number of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from u2net.chart import Curve, draw_curves

from .agreement import Agreement, agreement, run_maps
from .emit import emit
from .inputs import NetworkInputs
from .pipeline import plan_of
from .plan import Prepared, Progress, without
from .sessions import open_session
from .settings import QuantizeSettings

__all__ = ["Point", "counts_of", "curve_picture", "curve_table", "float_curve"]

FloatArray = npt.NDArray[np.float32]

ROUNDS = 5  # of timing, every model once in each: what else the machine does falls on all alike


@dataclass(frozen=True)
class Point:
    """The int8 model with `layers` of its most harmful convolutions in float."""

    layers: int
    latency_ms: float  # median of one picture in onnxruntime, one thread, on this machine
    size_bytes: int
    agreement: Agreement

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        figures = self.agreement.summary()
        return {
            "layers": self.layers,
            "latency_ms": round(self.latency_ms, 2),
            "size_bytes": self.size_bytes,
            **figures,
        }


def counts_of(layers: int) -> list[int]:
    """0, 1, 2, 4, 8 … and all but one of `layers`: at least one integer convolution remains."""
    doubling = [1 << power for power in range(layers.bit_length())]
    return sorted({0, *(count for count in doubling if count < layers - 1), max(0, layers - 1)})


def float_curve(
    prepared: Prepared,
    ranked: Sequence[str],
    inputs: NetworkInputs,
    reference: list[FloatArray],
    settings: QuantizeSettings,
    progress: Progress,
) -> list[Point]:
    """Points for 0, 1, 2, 4 … of the layers `ranked`, most harmful first, left in float, measured on `inputs`.

    `settings` say how integers are chosen, once for all points.
    """
    graph, plan = plan_of(prepared, settings, progress)
    made = []
    counts = counts_of(len(ranked))
    for done, count in enumerate(counts, 1):
        names = (*settings.keep_float, *ranked[:count])
        model = emit(graph, without(graph, plan, names, {}), settings.form)
        session = open_session(model, 1, fuse=True)
        agreed = agreement(reference, run_maps(session, graph.input, inputs))
        made.append((count, session, len(model.SerializeToString(deterministic=True)), agreed))
        progress("leaving layers in float", done, len(counts))
    times: list[list[float]] = [[] for _ in made]
    for number in range(ROUNDS):
        feed = {graph.input: inputs[number % len(inputs)]}
        for taken, (_, session, _, _) in zip(times, made, strict=True):
            start = perf_counter()
            session.run(None, feed)
            taken.append(1000 * (perf_counter() - start))
    return [
        Point(count, median(taken), size, agreed) for taken, (count, _, size, agreed) in zip(times, made, strict=True)
    ]


def curve_table(points: Sequence[Point], ranked: Sequence[str]) -> str:
    """Markdown: a row for each point, what it costs and gains beside the one with none, and its last layer."""
    first = points[0]
    lines = [
        "| layers in float | ms | kB | mean IoU | MAE | costs | gains | down to |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for point in points:
        lines.append(
            f"| {point.layers} | {point.latency_ms:.1f} | {point.size_bytes / 1000:.0f} "
            f"| {point.agreement.iou_mean:.4f} | {point.agreement.mae.mean():.5f} "
            f"| {point.latency_ms - first.latency_ms:+.1f} ms, {(point.size_bytes - first.size_bytes) / 1000:+.0f} kB "
            f"| {point.agreement.iou_mean - first.agreement.iou_mean:+.4f} "
            f"| {ranked[point.layers - 1] if point.layers else '–'} |"
        )
    return "\n".join(lines)


def curve_picture(points: Sequence[Point], pictures: int) -> str:
    """An SVG of three curves over the number of layers in float: mean IoU, milliseconds, kilobytes."""
    return draw_curves(
        "The most harmful layers left in float",
        f"over {pictures} pictures that were not calibrated on; each number of layers is a model of its own",
        "layers in float, most harmful first",
        [str(point.layers) for point in points],
        (
            Curve("mean IoU with float", "#4e79a7", [point.agreement.iou_mean for point in points], "{:.4f}"),
            Curve(
                "milliseconds a picture, onnxruntime on one thread of this machine",
                "#f28e2b",
                [point.latency_ms for point in points],
                "{:.1f}",
            ),
            Curve("kilobytes of the file", "#59a14f", [point.size_bytes / 1000 for point in points], "{:.0f}"),
        ),
    )

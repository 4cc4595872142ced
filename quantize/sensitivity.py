"""What each layer costs in masks when it alone becomes int8, and what the most harmful ones cost in float."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from datasets.calibration import calibration_split
from u2net.commandline import table_file
from u2net.files import check_path, write_bytes, write_json

from .agreement import Agreement, agreement, maps_of, mask_share, run_maps
from .curve import curve_picture, curve_table, float_curve
from .graph import Conv, FloatGraph, load_graph
from .inputs import NetworkInputs, network_inputs
from .pipeline import prepare
from .plan import ActivationRange, Prepared, Progress, QuantizedConv
from .ranges import choose_ranges
from .rounding import round_nearest
from .sessions import open_session
from .settings import QuantizeSettings
from .verdict import refuse_subjectless

__all__ = ["LayerCost", "layer_costs", "sensitivity_report"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerCost:
    """Agreement with float when one convolution's input and weights are in 8 bits and nothing else is."""

    name: str
    macs_share: float  # of the whole model's multiply-accumulates
    float_bytes: int  # that the file grows by where its weights stay in float
    agreement: Agreement

    @property
    def mae(self) -> float:
        """Mean absolute difference of the raw maps."""
        return float(self.agreement.mae.mean())

    @property
    def iou(self) -> float:
        """Mean mask IoU."""
        return self.agreement.iou_mean


def layer_costs(
    prepared: Prepared,
    inputs: NetworkInputs,
    reference: list[FloatArray],
    settings: QuantizeSettings,
    progress: Progress,
) -> list[LayerCost]:
    """The cost of every convolution that would become integer, in graph order.

    Weights are rounded to nearest: how harmful a layer is by itself, before rounding is learned around it.
    """
    graph = prepared.graph
    ranges = choose_ranges(graph, prepared.region, prepared.observed, settings.calibrator)
    convs = [conv for conv in graph.convs if conv.name in prepared.region.integer]
    costs = []
    for number, conv in enumerate(convs, 1):
        weight, scale = round_nearest(graph.weights[conv.weight])
        rounded = QuantizedConv(weight, scale, graph.weights[conv.bias])
        model = one_quantized(graph, conv, ranges[prepared.region.group[conv.input]], rounded)
        maps = run_maps(open_session(model, settings.threads), graph.input, inputs)
        costs.append(
            LayerCost(
                conv.name,
                conv.macs / graph.total_macs(),
                3 * graph.weights[conv.weight].size,
                agreement(reference, maps),
            )
        )
        progress("quantizing one layer at a time", number, len(convs))
    return costs


def one_quantized(graph: FloatGraph, conv: Conv, known: ActivationRange, rounded: QuantizedConv) -> onnx.ModelProto:
    """The float model with one convolution's input and weights rounded to 8 bits."""
    model = graph.replaced({conv.weight: rounded.dequantized()}).to_model()
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(known.scale, np.float32), "one_scale"),
            numpy_helper.from_array(np.array(known.zero_point, np.uint8), "one_zero"),
        ]
    )
    position = next(index for index, node in enumerate(model.graph.node) if node.name == conv.node)
    model.graph.node[position].input[0] = "one_dequantized"
    quantize = helper.make_node("QuantizeLinear", [conv.input, "one_scale", "one_zero"], ["one_quantized"])
    dequantize = helper.make_node("DequantizeLinear", ["one_quantized", "one_scale", "one_zero"], ["one_dequantized"])
    model.graph.node.insert(position, dequantize)
    model.graph.node.insert(position, quantize)
    return model


def sensitivity_report(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    calib: str | os.PathLike[str] | None,
    settings: QuantizeSettings,
    progress: Progress,
) -> tuple[dict[str, Any], str]:
    """Measure and write `out`.svg, .md and .json; returns what the JSON holds, and the table."""
    prefix = check_path(out)
    graph = load_graph(source)
    pictures = calibration_split(calib, settings.count, settings.check_count, settings.seed)
    others = pictures.check
    inputs = network_inputs(graph, others)
    prepared = prepare(graph, pictures.calibration, settings, progress)
    reference = maps_of(graph.to_model(), graph.input, inputs, settings.threads, progress, "running float")
    refuse_subjectless(pictures, [*prepared.observed.coverage, *(mask_share(each) for each in reference)])
    costs = sorted(layer_costs(prepared, inputs, reference, settings, progress), key=lambda cost: -cost.mae)
    ranked = [cost.name for cost in costs]
    points = float_curve(prepared, ranked, inputs, reference, replace(settings, method="refit"), progress)
    table = f"{_table(costs)}\n\n{curve_table(points, ranked)}"
    value = {
        "model": Path(source).name,
        "repaired": settings.split or settings.equalize,
        "pictures": len(others),
        "curve": [point.as_dict() for point in points],
        "layers": [
            {
                "name": cost.name,
                "macs_share": round(cost.macs_share, 6),
                "float_bytes": cost.float_bytes,
                **cost.agreement.summary(),
            }
            for cost in costs
        ],
    }
    write_json(prefix.with_suffix(".json"), value)
    write_bytes(prefix.with_suffix(".md"), table_file(table))
    write_bytes(prefix.with_suffix(".svg"), _picture(costs, len(others)).encode())
    write_bytes(prefix.with_name(f"{prefix.name}-curve.svg"), curve_picture(points, len(others)).encode())
    return value, table


def _table(costs: list[LayerCost]) -> str:
    """Markdown, the most harmful layer first, with what it costs in bytes to leave it in float."""
    lines = [
        "| layer | share of MACs | kB more in float | MAE | mean IoU | worst IoU |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for cost in costs:
        worst = cost.agreement.summary()["iou_min"]
        lines.append(
            f"| {cost.name} | {cost.macs_share:.1%} | {cost.float_bytes / 1000:.1f} | {cost.mae:.5f} | {cost.iou:.4f} "
            f"| {worst:.4f} |"
        )
    return "\n".join(lines)


def _picture(costs: list[LayerCost], pictures: int) -> str:
    """An SVG of one bar per layer, the most harmful first: its length the MAE, its colour the stage."""
    colours = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#9c755f", "#76b7b2")
    row, left, width, right, top = 15, 190, 520, 90, 58
    longest = max((cost.mae for cost in costs), default=0.0) or 1.0
    height = top + row * len(costs) + 24
    total = left + width + right
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" viewBox="0 0 {total} {height}" '
        'font-family="system-ui, sans-serif" font-size="11">',
        f'<rect width="{total}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="24" font-size="15" font-weight="600" fill="#222222">What each layer costs as int8</text>',
        f'<text x="16" y="42" fill="#666666">mean absolute difference of the mask from float, in thousandths, over '
        f"{pictures} pictures; this layer alone in 8 bits</text>",
    ]
    for tick in range(5):
        x = left + width * tick / 4
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - 20}" stroke="#e4e4e4"/>')
        label = f"{1000 * longest * tick / 4:.3f}"
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle" fill="#666666">{label}</text>')
    stages = sorted({cost.name.split(".")[0] for cost in costs})
    for number, cost in enumerate(costs):
        y = top + row * number
        colour = colours[stages.index(cost.name.split(".")[0]) % len(colours)]
        length = max(1.0, width * cost.mae / longest)
        parts.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end" fill="#222222">{_escape(cost.name)}</text>')
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{row - 4}" fill="{colour}"/>')
        parts.append(f'<text x="{left + length + 5:.1f}" y="{y + 11}" fill="#666666">{1000 * cost.mae:.3f}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

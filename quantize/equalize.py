"""Range repair: give every channel the scale at which 8 bits hurt the mask least. Exact in float.

ReLU, max-pooling, bilinear resizing and concatenation commute with a positive factor per channel, so a factor may be
taken out of the rows of one convolution and put into the columns of the next (cross-layer equalization, Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721). A residual sum ties the
factors of its terms. Equalizing *ranges*, as that paper does, makes U²-Net worse: what counts is the error that reaches
the mask. Here the factors minimise a model of that error. For a convolution with weights w, inputs x and factors s it
adds, per output channel o,

    activation rounding   (Δx² / 12) · Σ w²·s²           Δx = max(range(x) / s) / 255 over tensors that share a scale
    weight rounding       (Δw² / 12) · Σ var(x) / s²     Δw = max|w·s| / 127 over the row

A nearly constant channel, however large, has little variance: its mean is the bias's business, except where zero
padding meets it, which `border` accounts for. Each output channel's error is weighted by how strongly it reaches the
mask, propagated backwards through the squares of the weights and the fraction of pixels that their ReLU lets through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .graph import Conv, FloatGraph
from .observe import ELEMENTWISE, Observations
from .region import Region
from .settings import EqualizeSettings

__all__ = ["ChannelClasses", "channel_classes", "equalize", "scale_channels"]

FloatArray = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


class ChannelClasses:
    """Which channels share one factor. `index[tensor]`: (channels,) class numbers; `free[class]`: may be scaled."""

    def __init__(self, index: dict[str, Index], free: npt.NDArray[np.bool_]) -> None:
        self.index = index
        self.free = free

    def __len__(self) -> int:
        return len(self.free)


def channel_classes(graph: FloatGraph) -> ChannelClasses:
    """Tie the channels that operators tie; hold fast those that reach anything but convolutions."""
    sizes = {name: shape[1] for name, shape in graph.shapes.items() if len(shape) == 4 and name not in graph.weights}
    starts: dict[str, int] = {}
    total = 0
    for name, channels in sizes.items():
        starts[name] = total
        total += channels
    ties: list[Index] = []  # (2, channels): which channels share a factor

    def tie(first: str, second: str, offset: int = 0) -> None:
        """Channel c of `first` with channel offset + c of `second`."""
        channels = np.arange(sizes[first])
        ties.append(np.stack([starts[first] + channels, starts[second] + offset + channels]))

    held: set[str] = {graph.input, *graph.outputs}
    for node in graph.nodes:
        output = node.output[0]
        moving = [name for name in node.input if name and name not in graph.weights]
        known = output in sizes and all(name in sizes for name in moving)
        conv = graph.conv_of.get(node.name)
        if conv is not None:
            if conv.group not in (1, sizes[conv.input]):
                held |= {conv.input, output}
        elif known and _is_elementwise(graph, node) and sizes[moving[0]] == sizes[output]:
            tie(moving[0], output)
        elif known and node.op_type == "Concat" and sum(sizes[name] for name in moving) == sizes[output]:
            offset = 0
            for name in moving:
                tie(name, output, offset)
                offset += sizes[name]
        elif (
            known
            and node.op_type == "Add"
            and len(moving) == 2
            and all(graph.shapes[n] == graph.shapes[output] for n in moving)
        ):
            tie(moving[0], output)
            tie(moving[1], output)
        elif known and node.op_type == "Mul" and len(moving) == 2 and _gate(graph, node.input, output) is not None:
            gate = _gate(graph, node.input, output)
            held.add(str(gate))
            tie(next(name for name in moving if name != gate), output)
        else:
            held |= {name for name in (*moving, *node.output) if name in sizes}

    pairs = np.concatenate(ties, 1) if ties else np.zeros((2, 0), np.int64)
    graph_of_ties = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), (total, total))
    count, compact = connected_components(graph_of_ties, directed=False)
    free = np.ones(count, bool)
    index = {name: compact[start : start + sizes[name]].astype(np.int64) for name, start in starts.items()}
    for name in held:
        if name in index:
            free[index[name]] = False
    return ChannelClasses(index, free)


def _is_elementwise(graph: FloatGraph, node: onnx.NodeProto) -> bool:
    """Whether a node treats every channel by itself, and linearly for positive factors."""
    pools = node.op_type == "ReduceMean" and graph.shapes[node.output[0]][2:] == (1, 1)
    return pools or node.op_type in ELEMENTWISE


def _gate(graph: FloatGraph, inputs: object, output: str) -> str | None:
    """The operand of a product that holds one factor per channel, as in squeeze-and-excitation."""
    for name in list(inputs):  # type: ignore[call-overload]
        if graph.shapes[name][2:] == (1, 1) != graph.shapes[output][2:]:
            return str(name)
    return None


def scale_channels(
    graph: FloatGraph, classes: ChannelClasses, factors: Array64
) -> tuple[FloatGraph, dict[str, FloatArray]]:
    """Divide each channel by its class's factor, and make up for it in the next weights.

    Returns the graph, which computes the same function, and what each tensor's channels were multiplied by.
    """
    weights: dict[str, npt.NDArray[Any]] = {}
    for conv in graph.convs:
        weight = graph.weights[conv.weight].astype(np.float64)
        rows = factors[classes.index[conv.preactivation]]
        columns = factors[classes.index[conv.input]]
        if conv.group == 1:
            weight = weight * columns[None, :, None, None]
        else:
            repeat = weight.shape[0] // conv.group
            weight = weight * np.repeat(columns, repeat)[:, None, None, None]
        weights[conv.weight] = (weight / rows[:, None, None, None]).astype(np.float32)
        weights[conv.bias] = (graph.weights[conv.bias] / rows).astype(np.float32)
    moved = {name: (1.0 / factors[index]).astype(np.float32) for name, index in classes.index.items()}
    return graph.replaced(weights), moved


@dataclass(frozen=True)
class _Layer:
    """What the error model needs of one convolution whose input is in 8 bits."""

    group: int  # of the input
    inputs: Index  # (in_channels,) classes
    energy: Array64  # (in_channels,) Σ over outputs and taps of importance · w²
    peak: Array64  # (out_channels, in_channels) max over taps of |w|
    importance: Array64  # (out_channels,)
    spread: Array64  # (in_channels,) Σ over taps of var(x), borders included
    integer: bool


def equalize(
    graph: FloatGraph, region: Region, observed: Observations, settings: EqualizeSettings | None = None
) -> tuple[FloatGraph, Observations, int]:
    """The graph with the best channel scales, what was observed of it, and how many sets of channels changed."""
    settings = settings or EqualizeSettings()
    classes = channel_classes(graph)
    layers, sums, spans = _error_model(graph, region, observed, classes)
    logs = np.zeros(len(classes))
    first = np.zeros_like(logs)
    second = np.zeros_like(logs)
    best, best_logs = np.inf, logs
    for step in range(1, settings.steps + 1):
        value, slope = _objective(logs, layers, sums, spans, settings)
        if value < best:
            best, best_logs = value, logs.copy()
        slope[~classes.free] = 0
        first = 0.9 * first + 0.1 * slope
        second = 0.99 * second + 0.01 * slope**2
        rate = settings.learning_rate * 0.5 * (1 + np.cos(np.pi * step / settings.steps))
        logs = logs - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-12)
    changed, moved = scale_channels(graph, classes, np.exp(best_logs))
    return changed, observed.scaled(moved), int(np.count_nonzero(np.abs(best_logs) > 1e-3))


def _error_model(
    graph: FloatGraph, region: Region, observed: Observations, classes: ChannelClasses
) -> tuple[list[_Layer], list[tuple[int, Index, Array64]], dict[int, tuple[Index, Array64]]]:
    """Its convolutions, its residual sums (group, classes, importance) and its groups (classes, ranges)."""
    importance = mask_importance(graph, observed)
    mean, variance = observed.moments(graph)
    layers = []
    for conv in graph.convs:
        if conv.input not in region.group:
            continue
        weight = graph.weights[conv.weight].astype(np.float64)
        if conv.group != 1:
            continue
        reach = importance[conv.preactivation]
        taps = conv.kernel[0] * conv.kernel[1]
        layers.append(
            _Layer(
                group=region.group[conv.input],
                inputs=classes.index[conv.input],
                energy=np.einsum("oihw,o->i", weight**2, reach),
                peak=np.abs(weight).max((2, 3)),
                importance=reach,
                spread=taps * (variance[conv.input] + border_share(conv, graph) * mean[conv.input] ** 2),
                integer=conv.name in region.integer,
            )
        )
    sums = []
    for node in graph.nodes:
        if node.op_type == "Add":
            for name in node.input:
                if name in region.group and name in classes.index:
                    sums.append((region.group[name], classes.index[name], importance[node.output[0]]))
    spans: dict[int, tuple[Index, Array64]] = {}
    for group, sources in region.sources.items():
        index, span = [], []
        for name in sources:
            low, high = observed.extremes(graph, name)
            index.append(classes.index[name])
            span.append(np.maximum(high, 0) - np.minimum(low, 0))
        spans[group] = (np.concatenate(index), np.concatenate(span).astype(np.float64))
    return layers, sums, spans


def _objective(
    logs: Array64,
    layers: list[_Layer],
    sums: list[tuple[int, Index, Array64]],
    spans: dict[int, tuple[Index, Array64]],
    settings: EqualizeSettings,
) -> tuple[float, Array64]:
    """Predicted error and its slope in the logarithms of the factors. Maxima are softened to p-norms."""
    power = settings.sharpness
    ranges: dict[int, float] = {}
    shares: dict[int, Array64] = {}
    for group, (index, span) in spans.items():
        relative = np.log(np.maximum(span, 1e-12)) - logs[index]
        top = relative.max()
        shares[group] = np.exp(power * (relative - top))
        total = shares[group].sum()
        ranges[group] = float(top + np.log(total) / power)
        shares[group] /= total
    value = 0.0
    slope = np.zeros_like(logs)

    def activation(group: int, index: Index, energy: Array64) -> tuple[float, Array64]:
        parts = energy * np.exp(2 * logs[index] + 2 * ranges[group]) / (12 * 255**2)
        return float(parts.sum()), 2 * parts

    def charge(noise: float, local: Array64, index: Index, group: int, from_range: float) -> None:
        nonlocal value
        weight = noise ** (settings.exponent - 1) if noise > 0 else 0.0
        value += noise**settings.exponent / settings.exponent
        np.add.at(slope, index, weight * local)
        np.add.at(slope, spans[group][0], -2 * weight * from_range * shares[group])

    for layer in layers:
        noise, local = activation(layer.group, layer.inputs, layer.energy)
        from_range = noise
        if layer.integer:
            scaled = np.log(np.maximum(layer.peak, 1e-30)) + logs[layer.inputs]
            top = scaled.max(1, keepdims=True)
            mix = np.exp(power * (scaled - top))
            total = mix.sum(1, keepdims=True)
            step = (
                layer.importance
                * np.exp(2 * (top + np.log(total) / power))[:, 0]
                * settings.weight_noise
                / (12 * 127**2)
            )
            spread = layer.spread * np.exp(-2 * logs[layer.inputs])
            rows, columns = float(step.sum()), float(spread.sum())
            noise += rows * columns
            local = local + 2 * columns * (step @ (mix / total)) - 2 * rows * spread
        charge(noise, local, layer.inputs, layer.group, from_range)
    for group, index, energy in sums:
        noise, local = activation(group, index, energy)
        charge(noise, local, index, group, noise)
    return value, slope


def mask_importance(graph: FloatGraph, observed: Observations) -> dict[str, Array64]:
    """How strongly a small independent error in each channel reaches the mask, per tensor (channels,).

    Squares of the weights, multiplied backwards through the graph; a ReLU passes the fraction of pixels above zero.
    """
    reach = {
        name: np.zeros(shape[1])
        for name, shape in graph.shapes.items()
        if len(shape) == 4 and name not in graph.weights
    }
    active = {conv.output: (observed.samples[conv.preactivation] > 0).mean(0) for conv in graph.convs if conv.relu}
    for node in reversed(graph.nodes):
        arrived = reach.get(node.output[0])
        if arrived is None:
            continue
        conv = graph.conv_of.get(node.name)
        if conv is not None:
            if not arrived.any():  # nothing after it is a convolution: this one makes the mask
                arrived += 1.0
            energy = (graph.weights[conv.weight].astype(np.float64) ** 2).sum((2, 3))
            if conv.group == 1:
                reach[conv.input] += arrived @ energy
            continue
        offset = 0
        for name in node.input:
            if name not in reach:
                continue
            channels = len(reach[name])
            if node.op_type == "Concat":
                reach[name] += arrived[offset : offset + channels]
                offset += channels
            elif channels == len(arrived):
                reach[name] += arrived * active.get(node.output[0], 1.0)
    return reach


def border_share(conv: Conv, graph: FloatGraph) -> float:
    """Mean over the taps of p · (1 − p), p being the share of pixels for which the tap reads zero padding."""
    height, width = graph.shapes[conv.input][2:]
    shares = []
    for row in range(conv.kernel[0]):
        for column in range(conv.kernel[1]):
            down = row * conv.dilations[0] - conv.pads[0]
            right = column * conv.dilations[1] - conv.pads[1]
            outside = 1 - (1 - min(abs(down), height) / height) * (1 - min(abs(right), width) / width)
            shares.append(outside * (1 - outside))
    return float(np.mean(shares))

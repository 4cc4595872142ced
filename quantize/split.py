"""Range repair for channels that are nearly constant: the constant gets a channel of its own. Exact in float.

U²-Netp has channels like one of `stage2d.rebnconv2d`: 226 to 228 on every picture, read by a weight of −5.6 against a
bias of 1361. All that the network says there is the difference of 2, and eight bits over 0…228 tell three levels of
it. So the channel keeps only what varies, x − c, and the constant goes where it costs nothing:

- into the next bias, for every tap of the kernel that always lies inside the picture;
- for the other taps, which read zeros beyond the border and not c, through one further channel that is constant over
  the picture (zero weights, a bias) and zero in the padding, as c was.

Without that channel the network would see other borders than it was trained with, which is why absorbing constants into
biases alone (Nagel et al., arXiv 1906.04721, section 4.1.3) is only approximate with padding. c lies below the smallest
value seen by half of the channel's range, so that a picture beyond the calibration set is hardly ever cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from .graph import Conv, FloatGraph
from .observe import Observations

__all__ = ["SplitSettings", "split_constants"]

FloatArray = npt.NDArray[np.float32]

MOVING = {"Relu", "MaxPool", "Resize"}


@dataclass(frozen=True)
class _Split:
    """What is done to one convolution's output."""

    constants: Mapping[int, float]  # channel → its c
    level: float  # value of the further channel: that of the widest channel left, so that it widens no range


@dataclass(frozen=True)
class SplitSettings:
    """When a channel is split."""

    gain: float = 2.0  # how much smaller its range must become to be worth a channel
    margin: float = 0.5  # distance of c below the smallest value seen, as a share of the range seen


def split_constants(
    graph: FloatGraph, observed: Observations, settings: SplitSettings | None = None
) -> tuple[FloatGraph, Observations, tuple[str, ...]]:
    """The graph with nearly constant channels split, what was observed of it, and which channels (`conv[index]`)."""
    settings = settings or SplitSettings()
    splits: dict[str, _Split] = {}
    origins = _trace(graph)
    movable = _movable(graph, origins)
    for conv in graph.convs:
        if not conv.relu or conv.preactivation not in observed.low or conv.output not in movable:
            continue
        low, high = observed.low[conv.preactivation], observed.high[conv.preactivation]
        constant = low - settings.margin * (high - low)
        worth = (constant > 0) & (high > settings.gain * (high - constant))
        found = {int(index): float(constant[index]) for index in np.flatnonzero(worth)}
        if found:
            left = np.maximum(high - np.where(worth, constant, 0), 0)
            splits[conv.output] = _Split(found, float(left.max()) or 1.0)
    if not splits:
        return graph, observed, ()

    weights: dict[str, npt.NDArray[Any]] = {}
    for conv in graph.convs:
        weight = graph.weights[conv.weight].astype(np.float64)
        bias = graph.weights[conv.bias].astype(np.float64)
        if conv.input in origins and any(source in splits for source, _ in origins[conv.input]):
            weight, bias = _read_split(conv, weight, bias, origins[conv.input], splits)
        if conv.output in splits:
            weight, bias = _make_split(weight, bias, splits[conv.output])
        if weight.shape != graph.weights[conv.weight].shape or conv.output in splits:
            weights[conv.weight], weights[conv.bias] = weight.astype(np.float32), bias.astype(np.float32)
    changed = _with_channel_counts(graph.replaced(weights), origins, splits).reshaped()
    names = tuple(f"{conv.name}[{index}]" for conv in graph.convs for index in _constants(splits, conv.output))
    return changed, _observed_split(graph, observed, splits), names


def _with_channel_counts(
    graph: FloatGraph, origins: Mapping[str, list[tuple[str, int]]], splits: Mapping[str, _Split]
) -> FloatGraph:
    """The graph with the target sizes of its resizes, which name the channels too, brought up to date."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    weights: dict[str, npt.NDArray[Any]] = {}
    for node in model.graph.node:
        if node.op_type != "Resize" or len(node.input) < 4 or node.input[3] not in graph.weights:
            continue
        further = len({source for source, _ in origins.get(node.input[0], ()) if source in splits})
        sizes = graph.weights[node.input[3]].copy()
        if further and len(sizes) == 4:
            sizes[1] += further
            node.input[3] = f"{node.output[0]}_sizes"
            weights[node.input[3]] = sizes
    changed = graph.replaced(weights)
    changed.model = model
    return changed


def _trace(graph: FloatGraph) -> dict[str, list[tuple[str, int]]]:
    """By tensor and channel: which convolution output (after its ReLU) it was moved from, and which channel of it."""
    origins: dict[str, list[tuple[str, int]]] = {}
    relu_of = {conv.preactivation: conv.output for conv in graph.convs}
    for node in graph.nodes:
        output = node.output[0]
        if node.name in graph.conv_of:
            target = relu_of[output]
            origins[target] = [(target, index) for index in range(graph.shapes[output][1])]
        elif output in origins:
            continue
        elif node.op_type in MOVING and node.input[0] in origins:
            origins[output] = origins[node.input[0]]
        elif node.op_type == "Concat" and all(name in origins for name in node.input):
            origins[output] = [channel for name in node.input for channel in origins[name]]
    return origins


def _movable(graph: FloatGraph, origins: Mapping[str, list[tuple[str, int]]]) -> set[str]:
    """Convolution outputs that reach nothing but ordinary convolutions, through operators that move values."""
    fixed: set[str] = set()
    relus = {conv.preactivation for conv in graph.convs if conv.relu}
    for node in graph.nodes:
        conv = graph.conv_of.get(node.name)
        moves = node.output[0] in origins and (node.op_type in MOVING or node.op_type == "Concat")
        if (conv is not None and conv.group == 1) or moves:
            continue
        for name in node.input:
            fixed |= {source for source, _ in origins.get(name, ())}
    for name in graph.outputs:
        fixed |= {source for source, _ in origins.get(name, ())}
    return {conv.output for conv in graph.convs if conv.preactivation in relus} - fixed


def _read_split(
    conv: Conv,
    weight: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    channels: list[tuple[str, int]],
    splits: Mapping[str, _Split],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights that read the channels that vary and, behind each source's own, one constant channel per source."""
    inside = np.zeros(conv.kernel, bool)  # taps that no padding reaches
    for row in range(conv.kernel[0]):
        for column in range(conv.kernel[1]):
            down, right = row * conv.dilations[0] - conv.pads[0], column * conv.dilations[1] - conv.pads[1]
            inside[row, column] = down == 0 and right == 0
    parts = []
    for position, (source, index) in enumerate(channels):
        parts.append(weight[:, position : position + 1])
        if index == 0:
            pending = np.zeros_like(weight[:, :1])
        if index in _constants(splits, source):
            lost = weight[:, position : position + 1] * splits[source].constants[index]
            bias = bias + (lost * inside).sum((1, 2, 3))
            pending = pending + lost * ~inside / splits[source].level
        last = position + 1 == len(channels) or channels[position + 1][1] == 0
        if last and source in splits:
            parts.append(pending)
    return np.concatenate(parts, 1), bias


def _make_split(
    weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], split: _Split
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights whose output lacks the constants, with one more channel that holds their level everywhere."""
    bias = bias.copy()
    for index, constant in split.constants.items():
        bias[index] -= constant
    return np.concatenate([weight, np.zeros_like(weight[:1])]), np.append(bias, split.level)


def _constants(splits: Mapping[str, _Split], output: str) -> Mapping[int, float]:
    return splits[output].constants if output in splits else {}


def _observed_split(graph: FloatGraph, observed: Observations, splits: Mapping[str, _Split]) -> Observations:
    low, high, samples = dict(observed.low), dict(observed.high), dict(observed.samples)
    for conv in graph.convs:
        if conv.output in splits:
            name = conv.preactivation
            shift = np.zeros(len(low[name]), np.float32)
            for index, constant in splits[conv.output].constants.items():
                shift[index] = constant
            level = np.float32(splits[conv.output].level)
            low[name], high[name] = np.append(low[name] - shift, level), np.append(high[name] - shift, level)
            column = np.full((len(samples[name]), 1), level, np.float32)
            samples[name] = np.concatenate([samples[name] - shift, column], 1)
    return replace(observed, low=low, high=high, samples=samples)

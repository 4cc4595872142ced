"""Quantizing convolution after convolution, each against the float network, on what the quantized network feeds it.

The calibration pictures go through the network side by side: a layer is solved on all of them before any goes on to the
next. What lies between layers is kept in 8 bits in a scratch folder, one file per tensor and picture, and deleted after
its last reader. Memory therefore holds one picture at a time, and the network is computed once, not once per layer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from .emit import emit
from .graph import Conv, FloatGraph
from .observe import Observations
from .plan import ActivationRange, Plan, QuantizedConv
from .region import Region
from .rounding import Moments, refit, round_compensated, round_nearest
from .sessions import open_session
from .settings import Method, RoundingSettings

__all__ = ["reconstruct", "round_all"]

FloatArray = npt.NDArray[np.float32]

#: Largest magnitude of an integer bias; the products that are added to it need the rest of the 32 bits.
BIAS_LIMIT = 2.0**28

#: Called with the number of layers done and of all layers.
Progress = Callable[[int, int], None]


def round_all(graph: FloatGraph, region: Region, ranges: Mapping[int, ActivationRange]) -> Plan:
    """Round every integer convolution to nearest, biases as they are: what needs no pictures."""
    convs = {}
    for conv in graph.convs:
        if conv.name in region.integer:
            weight, scale = round_nearest(graph.weights[conv.weight])
            known = ranges.get(region.group.get(conv.input, -1))
            rounded = QuantizedConv(weight, scale, graph.weights[conv.bias])
            convs[conv.name] = rounded if known is None else fit_bias(rounded, known.scale)
    return Plan(region, ranges, convs)


def reconstruct(
    graph: FloatGraph,
    plan: Plan,
    observed: Observations,
    inputs: Sequence[npt.NDArray[Any]],
    *,
    method: Method,
    settings: RoundingSettings,
    threads: int,
    progress: Progress = lambda done, total: None,
) -> tuple[FloatGraph, Plan]:
    """Choose integers and biases layer by layer; returns the graph with float layers refitted, and the filled plan.

    `inputs` are the network inputs that `observed` was made from. What answers to the pictures: with method `bias` the
    biases; with `refit` the float weights too, before they are rounded to nearest; with `learned` the integers as well.
    """
    if method == "nearest":
        return graph, round_all(graph, plan.region, plan.ranges)
    simulated = emit(graph, replace(plan, convs={}), "simulate").graph
    steps = _schedule(graph, plan, simulated.node)
    convs: dict[str, QuantizedConv] = {}
    updates: dict[str, npt.NDArray[Any]] = {}
    with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
        store = _Store(Path(folder), steps)
        for picture in range(len(inputs)):
            store.put(graph.input, picture, inputs[picture])
        weights = {t.name: numpy_helper.to_array(t) for t in simulated.initializer} | graph.weights
        for number, step in enumerate(steps):
            conv = step.conv
            if conv is not None and step.after_rounding:
                moments = _collect(graph, plan, step, conv, observed, store, weights, threads, len(inputs), method)
                if conv.name in plan.region.integer:
                    solved = _solve(graph, conv, moments, method, settings)
                    if conv.input in plan.region.group:
                        solved = fit_bias(solved, plan.range_of(conv.input).scale)
                    convs[conv.name] = solved
                    weights[conv.weight], weights[conv.bias] = solved.dequantized(), solved.bias
                else:
                    weight, bias = _solve_float(graph, conv, moments, method, settings)
                    updates |= {conv.weight: weight, conv.bias: bias}
                    weights |= {conv.weight: weight, conv.bias: bias}
            if step.readers:
                session = open_session(_runnable(graph, step.nodes, step.inputs, step.output, weights, store), threads)
                for picture in range(len(inputs)):
                    feed = {name: store.get(name, picture) for name in step.inputs}
                    store.put(step.output, picture, session.run([step.output], feed)[0])
            store.finish(number)
            progress(number + 1, len(steps))
    return graph.replaced(updates), replace(plan, convs=convs)


@dataclass(frozen=True)
class _Step:
    """One tensor that is computed for all pictures before the next."""

    conv: Conv | None  # None for a residual sum
    output: str  # what is kept: 8 bits inside the region, float outside
    nodes: tuple[onnx.NodeProto, ...]  # from kept tensors to `output`
    inputs: tuple[str, ...]  # kept tensors that they read
    patches: str  # what the convolution reads, in 8 bits inside the region
    patch_nodes: tuple[onnx.NodeProto, ...]
    patch_inputs: tuple[str, ...]
    after_rounding: bool  # whether anything before it, or itself, is in 8 bits
    readers: tuple[int, ...] = ()  # numbers of the steps that read `output`


def _schedule(graph: FloatGraph, plan: Plan, nodes: Iterable[onnx.NodeProto]) -> list[_Step]:
    """The steps in graph order, each with the nodes of the simulation between the tensors that are kept and its own."""
    producer = {name: node for node in nodes for name in node.output}
    kept = {graph.input}
    tainted: set[str] = set()  # kept tensors that rounding has touched
    steps: list[_Step] = []
    for node in graph.nodes:
        conv = graph.conv_of.get(node.name)
        residual = node.op_type == "Add" and node.output[0] in plan.region.group
        if conv is None and not residual:
            continue
        tensor = conv.output if conv is not None else node.output[0]
        output = f"{tensor}_q" if tensor in plan.region.group else tensor
        between, sources = _back_to(output, producer, kept)
        patches = ""
        patch_nodes: tuple[onnx.NodeProto, ...] = ()
        patch_sources: tuple[str, ...] = ()
        after = any(name in tainted for name in sources)
        if conv is not None:
            patches = f"{conv.input}_q" if conv.input in plan.region.group else conv.input
            patch_nodes, patch_sources = _back_to(patches, producer, kept)
            after = after or conv.input in plan.region.group or conv.name in plan.region.integer
        kept.add(output)
        if after or tensor in plan.region.group:  # what follows sees rounded values
            tainted.add(output)
        steps.append(_Step(conv, output, between, sources, patches, patch_nodes, patch_sources, after))
    readers: dict[str, list[int]] = {}
    for number, step in enumerate(steps):
        for name in {*step.inputs, *step.patch_inputs}:
            readers.setdefault(name, []).append(number)
    return [replace(step, readers=tuple(readers.get(step.output, ()))) for step in steps]


def _back_to(
    target: str, producer: Mapping[str, onnx.NodeProto], kept: set[str]
) -> tuple[tuple[onnx.NodeProto, ...], tuple[str, ...]]:
    """Nodes that make `target` from kept tensors, in order, and those tensors."""
    nodes: list[onnx.NodeProto] = []
    sources: dict[str, None] = {}
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in kept:
            sources[name] = None
            return
        node = producer.get(name)
        if node is None or node.name in seen:
            return
        seen.add(node.name)
        for other in node.input:
            visit(other)
        nodes.append(node)

    if target in kept:
        return (), (target,)
    visit(target)
    return tuple(nodes), tuple(sources)


class _Store:
    """Tensors of all pictures on disk, each deleted after the last step that reads it."""

    def __init__(self, folder: Path, steps: Sequence[_Step]) -> None:
        self.folder = folder
        self.numbers: dict[str, int] = {}
        self.kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self.pictures: dict[str, set[int]] = {}
        self.last: dict[str, int] = {}
        for number, step in enumerate(steps):
            for name in {*step.inputs, *step.patch_inputs}:
                self.last[name] = number

    def _path(self, name: str, picture: int) -> Path:
        return self.folder / f"{self.numbers[name]}-{picture}"

    def put(self, name: str, picture: int, value: npt.NDArray[Any]) -> None:
        self.numbers.setdefault(name, len(self.numbers))
        self.kinds[name] = (value.dtype, value.shape)
        self.pictures.setdefault(name, set()).add(picture)
        np.ascontiguousarray(value).tofile(self._path(name, picture))

    def get(self, name: str, picture: int) -> npt.NDArray[Any]:
        dtype, shape = self.kinds[name]
        return np.fromfile(self._path(name, picture), dtype).reshape(shape)

    def finish(self, step: int) -> None:
        for name in [name for name, last in self.last.items() if last == step]:
            for picture in self.pictures.pop(name, ()):
                self._path(name, picture).unlink()


def _runnable(
    graph: FloatGraph,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str],
    output: str,
    weights: Mapping[str, npt.NDArray[Any]],
    store: _Store,
) -> onnx.ModelProto:
    values = []
    for name in inputs:
        dtype, shape = store.kinds[name]
        values.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape))
    return graph.slice(nodes, values, [output], weights)


def _collect(
    graph: FloatGraph,
    plan: Plan,
    step: _Step,
    conv: Conv,
    observed: Observations,
    store: _Store,
    weights: Mapping[str, npt.NDArray[Any]],
    threads: int,
    pictures: int,
    method: Method,
) -> Moments:
    """Patches of the quantized network and outputs of the float one, at the sampled pixels of all pictures."""
    session = None
    if step.patch_nodes:
        model = _runnable(graph, step.patch_nodes, step.patch_inputs, step.patches, weights, store)
        session = open_session(model, threads)
    weight = graph.weights[conv.weight]
    moments = Moments(weight[0].size * conv.group, len(weight), second=method != "bias" and conv.group == 1)
    targets = observed.samples[conv.preactivation]
    resolution = graph.shapes[conv.preactivation][2:]
    known = plan.range_of(conv.input) if conv.input in plan.region.group else None
    for picture in range(pictures):
        if session is None:
            tensor = store.get(step.patches, picture)
        else:
            feed = {name: store.get(name, picture) for name in step.patch_inputs}
            tensor = session.run([step.patches], feed)[0]
        positions = observed.positions[picture][resolution[0], resolution[1]]
        patches = _patches(tensor[0], conv, positions, resolution[1], known)
        moments.add(patches, targets[picture * len(positions) : (picture + 1) * len(positions)])
    return moments


def _patches(
    tensor: npt.NDArray[Any], conv: Conv, positions: npt.NDArray[np.int64], width: int, known: ActivationRange | None
) -> FloatArray:
    """What the convolution reads at flat output `positions`: (positions, in_channels · kernel) in float."""
    top, left, bottom, right = conv.pads
    fill = known.zero_point if known is not None else 0
    padded = np.pad(tensor, ((0, 0), (top, bottom), (left, right)), constant_values=fill)
    rows = (positions // width) * conv.strides[0]
    columns = (positions % width) * conv.strides[1]
    down = np.arange(conv.kernel[0]) * conv.dilations[0]
    across = np.arange(conv.kernel[1]) * conv.dilations[1]
    flat = (rows[:, None, None] + down[:, None]) * padded.shape[2] + columns[:, None, None] + across
    gathered = padded.reshape(len(padded), -1)[:, flat.ravel()].reshape(len(padded), len(positions), -1)
    patches = gathered.transpose(1, 0, 2).reshape(len(positions), -1).astype(np.float32)
    return patches if known is None else (patches - np.float32(fill)) * np.float32(known.scale)


def _solve(
    graph: FloatGraph, conv: Conv, moments: Moments, method: Method, settings: RoundingSettings
) -> QuantizedConv:
    weight = graph.weights[conv.weight]
    if method == "learned" and moments.second:
        integers, scale, bias = round_compensated(weight.reshape(len(weight), -1), moments, settings)
        return QuantizedConv(integers.reshape(weight.shape), scale, bias)
    if method == "refit" and moments.second:
        weight, _ = _solve_float(graph, conv, moments, method, settings)
    integers, scale = round_nearest(weight)
    rounded = QuantizedConv(integers, scale, graph.weights[conv.bias])
    return replace(rounded, bias=_mean_bias(rounded.dequantized(), conv, moments))


def fit_bias(conv: QuantizedConv, input_scale: float) -> QuantizedConv:
    """Coarsen the scale of output channels whose bias would not fit 32 bits beside their weights.

    Those are channels with a bias and hardly any weights, like the constant ones that `split` makes.
    """
    least = np.abs(conv.bias) / np.float32(input_scale * BIAS_LIMIT)
    short = conv.scale < least
    empty = ~conv.weight.reshape(len(conv.weight), -1).any(1)
    scale = np.where(short | (empty & (least > 0)), least, conv.scale).astype(np.float32)
    coarser = np.rint(conv.dequantized() / scale[:, None, None, None]).astype(np.int8)
    return replace(conv, weight=np.where(short[:, None, None, None], coarser, conv.weight), scale=scale)


def _solve_float(
    graph: FloatGraph, conv: Conv, moments: Moments, method: Method, settings: RoundingSettings
) -> tuple[FloatArray, FloatArray]:
    weight = graph.weights[conv.weight]
    if moments.second:
        solved, bias = refit(weight.reshape(len(weight), -1), moments, settings)
        return solved.reshape(weight.shape).astype(np.float32), bias.astype(np.float32)
    return weight, _mean_bias(weight, conv, moments)


def _mean_bias(weight: FloatArray, conv: Conv, moments: Moments) -> FloatArray:
    """The bias at which the layer's mean output is the float layer's."""
    means = moments.mean_x.reshape(conv.group, -1)  # (group, in_channels / group · kernel)
    rows = weight.reshape(conv.group, len(weight) // conv.group, -1).astype(np.float64)
    response = np.einsum("gok,gk->go", rows, means).reshape(-1)
    return (moments.mean_y - response).astype(np.float32)

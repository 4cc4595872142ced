"""One pass of the float model over the calibration pictures: what later passes need to know, and no more.

For every tensor that is computed rather than moved (convolution outputs before their ReLU, residual sums, other sources
of the 8-bit region) it keeps the exact extremes per channel and the values at a few thousand random positions, the same
positions for all tensors of one resolution. Channel scales, ranges by any method and the targets of the rounding all
follow from these, so the float model runs once. The number of positions is fixed for the whole run and shared among the
pictures: memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from u2net.errors import ModelError

from .agreement import mask_share, to_map
from .graph import FloatGraph
from .region import find_region
from .sessions import open_session

__all__ = ["Observations", "Positions", "observe", "sample_positions"]

FloatArray = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Positions = dict[tuple[int, int], npt.NDArray[np.int64]]

#: Operators that treat every channel by itself, and linearly for positive factors.
ELEMENTWISE = {"Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "Identity"}

MASK_SLACK = 1e-3  # by which a mask may leave [0, 1]

#: Called with the number of pictures done.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Observations:
    """What the float model was seen to do. Keys are tensors; convolutions appear under their preactivation."""

    low: dict[str, FloatArray]  # (channels,), smallest value of each channel
    high: dict[str, FloatArray]  # (channels,), largest
    samples: dict[str, FloatArray]  # (pictures · positions, channels), picture by picture
    positions: tuple[Positions, ...]  # by picture: resolution → flat indices of the sampled pixels
    coverage: tuple[float, ...] = ()  # by picture: share of it that the float model's mask covers

    def scaled(self, factors: dict[str, FloatArray]) -> Observations:
        """These observations of a graph in which channel c of tensor t was multiplied by `factors[t][c]` > 0."""

        def times(values: dict[str, FloatArray]) -> dict[str, FloatArray]:
            return {name: value * factors[name] if name in factors else value for name, value in values.items()}

        return replace(self, low=times(self.low), high=times(self.high), samples=times(self.samples))

    def extremes(self, graph: FloatGraph, source: str) -> tuple[FloatArray, FloatArray]:
        """Smallest and largest value of each channel of a source tensor, after the ReLU if it has one."""
        for conv in graph.convs:
            if conv.output == source and conv.relu:
                return np.maximum(self.low[conv.preactivation], 0), np.maximum(self.high[conv.preactivation], 0)
        return self.low[source], self.high[source]

    def samples_of(self, graph: FloatGraph, source: str) -> FloatArray:
        """Sampled values (samples, channels) of a source tensor, after the ReLU if it has one."""
        for conv in graph.convs:
            if conv.output == source and conv.relu:
                return np.maximum(self.samples[conv.preactivation], 0)
        return self.samples[source]

    def moments(self, graph: FloatGraph) -> tuple[dict[str, Array64], dict[str, Array64]]:
        """Mean and variance per channel of every tensor that follows from observed ones."""
        mean: dict[str, Array64] = {}
        variance: dict[str, Array64] = {}
        for name, values in self.samples.items():
            mean[name], variance[name] = values.mean(0, dtype=np.float64), values.var(0, dtype=np.float64)
        for conv in graph.convs:
            if conv.relu:
                values = np.maximum(self.samples[conv.preactivation], 0)
                mean[conv.output] = values.mean(0, dtype=np.float64)
                variance[conv.output] = values.var(0, dtype=np.float64)
        for node in graph.nodes:
            output = node.output[0]
            moving = [name for name in node.input if name and name not in graph.weights]
            if output in mean or not moving or any(name not in mean for name in moving):
                continue
            if node.op_type == "Concat":
                mean[output] = np.concatenate([mean[name] for name in moving])
                variance[output] = np.concatenate([variance[name] for name in moving])
            elif node.op_type in ELEMENTWISE:
                mean[output], variance[output] = mean[moving[0]], variance[moving[0]]
        return mean, variance


def sample_positions(
    resolutions: Sequence[tuple[int, int]], pictures: int, budget: int, seed: int
) -> tuple[Positions, ...]:
    """For each picture and resolution, sorted random pixels without repetition: `budget` over all pictures."""
    per_picture = max(1, budget // pictures)
    result = []
    for picture in range(pictures):
        chosen: Positions = {}
        for height, width in sorted(set(resolutions)):
            generator = np.random.default_rng((seed, picture, height, width))
            count = min(per_picture, height * width)
            chosen[height, width] = np.sort(generator.choice(height * width, count, replace=False)).astype(np.int64)
        result.append(chosen)
    return tuple(result)


def observed_tensors(graph: FloatGraph) -> tuple[str, ...]:
    """Preactivations of all convolutions and the sources of the largest possible 8-bit region."""
    made_by_conv = {conv.output: conv.preactivation for conv in graph.convs}
    names = [conv.preactivation for conv in graph.convs]
    for sources in find_region(graph).sources.values():
        names.extend(made_by_conv.get(name, name) for name in sources)
    return tuple(name for name in dict.fromkeys(names) if len(graph.shapes.get(name, ())) == 4)


def observe(
    graph: FloatGraph,
    inputs: Sequence[npt.NDArray[Any]],
    *,
    budget: int,
    seed: int,
    threads: int,
    progress: Progress = lambda done: None,
) -> Observations:
    """Run the float model on `inputs`, network inputs that are made as they are asked for.

    Raises `ModelError` where it computes anything that is not finite.
    """
    tensors = observed_tensors(graph)
    resolutions = sorted({graph.shapes[name][2:] for name in tensors})
    positions = sample_positions(resolutions, len(inputs), budget, seed)  # type: ignore[arg-type]
    session = open_session(_instrumented(graph, tensors, resolutions), threads)
    low: dict[str, FloatArray] = {}
    high: dict[str, FloatArray] = {}
    samples: dict[str, FloatArray] = {}
    coverage = []
    for picture in range(len(inputs)):
        feed = {graph.input: inputs[picture]}
        feed |= {_indices(shape): positions[picture][shape[0], shape[1]] for shape in resolutions}
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, feed), strict=True))
        found_map = to_map(found[graph.output])
        if not (found_map.min() >= -MASK_SLACK and found_map.max() <= 1 + MASK_SLACK):
            raise ModelError(
                f"the float model gives values from {found_map.min():.3g} to {found_map.max():.3g}, not a mask in "
                "[0, 1]; `python -m export --weights FILE.onnx` makes one that ends in a sigmoid"
            )
        coverage.append(mask_share(found_map))
        for name in tensors:
            lowest, highest = found[f"{name}/low"], found[f"{name}/high"]
            if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
                raise ModelError(
                    f"the float model computes values that are not finite (tensor {name}); look at the weights, or "
                    "heal them with `u2net train finetune`"
                )
            low[name] = np.minimum(low[name], lowest) if name in low else lowest
            high[name] = np.maximum(high[name], highest) if name in high else highest
            values = found[f"{name}/samples"].T
            if name not in samples:
                samples[name] = np.empty((len(values) * len(inputs), values.shape[1]), np.float32)
            samples[name][picture * len(values) : (picture + 1) * len(values)] = values
        progress(picture + 1)
    return Observations(low, high, samples, positions, tuple(coverage))


def _indices(shape: tuple[int, ...]) -> str:
    return f"positions/{shape[0]}x{shape[1]}"


def _instrumented(graph: FloatGraph, tensors: Sequence[str], resolutions: Sequence[tuple[int, ...]]) -> onnx.ModelProto:
    """The model with extremes and samples of each tensor as outputs, computed inside so that no map is copied out."""
    model = graph.to_model()
    model.graph.initializer.append(helper.make_tensor("quantize/spatial", TensorProto.INT64, [2], [2, 3]))
    for shape in resolutions:
        model.graph.input.append(helper.make_tensor_value_info(_indices(shape), TensorProto.INT64, [None]))
    for name in tensors:
        channels = graph.shapes[name][1]
        flat = helper.make_tensor(f"{name}/flat_shape", TensorProto.INT64, [2], [channels, -1])
        model.graph.initializer.append(flat)
        make = helper.make_node
        axes_by_input = graph.opset >= 18
        for kind, op_type in (("low", "ReduceMin"), ("high", "ReduceMax")):
            if axes_by_input:
                node = make(op_type, [name, "quantize/spatial"], [f"{name}/{kind}_map"], keepdims=0)
            else:
                node = make(op_type, [name], [f"{name}/{kind}_map"], keepdims=0, axes=[2, 3])
            model.graph.node.append(node)
            model.graph.node.append(make("Reshape", [f"{name}/{kind}_map", "quantize/flat"], [f"{name}/{kind}"]))
        model.graph.node.append(make("Reshape", [name, f"{name}/flat_shape"], [f"{name}/flat"]))
        gather = make("Gather", [f"{name}/flat", _indices(graph.shapes[name][2:])], [f"{name}/samples"], axis=1)
        model.graph.node.append(gather)
    model.graph.initializer.append(helper.make_tensor("quantize/flat", TensorProto.INT64, [1], [-1]))
    del model.graph.output[1:]  # the first one is the mask
    for name in tensors:
        for kind in ("low", "high", "samples"):
            model.graph.output.append(helper.make_tensor_value_info(f"{name}/{kind}", TensorProto.FLOAT, None))
    return model

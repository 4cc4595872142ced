"""Give a graph the interface of a browser: bytes in, bytes out, normalisation inside.

The tensor interface wants a normalised float32 (1, 3, H, W); a page has the uint8 RGBA of a canvas. This pass puts
steps 3 and 4 of `u2net.preprocess` (version 1) before the network and the conversion to alpha bytes behind it, so that
a page neither has to know the normalisation nor to loop over pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from u2net.errors import ModelError
from u2net.preprocess import MEAN, STD

__all__ = ["ImageInterface"]


class ImageInterface(ir.passes.InPlacePass):
    """From `input` float32 (1, 3, H, W) and `alpha` float32 (1, 1, H, W) to

    - `input` uint8 (1, H, W, 4): RGBA, A ignored, resized to the network's size;
    - `alpha` (1, H, W): uint8, floor(255 · a + 0.5), or with `alpha="float32"` the map itself in [0, 1].

    A model that already has this interface is left alone; any other raises `ModelError`.
    """

    def __init__(self, alpha: str = "uint8") -> None:
        super().__init__()
        self.alpha = alpha

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise ModelError("the image interface is for a graph with one input and one output; leave --side-maps out")
        picture, saliency = graph.inputs[0], graph.outputs[0]
        if picture.dtype == ir.DataType.UINT8:
            return ir.passes.PassResult(model, False)
        if picture.shape is None or len(picture.shape) != 4 or picture.shape[1] != 3:
            raise ModelError(
                f"the image interface is for an input (1, 3, H, W), not {picture.shape}; use --interface tensor"
            )
        height, width = picture.shape[2], picture.shape[3]
        self._normalise(graph, picture, height, width)
        self._deliver(graph, saliency, height, width)
        return ir.passes.PassResult(model, True)

    @staticmethod
    def _normalise(graph: ir.Graph, tensor: ir.Value, height: object, width: object) -> None:
        build = _Builder(graph, "image")
        pixels = ir.Value(
            name="input",
            type=ir.TensorType(ir.DataType.UINT8),
            shape=ir.Shape([1, height, width, 4]),  # type: ignore[list-item]
        )
        rgb = build.node(
            "Slice", [pixels, build.ints("start", [0]), build.ints("end", [3]), build.ints("axis", [3])], "rgb"
        )
        planes = build.node("Transpose", [rgb], "planes", perm=[0, 3, 1, 2])
        values = build.node("Cast", [planes], "values", to=ir.DataType.FLOAT.value)
        peak = build.node("ReduceMax", [values], "peak", keepdims=1)
        # Black pictures: values are whole numbers, so only a peak of 0 is below 1.
        guarded = build.node("Max", [peak, build.floats("one", 1.0)], "guarded_peak")
        scaled = build.node("Div", [values, guarded], "scaled")
        mean = build.floats("mean", np.array(MEAN).reshape(1, 3, 1, 1))
        std = build.floats("std", np.array(STD).reshape(1, 3, 1, 1))
        centred = build.node("Sub", [scaled, mean], "centred")
        normalised = build.node("Div", [centred, std], "normalised")
        normalised.dtype, normalised.shape = ir.DataType.FLOAT, tensor.shape
        ir.convenience.replace_all_uses_with(tensor, normalised)
        graph.inputs[0] = pixels
        tensor.name = "image/replaced"
        build.insert_at_start()

    def _deliver(self, graph: ir.Graph, saliency: ir.Value, height: object, width: object) -> None:
        build = _Builder(graph, "image")
        saliency.name = "saliency"
        alpha = build.node("Squeeze", [saliency, build.ints("channel_axis", [1])], "flat")
        kind: ir.DataType = ir.DataType.FLOAT
        if self.alpha == "uint8":
            levels = build.node("Mul", [alpha, build.floats("levels", 255.0)], "levels_of_alpha")
            halves = build.node("Add", [levels, build.floats("half", 0.5)], "half_up")
            # Casting truncates towards zero, which is floor here.
            alpha = build.node("Cast", [halves], "bytes", to=ir.DataType.UINT8.value)
            kind = ir.DataType.UINT8
        alpha.name, alpha.dtype = "alpha", kind
        alpha.shape = ir.Shape([1, height, width])  # type: ignore[list-item]
        graph.outputs[0] = alpha
        build.append()


class _Builder:
    """Collects nodes and constants whose names start with `prefix`."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph = graph
        self.prefix = prefix
        self.nodes: list[ir.Node] = []

    def node(self, op_type: str, inputs: list[ir.Value], name: str, **attributes: Any) -> ir.Value:
        node = ir.node(op_type, inputs, attributes or None, name=f"{self.prefix}/{name}")
        node.outputs[0].name = f"{self.prefix}/{name}_out"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, name: str, values: np.ndarray) -> ir.Value:
        value = ir.Value(name=f"{self.prefix}/{name}", const_value=ir.tensor(values, name=f"{self.prefix}/{name}"))
        value.dtype, value.shape = ir.DataType.from_numpy(values.dtype), ir.Shape(values.shape)
        self.graph.register_initializer(value)
        return value

    def ints(self, name: str, values: list[int]) -> ir.Value:
        return self.constant(name, np.array(values, dtype=np.int64))

    def floats(self, name: str, values: object) -> ir.Value:
        return self.constant(name, np.asarray(values, dtype=np.float32))

    def insert_at_start(self) -> None:
        self.graph.insert_before(self.graph[0], self.nodes)

    def append(self) -> None:
        self.graph.extend(self.nodes)

"""A typed view of the float ONNX graph that the passes work on.

The passes need few things: which node is a convolution and whether a ReLU follows it, who makes and who reads a tensor,
and the weights as arrays. Everything is found by structure, never by name, so a graph with preprocessing in front of
the network or a resize behind it is read the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from u2net.errors import ModelError
from u2net.files import check_path
from u2net.network.onnx_file import read_onnx
from u2net.onnx_scan import QUANTIZED_OPERATORS

from .intake import CURE, take_in

__all__ = ["Conv", "FloatGraph", "Interface", "load_graph", "make_model"]

FloatArray = npt.NDArray[np.float32]

Interface = Literal["tensor", "image"]

DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Conv:
    """One two-dimensional convolution, with the ReLU that follows it if there is one."""

    name: str  # readable and stable: the weight's name without what exporters add, as `stage2d.rebnconv1d`
    node: str  # name of the node
    input: str  # tensor that is convolved
    preactivation: str  # tensor that the convolution makes
    output: str  # tensor after the ReLU, the same as `preactivation` where there is none
    weight: str  # initializer, (out_channels, in_channels / group, kernel height, kernel width)
    bias: str  # initializer, (out_channels,)
    group: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]  # top, left, bottom, right
    macs: int  # multiply-accumulates for one picture

    @property
    def relu(self) -> bool:
        """Whether a ReLU follows."""
        return self.output != self.preactivation


class FloatGraph:
    """A float32 ONNX graph and its weights as arrays.

    `weights` holds every initializer; passes replace entries and `to_model` writes them back. Tensors keep the names
    they have in the file. The graph has one input and its first output is the mask. `fixed` says that the file leaves
    sides or the batch free, or takes several pictures at a time, and this graph does not.
    """

    def __init__(self, model: onnx.ModelProto, fixed: bool = False) -> None:
        self.fixed = fixed
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        _lift_constants(self.model.graph)
        _name_nodes(self.model.graph)
        del self.model.graph.value_info[:]  # sizes between nodes, which passes may change
        graph = self.model.graph
        self.weights: dict[str, npt.NDArray[Any]] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(graph.node)
        inputs = [value for value in graph.input if value.name not in self.weights]
        if len(inputs) != 1 or not graph.output:
            raise ModelError(
                f"the model has {len(inputs)} inputs and {len(graph.output)} outputs; 1 and at least 1 fit; {CURE}"
            )
        self.input = inputs[0].name
        self.input_type = inputs[0].type.tensor_type.elem_type
        self.output = graph.output[0].name
        self.outputs = tuple(value.name for value in graph.output)
        self.metadata = {entry.key: entry.value for entry in self.model.metadata_props}
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.output:
                self.producer[name] = node
            for name in dict.fromkeys(node.input):
                if name:
                    self.consumers.setdefault(name, []).append(node)
        self.shapes = self._infer_shapes()
        self._add_missing_biases()
        self.convs: tuple[Conv, ...] = self._find_convs()
        self.conv_of: dict[str, Conv] = {conv.node: conv for conv in self.convs}

    # -- what the passes ask --------------------------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        return self.shapes[self.input]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the picture that goes in."""
        height, width = self.input_shape[1:3] if self.interface == "image" else self.input_shape[2:]
        return int(height), int(width)

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return next(entry.version for entry in self.model.opset_import if entry.domain in DEFAULT_DOMAINS)

    @property
    def interface(self) -> Interface:
        """`tensor` (float32 NCHW, normalised outside) or `image` (uint8 NHWC RGBA, normalised inside)."""
        return "image" if self.input_type == onnx.TensorProto.UINT8 else "tensor"

    def conv(self, name: str) -> Conv:
        """The convolution called `name`; raises `ModelError` where there is none."""
        for conv in self.convs:
            if conv.name == name:
                return conv
        raise ModelError(f"the model has no convolution called {name!r}; `u2net quantize sensitivity` lists them")

    def total_macs(self) -> int:
        """Multiply-accumulates of all convolutions for one picture."""
        return sum(conv.macs for conv in self.convs)

    def replaced(self, weights: Mapping[str, npt.NDArray[Any]]) -> FloatGraph:
        """A copy of this graph with some initializers replaced by arrays of the same shape."""
        copy = FloatGraph.__new__(FloatGraph)
        copy.__dict__.update(self.__dict__)
        copy.weights = {**self.weights, **weights}
        return copy

    def reshaped(self) -> FloatGraph:
        """This graph read anew, after weights of other shapes were put in."""
        return FloatGraph(self.to_model())

    def to_model(self) -> onnx.ModelProto:
        """The graph as a model, weights included. Metadata and interface are those of the file that was read."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.initializer[:]
        model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in self.weights.items())
        return model

    def slice(
        self, nodes: Iterable[onnx.NodeProto], inputs: Iterable[onnx.ValueInfoProto], outputs: Iterable[str],
        weights: Mapping[str, npt.NDArray[Any]],
    ) -> onnx.ModelProto:  # fmt: skip
        """A runnable model of some nodes, with the opset of this one. Output types are left to the runtime."""
        return make_model(self.model, nodes, inputs, [onnx.ValueInfoProto(name=name) for name in outputs], weights)

    # -- reading the file -----------------------------------------------------------------------------------------

    def _infer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors; `take_in` has fixed what an exporter leaves free."""
        frozen = self.to_model()
        for value in frozen.graph.output:
            value.type.tensor_type.ClearField("shape")
        try:
            inferred = onnx.shape_inference.infer_shapes(frozen, strict_mode=True, data_prop=True)
        except Exception as error:
            raise ModelError(f"the model's shapes cannot be inferred: {_first_line(error)}; {CURE}") from error
        shapes: dict[str, tuple[int, ...]] = {}
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                shapes[value.name] = tuple(dim.dim_value for dim in dims)
        return shapes

    def _add_missing_biases(self) -> None:
        for node in self.nodes:
            if node.op_type == "Conv" and (len(node.input) < 3 or not node.input[2]) and node.input[1] in self.weights:
                name = f"{node.input[1]}.bias"
                self.weights[name] = np.zeros(self.weights[node.input[1]].shape[0], np.float32)
                del node.input[2:]
                node.input.append(name)

    def _find_convs(self) -> tuple[Conv, ...]:
        convs = []
        readable: set[str] = set()
        for node in self.nodes:
            if node.op_type != "Conv" or node.domain not in DEFAULT_DOMAINS:
                continue
            weight = self.weights.get(node.input[1])
            if weight is None or node.input[2] not in self.weights:
                raise ModelError(f"the weights of {node.name} are computed in the graph; {CURE}")
            if weight.dtype != np.float32:
                raise ModelError(
                    f"the weights of {node.name} are {weight.dtype}; quantization starts from float32; {CURE}"
                )
            if weight.ndim != 4:
                raise ModelError(f"{node.name} is not a two-dimensional convolution, so it is no U²-Net; {CURE}")
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
                raise ModelError(f"{node.name} pads by auto_pad, which has long been deprecated; {CURE}")
            output = node.output[0]
            readers = self.consumers.get(output, [])
            relu = len(readers) == 1 and readers[0].op_type == "Relu" and output not in self.outputs
            shape = self.shapes.get(output)
            if shape is None:
                raise ModelError(f"the size of what {node.name} makes is unknown; {CURE}")
            name = _readable(node.input[1], node.name)
            while name in readable:
                name += "'"
            readable.add(name)
            convs.append(
                Conv(
                    name=name,
                    node=node.name,
                    input=node.input[0],
                    preactivation=output,
                    output=readers[0].output[0] if relu else output,
                    weight=node.input[1],
                    bias=node.input[2],
                    group=int(attributes.get("group", 1)),
                    kernel=(int(weight.shape[2]), int(weight.shape[3])),
                    strides=_pair(attributes.get("strides", (1, 1))),
                    dilations=_pair(attributes.get("dilations", (1, 1))),
                    pads=_four(attributes.get("pads", (0, 0, 0, 0))),
                    macs=int(weight[0].size) * int(np.prod(shape[1:])),
                )
            )
        if not convs:
            raise ModelError(f"the model has no convolutions, so it is no U²-Net; {CURE}")
        return tuple(convs)


def load_graph(path: str | os.PathLike[str]) -> FloatGraph:
    """Read a U²-Net in ONNX, whoever exported it; see `intake`.

    Raises `ModelError` where it cannot be read, is quantized already, or is not what the passes can work on.
    """
    file = check_path(path)
    if not file.is_file():
        raise ModelError(f"{file} does not exist or is no file; make it with `python -m export`")
    model = read_onnx(file)
    if {node.op_type for node in model.graph.node} & QUANTIZED_OPERATORS:
        raise ModelError(f"{file} is quantized already; start from the float model, as `u2net export` makes it")
    given = model
    model = take_in(given, str(file))
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and checker raise many kinds
        raise ModelError(f"{file} is not a readable ONNX model: {_first_line(error)}; {CURE}") from error
    return FloatGraph(model, fixed=_input_dims(given) != _input_dims(model))


def _input_dims(model: onnx.ModelProto) -> list[int]:
    """Sides of the first input, 0 for those that are free."""
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]


def make_model(
    like: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    weights: Mapping[str, npt.NDArray[Any]],
) -> onnx.ModelProto:
    """A model of `nodes` with the opset, IR version and metadata of `like` and those `weights` that the nodes read."""
    nodes = list(nodes)
    used = dict.fromkeys(name for node in nodes for name in node.input)
    graph = helper.make_graph(
        nodes,
        like.graph.name or "u2net",
        list(inputs),
        list(outputs),
        [numpy_helper.from_array(np.asarray(weights[name], order="C"), name) for name in used if name in weights],
    )
    model = helper.make_model(graph, producer_name="", ir_version=like.ir_version)
    del model.opset_import[:]
    model.opset_import.extend(like.opset_import)
    model.metadata_props.extend(like.metadata_props)
    return model


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initializers, so that weights are found in one place."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    if len(kept) != len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own."""
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)


def _readable(weight: str, node: str) -> str:
    """`m.stage1.rebnconvin.conv_s1.weight` or `/m/stage1/rebnconvin/conv_s1/Conv` → `stage1.rebnconvin`.

    The node's name where neither says anything.
    """
    parts = weight.split(".") if weight.endswith(".weight") else re.split(r"[/.]", node)
    parts = [part for part in parts[:-1] if part not in ("conv_s1", "")]
    for index, part in enumerate(parts):
        if part.startswith(("stage", "side", "outconv", "resql")):
            return ".".join(parts[index:])
    return ".".join(parts) if weight.endswith(".weight") and parts else node


def _pair(values: Iterable[int]) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


def _four(values: Iterable[int]) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(v) for v in values)
    return top, left, bottom, right


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Reading an int8 ONNX U²-Net: from QuantizeLinear and DequantizeLinear around float operators to integer operators.

Only what the engine can run is understood; everything else is refused by the name of the node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from u2net.errors import ModelError

__all__ = [
    "Add",
    "Concat",
    "Convolution",
    "Fuse",
    "Gate",
    "Network",
    "Node",
    "Pool",
    "Resize",
    "Side",
    "Stem",
    "Tensor",
    "read_graph",
]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """A uint8 activation with zero point 0: value = scale · q."""

    name: str
    channels: int
    height: int
    width: int
    scale: np.float32


@dataclass(frozen=True)
class SideMap:
    """A float32 map of one channel."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class Stem:
    """The first convolution, in float32, of the picture."""

    output: Tensor
    weight: FloatArray  # (out_channels, 3, kernel, kernel)
    bias: FloatArray
    stride: int
    padding: int


@dataclass(frozen=True)
class Convolution:
    """A 3×3 convolution of uint8 by int8, its ReLU being the cut at zero."""

    name: str
    input: Tensor
    output: Tensor
    weight: npt.NDArray[np.int8]  # (out_channels, in_channels, 3, 3)
    bias: npt.NDArray[np.int64]  # in units of input scale · weight scale
    multiplier: FloatArray  # input scale · weight scale / output scale, per output channel
    dilation: int


@dataclass(frozen=True)
class Pool:
    """Max-pooling 2×2, stride 2, an odd edge pooled alone."""

    input: Tensor
    output: Tensor


@dataclass(frozen=True)
class Resize:
    """Bilinear, half-pixel centres."""

    input: Tensor
    output: Tensor


@dataclass(frozen=True)
class Concat:
    """Joins channels; nothing is moved: the inputs are parts of the output."""

    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor


@dataclass(frozen=True)
class Add:
    """Sum of two activations."""

    first: Tensor
    second: Tensor
    output: Tensor


@dataclass(frozen=True)
class Gate:
    """Squeeze and excitation in float32: output = input · hard_sigmoid(expand · relu(reduce · mean(input)))."""

    input: Tensor
    output: Tensor
    reduce: FloatArray  # (hidden, channels)
    reduce_bias: FloatArray
    expand: FloatArray  # (channels, hidden)
    expand_bias: FloatArray


@dataclass(frozen=True)
class Side:
    """A 3×3 convolution to one float32 map, of the sum of the inputs."""

    inputs: tuple[Tensor, ...]
    output: SideMap
    weight: FloatArray  # (channels, 3, 3)
    bias: float


@dataclass(frozen=True)
class Fuse:
    """The weighted sum of the side maps, resized to the output and through the sigmoid."""

    maps: tuple[SideMap, ...]
    weights: FloatArray
    bias: float
    height: int
    width: int


Node = Stem | Convolution | Pool | Resize | Concat | Add | Gate | Side | Fuse


@dataclass(frozen=True)
class Network:
    """A network in the order in which it runs. Sizes are (height, width)."""

    name: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    nodes: tuple[Node, ...]


def read_graph(model: onnx.ModelProto) -> Network:
    """The network of an int8 QDQ model whose sizes are all fixed (`sizes.at_size` fixes them).

    Raises `ModelError` that names the node which the engine cannot run.
    """
    return _Reader(model).read()


@dataclass
class _Reader:
    model: onnx.ModelProto
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, SideMap] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self._check_interface()
        self.weights = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
        self.producer = {name: node for node in graph.node for name in node.output}
        self.shapes = _shapes(self.model)
        #: scales of what is quantized, by the name of the float tensor that goes into QuantizeLinear
        self.scales: dict[str, np.float32] = {}
        for node in graph.node:
            if node.op_type == "QuantizeLinear":
                scale, zero = self._constant(node, 1), self._constant(node, 2)
                if zero.dtype != np.uint8 or zero.any():
                    raise ModelError(f"{node.name}: activations must be uint8 with zero point 0")
                if not (np.isfinite(scale).all() and (scale > 0).all() and scale.size == 1):
                    raise ModelError(f"{node.name}: the scale of an activation must be one positive number")
                self.scales[node.input[0]] = np.float32(scale)

    def _check_interface(self) -> None:
        graph = self.model.graph
        if len(graph.input) != 1 or len(graph.output) != 1:
            raise ModelError(
                f"it has {len(graph.input)} inputs and {len(graph.output)} outputs; the engine runs one picture to one "
                "map: export it without side maps"
            )
        if graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise ModelError("its input is not float32: export it with the tensor interface")
        if not any(node.op_type == "QuantizeLinear" for node in graph.node):
            raise ModelError("it is not an int8 model of the QDQ form: quantize it first")

    def read(self) -> Network:
        graph = self.model.graph
        shape = self.shapes[graph.input[0].name]
        if len(shape) != 4 or shape[:2] != (1, 3):
            raise ModelError(f"its input has shape {shape}, not (1, 3, height, width)")
        readers = {
            "Conv": self._conv,
            "MaxPool": self._pool,
            "Resize": self._resize,
            "Concat": self._concat,
            "Add": self._add,
            "Mul": self._gate,
        }
        for node in graph.node:
            if node.domain not in ("", "ai.onnx"):
                raise ModelError(f"{node.name}: the engine does not know {node.domain}.{node.op_type}")
            if node.op_type in readers:
                readers[node.op_type](node)
            elif node.op_type not in _READ_ELSEWHERE:
                raise ModelError(f"{node.name or node.output[0]}: the engine does not know {node.op_type}")
        if not self.nodes or not isinstance(self.nodes[-1], Fuse):
            raise ModelError("its output does not come from the fused side maps of a U²-Net")
        if not isinstance(self.nodes[0], Stem):
            raise ModelError("it does not begin with a convolution of the picture")
        output = self.shapes[graph.output[0].name]
        if len(output) != 4 or output[:2] != (1, 1):
            raise ModelError(f"its output has shape {output}, not (1, 1, height, width)")
        return Network(graph.name, shape[2:], output[2:], tuple(self.nodes))

    # ---- tensors ----

    def _constant(self, node: onnx.NodeProto, index: int) -> npt.NDArray[Any]:
        name = node.input[index] if index < len(node.input) else ""
        if name not in self.weights:
            raise ModelError(f"{node.name}: its input {index} is not a constant")
        return self.weights[name]

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self.shapes.get(name, ())
        if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
            raise ModelError(f"{name}: its shape {shape or 'is unknown'} is not that of one activation")
        return shape

    def _quantized(self, name: str) -> Tensor | None:
        """The activation behind DequantizeLinear(QuantizeLinear(x)); None where `name` is something else."""
        node = self.producer.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        quantize = self.producer.get(node.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear":
            return None
        if self._constant(node, 1) != self._constant(quantize, 1) or self._constant(node, 2).any():
            raise ModelError(f"{node.name}: its scale is not that of {quantize.name}")
        tensor = self.tensors.get(self._before_relu(quantize.input[0]))
        if tensor is None:
            raise ModelError(f"{quantize.name}: what it quantizes is nothing that the engine computes")
        return tensor

    def _input(self, node: onnx.NodeProto, index: int = 0) -> Tensor:
        tensor = self._quantized(node.input[index])
        if tensor is None:
            raise ModelError(f"{node.name}: its input is float; the engine computes {node.op_type} in 8 bits")
        return tensor

    def _before_relu(self, name: str) -> str:
        """Quantizing with zero point 0 cuts negatives off, so that a Relu, or a Max with 0, before it is nothing."""
        node = self.producer.get(name)
        if node is not None and node.op_type == "Relu":
            return node.input[0]
        if node is not None and node.op_type == "Max" and len(node.input) == 2:
            if not self.weights.get(node.input[1], np.ones(1)).any():
                return node.input[0]
            raise ModelError(f"{node.name}: the engine does not know Max but with 0")
        return name

    def _is_quantized(self, name: str) -> np.float32 | None:
        """The scale that `name`, or the ReLU of it, is quantized with."""
        if name in self.scales:
            return self.scales[name]
        for source, scale in self.scales.items():
            if self._before_relu(source) == name:
                return scale
        return None

    def _output(self, node: onnx.NodeProto) -> Tensor:
        name = node.output[0]
        scale = self._is_quantized(name)
        if scale is None:
            raise ModelError(f"{node.name}: its output stays in float; the engine computes {node.op_type} in 8 bits")
        _, channels, height, width = self._shape(name)
        tensor = Tensor(name, channels, height, width, scale)
        self.tensors[name] = tensor
        return tensor

    # ---- nodes ----

    def _conv(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node)
        if attributes.get("group", 1) != 1:
            raise ModelError(f"{node.name}: the engine does not know grouped convolution")
        if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise ModelError(f"{node.name}: the engine does not know auto_pad")
        if node.input[0] == self.model.graph.input[0].name:
            self._stem(node, attributes)
        elif self._is_quantized(node.output[0]) is not None:
            self._integer_conv(node, attributes)
        elif node.input[1] in self.weights and self.weights[node.input[1]].shape[2:] == (3, 3):
            self._side(node, attributes)
        elif self._is_fusion(node):
            self._fuse(node)
        elif not self._is_in_gate(node):
            raise ModelError(f"{node.name}: a convolution that stays in float; the engine runs all but the first and "
                             "the side maps in 8 bits")  # fmt: skip

    def _stem(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        weight = self._constant(node, 1).astype(np.float32)
        bias = self._constant(node, 2).astype(np.float32)
        kernel, strides, pads = weight.shape[2:], attributes.get("strides", [1, 1]), attributes.get("pads", [0] * 4)
        if weight.shape[1] != 3 or len({*kernel}) != 1 or len({*strides}) != 1 or len({*pads}) != 1:
            raise ModelError(f"{node.name}: the first convolution must be square and of 3 channels")
        if attributes.get("dilations", [1, 1]) != [1, 1] or kernel[0] > 16 or strides[0] > 8 or pads[0] > 16:
            raise ModelError(f"{node.name}: a first convolution of this shape is beyond the engine")
        self.nodes.append(Stem(self._output(node), weight, bias, strides[0], pads[0]))

    def _integer_conv(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        source = self._input(node)
        weight, weight_scale = self._stored(node, 1)
        bias, bias_scale = self._stored(node, 2)
        dilations = attributes.get("dilations", [1, 1])
        if weight.dtype != np.int8 or weight.shape[2:] != (3, 3) or attributes.get("strides", [1, 1]) != [1, 1]:
            raise ModelError(f"{node.name}: the engine computes 3×3 convolutions of stride 1 with int8 weights")
        if len({*dilations}) != 1 or dilations[0] > 64 or attributes.get("pads") != [dilations[0]] * 4:
            raise ModelError(f"{node.name}: the padding must be the dilation")
        output = self._output(node)
        scale = np.broadcast_to((source.scale * weight_scale).astype(np.float32), (weight.shape[0],))
        if not np.allclose(scale, bias_scale, rtol=1e-5):
            raise ModelError(f"{node.name}: its bias is not in units of input scale · weight scale")
        multiplier = (scale / output.scale).astype(np.float32)
        self.nodes.append(
            Convolution(node.name, source, output, weight, bias.astype(np.int64), multiplier, dilations[0])
        )

    def _stored(self, node: onnx.NodeProto, index: int) -> tuple[npt.NDArray[Any], FloatArray]:
        """Integers and scales of a constant behind DequantizeLinear."""
        producer = self.producer.get(node.input[index]) if index < len(node.input) else None
        if producer is None or producer.op_type != "DequantizeLinear" or producer.input[0] not in self.weights:
            what = "weights" if index == 1 else "biases"
            raise ModelError(f"{node.name}: its {what} stay in float; the engine computes it in 8 bits")
        if len(producer.input) > 2 and self._constant(producer, 2).any():
            raise ModelError(f"{producer.name}: weights must have zero point 0")
        return self._constant(producer, 0), self._constant(producer, 1).astype(np.float32)

    def _pool(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node)
        source, output = self._input(node), self._output(node)
        if attributes.get("kernel_shape") != [2, 2] or attributes.get("strides") != [2, 2]:
            raise ModelError(f"{node.name}: the engine pools 2×2 with stride 2")
        if any(attributes.get("pads", [0])) or attributes.get("dilations", [1, 1]) != [1, 1]:
            raise ModelError(f"{node.name}: the engine pools without padding and dilation")
        if (output.height, output.width) != ((source.height + 1) // 2, (source.width + 1) // 2):
            raise ModelError(f"{node.name}: an odd edge must be pooled alone (ceil_mode)")
        self._same_scale(node, source, output)
        self.nodes.append(Pool(source, output))

    def _resize(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node)
        if attributes.get("mode") != b"linear" or attributes.get("antialias", 0):
            raise ModelError(f"{node.name}: the engine resizes bilinearly, not antialiased")
        centres = attributes.get("coordinate_transformation_mode", b"half_pixel")
        if centres not in (b"half_pixel", b"pytorch_half_pixel"):
            raise ModelError(f"{node.name}: the engine resizes with half-pixel centres")
        if self._is_quantized(node.output[0]) is None:
            return  # of a side map: the fusion reads it
        source, output = self._input(node), self._output(node)
        self._same_scale(node, source, output)
        self.nodes.append(Resize(source, output))

    def _concat(self, node: onnx.NodeProto) -> None:
        if _attributes(node).get("axis") != 1:
            raise ModelError(f"{node.name}: the engine joins channels only")
        if self._is_quantized(node.output[0]) is None:
            return  # of side maps: the fusion reads it
        inputs = tuple(self._input(node, index) for index in range(len(node.input)))
        output = self._output(node)
        for tensor in inputs:
            self._same_scale(node, tensor, output)
        self.nodes.append(Concat(node.name, inputs, output))

    def _add(self, node: onnx.NodeProto) -> None:
        if self._is_quantized(node.output[0]) is None:
            return  # of two activations into a side map: the side map reads it
        first, second = self._input(node, 0), self._input(node, 1)
        output = self._output(node)
        if not _shape(first) == _shape(second) == _shape(output):
            raise ModelError(f"{node.name}: the engine adds activations of one shape")
        self.nodes.append(Add(first, second, output))

    def _gate(self, node: onnx.NodeProto) -> None:
        """Mul(x, HardSigmoid(Conv(Relu(Conv(ReduceMean(x))))))."""
        chain = []
        name = node.input[1]
        for op_type in ("HardSigmoid", "Conv", "Relu", "Conv", "ReduceMean"):
            producer = self.producer.get(name)
            if producer is None or producer.op_type != op_type:
                raise ModelError(f"{node.name}: the engine knows Mul only as the end of squeeze and excitation")
            chain.append(producer)
            name = producer.input[0]
        sigmoid, expand, _, reduce, mean = chain
        source = self._input(node)
        if self._quantized(mean.input[0]) != source or not self._means_pixels(mean):
            raise ModelError(f"{node.name}: its squeeze and excitation is not over the pixels of its own input")
        slope = _attributes(sigmoid)
        if abs(slope.get("alpha", 0.2) - 1 / 6) > 1e-6 or slope.get("beta", 0.5) != 0.5:
            raise ModelError(f"{sigmoid.name}: the engine's hard sigmoid is x / 6 + 1 / 2")
        output = self._output(node)
        if _shape(source) != _shape(output):
            raise ModelError(f"{node.name}: the engine multiplies by one number per channel")
        dense = [self._constant(conv, 1).astype(np.float32) for conv in (reduce, expand)]
        if any(weight.shape[2:] != (1, 1) for weight in dense):
            raise ModelError(f"{node.name}: its squeeze and excitation is not of 1×1 convolutions")
        self.nodes.append(
            Gate(
                source,
                output,
                dense[0][:, :, 0, 0],
                self._constant(reduce, 2).astype(np.float32),
                dense[1][:, :, 0, 0],
                self._constant(expand, 2).astype(np.float32),
            )
        )

    def _means_pixels(self, node: onnx.NodeProto) -> bool:
        attributes = _attributes(node)
        axes = attributes.get("axes") or (self._constant(node, 1).tolist() if len(node.input) > 1 else [])
        return sorted(axis % 4 for axis in axes) == [2, 3] and attributes.get("keepdims", 1) == 1

    def _is_in_gate(self, node: onnx.NodeProto) -> bool:
        """Whether a convolution works on one pixel: `_gate` reads those."""
        return self.shapes.get(node.output[0], ())[2:] == (1, 1) and node.input[1] in self.weights

    def _side(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
        weight = self._constant(node, 1).astype(np.float32)
        if weight.shape[0] != 1:
            raise ModelError(f"{node.name}: a convolution that stays in float; only side maps do in the engine")
        if attributes.get("pads") != [1] * 4 or attributes.get("strides", [1, 1]) != [1, 1]:
            raise ModelError(f"{node.name}: a side map must have padding 1 and stride 1")
        tensor = self._quantized(node.input[0])
        producer = self.producer.get(node.input[0])
        if tensor is not None:
            inputs: tuple[Tensor, ...] = (tensor,)
        elif producer is not None and producer.op_type == "Add":
            inputs = (self._input(producer, 0), self._input(producer, 1))
        else:
            raise ModelError(f"{node.name}: its input is not an activation of the engine")
        _, _, height, width = self._shape(node.output[0])
        output = SideMap(node.output[0], height, width)
        self.maps[output.name] = output
        bias = self._constant(node, 2) if len(node.input) > 2 else np.zeros(1)
        self.nodes.append(Side(inputs, output, weight[0], float(bias[0])))

    def _is_fusion(self, node: onnx.NodeProto) -> bool:
        producer = self.producer.get(node.input[0])
        return producer is not None and producer.op_type == "Concat" and node.input[1] in self.weights

    def _fuse(self, node: onnx.NodeProto) -> None:
        weight = self._constant(node, 1).astype(np.float32)
        concat = self.producer[node.input[0]]
        if weight.shape != (1, len(concat.input), 1, 1):
            raise ModelError(f"{node.name}: the fusion must be a 1×1 convolution of the side maps to one")
        maps = []
        for name in concat.input:
            producer = self.producer.get(name)
            source = producer.input[0] if producer is not None and producer.op_type == "Resize" else name
            if source not in self.maps:
                raise ModelError(f"{node.name}: {name} is not a side map")
            maps.append(self.maps[source])
        sigmoid = self.producer.get(self.model.graph.output[0].name)
        resize = self.producer.get(sigmoid.input[0]) if sigmoid is not None else None
        logit = resize.input[0] if resize is not None and resize.op_type == "Resize" else sigmoid and sigmoid.input[0]
        if sigmoid is None or sigmoid.op_type != "Sigmoid" or logit != node.output[0]:
            raise ModelError(f"{node.name}: the output must be the sigmoid of the fused map")
        _, _, height, width = self._shape(node.output[0])
        bias = float(self._constant(node, 2)[0]) if len(node.input) > 2 else 0.0
        self.nodes.append(Fuse(tuple(maps), weight.reshape(-1), bias, height, width))

    def _same_scale(self, node: onnx.NodeProto, source: Tensor, output: Tensor) -> None:
        if source.scale != output.scale:
            raise ModelError(f"{node.name}: it changes the scale of its input, which only a convolution may")


#: Read with the operator that they belong to.
_READ_ELSEWHERE = {
    "QuantizeLinear",
    "DequantizeLinear",
    "Relu",
    "Max",
    "Sigmoid",
    "HardSigmoid",
    "ReduceMean",
}


def _shape(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.channels, tensor.height, tensor.width


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all values."""
    sides = model.graph.input[0].type.tensor_type.shape.dim[2:4]
    if any(not side.dim_value for side in sides):
        raise ModelError("its height and width are free: say which")
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # onnx raises its own family, which derives from Exception alone
        raise ModelError(f"its shapes cannot be inferred: {' '.join(str(error).split())[:200]}") from error
    values: Iterable[onnx.ValueInfoProto] = (
        *inferred.graph.value_info,
        *inferred.graph.input,
        *inferred.graph.output,
    )
    return {value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim) for value in values}

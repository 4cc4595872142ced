"""Writing a quantization plan into a graph: QDQ, QOperator, or a float simulation of it.

QDQ keeps float operators between pairs of QuantizeLinear and DequantizeLinear, which the runtime fuses into integer
kernels when it loads the model. QOperator names the integer kernels itself. The simulation is the QDQ graph with the
weights already rounded but kept as floats: it computes what the integer kernels compute on any processor, also on those
whose 8-bit instructions saturate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from u2net.errors import ModelError

from .graph import Conv, FloatGraph, make_model
from .plan import ActivationRange, Plan, QuantizedConv
from .region import TYING
from .settings import Form

__all__ = ["emit", "integer_bias"]

MICROSOFT_DOMAIN = "com.microsoft"


def integer_bias(conv: QuantizedConv, input_range: ActivationRange) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The int32 bias and its scales, both (out_channels,)."""
    scale = (np.float32(input_range.scale) * conv.scale).astype(np.float32)
    limit = 2**31 - 1
    bias = np.clip(np.rint(conv.bias.astype(np.float64) / scale), -limit, limit)
    return bias.astype(np.int32), scale


def emit(graph: FloatGraph, plan: Plan, form: Form) -> onnx.ModelProto:
    """`graph` with `plan` written into it.

    Convolutions of the region that the plan has no integers for keep float weights. Raises `ModelError` for old opsets.
    """
    if graph.opset < 13:
        raise ModelError(
            f"the model is of opset {graph.opset}; quantizing per channel needs 13: export it with `u2net export "
            "--opset 13` or above"
        )
    writer = _OperatorWriter(graph, plan) if form == "qoperator" else _QdqWriter(graph, plan, form)
    writer.write()
    weights = {**graph.weights, **writer.weights}
    model = make_model(graph.model, writer.nodes, graph.model.graph.input, graph.model.graph.output, weights)
    if any(node.domain == MICROSOFT_DOMAIN for node in writer.nodes):
        model.opset_import.append(helper.make_opsetid(MICROSOFT_DOMAIN, 1))
    return model


class _Writer:
    """What both forms share: scales as initializers, and one quantized and one float name per tensor."""

    def __init__(self, graph: FloatGraph, plan: Plan) -> None:
        self.graph = graph
        self.plan = plan
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, npt.NDArray[Any]] = {}
        self.dequantized: set[str] = set()
        # the tensor before a fused ReLU has no name of its own any more: its reader is the quantizer
        self.relu_of = {conv.output: conv for conv in graph.convs if conv.relu and conv.output in plan.region.group}

    def is_quantized(self, tensor: str) -> bool:
        return tensor in self.plan.region.group

    def scale_names(self, tensor: str) -> list[str]:
        group = self.plan.region.group[tensor]
        names = [f"scale_{group}", f"zero_{group}"]
        if names[0] not in self.weights:
            known = self.plan.ranges[group]
            self.weights[names[0]] = np.array(known.scale, np.float32)
            self.weights[names[1]] = np.array(known.zero_point, np.uint8)
        return names

    def add(self, op_type: str, inputs: list[str], outputs: list[str], name: str, like: onnx.NodeProto | None = None,
            domain: str = "") -> None:  # fmt: skip
        node = helper.make_node(op_type, inputs, outputs, name=name, domain=domain)
        if like is not None:
            node.attribute.extend(like.attribute)
        self.nodes.append(node)

    def quantize(self, source: str, tensor: str) -> None:
        """Quantize `source` (float) to what `tensor` is called in 8 bits."""
        self.add("QuantizeLinear", [source, *self.scale_names(tensor)], [f"{tensor}_q"], f"{tensor}_quantize")

    def float_name(self, tensor: str) -> str:
        """The name under which `tensor` is read in float; dequantizes it the first time."""
        if not self.is_quantized(tensor):
            return tensor
        if tensor not in self.dequantized:
            self.dequantized.add(tensor)
            self.add(
                "DequantizeLinear", [f"{tensor}_q", *self.scale_names(tensor)], [f"{tensor}_dq"], f"{tensor}_dequantize"
            )
        return f"{tensor}_dq"

    def write(self) -> None:
        if self.is_quantized(self.graph.input):
            self.quantize(self.graph.input, self.graph.input)
        for node in self.graph.nodes:
            conv = self.graph.conv_of.get(node.name)
            if conv is not None and conv.name in self.plan.region.integer and conv.name in self.plan.convs:
                self.write_integer_conv(conv, node, self.plan.convs[conv.name])
            elif node.op_type == "Relu" and node.output[0] in self.relu_of:
                self.write_relu(node)
            else:
                self.write_other(node)

    def write_relu(self, node: onnx.NodeProto) -> None:
        """A ReLU whose result is quantized: with zero point 0, quantizing cuts negatives off and is the ReLU."""
        output = node.output[0]
        conv = self.relu_of[output]
        if self.plan.range_of(output).zero_point != 0:
            self.write_other(node)
        elif conv.name not in self.plan.region.integer and self.is_quantized(conv.input):
            # onnxruntime rounds the weights of a float convolution between two quantized tensors by itself, to nearest
            # (WeightBiasQuantization); it does not look behind a Max
            self.weights["quantize/zero"] = np.zeros((), np.float32)
            self.add("Max", [node.input[0], "quantize/zero"], [output], node.name)
            self.quantize(output, output)
        else:
            self.quantize(node.input[0], output)

    def write_integer_conv(self, conv: Conv, node: onnx.NodeProto, quantized: QuantizedConv) -> None:
        raise NotImplementedError

    def write_other(self, node: onnx.NodeProto) -> None:
        """A float operator between dequantized inputs and, where the region asks for it, a quantized output."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(self.float_name(name) if name else "" for name in node.input)
        self.nodes.append(copy)
        for name in node.output:
            if self.is_quantized(name):
                self.quantize(name, name)


class _QdqWriter(_Writer):
    def __init__(self, graph: FloatGraph, plan: Plan, form: Form) -> None:
        super().__init__(graph, plan)
        self.form = form

    def write_integer_conv(self, conv: Conv, node: onnx.NodeProto, quantized: QuantizedConv) -> None:
        if self.form == "weights":
            names = [
                self.float_name(conv.input),
                self.dequantize_stored(conv.weight, quantized.weight, quantized.scale),
                conv.bias,
            ]
            self.weights[conv.bias] = quantized.bias
        elif self.form == "simulate":
            names = [self.float_name(conv.input), conv.weight, conv.bias]
            self.weights[conv.weight], self.weights[conv.bias] = quantized.dequantized(), quantized.bias
        else:
            bias, bias_scale = integer_bias(quantized, self.plan.range_of(conv.input))
            names = [
                self.float_name(conv.input),
                self.dequantize_stored(conv.weight, quantized.weight, quantized.scale),
                self.dequantize_stored(conv.bias, bias, bias_scale),
            ]
        self.add("Conv", names, [conv.preactivation], node.name, node)
        if self.is_quantized(conv.preactivation):
            self.quantize(conv.preactivation, conv.preactivation)

    def dequantize_stored(self, name: str, value: npt.NDArray[Any], scale: npt.NDArray[Any]) -> str:
        """Store integers with one scale per output channel; returns what their dequantized form is called."""
        self.weights[f"{name}_q"] = value
        self.weights[f"{name}_scale"] = scale
        self.weights[f"{name}_zero"] = np.zeros(scale.shape, value.dtype)
        inputs = [f"{name}_q", f"{name}_scale", f"{name}_zero"]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], name=f"{name}_dequantize", axis=0)
        )
        return f"{name}_dq"


class _OperatorWriter(_Writer):
    def __init__(self, graph: FloatGraph, plan: Plan) -> None:
        super().__init__(graph, plan)
        #: convolutions whose ReLU is the cut at zero point 0 of the integer kernel
        self.fused: set[str] = set()

    def write_relu(self, node: onnx.NodeProto) -> None:
        if self.relu_of[node.output[0]].name not in self.fused:
            super().write_relu(node)

    def write_integer_conv(self, conv: Conv, node: onnx.NodeProto, quantized: QuantizedConv) -> None:
        target = conv.output if conv.output in self.relu_of else conv.preactivation
        if (
            conv.relu and self.plan.range_of(target).zero_point != 0
        ):  # the kernel cannot cut negatives off: stay in float
            self.weights[conv.weight], self.weights[conv.bias] = quantized.dequantized(), quantized.bias
            super().write_other(node)
            return
        bias, _ = integer_bias(quantized, self.plan.range_of(conv.input))
        names = [f"{conv.weight}_q", f"{conv.weight}_scale", f"{conv.weight}_zero", f"{conv.bias}_q"]
        values: list[npt.NDArray[Any]] = [
            quantized.weight,
            quantized.scale,
            np.zeros(quantized.scale.shape, np.int8),
            bias,
        ]
        self.weights.update(zip(names, values, strict=True))
        inputs = [f"{conv.input}_q", *self.scale_names(conv.input), *names[:3], *self.scale_names(target), names[3]]
        self.add("QLinearConv", inputs, [f"{target}_q"], node.name, node)
        self.fused.add(conv.name)

    def write_other(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        if not self.is_quantized(output) or node.op_type not in (*TYING, "Add"):
            super().write_other(node)
        elif node.op_type in ("MaxPool", "Concat"):
            self.add(node.op_type, [f"{name}_q" for name in node.input], [f"{output}_q"], node.name, node)
        elif node.op_type == "Add":
            terms = [part for name in node.input for part in (f"{name}_q", *self.scale_names(name))]
            self.add(
                "QLinearAdd", [*terms, *self.scale_names(output)], [f"{output}_q"], node.name, None, MICROSOFT_DOMAIN
            )
        else:
            super().write_other(node)

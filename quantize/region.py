"""Which convolutions become integer, and which tensors are therefore kept in 8 bits.

A tensor is quantized where an integer convolution makes it or reads it, directly or through operators that only move
values about (max-pooling, resizing, concatenation). Such operators tie their inputs and output to one scale, so that
nothing is requantized between two convolutions. Everything else stays in float, with the reason recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from .graph import Conv, FloatGraph

__all__ = ["MIN_CHANNELS", "Region", "find_region", "float_reasons"]

#: Convolutions with fewer input or output channels than this are faster in float in the browser's engine
#: (3→64: int8 runs at 0.23 of float's speed, 64→1: at 0.32).
MIN_CHANNELS = 8

#: Operators whose output holds values of their inputs (or lies between them) and shares their scale.
TYING = {"MaxPool", "Resize", "Concat"}


@dataclass(frozen=True)
class Region:
    """The part of the graph that works in 8 bits."""

    integer: frozenset[str]  # names of the integer convolutions
    group: Mapping[str, int]  # quantized tensor → its group; tensors of a group share scale and zero point
    sources: Mapping[int, tuple[str, ...]]  # group → tensors of it that are computed, not moved
    reasons: Mapping[str, str]  # float convolution → why it stays in float

    @property
    def tensors(self) -> tuple[str, ...]:
        """All quantized tensors, in the order in which they were found."""
        return tuple(self.group)


def float_reasons(graph: FloatGraph, keep_float: Collection[str] = ()) -> dict[str, str]:
    """The convolutions that stay in float, and why. `keep_float` names further ones."""
    reasons: dict[str, str] = {}
    for conv in graph.convs:
        out_channels, per_group = graph.weights[conv.weight].shape[:2]
        if conv.name in keep_float:
            reasons[conv.name] = "kept by request or budget"
        elif conv.group > 1:
            reasons[conv.name] = "grouped: int8 depthwise convolution is slower than float in the browser's engine"
        elif per_group < MIN_CHANNELS:
            reasons[conv.name] = f"{per_group} input channels: int8 is slower than float here"
        elif out_channels < MIN_CHANNELS:
            reasons[conv.name] = f"{out_channels} output channels: int8 is slower than float here"
        elif _single_pixel(graph, conv):
            reasons[conv.name] = "works on one pixel: nothing to gain"
    return reasons


def find_region(graph: FloatGraph, keep_float: Collection[str] = ()) -> Region:
    """The 8-bit region that follows from the integer convolutions."""
    reasons = float_reasons(graph, keep_float)
    integer = frozenset(conv.name for conv in graph.convs if conv.name not in reasons)
    parent: dict[str, str] = {}

    def find(tensor: str) -> str:
        while parent[tensor] != tensor:
            parent[tensor] = parent[parent[tensor]]
            tensor = parent[tensor]
        return tensor

    # the output of an integer convolution too: the runtime has no integer kernel that ends in float
    pending = [name for conv in graph.convs if conv.name in integer for name in (conv.input, conv.output)]
    while pending:
        tensor = pending.pop()
        if tensor in parent:
            continue
        parent[tensor] = tensor
        node = graph.producer.get(tensor)
        if node is not None and (node.op_type in TYING or _is_residual(graph, node)):
            pending.extend(_moved_inputs(node))
    for tensor in parent:
        node = graph.producer.get(tensor)
        if node is not None and node.op_type in TYING:
            for other in _moved_inputs(node):
                parent[find(other)] = find(tensor)

    order = {node.output[0]: index for index, node in enumerate(graph.nodes)}
    tensors = sorted(parent, key=lambda tensor: order.get(tensor, -1))
    numbers: dict[str, int] = {}
    group = {tensor: numbers.setdefault(find(tensor), len(numbers)) for tensor in tensors}
    sources: dict[int, tuple[str, ...]] = {}
    for tensor in tensors:
        node = graph.producer.get(tensor)
        if node is None or node.op_type not in TYING:
            sources[group[tensor]] = (*sources.get(group[tensor], ()), tensor)
    return Region(integer, group, sources, reasons)


def _moved_inputs(node: onnx.NodeProto) -> list[str]:
    inputs = list(node.input)
    return inputs if node.op_type in ("Concat", "Add") else inputs[:1]


def _is_residual(graph: FloatGraph, node: onnx.NodeProto) -> bool:
    """Whether a node adds two activations of one shape, which integer kernels can do."""
    if node.op_type != "Add":
        return False
    shapes = [graph.shapes.get(name) for name in node.input]
    moving = all(name not in graph.weights for name in node.input)
    return moving and shapes[0] is not None and shapes[0] == shapes[1]


def _single_pixel(graph: FloatGraph, conv: Conv) -> bool:
    return graph.shapes[conv.preactivation][2:] == (1, 1)

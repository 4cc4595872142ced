"""An exported model at another size: a U²-Net's weights know nothing of the picture's height and width.

What is fixed in the graph are the shape of its input and the sizes that its Resize nodes ask for. Each of those follows
from what the result is joined with: of an activation or a side map, the first input of the same Concat that is not
resized itself; of the output, the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from u2net.errors import ModelError

__all__ = ["at_size"]

Shape = tuple[int, ...]
#: Operators whose result has the shape of their first input.
SAME = {"QuantizeLinear", "DequantizeLinear", "Relu", "Max", "Add", "Mul", "Sigmoid", "HardSigmoid"}


def at_size(model: onnx.ModelProto, height: int, width: int) -> onnx.ModelProto:
    """A copy of `model` for pictures of `height` × `width` pixels. Raises `ModelError` where that cannot be told."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {value.name: tuple(value.dims) for value in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    dims = graph.input[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise ModelError("its input is no picture")
    shapes: dict[str, Shape] = {graph.input[0].name: (1, 3, height, width)}
    for side, value in zip(dims, shapes[graph.input[0].name], strict=True):
        side.dim_value = value

    for index, node in enumerate(graph.node):
        if node.input[0] in weights:
            shapes[node.output[0]] = weights[node.input[0]]  # stored weights
            continue
        shape = shapes.get(node.input[0])
        if node.op_type in ("Shape", "Constant", "Gather", "Cast", "Unsqueeze", "Slice") or shape is None:
            continue  # of a graph whose sizes are free: what they compute is replaced by numbers
        if node.op_type == "Resize":
            target = _target(node, graph, producer, readers, shapes, (height, width))
            name = f"size/{index}"
            graph.initializer.append(numpy_helper.from_array(np.array([*shape[:2], *target], np.int64), name))
            del node.input[1:]
            node.input.extend(["", "", name])
            shapes[node.output[0]] = (*shape[:2], *target)
        else:
            shapes[node.output[0]] = _result(node, shape, shapes, weights)
    for value in graph.output:
        found = shapes.get(value.name)
        if found is None or len(found) != 4:
            raise ModelError(f"the size of {value.name} cannot be told")
        for side, length in zip(value.type.tensor_type.shape.dim, found, strict=True):
            side.dim_value = length
    del graph.value_info[:]
    for entry in [entry for entry in copy.metadata_props if entry.key == "u2net.size"]:
        copy.metadata_props.remove(entry)  # it says the side of a square
    _drop_unread(graph)
    return copy


def _result(node: onnx.NodeProto, shape: Shape, shapes: dict[str, Shape], weights: dict[str, Shape]) -> Shape:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in SAME:
        return shape
    if node.op_type == "ReduceMean":
        return (*shape[:2], 1, 1)
    if node.op_type == "Concat":
        return (shape[0], sum(shapes[name][1] for name in node.input), *shape[2:])
    if node.op_type == "MaxPool":
        return (*shape[:2], *(-(-side // 2) for side in shape[2:]))
    if node.op_type == "Conv":
        weight = weights.get(node.input[1]) or shapes[node.input[1]]
        pads, strides = attributes.get("pads", [0] * 4), attributes.get("strides", [1, 1])
        dilations = attributes.get("dilations", [1, 1])
        sides = (
            (shape[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (weight[2 + i] - 1) - 1) // strides[i] + 1
            for i in range(2)
        )
        return (shape[0], weight[0], *sides)
    raise ModelError(f"{node.name or node.output[0]}: the engine does not know {node.op_type}")


def _target(
    node: onnx.NodeProto,
    graph: onnx.GraphProto,
    producer: dict[str, onnx.NodeProto],
    readers: dict[str, list[onnx.NodeProto]],
    shapes: dict[str, Shape],
    picture: tuple[int, int],
) -> tuple[int, int]:
    """Height and width of what a Resize makes."""
    for reader in _final_readers(node.output[0], readers):
        if reader.op_type == "Sigmoid" and reader.output[0] == graph.output[0].name:
            return picture
        if reader.op_type == "Concat":
            for name in reader.input:
                shape = None if _is_resized(name, producer) else _known(name, producer, shapes)
                if shape is not None:
                    return shape[2], shape[3]
    raise ModelError(f"{node.name}: the size that it asks for cannot be told from the graph")


def _final_readers(name: str, readers: dict[str, list[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    for reader in readers.get(name, []):
        if reader.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from _final_readers(reader.output[0], readers)
        else:
            yield reader


def _known(name: str, producer: dict[str, onnx.NodeProto], shapes: dict[str, Shape]) -> Shape | None:
    """The shape of `name`, which may only be computed later, of something whose shape is known already."""
    while name not in shapes:
        node = producer.get(name)
        if node is None or node.op_type not in SAME:
            return None
        name = node.input[0]
    return shapes[name]


def _is_resized(name: str, producer: dict[str, onnx.NodeProto]) -> bool:
    node = producer.get(name)
    while node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        node = producer.get(node.input[0])
    return node is not None and node.op_type == "Resize"


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Leave out nodes and constants that nobody reads any more."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for value in [value for value in graph.initializer if value.name not in wanted]:
        graph.initializer.remove(value)

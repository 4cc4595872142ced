"""What an ONNX file says of itself, read without the onnx package: metadata, operators, external data.

An ONNX file is one protobuf message (onnx/onnx.proto, `ModelProto`). This walks its wire format and looks at those
three things only; the runner needs no more, and needs it before the bytes reach the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .errors import ModelError

__all__ = ["QUANTIZED_OPERATORS", "OnnxSummary", "scan"]

#: One of these in a graph says that it is quantized.
QUANTIZED_OPERATORS = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger")
)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 16  # of subgraphs inside nodes; U²-Net has none
_CONTROL_FLOW = frozenset(("If", "Loop", "Scan"))  # a loop can run for ever, where no signal reaches it

# Message kinds, and under each: field number in the schema → the kind of the message in it. The rest is skipped.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 14: "metadata", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {4: "op_type", 5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
}


@dataclass
class OnnxSummary:
    """`operators` counts node types, subgraphs included; `external_data` says that tensors lie in other files."""

    metadata: dict[str, str] = field(default_factory=dict)
    operators: Counter[str] = field(default_factory=Counter)
    external_data: bool = False
    has_graph: bool = False


def scan(data: bytes) -> OnnxSummary:
    """Summary of the ONNX file whose bytes are `data`. Raises `ModelError` where they are no well-formed ONNX model
    or one with control flow.
    """
    summary = OnnxSummary()
    try:
        _walk(memoryview(data), "model", summary, 0)
    except (ValueError, IndexError, RecursionError) as error:
        raise ModelError("not an ONNX model, or a damaged one") from error
    if not summary.has_graph:
        raise ModelError("not an ONNX model: it holds no graph")
    if found := sorted(_CONTROL_FLOW & summary.operators.keys()):
        raise ModelError(f"refused: it has control flow ({', '.join(found)}), which no U²-Net has")
    return summary


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of each field of one message; a number for scalars, the bytes for the rest."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == _BYTES:
            length, position = _varint(data, position)
            if position + length > end:
                raise ValueError("a field is longer than its message")
            value = data[position : position + length]
            position += length
        elif wire == _VARINT:
            value, position = _varint(data, position)
        elif wire in (_FIXED32, _FIXED64):
            value = 0
            position += 4 if wire == _FIXED32 else 8
            if position > end:
                raise ValueError("a field is longer than its message")
        else:
            raise ValueError("unknown wire type")
        if number == 0:
            raise ValueError("field number 0")
        yield number, value


def _walk(data: memoryview, kind: str, summary: OnnxSummary, depth: int) -> None:
    if depth > 4 * _MAX_DEPTH:
        raise ValueError("nested too deeply")
    children = _CHILDREN[kind]
    for number, value in _fields(data):
        child = children.get(number)
        if child is None:
            continue
        if not isinstance(value, memoryview):
            raise ValueError("a number where a message belongs")
        if child == "op_type":
            summary.operators[bytes(value).decode("utf-8", "replace")] += 1
        elif child == "metadata":
            entry = {n: bytes(v).decode("utf-8", "replace") for n, v in _fields(value) if isinstance(v, memoryview)}
            summary.metadata[entry.get(1, "")] = entry.get(2, "")
        elif child == "tensor":
            # 13: external_data entries, 14: data_location (1 = EXTERNAL)
            if any(n == 13 or (n == 14 and v != 0) for n, v in _fields(value)):
                summary.external_data = True
        else:
            summary.has_graph |= child == "graph"
            _walk(value, child, summary, depth + 1)

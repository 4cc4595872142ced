"""What a model file is, read from the file itself: interface, bytes, multiplications, how much of it is integer.

The static checks exist because a broken export or quantization can score well enough on a few pictures to be missed:
an `int8` file whose convolutions still run in float, or a convolution whose weights are all zero, is named as such.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from u2net.errors import ConfigError, ModelError
from u2net.files import check_path, sha256_file
from u2net.preprocess import Size, network_input, read_size, sides

__all__ = ["Candidate", "GraphFacts", "TransferSizes", "candidates", "graph_facts", "transfer_sizes"]

CURE = "`u2net export --weights FILE` makes one of a checkpoint or of another exporter's graph"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
PACKED_SUFFIX = ".u2e"
BROTLI_QUALITY = 9  # 11 takes some twenty times as long, seven seconds for `lite` in float, and saves 2 to 3 %
INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")


@dataclass(frozen=True)
class Candidate:
    """A model to be judged. `name` is unique within one evaluation ("small/int8")."""

    name: str
    path: Path

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a torch checkpoint, which has quality but no latency in a browser."""
        return self.path.suffix in CHECKPOINT_SUFFIXES

    @property
    def is_packed(self) -> bool:
        """Whether it is a file of the project's own engine, which runs in browsers and Node and not in onnxruntime."""
        return self.path.suffix == PACKED_SUFFIX

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file."""
        return sha256_file(self.path)

    @cached_property
    def graph(self) -> GraphFacts:
        """What the file says of itself. Raises `ModelError`."""
        return packed_facts(self.path) if self.is_packed else graph_facts(self.path)

    def feed(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """What the model takes for the picture uint8 (H, W, 3): float32 (1, 3, h, w) or uint8 (1, h, w, 4)."""
        return network_input(rgb, self.graph.size, self.graph.interface)


def candidates(paths: Sequence[str | os.PathLike[str]]) -> list[Candidate]:
    """The models at `paths`, named after their last folder and stem, or more of the path where that is not unique.

    Raises `ModelError` where a file is missing and `ConfigError` where one is named twice.
    """
    checked = [check_path(path) for path in paths]
    for path in checked:
        if not path.is_file():
            raise ModelError(f"{path} is not a file; make it with `make export quantize`")
    resolved = [path.resolve() for path in checked]
    if len(set(resolved)) < len(resolved):
        raise ConfigError("the same model is named twice; name each file once")
    for depth in range(2, max(len(path.parts) for path in resolved) + 1):
        names = ["/".join([*path.parts[-depth:-1], _label(path)]).lstrip("/") for path in resolved]
        if len(set(names)) == len(names):
            return [Candidate(name, path) for name, path in zip(names, checked, strict=True)]
    names = ["/".join(path.parts[-2:]) for path in resolved]  # same folder and stem, other suffix
    return [Candidate(name, path) for name, path in zip(names, checked, strict=True)]


def _label(path: Path) -> str:
    """`int8.onnx` is int8, and what was packed from it int8.u2e: they are judged side by side."""
    return path.name if path.suffix == PACKED_SUFFIX else path.stem


@dataclass(frozen=True)
class GraphFacts:
    """What a model file says of itself.

    `interface` is "tensor" (float32 (1, 3, h, w)) or "image" (uint8 (1, h, w, 4)); `size` is its side, or
    its height and width where they differ. `gmacs` counts the multiplications of all convolutions, in 10⁹;
    `integer_share` is the part of them that runs in 8-bit integers. `dead_convolutions` names those whose weights are
    all zero.
    """

    interface: str
    size: Size
    input_name: str
    output_name: str
    opset: int
    nodes: int
    parameters: int
    gmacs: float
    integer_share: float
    dead_convolutions: tuple[str, ...]
    metadata: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def graph_facts(path: str | os.PathLike[str]) -> GraphFacts:
    """Read `path`. Raises `ModelError` where it is not ONNX, or takes or gives anything but a U²-Net's tensors."""
    import onnx

    try:
        model = onnx.load(os.fspath(path))
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read as ONNX ({' '.join(str(error).split())[:200]}); make it with `u2net export`"
        ) from error
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or not model.graph.output:
        raise ModelError(
            f"{path} is not a U²-Net: it has {len(inputs)} inputs and {len(model.graph.output)} outputs; {CURE}"
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    interface, size = _interface(path, inputs[0], metadata)
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:
        raise ModelError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}); make it again with `u2net export` or `u2net "
            "quantize`"
        ) from error
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    producers = {name: node for node in graph.node for name in node.output}
    total = integer = 0
    dead = []
    for node in graph.node:
        if node.op_type not in ("Conv", "FusedConv", *INTEGER_CONVOLUTIONS):
            continue
        weight_name = node.input[3 if node.op_type == "QLinearConv" else 1]
        weight, is_integer = _weight(weight_name, constants, producers)
        if weight is None:
            raise ModelError(f"{path} is not a U²-Net: the weights of {node.name or node.op_type} are computed; {CURE}")
        if node.op_type in INTEGER_CONVOLUTIONS:
            zero = node.input[5] if node.op_type == "QLinearConv" else node.input[3] if len(node.input) > 3 else ""
            weight = _minus_zero_point(weight, _array(constants[zero]) if zero in constants else None)
            is_integer = True
        else:
            before = producers.get(node.input[0])
            is_integer = is_integer and before is not None and before.op_type == "DequantizeLinear"
        if not weight.any():
            dead.append(_readable(node.name, weight_name))
        area = int(np.prod(shapes.get(node.output[0], [])[2:])) or 1  # 1: a graph whose sizes are only known when run
        total += weight.size * area
        integer += weight.size * area * is_integer
    if not total:
        raise ModelError(f"{path} is not a U²-Net: it has no convolutions; {CURE}")
    return GraphFacts(
        interface=interface,
        size=size,
        input_name=inputs[0].name,
        output_name=graph.output[0].name,
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        nodes=len(graph.node),
        parameters=sum(int(np.prod(tensor.dims)) for tensor in graph.initializer),
        gmacs=total / 1e9,
        integer_share=integer / total,
        dead_convolutions=tuple(dead),
        metadata=metadata,
    )


def packed_facts(path: str | os.PathLike[str]) -> GraphFacts:
    """What a file of the engine says of itself; channels that fill up to four count as multiplications too.

    Raises `ModelError` where it is none.
    """
    from engine.format import OperatorKind, read_model

    try:
        model = read_model(Path(path).read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}; make it with `u2net engine`") from error
    if model.output_size != model.input_size:
        raise ModelError(f"{path} gives a map of another size than its picture; pack it again with `u2net engine`")
    height, width = model.input_size
    total = integer = parameters = 0
    for operator in model.operators:
        output = model.buffers[operator.output.buffer]
        multiplications = operator.weights * output.height * output.width
        parameters += operator.weights
        total += multiplications
        integer += multiplications * (operator.kind == OperatorKind.CONVOLUTION)
    return GraphFacts(
        interface="tensor",
        size=height if height == width else (height, width),
        input_name="input",
        output_name="alpha",
        opset=0,
        nodes=len(model.operators),
        parameters=parameters,
        gmacs=total / 1e9,
        integer_share=integer / total if total else 0.0,
        dead_convolutions=(),
        metadata={},
    )


def _interface(path: str | os.PathLike[str], value: Any, metadata: dict[str, str]) -> tuple[str, Size]:
    import onnx

    kind = value.type.tensor_type
    dims = kind.shape.dim
    said = read_size(metadata.get("u2net.size", "320"))
    if len(dims) == 4 and said is not None:
        for dim, side in zip(
            dims[2:] if kind.elem_type == onnx.TensorProto.FLOAT else dims[1:3], sides(said), strict=True
        ):
            if not dim.dim_value:  # left open by the exporter: the size that the weights were trained for
                dim.dim_value = side
    shape = [dim.dim_value for dim in dims]
    match shape:
        case [0 | 1, 3, height, width] if kind.elem_type == onnx.TensorProto.FLOAT and min(height, width) > 0:
            return "tensor", height if height == width else (height, width)
        case [0 | 1, height, width, 4] if kind.elem_type == onnx.TensorProto.UINT8 and min(height, width) > 0:
            return "image", height if height == width else (height, width)
        case [count, 3, _, _] if count > 1:
            raise ModelError(
                f"{path} takes {count} pictures at a time; export it with `--batch 1` or `--batch dynamic` to judge it"
            )
    type_name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    raise ModelError(
        f"{path} is not a U²-Net: its input is {type_name} {'×'.join(str(d or '?') for d in shape)},"
        f" not float 1×3×h×w or uint8 1×h×w×4; {CURE}"
    )


def _array(tensor: Any) -> npt.NDArray[Any]:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def _minus_zero_point(weight: npt.NDArray[Any], zero: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if zero is None:
        return weight
    shape = (-1,) + (1,) * (weight.ndim - 1) if zero.size > 1 else ()
    return np.asarray(weight.astype(np.int32) - zero.astype(np.int32).reshape(shape))


def _weight(name: str, constants: dict[str, Any], producers: dict[str, Any]) -> tuple[npt.NDArray[Any] | None, bool]:
    """The constant behind `name` (up to a positive factor) and whether it is stored in 8-bit integers."""
    if name in constants:
        return _array(constants[name]), False
    node = producers.get(name)
    if node is None:
        return None, False
    if node.op_type == "DequantizeLinear" and node.input[0] in constants:
        weight = _array(constants[node.input[0]])
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        return _minus_zero_point(weight, None if zero is None else _array(zero)), weight.dtype.itemsize == 1
    if node.op_type in ("Cast", "Identity"):
        return _weight(node.input[0], constants, producers)
    if node.op_type == "Constant":
        from onnx import helper

        values = [helper.get_attribute_value(a) for a in node.attribute if a.name == "value"]
        return (_array(values[0]), False) if values else (None, False)
    return None, False


def _readable(node_name: str, weight_name: str) -> str:
    """The name that says most: the weight's (`stage2d.rebnconv1d.conv_s1.weight`) where it has one."""
    return weight_name if "stage" in weight_name or "side" in weight_name else node_name or weight_name


@dataclass(frozen=True)
class TransferSizes:
    """Bytes of a file as it lies and as a static host sends it."""

    raw_bytes: int
    gzip_bytes: int
    brotli_bytes: int
    brotli_quality: int


def transfer_sizes(path: str | os.PathLike[str]) -> TransferSizes:
    """Measure the file at `path`."""
    import brotli

    data = Path(path).read_bytes()
    return TransferSizes(
        raw_bytes=len(data),
        gzip_bytes=len(gzip.compress(data, 9, mtime=0)),
        brotli_bytes=len(brotli.compress(data, quality=BROTLI_QUALITY, lgwin=24)),
        brotli_quality=BROTLI_QUALITY,
    )

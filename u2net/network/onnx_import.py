"""An exported U²-Net back into PyTorch: its convolutions are recognised by what they read.

Exporters name and order nodes as they like, so neither is looked at. Each of U²-Net's 119 convolutions reads something
that no other one reads: the picture, one convolution's output, the sum at the end of a stage, or a concatenation of
such. So a convolution whose inputs are known is known itself, and one walk along the graph names them all. Pooling,
resizing and activations in between are passed over (but for the pooling behind stage 1, which is optional); that they
are the right ones is proven afterwards by running both networks on one picture.

Read are float32 and float16 graphs, weights as initializers or Constant nodes, batch norm folded or not, `tensor` and
`image` interface, any number of outputs, opset 9 or later. Opset 9 and 10 cannot say where a resize puts pixels'
centres, so a file of theirs gives other masks than the network that was exported; it is compared as if it had said so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from u2net.errors import CheckpointError
from u2net.onnx_scan import QUANTIZED_OPERATORS
from u2net.preprocess import normalise

from .checkpoint import model_from_tensors
from .model import STAGES, U2Net
from .onnx_file import read_onnx

if TYPE_CHECKING:
    import onnx

__all__ = ["import_onnx"]

Array = npt.NDArray[Any]
#: What a value in the graph is, up to pooling, resizing and activation: "picture", a convolution's name, or a tuple of
#: an operation ("sum", "join", "mean", "gate") and what it works on.
Term = str | tuple[Any, ...]

MAX_NODES = 20_000  # the longest known export, with dynamic shapes and batch norm, has about 1,500
BATCH_NORM_EPSILON = 1e-5
CENTRES_OPSET = 11  # the first whose Resize says where pixels' centres are
PROVEN_OPSET = 18  # what older graphs are compared at
#: Operations that change neither which channels a value has nor their order.
TRANSPARENT = frozenset(
    ("Cast", "Clip", "Dropout", "HardSigmoid", "Identity", "MaxPool", "Pad", "Relu", "Resize", "Sigmoid", "Upsample")
)
#: Largest difference of the two networks' first map on the test picture, for graphs that compute in float32, float16.
AGREEMENT = {"float32": 1e-3, "float16": 3e-2}


def import_onnx(file: Path) -> U2Net:
    """The network that the ONNX graph in `file` holds, in evaluation mode, float32.

    Raises `CheckpointError` where it cannot be read, is quantized, or is not a U²-Net.
    """
    proto = read_onnx(file, CheckpointError)
    graph = proto.graph
    if len(graph.node) > MAX_NODES:
        raise CheckpointError(f"{file} is not a U²-Net: it has {len(graph.node):,} nodes")
    reader = _Reader(graph)
    try:
        tensors = reader.read()
    except _Mismatch as error:
        raise CheckpointError(f"{file} is not a U²-Net that can be imported: {error}") from error
    said = {entry.key: entry.value for entry in proto.metadata_props}
    config: dict[str, Any] = {"name": said["u2net.model"]} if "u2net.model" in said else {}
    if not reader.first_pool:
        config["first_pool"] = False
    shape = [dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim] if graph.input else []
    side = max(shape, default=0)
    if len(shape) == 4 and shape.count(side) == 2 and 32 <= side <= 2048:
        config["size"] = side
    model = model_from_tensors(tensors, source=str(file), config=config)
    _check_agreement(
        _with_centres(proto, file).SerializeToString(),
        model,
        file,
        limit=AGREEMENT["float16" if reader.computes_in_half else "float32"],
    )
    return model


class _Mismatch(Exception):
    """Why a graph is not a U²-Net."""


@dataclass
class _Convolution:
    """A convolution found in the graph, and the batch norm behind it where there is one."""

    weight: Array
    bias: Array
    norm: tuple[Array, Array, Array, Array] | None = None  # scale, bias, mean, variance


def _layout() -> dict[Term, str]:
    """What each convolution of a U²-Net reads → its name in the state dict."""
    names: dict[Term, str] = {}

    def end_of(stage: str) -> Term:
        return ("sum", frozenset((f"{stage}.rebnconvin.conv_s1", f"{stage}.rebnconv1d.conv_s1")))

    before: Term = "picture"
    for stage, levels, _ in STAGES:
        last = f"{stage}.rebnconvin.conv_s1"
        if stage.endswith("d"):
            skip = end_of(stage.removesuffix("d"))
            gated = ("gate", frozenset((skip, f"resql{stage[-2]}.expand")))
            names["join", (before, skip)] = names["join", (before, gated)] = last
        else:
            names[before] = last
        for level in range(1, levels + 1):
            name = f"{stage}.rebnconv{level}.conv_s1"
            names[last] = name
            last = name
        for level in range(levels - 1, 0, -1):
            name = f"{stage}.rebnconv{level}d.conv_s1"
            names["join", (last, f"{stage}.rebnconv{level}.conv_s1")] = name
            last = name
        before = end_of(stage)
    for index, stage in enumerate(("stage1d", "stage2d", "stage3d", "stage4d", "stage5d", "stage6"), 1):
        names[end_of(stage)] = f"side{index}"
    for index in range(1, 6):
        names["mean", end_of(f"stage{index}")] = f"resql{index}.reduce"
        names[f"resql{index}.reduce"] = f"resql{index}.expand"
    names["join", tuple(f"side{index}" for index in range(1, 7))] = "outconv"
    return names


class _Reader:
    """One walk along a graph, in its order, which ONNX prescribes to be a topological one."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.layout = _layout()
        self.terms: dict[str, Term] = {}
        self.constants: dict[str, Array] = {}
        self.direct: dict[str, _Convolution] = {}  # values that are a convolution's own output
        self.found: dict[str, _Convolution] = {}
        self.half: set[str] = set()  # constants that are float16 where they are used
        self.computes_in_half = False
        self.pooled: set[str] = set()  # values with a pooling between them and the convolution before
        self.first_pool = True

    def read(self) -> dict[str, torch.Tensor]:
        """The state dict. Raises `_Mismatch`."""
        for initializer in self.graph.initializer:
            self._keep(initializer.name, _array(initializer))
        for value in self.graph.input:
            if value.name not in self.constants:  # up to IR version 3, initializers are listed as inputs too
                self.terms[value.name] = "picture"
        for node in self.graph.node:
            self._visit(node)
        if not self.found:
            raise _Mismatch("it has no convolution")
        state: dict[str, torch.Tensor] = {}
        for name, convolution in self.found.items():
            for key, values in _state(name, convolution).items():
                state[key] = torch.from_numpy(np.array(values, dtype=np.float32))
        return state

    def _keep(self, name: str, values: Array) -> None:
        if values.dtype == np.float16:
            self.half.add(name)
            values = values.astype(np.float32)
        self.constants[name] = values

    def _visit(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    self._keep(node.output[0], _array(attribute.t))
            return
        given = [name for name in node.input if name]
        if node.op_type in ("Cast", "Identity") and given and given[0] in self.constants:
            self.constants[node.output[0]] = self.constants[given[0]]
            if node.op_type == "Identity" and given[0] in self.half:
                self.half.add(node.output[0])
            return
        if node.op_type in ("Conv", "FusedConv"):
            self._convolution(node)
            return
        if node.op_type in QUANTIZED_OPERATORS:
            raise _Mismatch("it is quantized; take the float model that it was made from")
        if node.op_type == "BatchNormalization":
            self._batch_norm(node)
            return
        if node.op_type == "Add" and self._added_bias(given, node.output[0]):
            return
        term = self._term(node.op_type, [self.terms.get(name) for name in given if name not in self.constants])
        if term is not None:
            self.terms[node.output[0]] = term
        if node.op_type == "MaxPool" or (node.op_type in TRANSPARENT and given and given[0] in self.pooled):
            self.pooled.add(node.output[0])

    @staticmethod
    def _term(op_type: str, read: list[Term | None]) -> Term | None:
        if not read or op_type in ("Shape", "Size"):
            return None
        if op_type in TRANSPARENT:  # a Resize also reads sizes, which are computed from shapes
            return read[0]
        known = tuple(term for term in read if term is not None)
        if len(known) != len(read):
            return None
        if all(term == "picture" for term in known):
            return "picture"
        if op_type == "Concat":
            return ("join", known)
        if op_type in ("Add", "Sum") and len(known) == 2:
            return ("sum", frozenset(known))
        if op_type == "Mul" and len(known) == 2:
            return ("gate", frozenset(known))
        if op_type in ("ReduceMean", "GlobalAveragePool") and len(known) == 1:
            return ("mean", known[0])
        return None

    def _convolution(self, node: onnx.NodeProto) -> None:
        ordinal = len(self.found) + 1
        shown = f"its convolution number {ordinal}" + (f" ({node.name[:60]!r})" if node.name else "")
        weight = self.constants.get(node.input[1])
        bias = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if weight is None or (bias is None and len(node.input) > 2 and node.input[2]):
            raise _Mismatch(f"{shown} has weights that are computed in the graph")
        term = self.terms.get(node.input[0])
        name = self.layout.get(term) if term is not None else None
        if name is None or name in self.found:
            raise _Mismatch(f"{shown} reads what no convolution of a U²-Net reads")
        if weight.ndim != 4 or (bias is not None and bias.shape != weight.shape[:1]):
            raise _Mismatch(f"{shown} has weights of shape {weight.shape}")
        strides = next((list(a.ints) for a in node.attribute if a.name == "strides"), [1, 1])
        if strides != [1, 1]:
            weight = _unstride(weight, strides, shown)
        if bias is None:
            bias = np.zeros(weight.shape[0], dtype=np.float32)
        self.computes_in_half |= node.input[1] in self.half
        if name == "stage2.rebnconvin.conv_s1":
            self.first_pool = node.input[0] in self.pooled
        convolution = _Convolution(weight, bias)
        self.found[name] = self.direct[node.output[0]] = convolution
        self.terms[node.output[0]] = name

    def _batch_norm(self, node: onnx.NodeProto) -> None:
        convolution = self.direct.get(node.input[0])
        parameters = [self.constants.get(name) for name in node.input[1:5]]
        given = [p for p in parameters if p is not None]
        if convolution is None or convolution.norm is not None or len(given) != 4:
            raise _Mismatch("a batch norm does not follow a convolution")
        if any(p.shape != convolution.bias.shape for p in given):
            raise _Mismatch("a batch norm has other channels than the convolution before it")
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), BATCH_NORM_EPSILON)
        scale, bias, mean, variance = (np.asarray(p, dtype=np.float64) for p in given)
        convolution.norm = (scale, bias, mean, variance + epsilon - BATCH_NORM_EPSILON)
        self.terms[node.output[0]] = self.terms[node.input[0]]

    def _added_bias(self, given: list[str], output: str) -> bool:
        """Whether this sum is a convolution's bias that its exporter wrote as an addition of its own."""
        for data, constant in ((0, 1), (1, 0)) if len(given) == 2 else ():
            convolution, values = self.direct.get(given[data]), self.constants.get(given[constant])
            if convolution is None or values is None or convolution.norm is not None:
                continue
            if values.size != convolution.bias.size:
                continue
            convolution.bias = convolution.bias + values.reshape(-1)
            self.direct[output] = convolution
            self.terms[output] = self.terms[given[data]]
            return True
        return False


def _array(tensor: onnx.TensorProto) -> Array:
    from onnx import numpy_helper

    try:
        values: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _Mismatch(f"its tensor {tensor.name[:60]!r} is damaged") from error
    return values


def _unstride(weight: Array, strides: list[int], shown: str) -> Array:
    """The 3×3 convolution on the pixel-unshuffled picture that this strided one on the picture stands for."""
    out, channels, height, width = weight.shape
    stride = strides[0]
    if channels != 3 or strides[1:] != [stride] or (height, width) != (3 * stride, 3 * stride):
        raise _Mismatch(f"{shown} has a stride of {strides}")
    blocks = weight.reshape(out, channels, 3, stride, 3, stride).transpose(0, 1, 3, 5, 2, 4)
    return np.ascontiguousarray(blocks.reshape(out, channels * stride**2, 3, 3))


def _state(name: str, convolution: _Convolution) -> dict[str, Array]:
    """The entries of the state dict that `convolution` becomes; a folded batch norm becomes the identity."""
    state = {f"{name}.weight": convolution.weight, f"{name}.bias": convolution.bias}
    if name.endswith(".conv_s1"):
        ones, zeros = np.ones(convolution.bias.shape), np.zeros(convolution.bias.shape)
        identity = (ones, zeros, zeros, ones - BATCH_NORM_EPSILON)
        norm = name.removesuffix("conv_s1") + "bn_s1"
        for part, values in zip(
            ("weight", "bias", "running_mean", "running_var"), convolution.norm or identity, strict=True
        ):
            state[f"{norm}.{part}"] = values
    return state


def _with_centres(proto: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    """`proto`, its resizes with half-pixel centres as the network has them where its opset has no word for them."""
    import onnx
    import onnx.version_converter

    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    if opset >= CENTRES_OPSET:
        return proto
    try:
        newer = onnx.version_converter.convert_version(proto, PROVEN_OPSET)
    except Exception as error:  # the converter raises its own family
        raise CheckpointError(
            f"{file} is of opset {opset} and cannot be brought to a newer one ({' '.join(str(error).split())[:200]}); "
            "take its checkpoint, or export it again at opset 11 or later"
        ) from error
    for node in newer.graph.node:
        if node.op_type == "Resize":
            kept = [attribute for attribute in node.attribute if attribute.name == "mode"]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "half_pixel"))
    return newer


def _check_agreement(data: bytes, model: U2Net, file: Path, limit: float) -> None:
    """Refuse a graph with the weights of a U²-Net that computes something else: other pooling, resizing, or order.

    Both run on one picture. Graphs that take something else than `tensor` or `image` input are not compared.
    """
    from u2net.runtime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        sides = given.shape[1:3] if given.type == "tensor(uint8)" else given.shape[2:]
        height, width = (side if isinstance(side, int) else model.config.size for side in sides)
        batch = given.shape[0] if isinstance(given.shape[0], int) else 1
        picture = _test_picture(height, width)
        if given.type == "tensor(uint8)" and len(given.shape) == 4 and given.shape[3] == 4:
            feed: Array = np.dstack([picture, picture[:, :, :1]]).astype(np.uint8)[None]
        elif given.type in ("tensor(float)", "tensor(float16)") and len(given.shape) == 4 and given.shape[1] == 3:
            feed = normalise(picture).astype(np.float16 if "16" in given.type else np.float32)
        else:
            return
        result = np.asarray(session.run(None, {given.name: np.repeat(feed, batch, 0)})[0])[:1]
    except Exception as error:  # onnxruntime raises its own family, which derives from Exception alone
        raise CheckpointError(f"{file} does not run: {' '.join(str(error).split())[:200]}") from error
    with torch.inference_mode():
        expected = model(torch.from_numpy(normalise(picture)))[0].numpy()
    if result.size != expected.size:
        raise CheckpointError(f"{file} gives a map of shape {result.shape}, not a U²-Net's {expected.shape}")
    found = result.astype(np.float32).reshape(expected.shape) / (255 if result.dtype == np.uint8 else 1)
    if result.dtype == np.uint8:
        limit += 1 / 255
    with np.errstate(over="ignore"):
        difference = min(float(np.abs(f - expected).max()) for f in (found, 1 / (1 + np.exp(-found))))
    if not difference <= limit:
        raise CheckpointError(
            f"{file} is not a U²-Net that can be imported: with its weights a U²-Net gives another mask "
            f"(they differ by {difference:.2g}); take its checkpoint, and export that with `u2net "
            "export --weights FILE`"
        )


def _test_picture(height: int, width: int) -> npt.NDArray[np.float32]:
    """A bright disc before a gradient, float32 (height, width, 3), whole numbers from 0 to 255."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / np.float32(height), x / np.float32(width)
    background = np.stack([60 + 80 * x, 90 + 60 * y, 140 - 70 * x * y], axis=2)
    disc = (x - 0.45) ** 2 + (y - 0.55) ** 2 < 0.07
    return np.floor(np.where(disc[:, :, None], (230.0, 200.0, 60.0), background)).astype(np.float32)

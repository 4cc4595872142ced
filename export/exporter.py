"""PyTorch U²-Net → ONNX.

Notable choices:

- torch's dynamo exporter at opset 18, the lowest that it writes and one that every onnxruntime(-web) since 1.14 reads;
  a newer one is asked of it, an older one made of it, since a U²-Net's operators are those of opset 13;
- the IR version that goes with the opset: an older reader would refuse a newer one;
- batch norm is folded into the convolutions here, in float64, so that the PyTorch network that the graph is compared
  with holds the very same weights;
- whatever else is done to the graph is a pass (`export.passes`), so each change can be read and tested by itself;
- nothing of the exporter's own (stack traces, doc strings, module paths) stays in the file: the same weights and
  settings give the same bytes.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from u2net.errors import ConfigError, ModelError
from u2net.network.model import REBNCONV, U2Net
from u2net.preprocess import Size, sides, write_size

from .passes.half_weights import HalfWeights
from .passes.image_interface import ImageInterface
from .passes.strided_stem import StridedStem
from .passes.strip_provenance import StripProvenance
from .settings import MOST_PICTURES, ExportSettings

__all__ = ["at_opset", "export_model", "fold_batch_norm", "ir_version", "round_weights", "store_half"]

WRITTEN_OPSET = 18  # the lowest that torch's exporter writes
OUTPUT_NAMES = ("alpha", "side1", "side2", "side3", "side4", "side5", "side6")


def fold_batch_norm(model: U2Net) -> U2Net:
    """A copy of `model` whose batch norms have become part of the convolutions before them.

    The state dict keeps the convolutions' names and loses the `bn_s1.*`. Evaluation mode only.
    """
    folded = copy.deepcopy(model).eval()
    for block in folded.modules():
        if not isinstance(block, REBNCONV) or not isinstance(block.bn_s1, nn.BatchNorm2d):
            continue
        weight, bias = block.folded()
        block.conv_s1.weight = nn.Parameter(weight, requires_grad=False)
        block.conv_s1.bias = nn.Parameter(bias, requires_grad=False)
        block.bn_s1 = nn.Identity()  # type: ignore[assignment]
    return folded


def round_weights(folded: U2Net) -> U2Net:
    """A copy of `folded` whose convolution weights have been rounded to float16 and back, as `HalfWeights` does."""
    rounded = copy.deepcopy(folded)
    for module in rounded.modules():
        if isinstance(module, nn.Conv2d):
            module.weight = nn.Parameter(module.weight.half().float(), requires_grad=False)
    return rounded


class _Outputs(nn.Module):
    """`model` with only its first `count` maps as outputs."""

    def __init__(self, model: U2Net, count: int) -> None:
        super().__init__()
        self.model = model
        self.count = count

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.model(x)[: self.count]


def export_model(folded: U2Net, settings: ExportSettings) -> onnx.ModelProto:
    """The ONNX graph of `folded`, which `fold_batch_norm` returned.

    With the `tensor` interface it maps `input`, float32 (batch, 3, height, width) as `u2net.preprocess` makes it, to
    `alpha`, float32 (batch, 1, height, width) in [0, 1], and with `side_maps` to `side1` … `side6`. With the `image`
    interface it maps `input`, uint8 (1, height, width, 4) RGBA, to `alpha`, uint8 or float32 (1, height, width). With
    `dynamic` height and width are free. `metadata_props` carry `u2net.interface`, `u2net.model` and `u2net.size`, as
    `write_size` writes it.
    """
    size = settings.size or folded.config.size
    stem = folded.config.stem
    if any(side % stem for side in sides(size)):
        raise ConfigError(f"--size must be a multiple of the model's stem, {stem}, got {write_size(size)}")
    model = _trace(folded, settings, size)
    passes: list[ir.passes.InPlacePass] = [StripProvenance(), StridedStem()]
    if settings.interface == "image":
        passes.append(ImageInterface(alpha=settings.alpha))
    for one in passes:
        model = one(model).model
    proto = at_opset(_simplify(ir.to_proto(model)), settings.opset)
    proto = _finish(proto, settings, size, folded.config.name)
    return store_half(proto) if settings.fp16 else proto


def store_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an exported graph whose weights are stored as float16; see `HalfWeights`."""
    return ir.to_proto(HalfWeights()(ir.from_proto(proto)).model)


def _trace(folded: U2Net, settings: ExportSettings, size: Size) -> ir.Model:
    count = len(OUTPUT_NAMES) if settings.side_maps else 1
    free: dict[int, object] = {}
    height, width = sides(size)
    if settings.dynamic:
        stem = folded.config.stem
        for axis, name in ((2, "height"), (3, "width")):
            side = torch.export.Dim(name, min=32 // stem, max=2048 // stem)
            free[axis] = side * stem if stem > 1 else side
        width += 64 if width == height else 0  # equal sides are taken for one
    batch = settings.batch
    if batch == "dynamic":
        free[0], batch = torch.export.Dim("batch", min=1, max=MOST_PICTURES), 2
    example = torch.zeros(batch, 3, height, width)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Outputs(folded, count).eval(),
            (example,),
            dynamo=True,
            opset_version=max(WRITTEN_OPSET, settings.opset),
            external_data=False,
            input_names=["input"],
            output_names=list(OUTPUT_NAMES[:count]),
            dynamic_shapes=(free,) if free else None,
            verbose=False,
        )
    assert program is not None
    model = program.model
    for value in list(model.graph.initializers.values()):
        if value.name is not None:
            value.name = value.name.removeprefix("model.")
    return model


def _simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    simplified, same = onnxsim.simplify(proto)
    if not same:
        raise ModelError(
            "onnxsim's result differs from what it was given; install the versions of constraints.txt with `make setup`"
        )
    return simplified


def at_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """`proto` with the operators of `opset`, which is no newer than its own. The check in `_finish` is the proof."""
    if opset < WRITTEN_OPSET:
        for entry in proto.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = opset
        for node in proto.graph.node:
            if node.op_type == "Resize":  # what opset 18 has added to it, at the values that it had before
                kept = [one for one in node.attribute if one.name not in ("antialias", "keep_aspect_ratio_policy")]
                del node.attribute[:]
                node.attribute.extend(kept)
    return proto


def ir_version(opset: int) -> int:
    """The oldest IR version that knows `opset`."""
    return min(row[1] for row in onnx.helper.VERSION_TABLE if row[2] >= opset)


def _finish(proto: onnx.ModelProto, settings: ExportSettings, size: Size, name: str) -> onnx.ModelProto:
    left = {node.op_type for node in proto.graph.node} & {"BatchNormalization", "Dropout"}
    if left:
        raise ModelError(
            f"the exported graph still holds {', '.join(sorted(left))}; install the versions of constraints.txt "
            "with `make setup`"
        )
    proto.ir_version = ir_version(settings.opset)
    proto.producer_name = "u2net"
    proto.producer_version = ""
    proto.graph.name = name
    proto.doc_string = ""
    del proto.metadata_props[:]
    properties = {
        "u2net.interface": settings.interface,
        "u2net.model": name,
        "u2net.size": write_size(size),  # where height and width are free: the size that the weights were trained for
    }
    onnx.helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and warnings about packages that it does not need to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

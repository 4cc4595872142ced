"""PyTorch U²-Net → ONNX.

Notable choices:

- torch's dynamo exporter at opset 18, the lowest that it writes and one that every onnxruntime(-web) since 1.14 reads;
  IR version 8, which goes with that opset;
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

from .passes.half_weights import HalfWeights
from .passes.image_interface import ImageInterface
from .passes.strided_stem import StridedStem
from .passes.strip_provenance import StripProvenance
from .settings import ExportSettings

__all__ = ["export_model", "fold_batch_norm", "round_weights", "store_half"]

OPSET_VERSION = 18
IR_VERSION = 8
OUTPUT_NAMES = ("alpha", "side1", "side2", "side3", "side4", "side5", "side6")


def fold_batch_norm(model: U2Net) -> U2Net:
    """A copy of `model` whose batch norms have become part of the convolutions before them (Jacob et al., 1712.05877).

    The state dict keeps the convolutions' names and loses the `bn_s1.*`. Evaluation mode only.
    """
    folded = copy.deepcopy(model).eval()
    for block in folded.modules():
        if not isinstance(block, REBNCONV) or not isinstance(block.bn_s1, nn.BatchNorm2d):
            continue
        conv, norm = block.conv_s1, block.bn_s1
        assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = conv.weight.double() * scale.reshape(-1, 1, 1, 1)
        bias = (conv.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
        conv.weight = nn.Parameter(weight.float(), requires_grad=False)
        conv.bias = nn.Parameter(bias.float(), requires_grad=False)
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

    With the `tensor` interface it maps `input`, float32 (1, 3, size, size) as `u2net.preprocess` makes it, to `alpha`,
    float32 (1, 1, size, size) in [0, 1], and with `side_maps` to `side1` … `side6`. With the `image` interface it maps
    `input`, uint8 (1, size, size, 4) RGBA, to `alpha`, uint8 or float32 (1, size, size). With `dynamic` the two sizes
    are free, and need not be equal. `metadata_props` carry `u2net.interface`, `u2net.size` and `u2net.model`.
    """
    size = settings.size or folded.config.size
    if size % folded.config.stem:
        raise ConfigError(f"the size must be a multiple of the model's stem ({folded.config.stem}), got {size}")
    model = _trace(folded, settings, size)
    passes: list[ir.passes.InPlacePass] = [StripProvenance(), StridedStem()]
    if settings.interface == "image":
        passes.append(ImageInterface(alpha=settings.alpha))
    for one in passes:
        model = one(model).model
    proto = _finish(_simplify(ir.to_proto(model)), settings, size, folded.config.name)
    return store_half(proto) if settings.fp16 else proto


def store_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an exported graph whose weights are stored as float16; see `HalfWeights`."""
    return ir.to_proto(HalfWeights()(ir.from_proto(proto)).model)


def _trace(folded: U2Net, settings: ExportSettings, size: int) -> ir.Model:
    count = len(OUTPUT_NAMES) if settings.side_maps else 1
    shapes = None
    if settings.dynamic:
        stem = folded.config.stem
        height, width = (torch.export.Dim(name, min=32 // stem, max=2048 // stem) for name in ("height", "width"))
        shapes = ({2: height * stem, 3: width * stem} if stem > 1 else {2: height, 3: width},)
    example = torch.zeros(1, 3, size, size + 64 if settings.dynamic else size)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Outputs(folded, count).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET_VERSION,
            external_data=False,
            input_names=["input"],
            output_names=list(OUTPUT_NAMES[:count]),
            dynamic_shapes=shapes,
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
        raise ModelError("onnxsim's result differs from what it was given")
    return simplified


def _finish(proto: onnx.ModelProto, settings: ExportSettings, size: int, name: str) -> onnx.ModelProto:
    left = {node.op_type for node in proto.graph.node} & {"BatchNormalization", "Dropout"}
    if left:
        raise ModelError(f"the exported graph still holds {', '.join(sorted(left))}")
    proto.ir_version = IR_VERSION
    proto.producer_name = "u2net"
    proto.producer_version = ""
    proto.graph.name = name
    proto.doc_string = ""
    del proto.metadata_props[:]
    properties = {
        "u2net.interface": settings.interface,
        "u2net.model": name,
        "u2net.size": str(size),  # where height and width are free: the size that the weights were trained for
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

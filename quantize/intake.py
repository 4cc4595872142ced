"""Any exporter's U²-Net as the graph that the passes work on, which computes the same.

The passes want one picture of a fixed size, float32 weights as initializers, batch norm folded, and operators of opset
13 or later. torch's two exporters, at opset 9 to 22, give free sizes, batches, weights in float16, batch norms, sizes
that are computed in the graph. Here the input is frozen, float16 widened, the graph simplified by onnxsim and brought
to a newer opset, and then run beside the one that was given: all before the first calibration picture is read. A graph
that is as the passes want it is left as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.version_converter
from onnx import TensorProto, helper, numpy_helper

from u2net.errors import ModelError, U2NetError
from u2net.preprocess import read_size, sides

from .sessions import open_session

__all__ = ["DEFAULT_SIZE", "take_in"]

DEFAULT_SIZE = 320  # of a picture, where neither graph nor metadata say: what U²-Net is taught at
LEAST_OPSET = 13  # integers with one scale per channel
OPSET, IR_VERSION = 18, 8  # what older graphs become, as our own exports
COORDINATES_OPSET = 11  # before it, resizing counted from pixels' corners, and no attribute says so
#: Operators that simplification removes, or that newer opsets do not have.
LEFT_OVERS = {
    "BatchNormalization", "Constant", "Dropout", "Expand", "Gather", "Identity", "Shape", "Unsqueeze", "Upsample",
}  # fmt: skip
#: Largest difference of the two graphs' maps on the test picture, for weights in float32 and in float16.
AGREEMENT = {False: 1e-3, True: 3e-2}


def take_in(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """`model`, or where the passes could not work on it, one for them that computes the same. `name` is for messages.

    Raises `ModelError` where it cannot be made, or computes something else.
    """
    given = _input(model, name)
    shape = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in given.type.tensor_type.shape.dim]
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    image = given.type.tensor_type.elem_type == TensorProto.UINT8
    kinds = {node.op_type for node in model.graph.node}
    frozen_shape = _frozen(model, shape, image, name)
    fixed = len(shape) == 4 and shape[0] == 1 and 0 not in shape
    if fixed and not half and _opset(model) >= LEAST_OPSET and not kinds & LEFT_OVERS:
        return model
    try:
        frozen = onnx.ModelProto()
        frozen.CopyFrom(model)
        del frozen.graph.value_info[:]  # sizes at the given batch
        if half:
            _widen(frozen)
        _set_batch(frozen, shape[0])
        simple = _simplified(frozen, given.name, frozen_shape)
        if _opset(simple) < LEAST_OPSET:
            newer = onnx.version_converter.convert_version(simple, OPSET)
            if _opset(simple) < COORDINATES_OPSET:
                _resize_as_then(newer)
            simple = _simplified(newer, given.name, frozen_shape)
            simple.ir_version = max(simple.ir_version, IR_VERSION)
        _state_shapes(simple)
        onnx.checker.check_model(simple, full_check=True)
    except U2NetError:
        raise
    except Exception as error:  # onnxsim, converter and checker raise a dozen kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{name} cannot be brought into shape ({reason}); {CURE}") from error
    _prove(model, simple, [shape[0] or 1, *frozen_shape[1:]], AGREEMENT[half], name)
    return simple


CURE = "make a graph of its weights with `python -m export --weights FILE.onnx`"


def _input(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    """The one input; up to IR version 3 initializers are listed as inputs too."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1 or not model.graph.output:
        raise ModelError(
            f"{name} has {len(inputs)} inputs and {len(model.graph.output)} outputs; 1 and at least 1 fit; {CURE}"
        )
    return inputs[0]


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _frozen(model: onnx.ModelProto, shape: list[int], image: bool, name: str) -> list[int]:
    """The input's shape for one picture, free sides as the metadata says."""
    said = {entry.key: entry.value for entry in model.metadata_props}.get("u2net.size", "")
    height, width = sides(read_size(said) or DEFAULT_SIZE)
    if len(shape) != 4 or (shape[3 if image else 1] or (4 if image else 3)) != (4 if image else 3):
        raise ModelError(f"{name} takes an input of shape {shape}, not (1, 3, height, width); {CURE}")
    if image:
        return [1, shape[1] or height, shape[2] or width, 4]
    return [1, 3, shape[2] or height, shape[3] or width]


def _set_batch(model: onnx.ModelProto, batch: int) -> None:
    """One picture where the graph was exported for `batch`: stored sizes of its resizes name the batch too."""
    if batch <= 1:
        return
    sizes = {node.input[3] for node in model.graph.node if node.op_type == "Resize" and len(node.input) > 3}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in sizes]
    tensors += [n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.output[0] in sizes]
    for tensor in tensors:
        values = numpy_helper.to_array(tensor).copy()
        if values.size == 4 and values[0] == batch:
            values[0] = 1
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _widen(model: onnx.ModelProto) -> None:
    """float16 becomes float32 everywhere: stored values, casts, input and outputs."""
    graph = model.graph
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]


def _resize_as_then(model: onnx.ModelProto) -> None:
    """Write down for each resize of an old graph what was not a choice yet; the converter leaves it out."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            kept = [attribute for attribute in node.attribute if attribute.name == "mode"]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", "floor"))


def _simplified(model: onnx.ModelProto, input_name: str, shape: list[int]) -> onnx.ModelProto:
    import onnxsim

    stored = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)  # below, initializers had to be inputs
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    simple: onnx.ModelProto = onnxsim.simplify(model, overwrite_input_shapes={input_name: shape})[0]
    return simple


def _state_shapes(model: onnx.ModelProto) -> None:
    """Fixed sizes of the outputs."""
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for value, found in zip(model.graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(found)
    del model.graph.value_info[:]


def _prove(before: onnx.ModelProto, after: onnx.ModelProto, shape: list[int], limit: float, name: str) -> None:
    """Both graphs on one picture. Raises `ModelError` where their first maps differ by more than `limit`."""
    picture = _test_picture(shape[1:])
    maps: list[npt.NDArray[Any]] = []
    for model, batch in ((before, shape[0]), (after, 1)):
        session = open_session(model, 1)
        given = session.get_inputs()[0]
        kind = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(given.type, np.float32)
        feed = np.repeat(picture[None], batch, 0).astype(kind)
        try:
            maps.append(session.run([session.get_outputs()[0].name], {given.name: feed})[0][:1].astype(np.float32))
        except Exception as error:  # onnxruntime raises classes of its own
            raise ModelError(f"{name} does not run: {str(error).splitlines()[0][:200]}; {CURE}") from error
    difference = float(np.abs(maps[0] - maps[1]).max()) if maps[0].shape == maps[1].shape else np.inf
    if not difference <= limit:
        raise ModelError(f"{name} computes something else once it is simplified (by {difference:.2g}); {CURE}")


def _test_picture(shape: list[int]) -> npt.NDArray[Any]:
    """A bright disc before a gradient, normalised (3, height, width), or in bytes (height, width, 4)."""
    image = shape[-1] == 4
    height, width = shape[:2] if image else shape[1:]
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    disc = (x - 0.45) ** 2 + (y - 0.55) ** 2 < 0.07
    planes = np.stack([np.where(disc, v, 60 + k * 25 + 60 * x) for k, v in enumerate((230.0, 200.0, 60.0))])
    if image:
        return np.concatenate([planes, np.full((1, height, width), 255.0)]).transpose(1, 2, 0)
    return (planes / 255 - 0.45) / 0.225

"""Reading an ONNX file whole: bounded, its local functions inlined, its external data from its own folder alone.

Exporters leave weights in a file beside the graph ("external data"), whose name and place in the file stand in the
graph. A hostile one could name any file, or far more bytes than a tensor has: a name that leads out of the folder, a
file that is none, and a length that is not the tensor's are refused.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx

from u2net.errors import ModelError, U2NetError
from u2net.files import check_path, read_regular
from u2net.onnx_scan import scan

__all__ = ["MAX_ONNX_BYTES", "onnx_sha256", "read_onnx"]

MAX_ONNX_BYTES = 1 << 30  # of a graph, and of each file beside it; full in float32 has 176 MB


def read_onnx(path: str | os.PathLike[str], error: type[U2NetError] = ModelError) -> onnx.ModelProto:
    """The model in the file at `path`, with all its weights in it.

    Raises `error` where it cannot be read, is no ONNX model, has control flow, or keeps weights where they must not be.
    """
    import onnx.inliner

    file = check_path(path)
    data = read_regular(file, error, MAX_ONNX_BYTES)
    try:
        summary = scan(data)
    except ModelError as failure:
        raise error(f"{file} is not a readable ONNX model: {failure}") from failure
    try:
        model = onnx.load_model_from_string(data)
        if summary.external_data:
            _bring_in(model, file, error)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except U2NetError:
        raise
    except Exception as failure:  # protobuf raises its own family, which derives from Exception alone
        raise error(f"{file} is not a readable ONNX model") from failure
    return model


def onnx_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of the file at `path`, followed by the files beside it that hold its weights.

    Raises `ModelError` where it cannot be read.
    """
    file = check_path(path)
    data = read_regular(file, ModelError, MAX_ONNX_BYTES)
    digest = hashlib.sha256(data)
    if scan(data).external_data:
        model = onnx.load_model_from_string(data)
        for name in sorted({_entries(tensor).get("location", "") for tensor in _external(model.graph)}):
            digest.update(_read_beside(file, name, ModelError))
    return digest.hexdigest()


def _external(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Tensors whose values lie elsewhere: initializers, and constants of nodes."""
    held = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in (*graph.initializer, *held):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _bring_in(model: onnx.ModelProto, file: Path, error: type[U2NetError]) -> None:
    files: dict[str, bytes] = {}
    for tensor in _external(model.graph):
        said = _entries(tensor)
        name = said.get("location", "")
        if name not in files:
            files[name] = _read_beside(file, name, error)
        wanted = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        offset, length = said.get("offset", "0"), said.get("length", str(wanted))
        if not (offset.isdecimal() and length == str(wanted) and int(offset) + wanted <= len(files[name])):
            raise error(f"{file}: its tensor {tensor.name[:60]!r} is not what {name[:60]} holds; export it again")
        tensor.raw_data = files[name][int(offset) : int(offset) + wanted]
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _read_beside(file: Path, name: str, error: type[U2NetError]) -> bytes:
    """The file `name` in the folder of `file` or below it."""
    folder = file.parent.resolve()
    place = folder / name
    if not name or not place.resolve().is_relative_to(folder):
        raise error(f"{file} keeps its weights in {name[:60]!r}, outside its own folder, which is refused")
    if not place.exists():
        raise error(f"{file} keeps its weights in {name[:60]}, which is not beside it; copy both files")
    return read_regular(place, error, MAX_ONNX_BYTES)

"""The engine stage: an int8 model in, the engine's file and its sidecar out."""

from __future__ import annotations

import os
from typing import Any

import onnx

from u2net.artifact import write_sidecar
from u2net.errors import ConfigError, ModelError
from u2net.files import check_path, sha256_file, write_bytes

from .format import VERSION, write_model
from .graph import read_graph
from .pack import PackedModel, pack_network

__all__ = ["pack_file", "pack_model"]

LIBRARIES = ("numpy", "onnx")


def pack_model(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> PackedModel:
    """`model` packed, `size` (height, width) fixing what it leaves free. Raises `ModelError` for what cannot be."""
    return pack_network(read_graph(model, size))


def pack_file(
    path: str | os.PathLike[str], out: str | os.PathLike[str], size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Pack the int8 ONNX model at `path` into `out`, a `.u2e` file, and return the sidecar written beside it."""
    target = check_path(out)
    if target.suffix != ".u2e":
        raise ConfigError(f"the output is a .u2e file, not {target.name}")
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own family
        raise ModelError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    try:
        packed = pack_model(model, size)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    write_bytes(target, write_model(packed.model))
    return write_sidecar(
        target,
        stage="engine",
        settings={"format_version": VERSION},
        inputs={"model": sha256_file(path)},
        figures={"arena_bytes": packed.model.arena_bytes, **packed.bounds.as_figures()},
        libraries=LIBRARIES,
    )

"""The engine stage: an int8 model in, the engine's file and its sidecar out."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import onnx

from datasets.calibration import calibration_images
from u2net.artifact import write_sidecar
from u2net.errors import ConfigError, ModelError, OutputError
from u2net.files import check_path, sha256_file, write_bytes

from .agreement import measure_agreement
from .format import VERSION, write_model
from .graph import read_graph
from .pack import PackedModel, pack_network
from .runtime import EngineSession

__all__ = ["pack_file", "pack_model"]

LIBRARIES = ("numpy", "onnx", "onnxruntime", "wasmtime", "ziglang")


def pack_model(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> PackedModel:
    """`model` packed, `size` (height, width) fixing what it leaves free. Raises `ModelError` for what cannot be."""
    return pack_network(read_graph(model, size))


def pack_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    *,
    pictures: str | os.PathLike[str] | None = None,
    count: int = 8,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Pack the int8 ONNX model at `path` into `out`, a `.u2e` file, and return the sidecar written beside it.

    The file is run before it is written: on `count` pictures of the folder `pictures`, or of the procedural set, its
    maps are compared with onnxruntime's. Raises `ModelError` for what the engine cannot run, `QualityError` where the
    maps differ.
    """
    target = check_path(out)
    if target.suffix != ".u2e":
        raise ConfigError(f"the output is a .u2e file, not {target.name}")
    progress("reading the model")
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own family
        raise ModelError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    try:
        packed = pack_model(model, size)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    file = write_model(packed.model)
    chosen = calibration_images(pictures, count)
    progress(f"comparing with onnxruntime on {len(chosen)} pictures")
    agreement = measure_agreement(model, file, chosen)
    write_bytes(target, file)
    try:
        return write_sidecar(
            target,
            stage="engine",
            settings={"format_version": VERSION, "input_size": list(packed.model.input_size)},
            inputs={"model": sha256_file(path), "pictures": chosen.sha256()},
            figures={
                "agreement": agreement,
                "arena_bytes": packed.model.arena_bytes,
                "memory_bytes": EngineSession(file).memory_bytes,
                "bounds": packed.bounds.as_figures(),
            },
            libraries=LIBRARIES,
        )
    except OutputError:
        target.unlink(missing_ok=True)  # a model without its sidecar is half a result
        raise

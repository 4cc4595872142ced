"""The engine stage: an int8 model in, the engine's file and its sidecar out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import onnx

import engine
from datasets.calibration import calibration_images
from u2net.artifact import asked, changed, read_sidecar, sidecar_path, verify_artifact, write_sidecar
from u2net.errors import ConfigError, ModelError, OutputError
from u2net.files import check_path, sha256_file, write_bytes

from .agreement import measure_agreement
from .format import VERSION, write_model
from .graph import read_graph
from .pack import PackedModel, pack_network
from .runtime import EngineSession
from .settings import PackSettings
from .sizes import at_size

__all__ = ["pack_file", "pack_model"]

LIBRARIES = ("numpy", "onnx", "onnxruntime", "wasmtime", "ziglang")


def pack_model(model: onnx.ModelProto) -> PackedModel:
    """`model`, all of whose sizes are fixed, packed. Raises `ModelError` for what cannot be."""
    return pack_network(read_graph(model))


def pack_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: PackSettings | None = None,
    *,
    pictures: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda what: None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Pack the int8 ONNX model at `path` into `out`, a `.u2e` file, and return the sidecar written beside it.

    The file is run before it is written: on pictures of the folder `pictures`, or of the procedural set, its maps are
    compared with onnxruntime's. Where the sidecar already says what is asked for nothing is done, unless `force`.
    Raises `ModelError` for what the engine cannot run, `QualityError` where the maps differ, `ArtifactError` where the
    model is not what its own sidecar says.
    """
    settings = settings or PackSettings()
    target = check_path(out)
    if target.suffix != ".u2e":
        raise ConfigError(f"the output is a .u2e file, not {target.name}")
    model = _read(path)
    if sidecar_path(path).exists():
        verify_artifact(path)
    chosen = calibration_images(pictures, settings.count)
    inputs = {"model": sha256_file(path), "pictures": chosen.sha256()}
    request = asked(asdict(settings), inputs, LIBRARIES, (engine,))
    reasons = changed(target, request)
    if not reasons and not force:
        tell(f"{target.name} is up to date")
        return read_sidecar(target)
    progress("packing")
    try:
        if settings.size is not None:
            model = at_size(model, *settings.size)
        packed = pack_model(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    file = write_model(packed.model)
    progress(f"comparing with onnxruntime on {len(chosen)} pictures")
    agreement = measure_agreement(model, file, chosen)
    write_bytes(target, file)
    try:
        return write_sidecar(
            target,
            stage="engine",
            settings={"format_version": VERSION, "input_size": list(packed.model.input_size)},
            inputs=inputs,
            figures={
                "agreement": agreement,
                "arena_bytes": packed.model.arena_bytes,
                "memory_bytes": EngineSession(file).memory_bytes,
                "bounds": packed.bounds.as_figures(),
            },
            libraries=LIBRARIES,
            request=request,
        )
    except OutputError:
        target.unlink(missing_ok=True)  # a model without its sidecar is half a result
        raise


def _read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    try:
        return onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own family
        raise ModelError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error

"""The export stage: checkpoint in, proven models and their sidecars out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx

from u2net.artifact import atomic_path, check_path, sha256_file, write_sidecar
from u2net.checkpoint import load_checkpoint
from u2net.errors import ConfigError
from u2net.model import U2Net, count_parameters

from .exporter import ExportSettings, export_model, fold_batch_norm
from .parity import measure_parity

__all__ = ["ExportSettings", "export_checkpoint"]

LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime")


def export_checkpoint(
    weights: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: ExportSettings | None = None,
    *,
    model: str | None = None,
    fp16: bool = False,
    ort: bool = False,
    parity_images: str | os.PathLike[str] | None = None,
    parity_count: int = 8,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, dict[str, Any]]:
    """Export the checkpoint `weights` to `out`, and return the sidecars by path.

    With `fp16` a second model with float16 weights is written beside it (`fp32.onnx` → `fp16.onnx`), with `ort` the
    models in onnxruntime's own format as well. Nothing is written unless parity holds. `model` is the name that the
    weights must have. Raises the `U2NetError` of whatever goes wrong.
    """
    settings = settings or ExportSettings()
    target = check_path(out)
    if target.suffix != ".onnx":
        raise ConfigError(f"the output is an .onnx file, not {target.name}")
    progress("loading the checkpoint")
    network = load_checkpoint(weights)
    if model is not None and model not in (network.config.name, *network.config.aliases):
        raise ConfigError(f"{weights} is {network.config.name}, not {model}")
    made: dict[str, dict[str, Any]] = {}
    inputs = {"weights": sha256_file(weights)}
    variants = [(target, settings)]
    if fp16:
        variants.append((fp16_path(target), replace(settings, fp16=True)))
    for path, variant in variants:
        made[str(path)] = _export(network, variant, path, inputs, parity_images, parity_count, progress)
    if ort:
        from .ort_format import write_ort

        for path, _ in variants:
            progress(f"converting {path.name} to .ort")
            written, sidecar = write_ort(path)
            made[str(written)] = sidecar
    return made


def fp16_path(path: Path) -> Path:
    """Where the float16 variant of `path` goes: `fp32.onnx` → `fp16.onnx`, `photo.onnx` → `photo-fp16.onnx`."""
    stem = path.stem.replace("fp32", "fp16") if "fp32" in path.stem else f"{path.stem}-fp16"
    return path.with_name(stem + path.suffix)


def _export(
    network: U2Net,
    settings: ExportSettings,
    path: Path,
    inputs: dict[str, str],
    parity_images: str | os.PathLike[str] | None,
    parity_count: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    from datasets.calibration import calibration_images

    pictures = calibration_images(parity_images, parity_count)
    progress(f"exporting {path.name}")
    folded = fold_batch_norm(network)
    proto = export_model(folded, settings)
    progress(f"comparing {path.name} with PyTorch on {len(pictures)} pictures")
    parity = measure_parity(proto, folded, settings, pictures)
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    return write_sidecar(
        path,
        stage="export",
        settings={**asdict(settings), "size": settings.size or network.config.size, "opset": opset(proto)},
        inputs={**inputs, "parity_images": pictures.sha256()},
        figures={
            **parity.as_figures(),
            "parameters": count_parameters(network),
            "nodes": dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
        },
        libraries=LIBRARIES,
    )


def opset(proto: onnx.ModelProto) -> int:
    """The version of the standard operators that `proto` is written in."""
    return next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))

"""The export stage: checkpoint in, proven models and their sidecars out."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx

import u2net.network
from datasets.calibration import CalibrationImages, calibration_images
from u2net.artifact import asked, changed, read_sidecar, verify_artifact, write_sidecar
from u2net.errors import ArtifactError, CheckpointError, ConfigError, OutputError, QualityError
from u2net.files import atomic_path, check_path, sha256_file
from u2net.network.checkpoint import load_checkpoint
from u2net.network.model import CONFIGS, U2Net, count_parameters
from u2net.network.shape import check_name, difference_of_shapes, shape_called
from u2net.preprocess import read_size, write_size
from u2net.zoo import DEFAULT_MODEL, own_weights

from .exporter import export_model, fold_batch_norm, round_weights, store_half
from .parity import Expected, expected_maps, measure_parity, size_agreement
from .settings import ExportSettings

__all__ = ["ExportSettings", "export_checkpoint"]

MAX_ROUNDING_COST = 5e-3  # mean difference that float16 weights may make, of values in [0, 1]; beyond, edges move
#: Models that are another one's network, trained on something else.
NAMED_AFTER_DATA = {"human": "full", "small-tuned": "small"}
CODE = (sys.modules[__package__], u2net.network)  # what of this project decides the bytes
LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime")


def export_checkpoint(
    weights: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    settings: ExportSettings | None = None,
    *,
    model: str | None = None,
    name: str | None = None,
    fp16: bool = False,
    ort: bool = False,
    parity_images: str | os.PathLike[str] | None = None,
    parity_count: int = 8,
    force: bool = False,
    progress: Callable[[str], None] = lambda what: None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, Any]]:
    """Export the checkpoint `weights` to `out`, and return the sidecars by path.

    With `fp16` a second model with float16 weights is written beside it (`fp32.onnx` → `fp16.onnx`), with `ort` the
    first one in onnxruntime's own format as well. Nothing is written unless parity holds. `model` is the shape that the
    weights must have, by its name or as a TOML file of widths, and `name` what the result is called (by default as its
    shape); without `weights`, its own are taken (`own_weights`). Where the sidecars say that all of it is
    there as asked, nothing is done unless `force`; `tell` gets a line that says so, or what changed. Raises the
    `U2NetError` of whatever goes wrong.
    """
    settings = settings or ExportSettings()
    target = check_path(out)
    if target.suffix != ".onnx":
        raise ConfigError(f"the output is an .onnx file, not {target.name}; say --out {target.stem}.onnx")
    if name is not None:
        check_name(name)
    wanted = shape_called(model) if model is not None and model not in NAMED_AFTER_DATA else None
    if weights is None:
        weights = own_weights(model or DEFAULT_MODEL)
    weights = check_path(weights)
    try:
        inputs = {"weights": sha256_file(weights)}
    except OSError as error:
        raise CheckpointError(
            f"{weights} cannot be read: {error.strerror or error}; give a file with --weights, or fetch the public "
            "ones with `u2net weights fetch`"
        ) from error
    pictures = calibration_images(parity_images, parity_count)
    outputs = [target, *([fp16_path(target)] if fp16 and not settings.fp16 else [])]
    request = asked(
        asdict(settings) | {"model": model, "name": name},
        inputs | {"parity_images": pictures.identity()},
        LIBRARIES,
        CODE,
    )
    everything = [*outputs, *([target.with_suffix(".ort")] if ort else [])]
    reasons = {path: changed(path, request | {"file": path.name}) for path in outputs}
    if ort and not reasons[target]:
        reasons[everything[-1]] = ort_changed(target)
    if not force and not any(reasons.values()):
        tell(f"{', '.join(path.name for path in everything)}: up to date")
        return {str(path): read_sidecar(path) for path in everything}
    if target.exists():
        tell(f"exporting again: {', '.join(sorted({r for found in reasons.values() for r in found})) or 'as asked'}")
    progress("loading the checkpoint")
    network = load_checkpoint(weights)
    if model in NAMED_AFTER_DATA and network.config.name == NAMED_AFTER_DATA[model]:
        network.config = replace(network.config, name=model)
    elif model in NAMED_AFTER_DATA:
        raise ConfigError(
            f"{weights} is {network.config.name}, not {model}; leave --model out, or say --model {network.config.name}"
        )
    if wanted is not None and (differences := difference_of_shapes(network.config, wanted)):
        raise ConfigError(
            f"{weights} is {network.config.name}, not {model}: {differences}; leave --model out to export the shape "
            "that it has"
        )
    if wanted is not None and wanted.name not in CONFIGS:
        network.config = replace(network.config, name=wanted.name, size=wanted.size)
    if name is not None:
        network.config = replace(network.config, name=name)
    progress(f"exporting {target.name}")
    folded = fold_batch_norm(network)
    further: dict[str, Any] = {}
    if settings.size not in (None, folded.config.size):
        further = {"agreement_with_taught_size": _agreement_with_taught_size(folded, settings, pictures, tell)}
    proto = export_model(folded, settings)
    graphs = [(target, proto, settings)]
    if fp16 and not settings.fp16:
        graphs.append((fp16_path(target), store_half(proto), replace(settings, fp16=True)))
    progress(f"running PyTorch on {len(pictures)} pictures")
    expected = list(expected_maps(folded, settings, pictures))
    proven = []
    for path, graph, form in graphs:
        progress(f"comparing {path.name} with PyTorch on {len(pictures)} pictures")
        if form.fp16:
            found = _prove_half(graph, folded, form, pictures, expected)
        else:
            found = measure_parity(graph, expected).as_figures()
        proven.append((path, graph, form, found))
    made: dict[str, dict[str, Any]] = {}
    for path, graph, form, figures in proven:
        facts = {**figures, **further, "parameters": count_parameters(network)}
        hashes = {**inputs, "parity_images": pictures.sha256()}
        made[str(path)] = _write(graph, path, form, hashes, facts, request | {"file": path.name})
    if ort:
        from .ort_format import write_ort

        progress(f"converting {target.name} to .ort")
        written, sidecar = write_ort(target)
        made[str(written)] = sidecar
    return made


def _agreement_with_taught_size(
    folded: U2Net, settings: ExportSettings, pictures: CalibrationImages, tell: Callable[[str], None]
) -> dict[str, Any]:
    """How far masks at the size that is asked for are those at the size that the weights were taught at."""
    assert settings.size is not None
    found = size_agreement(folded, settings.size, pictures)
    tell(
        f"warning: the weights were taught at {folded.config.size} pixels; at {write_size(settings.size)} their masks "
        f"agree with those to a mean IoU of {found['iou_mean']:.4f} ({found['pictures']} pictures): leave --size out, "
        "or teach them at that size with `u2net train finetune`"
    )
    return found


def ort_changed(model: Path) -> list[str]:
    """Why the `.ort` of `model`, which is up to date, must be made again."""
    path = model.with_suffix(".ort")
    try:
        sidecar = verify_artifact(path)
    except ArtifactError:
        return [f"{path.name} is missing or not what its sidecar says"]
    return [] if sidecar["inputs"].get("model") == sha256_file(model) else [f"{path.name} is of another model"]


def fp16_path(path: Path) -> Path:
    """Where the float16 variant of `path` goes: `fp32.onnx` → `fp16.onnx`, `photo.onnx` → `photo-fp16.onnx`."""
    stem = path.stem.replace("fp32", "fp16") if "fp32" in path.stem else f"{path.stem}-fp16"
    return path.with_name(stem + path.suffix)


def _prove_half(
    proto: onnx.ModelProto,
    folded: U2Net,
    settings: ExportSettings,
    pictures: CalibrationImages,
    unrounded: Iterable[Expected],
) -> dict[str, float | int]:
    """What the comparison of a graph of float16 weights measured: with PyTorch holding the same rounded weights, and,
    for what the rounding does to the masks, with what `folded` makes of `pictures`. Raises `QualityError`.
    """
    figures = measure_parity(proto, expected_maps(round_weights(folded), settings, pictures)).as_figures()
    cost = measure_parity(proto, unrounded, limit=None)
    if not cost.mean_difference <= MAX_ROUNDING_COST:
        raise QualityError(
            f"float16 weights change the masks by {cost.mean_difference:.2g} on average; leave --fp16 out"
        )
    return {
        **figures,
        "max_difference_from_fp32": cost.max_difference,
        "mean_difference_from_fp32": cost.mean_difference,
    }


def _write(
    proto: onnx.ModelProto,
    path: Path,
    settings: ExportSettings,
    inputs: dict[str, str],
    figures: dict[str, Any],
    request: dict[str, Any],
) -> dict[str, Any]:
    """Write `proto` and its sidecar, both or neither; returns the sidecar."""
    version = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    size = read_size(next(entry.value for entry in proto.metadata_props if entry.key == "u2net.size"))
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    try:
        return write_sidecar(
            path,
            stage="export",
            settings={**asdict(settings), "size": size, "opset": version},
            inputs=inputs,
            figures={
                **figures,
                "nodes": dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
            },
            libraries=LIBRARIES,
            request=request,
        )
    except OutputError:
        path.unlink(missing_ok=True)  # a model without its sidecar is half a result
        raise

"""The export stage: checkpoint in, proven models and their sidecars out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx

import u2net
from datasets.calibration import CalibrationImages, calibration_images
from u2net.artifact import write_sidecar
from u2net.errors import ConfigError, OutputError, QualityError
from u2net.fetch import PUBLIC_WEIGHTS, default_path
from u2net.files import atomic_path, check_path, sha256_file
from u2net.network.checkpoint import load_checkpoint
from u2net.network.model import U2Net, count_parameters

from .exporter import ExportSettings, export_model, fold_batch_norm, round_weights, store_half
from .parity import measure_parity

__all__ = ["ExportSettings", "export_checkpoint"]

MAX_ROUNDING_COST = 5e-3  # mean difference that float16 weights may make, of values in [0, 1]; beyond, edges move
NAMED_AFTER_DATA = {"human": "full"}  # models that are another one's network trained on something else
DEFAULT_MODEL = "lite"  # the one whose weights come along
LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime")


def export_checkpoint(
    weights: str | os.PathLike[str] | None,
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
    first one in onnxruntime's own format as well. Nothing is written unless parity holds. `model` is the name that the
    weights must have; without `weights`, its own are taken (`own_weights`). Raises the `U2NetError` of whatever goes
    wrong.
    """
    settings = settings or ExportSettings()
    target = check_path(out)
    if target.suffix != ".onnx":
        raise ConfigError(f"the output is an .onnx file, not {target.name}")
    progress("loading the checkpoint")
    if weights is None:
        weights = own_weights(model or DEFAULT_MODEL)
    network = load_checkpoint(weights)
    if model in NAMED_AFTER_DATA and network.config.name == NAMED_AFTER_DATA[model]:
        network.config = replace(network.config, name=model)
    if model is not None and model not in (network.config.name, *network.config.aliases):
        raise ConfigError(f"{weights} is {network.config.name}, not {model}")
    inputs = {"weights": sha256_file(weights)}
    pictures = calibration_images(parity_images, parity_count)
    progress(f"exporting {target.name}")
    folded = fold_batch_norm(network)
    proto = export_model(folded, settings)
    graphs = [(target, proto, settings)]
    if fp16 and not settings.fp16:
        graphs.append((fp16_path(target), store_half(proto), replace(settings, fp16=True)))
    proven = []
    for path, graph, form in graphs:
        progress(f"comparing {path.name} with PyTorch on {len(pictures)} pictures")
        proven.append((path, graph, form, _prove(graph, folded, form, pictures)))
    made: dict[str, dict[str, Any]] = {}
    for path, graph, form, figures in proven:
        facts = {**figures, "parameters": count_parameters(network)}
        made[str(path)] = _write(graph, path, form, {**inputs, "parity_images": pictures.sha256()}, facts)
    if ort:
        from .ort_format import write_ort

        progress(f"converting {target.name} to .ort")
        written, sidecar = write_ort(target)
        made[str(written)] = sidecar
    return made


def own_weights(model: str) -> Path:
    """The weights that come with `model`, or that were fetched for it. Raises `ConfigError` where there are none."""
    embedded = Path(u2net.__file__).parent / "weights" / f"{model}.safetensors"
    if embedded.is_file():
        return embedded
    if model in PUBLIC_WEIGHTS:
        fetched = default_path(PUBLIC_WEIGHTS[model])
        if fetched.is_file():
            return fetched
        raise ConfigError(f"there are no weights of {model} here; get them by `python -m u2net weights fetch {model}`")
    raise ConfigError(f"{model} has no weights of its own; name a checkpoint with --weights")


def fp16_path(path: Path) -> Path:
    """Where the float16 variant of `path` goes: `fp32.onnx` → `fp16.onnx`, `photo.onnx` → `photo-fp16.onnx`."""
    stem = path.stem.replace("fp32", "fp16") if "fp32" in path.stem else f"{path.stem}-fp16"
    return path.with_name(stem + path.suffix)


def _prove(
    proto: onnx.ModelProto, folded: U2Net, settings: ExportSettings, pictures: CalibrationImages
) -> dict[str, float | int]:
    """What the comparison with PyTorch measured. Raises `QualityError`."""
    if not settings.fp16:
        return measure_parity(proto, folded, settings, pictures).as_figures()
    # Parity is with PyTorch holding the same rounded weights; the cost is what the rounding does to the masks.
    figures = measure_parity(proto, round_weights(folded), settings, pictures).as_figures()
    cost = measure_parity(proto, folded, settings, pictures, limit=None)
    if not cost.mean_difference <= MAX_ROUNDING_COST:
        raise QualityError(f"float16 weights change the masks by {cost.mean_difference:.2g} on average")
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
    figures: dict[str, float | int],
) -> dict[str, Any]:
    """Write `proto` and its sidecar, both or neither; returns the sidecar."""
    version = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    size = next(int(entry.value) for entry in proto.metadata_props if entry.key == "u2net.size")
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
        )
    except OutputError:
        path.unlink(missing_ok=True)  # a model without its sidecar is half a result
        raise

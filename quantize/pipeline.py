"""The quantize stage: float ONNX in, int8 ONNX with the same masks and its sidecar out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from datasets.calibration import CalibrationImages, calibration_images
from u2net.artifact import asked, changed, read_sidecar, sidecar_path, verify_artifact, write_sidecar
from u2net.errors import ConfigError, DataError, OutputError, QualityError
from u2net.files import atomic_path, check_path, sha256_file

from .agreement import Agreement, agreement, run_maps
from .emit import Plan, emit
from .equalize import equalize
from .graph import FloatGraph, load_graph
from .inputs import NetworkInputs, network_inputs
from .kernels import KernelCount, count_kernels
from .observe import Observations, observe
from .ranges import choose_ranges
from .reconstruct import reconstruct
from .region import Region, find_region
from .sessions import open_session
from .settings import QuantizeSettings
from .split import split_constants

__all__ = ["Prepared", "Quantized", "check_pictures", "prepare", "quantize_file", "quantize_graph", "repair"]

FloatArray = npt.NDArray[np.float32]

#: Called with what is being done, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]

LIBRARIES = ("numpy", "scipy", "onnx", "onnxruntime")
#: A quantized map whose standard deviation is below this on every picture is a blank mask.
BLANK = 1e-3
CHECK_SEED = 1  # added to the seed where the procedural set must serve for the check, so that no scene is met twice


def _silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Prepared:
    """A float model that was run on the calibration pictures and whose channels were repaired."""

    original: FloatGraph
    graph: FloatGraph  # computes what `original` computes
    region: Region
    observed: Observations
    inputs: NetworkInputs
    split: tuple[str, ...]  # channels whose constant part was taken out
    rescaled: int  # channels, or tied sets of them, that got another scale


@dataclass(frozen=True)
class Quantized:
    """A quantized model and what was measured of it."""

    model: onnx.ModelProto
    graph: FloatGraph
    plan: Plan
    agreement: Agreement
    kernels: KernelCount
    figures: dict[str, Any]


def prepare(
    graph: FloatGraph, pictures: CalibrationImages, settings: QuantizeSettings, progress: Progress = _silent
) -> Prepared:
    """Run the float model once and repair its ranges, exactly."""
    inputs = network_inputs(graph, pictures)
    observed = observe(
        graph,
        inputs,
        budget=settings.samples,
        seed=settings.seed,
        threads=settings.threads,
        progress=lambda done: progress("watching the float model", done, len(inputs)),
    )
    return repair(graph, observed, inputs, settings)


def repair(graph: FloatGraph, observed: Observations, inputs: NetworkInputs, settings: QuantizeSettings) -> Prepared:
    """Split constant channels and choose channel scales."""
    changed, rescaled = graph, 0
    names: tuple[str, ...] = ()
    if settings.split:
        changed, observed, names = split_constants(changed, observed)
    region = find_region(changed, settings.keep_float)
    if not region.integer:
        raise QualityError("no convolution of this model is left to become integer")
    if settings.equalize:
        changed, observed, rescaled = equalize(changed, region, observed, settings.equalization)
    return Prepared(graph, changed, region, observed, inputs, names, rescaled)


def plan_of(prepared: Prepared, settings: QuantizeSettings, progress: Progress = _silent) -> tuple[FloatGraph, Plan]:
    """Choose ranges, integers and biases."""
    region = prepared.region
    if settings.format == "weights":
        region = replace(region, group={}, sources={})
    ranges = choose_ranges(prepared.graph, region, prepared.observed, settings.calibrator)
    return reconstruct(
        prepared.graph,
        Plan(region, ranges),
        prepared.observed,
        prepared.inputs,
        method=settings.method,
        settings=settings.rounding,
        threads=settings.threads,
        progress=lambda done, total: progress("rounding layer by layer", done, total),
    )


def quantize_graph(
    prepared: Prepared,
    check_inputs: NetworkInputs,
    reference: list[FloatArray],
    settings: QuantizeSettings,
    progress: Progress = _silent,
) -> Quantized:
    """Quantize, and measure the result against the maps `reference` that the float model makes of `check_inputs`.

    With a budget, convolutions stay in float, the most harmful first, until the agreement meets it. Raises
    `QualityError` where an honesty check fails.
    """
    graph, plan = plan_of(prepared, settings, progress)
    found = _measured(graph, plan, check_inputs, reference, settings, progress)
    if settings.budget is not None and float(found.agreement.iou.mean()) < settings.budget:
        from .budget import meet_budget

        plan = meet_budget(prepared, graph, plan, check_inputs, reference, settings, progress)
        found = _measured(graph, plan, check_inputs, reference, settings, progress)
    _refuse_dishonest(found, settings)
    return found


def _measured(
    graph: FloatGraph,
    plan: Plan,
    inputs: NetworkInputs,
    reference: list[FloatArray],
    settings: QuantizeSettings,
    progress: Progress,
) -> Quantized:
    model = emit(graph, plan, settings.form)
    onnx.checker.check_model(model)
    kernels = count_kernels(graph, model)
    session = open_session(model, settings.threads, fuse=True)
    maps = run_maps(session, graph.input, inputs, lambda done: progress("comparing with float", done, len(inputs)))
    agreed = agreement(reference, maps)
    figures = {
        "agreement": agreed.summary(),
        "convolutions": len(graph.convs),
        "integer_convolutions": len(kernels.integer),
        "integer_macs_share": round(kernels.share, 6),
        "float_convolutions": {
            name: plan.region.reasons.get(name, "the runtime found no integer kernel") for name in kernels.floating
        },
    }
    return Quantized(model, graph, plan, agreed, kernels, figures)


def _refuse_dishonest(found: Quantized, settings: QuantizeSettings) -> None:
    if settings.format != "weights" and not found.kernels.integer:
        raise QualityError("no convolution runs in an integer kernel once the runtime has optimised the model")
    if float(found.agreement.spread.max()) < BLANK:
        raise QualityError("the quantized model's mask is blank on every picture")
    iou = float(found.agreement.iou.mean())
    if iou < settings.floor:
        raise QualityError(
            f"the quantized masks agree with float to a mean IoU of {iou:.4f} only, "
            f"below the floor of {settings.floor:g}; nothing was written"
        )
    if settings.budget is not None and iou < settings.budget:
        raise QualityError(f"the budget of iou={settings.budget:g} cannot be met: the best mean IoU is {iou:.4f}")


def check_pictures(calib: str | os.PathLike[str] | None, settings: QuantizeSettings) -> CalibrationImages:
    """Pictures to measure on that were not calibrated on: others of the folder, or else procedural ones."""
    if calib is not None:
        try:
            return calibration_images(calib, settings.check_count, settings.seed, skip=settings.count)
        except DataError:  # the folder has no others
            return calibration_images(None, settings.check_count, settings.seed + CHECK_SEED)
    return calibration_images(None, settings.check_count, settings.seed + CHECK_SEED)


def quantize_file(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    calib: str | os.PathLike[str] | None = None,
    settings: QuantizeSettings | None = None,
    progress: Progress = _silent,
    *,
    force: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Quantize the float model `source` to `out` and return the sidecar that was written beside it.

    `calib` is a folder of pictures, None the procedural set. Raises the `U2NetError` of whatever goes wrong, and then
    leaves nothing behind: neither a model nor a sidecar of an earlier run is touched. Where the sidecar of `out` says
    that it is what is asked for, nothing is done unless `force`; `tell` gets a line that says so, or what changed.
    """
    settings = settings or QuantizeSettings()
    source, target = check_path(source), check_path(out)
    if target.suffix != ".onnx":
        raise ConfigError(f"the output is an .onnx file, not {target.name}")
    if target.resolve() == source.resolve():
        raise ConfigError("the output would overwrite the float model")
    if sidecar_path(source).exists():
        verify_artifact(source)
    pictures = calibration_images(calib, settings.count, settings.seed)
    others = check_pictures(calib, settings)
    identities = {"model": sha256_file(source), "calibration": pictures.identity(), "check": others.identity()}
    request = asked(_recorded(settings), identities, LIBRARIES, (sys.modules[__package__],))
    reasons = changed(target, request)
    if not reasons and not force:
        tell(f"{target.name}: up to date")
        return read_sidecar(target)
    if target.exists():
        tell(f"quantizing again: {', '.join(reasons) or 'as asked'}")
    graph = load_graph(source)
    check_inputs = network_inputs(graph, others)
    if settings.format == "fp16":
        return _write_half(graph, source, target, others, settings, request, progress)
    prepared = prepare(graph, pictures, settings, progress)
    reference = _float_maps(source, graph, check_inputs, settings, progress)
    found = quantize_graph(prepared, check_inputs, reference, settings, progress)
    figures = {
        **found.figures,
        "split_channels": list(prepared.split),
        "rescaled_channels": prepared.rescaled,
        "calibration": {"source": pictures.source, "pictures": len(pictures)},
        "check": {"source": others.source, "pictures": len(others)},
    }
    inputs = {"model": sha256_file(source), "calibration": pictures.sha256(), "check": others.sha256()}
    return _write(found.model, target, settings, inputs, figures, request)


def _float_maps(
    source: Path, graph: FloatGraph, inputs: NetworkInputs, settings: QuantizeSettings, progress: Progress
) -> list[FloatArray]:
    session = open_session(source, settings.threads, fuse=True)
    return run_maps(session, graph.input, inputs, lambda done: progress("running float", done, len(inputs)))


def _write_half(
    graph: FloatGraph,
    source: Path,
    target: Path,
    others: CalibrationImages,
    settings: QuantizeSettings,
    request: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Weights in float16, arithmetic in float32."""
    import onnx_ir

    from export.passes import HalfWeights

    inputs = network_inputs(graph, others)
    reference = _float_maps(source, graph, inputs, settings, progress)
    half = onnx_ir.to_proto(HalfWeights()(onnx_ir.from_proto(graph.to_model())).model)
    session = open_session(half, settings.threads, fuse=True)
    maps = run_maps(session, graph.input, inputs, lambda done: progress("comparing with float", done, len(inputs)))
    agreed = agreement(reference, maps)
    if float(agreed.iou.mean()) < settings.floor:
        raise QualityError(f"float16 weights agree with float to a mean IoU of {float(agreed.iou.mean()):.4f} only")
    figures = {"agreement": agreed.summary(), "check": {"source": others.source, "pictures": len(others)}}
    return _write(half, target, settings, {"model": sha256_file(source), "check": others.sha256()}, figures, request)


def _recorded(settings: QuantizeSettings) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name != "threads"}


def _write(
    model: onnx.ModelProto,
    target: Path,
    settings: QuantizeSettings,
    inputs: dict[str, str],
    figures: dict[str, Any],
    request: dict[str, Any],
) -> dict[str, Any]:
    with atomic_path(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    try:
        return write_sidecar(
            target,
            stage="quantize",
            settings=_recorded(settings),
            inputs=inputs,
            figures=figures,
            libraries=LIBRARIES,
            request=request,
        )
    except OutputError:
        target.unlink(missing_ok=True)  # a model without its sidecar is half a result
        raise

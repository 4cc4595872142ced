"""The quantize stage: float ONNX in, int8 ONNX with the same masks and its sidecar out."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from datasets.calibration import CalibrationImages, calibration_images, calibration_split, joined
from u2net.artifact import asked, changed, read_sidecar, sidecar_path, verify_artifact, write_sidecar
from u2net.errors import ConfigError, ModelError, OutputError
from u2net.files import atomic_path, check_path
from u2net.network.onnx_file import onnx_sha256

from .agreement import Agreement, agreement, maps_of, mask_share, run_maps
from .budget import meet_budget
from .graph import FloatGraph, load_graph
from .inputs import NetworkInputs, network_inputs
from .pipeline import Quantized, measure, plan_of, prepare
from .plan import Prepared, Progress, silent
from .sessions import open_session
from .settings import QuantizeSettings
from .verdict import falls_short, refuse_dishonest, refuse_poor, refuse_subjectless, warnings_of

__all__ = ["quantize_file", "quantize_graph"]

FloatArray = npt.NDArray[np.float32]

LIBRARIES = ("numpy", "scipy", "onnx", "onnxruntime")
#: Scenes of the procedural set that a model calibrated on a folder is measured on too, and their seed.
SCENES, SCENES_SEED = 12, 1
#: Further ones that a folder is helped out with where its model does worse on those, and their seed.
ADDED, ADDED_SEED = 16, 2


def quantize_graph(
    prepared: Prepared,
    check_inputs: NetworkInputs,
    reference: list[FloatArray],
    settings: QuantizeSettings,
    progress: Progress = silent,
) -> Quantized:
    """Quantize, and measure the result against the maps `reference` that the float model makes of `check_inputs`.

    With a budget, convolutions stay in float, the most harmful first, until the agreement meets it. Raises
    `QualityError` where an honesty check fails.
    """
    graph, plan = plan_of(prepared, settings, progress)
    found = measure(graph, plan, check_inputs, reference, settings, progress)
    if settings.budget is not None and found.agreement.iou_mean < settings.budget:
        plan = meet_budget(prepared, graph, plan, check_inputs, reference, settings, progress)
        found = measure(graph, plan, check_inputs, reference, settings, progress)
    refuse_dishonest(found, settings)
    return found


def quantize_file(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    calib: str | os.PathLike[str] | None = None,
    settings: QuantizeSettings | None = None,
    progress: Progress = silent,
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
        raise ConfigError(f"the output is an .onnx file, not {target.name}; say --out {target.stem}.onnx")
    if target.resolve() == source.resolve():
        raise ConfigError("the output would overwrite the float model; give --out another name")
    if not source.is_file():
        raise ModelError(f"{source} does not exist or is no file; make it with `python -m export`")
    if sidecar_path(source).exists():
        verify_artifact(source)
    split = calibration_split(calib, settings.count, settings.check_count, settings.seed)
    scenes = calibration_images(None, SCENES, settings.seed + SCENES_SEED) if calib is not None else None
    inputs = {"model": onnx_sha256(source)}
    pictures = {"calibration": split.calibration.identity(), "check": split.check.identity()}
    request = asked(_recorded(settings), inputs | pictures, LIBRARIES, (sys.modules[__package__],))
    reasons = changed(target, request)
    if not reasons and not force:
        tell(f"{target.name}: up to date")
        return read_sidecar(target)
    if target.exists():
        tell(f"quantizing again: {', '.join(reasons) or 'as asked'}")
    graph = load_graph(source)
    if graph.fixed:
        shape = "×".join(map(str, graph.input_shape))
        tell(f"{target.name} takes one picture of a fixed size, {shape}, unlike {source.name}")
    _refuse_unknown_layers(graph, settings)
    elsewhere: Agreement | None = None
    if settings.format == "fp16":
        reference = _float_maps(graph, split.check, settings, progress)
        empty = refuse_subjectless(split, [mask_share(each) for each in reference])
        model: onnx.ModelProto = _half(graph)
        agreed = _agreement(graph, model, split.check, settings, progress)
        elsewhere = _agreement(graph, model, scenes, settings, progress) if scenes is not None else None
        refuse_poor(agreed, settings, "float16 masks")
        figures: dict[str, Any] = {"agreement": agreed.summary()}
    else:
        prepared = prepare(graph, split.calibration, settings, progress)
        reference = _float_maps(graph, split.check, settings, progress)
        empty = refuse_subjectless(split, [*prepared.observed.coverage, *(mask_share(each) for each in reference)])
        check_inputs = network_inputs(graph, split.check)
        found = quantize_graph(prepared, check_inputs, reference, settings, progress)
        calibration = split.calibration
        if scenes is not None:
            elsewhere = _agreement(graph, found.model, scenes, settings, progress)
            if falls_short(found.agreement, elsewhere):
                tell(f"{calibration.source} does not show all that a photograph may: adding {ADDED} procedural scenes")
                more = joined(calibration, calibration_images(None, ADDED, settings.seed + ADDED_SEED))
                prepared_anew = prepare(graph, more, settings, progress)
                anew = quantize_graph(prepared_anew, check_inputs, reference, settings, progress)
                better = _agreement(graph, anew.model, scenes, settings, progress)
                if better.iou_mean > elsewhere.iou_mean:
                    prepared, found, calibration, elsewhere = prepared_anew, anew, more, better
        model, agreed = found.model, found.agreement
        figures = {
            **found.figures,
            "split_channels": list(prepared.split),
            "rescaled_channels": prepared.rescaled,
            "calibration": {"source": calibration.source, "pictures": len(calibration)},
        }
        inputs["calibration"] = calibration.sha256()
    inputs["check"] = split.check.sha256()
    figures["check"] = {"source": split.check.source, "pictures": len(split.check)}
    if elsewhere is not None:
        figures["agreement_on_scenes"] = elsewhere.summary()
    figures["warnings"] = warnings_of(split, empty, agreed, elsewhere)
    return _write(model, target, settings, inputs, figures, request)


def _refuse_unknown_layers(graph: FloatGraph, settings: QuantizeSettings) -> None:
    known = [conv.name for conv in graph.convs]
    for name in settings.keep_float:
        if name not in known:
            close = difflib.get_close_matches(name, known, 3, 0.5) or known[:3]
            raise ConfigError(
                f"--keep-float {name}: the model has no such layer; close to it are {', '.join(close)}, and "
                "`python -m quantize sensitivity` lists all"
            )


def _float_maps(
    graph: FloatGraph, pictures: CalibrationImages, settings: QuantizeSettings, progress: Progress
) -> list[FloatArray]:
    inputs = network_inputs(graph, pictures)
    what = f"running float, {pictures.source}"
    return maps_of(graph.to_model(), graph.input, inputs, settings.threads, progress, what)


def _agreement(
    graph: FloatGraph,
    model: onnx.ModelProto,
    pictures: CalibrationImages,
    settings: QuantizeSettings,
    progress: Progress,
) -> Agreement:
    """Both models side by side, so that each picture is made once."""
    inputs = network_inputs(graph, pictures)
    sessions = [open_session(each, settings.threads, fuse=True) for each in (graph.to_model(), model)]
    maps: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    for index in range(len(inputs)):
        feed = [inputs[index]]
        for session, found in zip(sessions, maps, strict=True):
            found.extend(run_maps(session, graph.input, feed))
        progress(f"comparing with float, {pictures.source}", index + 1, len(inputs))
    return agreement(*maps)


def _half(graph: FloatGraph) -> onnx.ModelProto:
    """Weights in float16, arithmetic in float32."""
    import onnx_ir

    from export.passes import HalfWeights

    return onnx_ir.to_proto(HalfWeights()(onnx_ir.from_proto(graph.to_model())).model)


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

"""The passes in their order: watch the float model, repair its ranges, choose integers, write the graph, measure it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from datasets.calibration import CalibrationImages
from u2net.errors import QualityError

from .agreement import Agreement, agreement, maps_of
from .emit import emit
from .equalize import equalize
from .graph import FloatGraph
from .inputs import NetworkInputs, network_inputs
from .kernels import KernelCount, count_kernels
from .observe import Observations, observe
from .plan import Plan, Prepared, Progress, silent
from .ranges import choose_ranges
from .reconstruct import reconstruct
from .region import find_region
from .settings import QuantizeSettings
from .split import split_constants

__all__ = ["Quantized", "measure", "plan_of", "prepare", "repair"]

FloatArray = npt.NDArray[np.float32]


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
    graph: FloatGraph, pictures: CalibrationImages, settings: QuantizeSettings, progress: Progress = silent
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
        raise QualityError(
            "no convolution of this model is left to become integer: all are thin, or named by --keep-float; use "
            "--format fp16"
        )
    if settings.equalize:
        changed, observed, rescaled = equalize(changed, region, observed, settings.equalization)
    return Prepared(graph, changed, region, observed, inputs, names, rescaled)


def plan_of(prepared: Prepared, settings: QuantizeSettings, progress: Progress = silent) -> tuple[FloatGraph, Plan]:
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


def measure(
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
    agreed = agreement(
        reference, maps_of(model, graph.input, inputs, settings.threads, progress, "comparing with float")
    )
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

"""One figure of a report by its path, as a policy names it (`eval.policy`)."""

from __future__ import annotations

import math
from typing import Any

from eval.measures import MATTE
from eval.report import BackendLatency, Judged, Latency, ModelEntry, ModelLatency, Quality, Report

__all__ = ["figure", "reason_of"]

NO_GRAPH = "no graph was read (a checkpoint)"
NO_FIGURE = "is not a figure that a report has"


def figure(report: Report, model: str, what: str) -> float:
    """The figure `what` of `model` in `report`. Raises `LookupError` with the reason where it is not there."""
    value = _figure(report, next(entry for entry in report.models if entry.name == model), what)
    if value is None or not math.isfinite(value):
        raise LookupError("is missing from the report")
    return float(value)


def _figure(report: Report, model: ModelEntry, what: str) -> float | None:
    match what.split("."):
        case ["dead_convolutions" | "integer_share" as name]:
            if model.graph is None:
                raise LookupError(f"is missing: {NO_GRAPH}")
            return len(model.graph.dead_convolutions) if name == "dead_convolutions" else model.graph.integer_share
        case ["size", key]:
            return _named(model.size, key)
        case ["constant_share"]:
            overall = _judged(report.quality, model.name).overall
            return overall.constant / overall.count
        case ["quality", metric]:
            return _metric(_judged(report.quality, model.name).overall, metric)
        case ["quality", name, metric]:
            sets = _judged(report.quality, model.name).sets
            if name not in sets:
                raise LookupError(f"is missing: the set {name} was not judged")
            return _metric(sets[name], metric)
        case ["agreement", metric]:
            return _named(_judged(report.quality, model.name).agreement, metric)
        case ["latency", backend, metric]:
            return _latency(report.latency, model.name, backend, metric)
    raise LookupError(NO_FIGURE)


def _named(part: Any, name: str) -> float | None:
    value = getattr(part, name, None)
    if not isinstance(value, int | float):
        raise LookupError(NO_FIGURE if not hasattr(part, name) else "is missing from the report")
    return value


def _judged(quality: Quality, model: str) -> Judged:
    if model not in quality.models:
        raise LookupError(f"is missing: quality was not judged{reason_of(quality)}")
    return quality.models[model]


def _metric(values: Any, metric: str) -> float | None:
    if metric in MATTE:
        if values.matte is None:
            raise LookupError("is missing: no picture has a true matte")
        return float(values.matte[metric])
    return _named(values, metric)


def _latency(latency: Latency, model: str, backend: str, metric: str) -> float | None:
    record = latency.backends.get(backend)
    if record is None:
        raise LookupError(f"is missing: {backend} was not measured{reason_of(latency)}")
    entry = record.models.get(model)
    if record.status in ("skipped", "failed") or entry is None or entry.status != "measured":
        raise LookupError(f"is missing: {backend} was {record.status}{reason_of(entry or record)}")
    if record.status != "measured":
        raise LookupError(f"is incomplete: {backend} ended early{reason_of(record)}")
    match metric:
        case "ratio":
            return entry.ratio.median if entry.ratio else None
        case "mask_difference":
            return max((row.mean_difference for row in entry.masks), default=None)
        case "iou_with_native":
            return min((row.iou_with_native for row in entry.masks), default=None)
    raise LookupError(NO_FIGURE)


def reason_of(part: Quality | Latency | BackendLatency | ModelLatency | None) -> str:
    """ " (why)", where `part` says why it was skipped or failed."""
    reason = getattr(part, "skipped", None) or getattr(part, "reason", None)
    return f" ({reason})" if reason else ""

"""What a report says at a glance: what it lacks, whose speed counts, and which pictures are worth a look."""

from __future__ import annotations

from eval.report import BackendLatency, Report, SecondLook

__all__ = ["WORST", "faults_of", "second_look_text", "speed_backend", "worst_against_first", "worst_against_truth"]

WORST = 10  # pictures in each list


def faults_of(report: Report) -> list[str]:
    """What the report lacks and why, one line each: for its top, so that nobody takes a part for the whole."""
    faults = [
        f"{name} was skipped: {part.skipped}"
        for name, part in (("quality", report.quality), ("latency", report.latency))
        if part.skipped is not None
    ]
    for name, record in report.latency.backends.items():
        if record.status != "measured":
            faults.append(f"{name} {record.status}: {record.reason or 'unknown'}")
    for model in report.models:
        dead = model.graph.dead_convolutions if model.graph else ()
        if dead:
            faults.append(f"{model.name} has {len(dead)} convolutions whose weights are all zero, {dead[0]} first")
        judged = report.quality.models.get(model.name)
        if judged and judged.overall.constant:
            faults.append(f"{model.name} gives a constant mask for {judged.overall.constant} pictures")
    return faults


def speed_backend(report: Report) -> BackendLatency | None:
    """The backend whose latency stands for speed: one thread of wasm in the browser, else the best there is."""
    for name in ("wasm", "wasm-threads", "webgpu", "node", "native"):
        record = report.latency.backends.get(name)
        if record is not None and record.has_times:
            return record
    return None


def worst_against_truth(report: Report, model: str, count: int = WORST) -> list[str]:
    """Stems of the pictures with the lowest IoU with the truth, worst first."""
    pictures = report.quality.models[model].pictures if report.quality.models else ()
    return [row.stem for row in sorted(pictures, key=lambda row: (row.iou, row.stem))[:count]]


def worst_against_first(report: Report, model: str, count: int = WORST) -> list[str]:
    """Stems of the pictures on which `model` and the first model differ most, worst first; none for the first."""
    if not report.quality.models or model == report.names[0]:
        return []
    pictures = report.quality.models[model].pictures
    return [row.stem for row in sorted(pictures, key=lambda row: (row.agreement_iou, row.stem))[:count]]


def second_look_text(second: SecondLook) -> str:
    """What a second look does to single pictures, in words."""
    return (
        f"{second.gained} pictures gain over 0.05 IoU by a second look, {second.lost} lose as much"
        f" (the worst {-second.worst:.2f}); it is used on {second.used} and takes {second.looks:.2f} passes a picture"
    )

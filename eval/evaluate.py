"""The work of `u2net eval`: quality, latency, report, in one go.

Latency is measured first, while nothing else runs. What is done is kept in `OUT/partial/` (rows of pictures, rounds of
latency), so that a run that was stopped or a browser that died costs only what was not yet measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from u2net.commandline import Progress
from u2net.files import write_json

from .assemble import build_report
from .gate import judge_report
from .latency import LatencySettings, faults, load_pictures, measure_latency
from .latency.table import latency_text
from .measures import FLAWS, MASK
from .models import Candidate, candidates, transfer_sizes
from .policy import load_policy
from .quality import QualitySettings, Sample, judge, open_samples
from .render.files import write_report
from .render.findings import faults_of, second_look_text, worst_against_first, worst_against_truth
from .report import Report
from .text import Column, text_table
from .thumbnails import thumbnails_of

__all__ = ["Done", "Evaluation", "evaluate_models"]

SHOWN = ("iou", "mae", "f_weighted", "s_measure", "boundary_iou", "holes", "islands", "grey_interior")


@dataclass(frozen=True)
class Evaluation:
    """What is asked for. A part whose settings are None is left out, and the report says so."""

    models: Sequence[Path]
    data: Path | None
    out: Path
    quality: QualitySettings | None
    latency: LatencySettings | None
    policy: Path | None = None
    baseline: Path | None = None
    fresh: bool = False
    mask_values: str | None = None  # see `datasets.masks`


@dataclass(frozen=True)
class Done:
    """The report as JSON and as text for the terminal, and what went wrong."""

    report_json: Any
    text: str
    failures: list[str]


def evaluate_models(asked: Evaluation, progress: Progress) -> Done:
    """Judge the models and write the report into `asked.out`. Raises what the parts raise."""
    models = candidates(asked.models)
    samples = open_samples(asked.data, asked.mask_values)
    policy = load_policy(asked.policy) if asked.policy else None
    for model in models:
        if not model.is_checkpoint:
            _ = model.graph  # a model that is not ours is told before minutes go by
    partial = asked.out / "partial"
    if asked.fresh:
        for name in ("quality.jsonl", "latency.json"):
            (partial / name).unlink(missing_ok=True)
    latency = _latency(asked, models, partial, progress)
    quality = _quality(asked, models, samples, partial, progress)
    progress("sizes", 0, 1)
    sizes = {model.name: asdict(transfer_sizes(model.path)) for model in models}
    progress("sizes", 1, 1)
    report = build_report(models, quality, latency, sizes)
    worst = [
        stem for find in (worst_against_truth, worst_against_first) for m in models for stem in find(report, m.name)
    ]
    thumbnails = dict(thumbnails_of(models, samples, list(dict.fromkeys(worst))))
    verdict = judge_report(report, policy, asked.baseline) if policy else None
    paths = write_report(asked.out, report, thumbnails, _sensitivity_pictures(models), verdict)
    text = "\n\n".join(filter(None, [_text(report, latency), "\n".join(map(str, paths))]))
    failures = [f"latency: {fault}" for fault in faults(latency)] if "backends" in latency else []
    return Done(msgspec.to_builtins(report), text, failures)


def _latency(asked: Evaluation, models: Sequence[Candidate], partial: Path, progress: Progress) -> dict[str, Any]:
    if asked.latency is None:
        return {"skipped": "--no-latency"}
    runnable = [model for model in models if not model.is_checkpoint]
    if not runnable:
        return {"skipped": "only checkpoints were given, which no browser runs"}
    return measure_latency(
        runnable,
        load_pictures(None, asked.data),
        asked.latency,
        progress=progress,
        save=lambda result: write_json(partial / "latency.json", result),
        masks_folder=partial / "masks",
    )


def _quality(
    asked: Evaluation, models: Sequence[Candidate], samples: Sequence[Sample], partial: Path, progress: Progress
) -> dict[str, Any]:
    if asked.quality is None:
        return {"skipped": "--no-quality"}
    return judge(
        models,
        samples,
        asked.quality,
        journal=partial / "quality.jsonl",
        progress=lambda done, total: progress("quality", done, total),
    )


def _sensitivity_pictures(models: Sequence[Candidate]) -> list[Path]:
    """`sensitivity.svg` or `.png` beside a model, or in a folder `sensitivity/` there: the first of each folder."""
    found = []
    for folder in dict.fromkeys(model.path.parent for model in models):
        places = [folder / f"sensitivity.{kind}" for kind in ("svg", "png")]
        places += [folder / "sensitivity" / f"sensitivity.{kind}" for kind in ("svg", "png")]
        found += [path for path in places if path.is_file()][:1]
    return found


def _text(report: Report, latency: dict[str, Any]) -> str:
    parts = [latency_text(latency)] if "backends" in latency else []
    judged = report.quality.models
    if judged:
        titles = [{**MASK, **FLAWS}[name].title for name in SHOWN]
        columns = [Column("model", left=True), Column("set", left=True), *map(Column, [*titles, "agreement"])]
        rows = []
        for name, entry in judged.items():
            for again, judged_masks in (("", entry), (" · second look", entry.second_look)):
                if judged_masks is None:
                    continue
                sets = {"all": judged_masks.overall, **(judged_masks.sets if len(judged_masks.sets) > 1 else {})}
                for set_name, means in sets.items():
                    figures = [f"{getattr(means, measure):.4f}" for measure in SHOWN]
                    first = set_name == "all"
                    agreement = f"{entry.agreement.iou:.4f}" if first and not again else ""
                    rows.append([name + again if first else "", set_name, *figures, agreement])
        parts.append(text_table(f"Quality · {report.quality.pictures} pictures", columns, rows))
    parts += [f"{name}: {second_look_text(entry.second_look)}" for name, entry in judged.items() if entry.second_look]
    parts += [f"note: {fault}" for fault in faults_of(report)]
    return "\n\n".join(parts)

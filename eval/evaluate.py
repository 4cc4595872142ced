"""`python -m eval MODELS…`: quality, latency, report, in one go.

Latency is measured first, while nothing else runs. What is done is kept in `OUT/partial/` (rows of pictures, rounds of
latency), so that a run that was stopped or a browser that died costs only what was not yet measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets.masks import MASK_VALUES_HELP
from u2net.files import canonical_json, check_path, write_json

from .gate import judge_report, load_policy
from .latency import faults as latency_faults
from .latency import load_pictures, measure_latency
from .latency.command import add_arguments, settings_from
from .latency.table import print_latency
from .models import Candidate, candidates, transfer_sizes
from .quality import QualitySettings, Sample, judge, masks_of, open_samples
from .report import build_report, faults_of, worst_stems, write_report

__all__ = ["add_evaluate_arguments", "run_evaluate"]


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of `python -m eval`."""
    parser.description = (
        "Judge models: masks against ground truth, latency in a real headless Chromium, one report."
        " The first model is the one that others are compared with."
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="ONNX files, or checkpoints (quality only)")
    parser.add_argument("--data", metavar="DIR", help="folder with images/ and masks/ (default: the procedural set)")
    parser.add_argument("--mask-values", metavar="VALUES", help=MASK_VALUES_HELP)
    parser.add_argument(
        "--out", metavar="DIR", default="build/report", help="where the report goes (default: build/report)"
    )
    parser.add_argument("--limit", type=int, default=0, help="judge so many pictures only, evenly spread (0: all)")
    parser.add_argument("--workers", type=int, default=0, help="processes that judge pictures (0: one per core)")
    parser.add_argument(
        "--min-max", action="store_true", help="stretch each mask to [0, 1] first, as published tables do"
    )
    parser.add_argument("--no-quality", action="store_true", help="leave quality out (the gate will say so)")
    parser.add_argument("--no-latency", action="store_true", help="leave latency out (the gate will say so)")
    parser.add_argument("--policy", metavar="FILE.toml", help="show this policy's verdict in the HTML")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run left in OUT/partial")
    add_arguments(parser.add_argument_group("latency"))
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def run_evaluate(arguments: argparse.Namespace) -> int:
    """`python -m eval`: 0 where all that was asked for was measured."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    out = check_path(arguments.out)
    models = candidates(arguments.models)
    samples = open_samples(arguments.data, arguments.mask_values)
    policy = load_policy(arguments.policy) if arguments.policy else None
    for model in models:
        if not model.is_checkpoint:
            _ = model.graph  # a model that is not ours is told before minutes go by
    partial = out / "partial"
    if arguments.fresh:
        for name in ("quality.jsonl", "latency.json"):
            (partial / name).unlink(missing_ok=True)
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
        latency = _latency(arguments, models, partial, bar)
        quality = _quality(arguments, models, samples, partial, bar)
        sizes_task = bar.add_task("sizes and pictures", total=None)
        sizes = {model.name: asdict(transfer_sizes(model.path)) for model in models}
        report = build_report(models, quality, latency, sizes)
        stems = dict.fromkeys(stem for model in models for stem in worst_stems(report, model.name))
        thumbnails = dict(masks_of(models, samples, list(stems)))
        bar.update(sizes_task, total=1, completed=1)
    sensitivity = _sensitivity_pictures(models)
    breaches = [str(breach) for breach in judge_report(report, policy)] if policy else None
    paths = write_report(out, report, thumbnails, sensitivity, breaches)
    if arguments.json:
        sys.stdout.write(canonical_json(report).decode())
    else:
        _print(report, Console(width=None if sys.stdout.isatty() else 120))
        print("\n".join(str(path) for path in paths))
    found = latency_faults(latency) if "backends" in latency else []
    for fault in found:
        print(f"error: latency: {fault}", file=sys.stderr)
    return 1 if found else 0


def _latency(arguments: argparse.Namespace, models: Sequence[Candidate], partial: Path, bar: Any) -> dict[str, Any]:
    if arguments.no_latency:
        return {"skipped": "--no-latency"}
    runnable = [model for model in models if not model.is_checkpoint]
    if not runnable:
        return {"skipped": "only checkpoints were given, which no browser runs"}
    task = bar.add_task("latency", total=1.0)
    result = measure_latency(
        runnable,
        load_pictures(None, arguments.data),
        settings_from(arguments),
        progress=lambda message, done: bar.update(task, description=message, completed=done),
        save=lambda result: write_json(partial / "latency.json", result),
        masks_folder=partial / "masks",
    )
    bar.update(task, description="latency", completed=1.0)
    return result


def _quality(
    arguments: argparse.Namespace, models: Sequence[Candidate], samples: Sequence[Sample], partial: Path, bar: Any
) -> dict[str, Any]:
    if arguments.no_quality:
        return {"skipped": "--no-quality"}
    task = bar.add_task("quality", total=1.0)
    return judge(
        models,
        samples,
        QualitySettings(stretch=arguments.min_max, workers=arguments.workers, limit=arguments.limit),
        journal=partial / "quality.jsonl",
        progress=lambda done, total: bar.update(task, description=f"quality {done}/{total}", completed=done / total),
    )


def _sensitivity_pictures(models: Sequence[Candidate]) -> list[Path]:
    """`sensitivity.svg` or `.png` beside a model, or in a folder `sensitivity/` there: the first of each folder."""
    found = []
    for folder in dict.fromkeys(model.path.parent for model in models):
        places = [folder / f"sensitivity.{kind}" for kind in ("svg", "png")]
        places += [folder / "sensitivity" / f"sensitivity.{kind}" for kind in ("svg", "png")]
        found += [path for path in places if path.is_file()][:1]
    return found


def _print(report: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    if "backends" in report["latency"]:
        print_latency(report["latency"], console)
    judged = report["quality"].get("models", {})
    if judged:
        table = Table(
            title=f"Quality · {report['quality']['pictures']} pictures", title_justify="left", header_style="bold"
        )
        metrics = ("iou", "mae", "f_max", "f_weighted", "s_measure", "e_max", "boundary_f", "boundary_iou")
        for column in ("model", "set", *metrics, "agreement"):
            table.add_column(column, justify="left" if column in ("model", "set") else "right")
        for name, entry in judged.items():
            for set_name, values in {
                "all": entry["overall"],
                **(entry["sets"] if len(entry["sets"]) > 1 else {}),
            }.items():
                agreement = f"{entry['agreement']['iou']:.4f}" if set_name == "all" else ""
                cells = (f"{values[metric]:.4f}" for metric in metrics)
                table.add_row(name if set_name == "all" else "", set_name, *cells, agreement)
        console.print(table)
    for fault in faults_of(report):
        console.print(f"[yellow]note:[/] {fault}", highlight=False)

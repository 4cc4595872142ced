"""The report: one JSON for machines, one HTML file for people, one Markdown for a pull request, from the same figures.

`report.json` (schema version 1) holds `models` (file, size, graph), `quality` and `latency` as `eval.quality.judge` and
`eval.latency.measure_latency` return them, or `{"skipped": reason}`.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from u2net.artifact import read_sidecar
from u2net.errors import ArtifactError
from u2net.files import atomic_path, sha256_file, write_json

from .gate import REPORT_SCHEMA_VERSION
from .models import Candidate, transfer_sizes

__all__ = ["WORST", "build_report", "faults_of", "speed_backend", "worst_stems", "write_report"]

WORST = 10
LIBRARIES = ("numpy", "scipy", "onnxruntime", "onnx", "playwright", "torch")


def build_report(
    models: Sequence[Candidate],
    quality: dict[str, Any],
    latency: dict[str, Any],
    sizes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report's JSON. `quality` and `latency` may be `{"skipped": reason}`."""
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "libraries": _versions(),
        "models": [_model(model, (sizes or {}).get(model.name)) for model in models],
        "quality": quality,
        "latency": latency,
    }


def _model(model: Candidate, size: dict[str, int] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": model.name,
        "file": model.path.name,
        "sha256": model.sha256,
        "size": size or asdict(transfer_sizes(model.path)),
        "graph": None if model.is_checkpoint else model.graph.as_dict(),
    }
    try:
        sidecar = read_sidecar(model.path)
    except ArtifactError:
        return entry
    # A sidecar of other bytes says nothing about this file.
    matches = sidecar.get("sha256") == sha256_file(model.path)
    return entry | ({"stage": sidecar["stage"], "settings": sidecar["settings"]} if matches else {})


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def faults_of(report: dict[str, Any]) -> list[str]:
    """What the report lacks and why, one line each: for its top, so that nobody takes a part for the whole."""
    faults = [
        f"{part} was skipped: {report[part]['skipped']}" for part in ("quality", "latency") if "skipped" in report[part]
    ]
    for name, record in report["latency"].get("backends", {}).items():
        if record["status"] != "measured":
            faults.append(f"{name} {record['status']}: {record.get('reason', 'unknown')}")
    for model in report["models"]:
        dead = (model["graph"] or {}).get("dead_convolutions")
        if dead:
            faults.append(f"{model['name']} has {len(dead)} convolutions whose weights are all zero, {dead[0]} first")
        judged = report["quality"].get("models", {}).get(model["name"])
        if judged and judged["overall"]["constant"]:
            faults.append(f"{model['name']} gives a constant mask for {judged['overall']['constant']} pictures")
    return faults


def speed_backend(report: dict[str, Any]) -> str | None:
    """The backend whose latency stands for speed: one thread of wasm in the browser, else the best there is."""
    backends = report["latency"].get("backends", {})
    for name in ("wasm", "wasm-threads", "webgpu", "node", "native"):
        if any("median_ms" in entry for entry in backends.get(name, {}).get("models", {}).values()):
            return name
    return None


def worst_stems(report: dict[str, Any], model: str, count: int = WORST) -> list[str]:
    """The pictures with the lowest IoU, worst first."""
    pictures = report["quality"].get("models", {}).get(model, {}).get("pictures", [])
    return [row["stem"] for row in sorted(pictures, key=lambda row: (row["iou"], row["stem"]))[:count]]


def write_report(
    folder: Path,
    report: dict[str, Any],
    thumbnails: Mapping[str, Mapping[str, bytes]],
    sensitivity: Sequence[Path] = (),
    breaches: Sequence[str] | None = None,
) -> list[Path]:
    """Write `report.json`, `report.html` and `report.md` into `folder`, each atomically, and return their paths.

    `thumbnails` are `eval.quality.masks_of`'s by stem; `sensitivity` are SVG or PNG files to show; `breaches` is the
    gate's verdict, where it has been asked.
    """
    from .html import render_html
    from .markdown import render_markdown

    paths = [folder / f"report.{suffix}" for suffix in ("json", "html", "md")]
    write_json(paths[0], json.loads(json.dumps(report)))  # NumPy's floats become JSON's
    for path, text in (
        (paths[1], render_html(report, thumbnails, sensitivity, breaches)),
        (paths[2], render_markdown(report)),
    ):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths

"""A `Report` from what was measured."""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

import msgspec

from eval.models import Candidate, transfer_sizes
from eval.report import Report
from u2net.artifact import read_sidecar
from u2net.errors import ArtifactError

__all__ = ["build_report"]

LIBRARIES = ("numpy", "scipy", "onnxruntime", "onnx", "playwright", "torch")


def build_report(
    models: Sequence[Candidate],
    quality: dict[str, Any],
    latency: dict[str, Any],
    sizes: Mapping[str, Any] | None = None,
) -> Report:
    """The report. `quality` and `latency` may be `{"skipped": reason}`."""
    value = {
        "schema_version": Report.VERSION,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "libraries": _versions(),
        "models": [_model(model, (sizes or {}).get(model.name)) for model in models],
        "quality": quality,
        "latency": latency,
    }
    return msgspec.json.decode(json.dumps(value, allow_nan=False), type=Report)  # NumPy's floats become Python's


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
    matches = sidecar["sha256"] == model.sha256
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
    """Of the repository that the command is run in: the models' own."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

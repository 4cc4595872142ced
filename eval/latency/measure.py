"""Models on every backend, one after the other."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.models import Candidate
from u2net.commandline import Progress
from u2net.errors import ConfigError, ModelError

from .backend_run import BackendRun, Save, Unavailable
from .engines import BACKENDS, EngineDied, EngineError
from .masks import reference_masks
from .pictures import Picture
from .prepared import Prepared
from .server import BenchServer
from .settings import LatencySettings

__all__ = ["faults", "machine", "measure_latency"]

BROWSER_BACKENDS = ("wasm", "wasm-threads", "webgpu")


def measure_latency(
    models: Sequence[Candidate],
    pictures: Sequence[Picture],
    settings: LatencySettings | None = None,
    *,
    progress: Progress = lambda what, done, total: None,
    save: Save = lambda partial: None,
    masks_folder: Path | None = None,
) -> dict[str, Any]:
    """Measure `models` (the first is the baseline) on every backend; the result is the report's `latency`.

    A backend ends as `measured`, `partial` (it died on the way: what was measured is kept), `failed` or `skipped`, the
    last three with a `reason`. `save` gets the result so far after every round. With `masks_folder` the masks of the
    first picture are written there as `<backend>/<model>.png`. Raises `ModelError` where a file is not a U²-Net.
    """
    settings = settings or LatencySettings()
    if not models or not pictures:
        raise ConfigError("latency needs at least one model and one picture; give pictures with --data DIR")
    for model in models:
        if model.is_checkpoint:
            raise ModelError(
                f"{model.path} is a checkpoint; only ONNX models run in a browser, as `u2net export` makes them"
            )
    prepared = Prepared(models, pictures)
    result: dict[str, Any] = {
        "baseline": models[0].name,
        "machine": machine(),
        "settings": {**asdict(settings), "pictures": [picture.name for picture in pictures]},
        "backends": {},
    }
    asked = settings.backends or (*BROWSER_BACKENDS, "native")
    started = time.monotonic()
    with BenchServer(prepared.model_bytes, prepared.feed_bytes, settings.port) as server:
        progress("native reference masks", 0, 1)
        reference = reference_masks(prepared, server.origin)
        progress("native reference masks", 1, 1)
        queue = list(asked)
        while queue:
            name = queue.pop(0)
            record: dict[str, Any] = {"title": BACKENDS[name].title, "models": {}}
            record |= {"status": "partial", "reason": "it was stopped"}  # what stays true where nothing follows
            result["backends"][name] = record
            run = BackendRun(BACKENDS[name], prepared, server.origin, settings, reference, record, result, save)
            try:
                run.measure(progress, masks_folder)
            except Unavailable as error:
                record |= {"status": "failed" if settings.backends else "skipped", "reason": str(error)}
                if not settings.backends and name == "wasm" and "node" not in asked:
                    queue.insert(0, "node")  # no browser here: Node runs the same wasm
            except EngineDied as error:
                record |= {"status": "partial" if run.rounds_done else "failed", "reason": str(error)}
            except EngineError as error:
                record |= {"status": "failed", "reason": str(error)}
            progress(run.backend.title, 1, 1)
            run.summarise()
            save(result)
    result["measured_for_s"] = round(time.monotonic() - started, 1)
    result["machine"]["load_1m_at_end"] = _load()
    return result


def machine() -> dict[str, Any]:
    """What the figures were measured on: no host name, nothing that says whose it is."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "load_1m_at_start": _load()}


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def faults(result: dict[str, Any]) -> list[str]:
    """What went wrong, one line each: backends that failed, and those that ended early."""
    return [
        f"{name} {record['status']}: {record['reason']}"
        for name, record in result["backends"].items()
        if record["status"] in ("failed", "partial")
    ]

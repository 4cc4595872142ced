"""The project's own engine beside onnxruntime-web: one table out of several results of `u2net eval latency`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from eval.report import Latency, ModelLatency
from u2net.errors import ModelError

__all__ = ["comparison_table"]

HEADINGS = (
    "| model | where | engine | onnxruntime-web int8 | float | times as fast | 95 % | memory | onnxruntime-web |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|",
)


def comparison_table(results: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table with a row for each model and browser of `results`, whose baseline is the int8 ONNX model.

    Times are medians of the processor's, in ms, where the system tells them, else of the clock's; "times as fast" is
    the median of the rounds' ratios. Raises `ModelError` where a file is something else.
    """
    rows = [row for path in results for row in _rows(path)]
    return "\n".join([*HEADINGS, *rows])


def _rows(path: str | os.PathLike[str]) -> list[str]:
    try:
        latency = msgspec.convert(json.loads(Path(path).read_bytes()), Latency)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is no result of `u2net eval latency`: {error}") from error
    rows = []
    for backend in latency.backends.values():
        runtime = backend.models.get(latency.baseline)
        packed = [(name, entry) for name, entry in backend.models.items() if name.endswith(".u2e")]
        floats = [entry for name, entry in backend.models.items() if name.endswith("fp32")]
        if runtime is None or not packed or not latency.baseline.endswith("int8"):
            raise ModelError(f"{path}: give `u2net eval latency` the int8 model first, and the .u2e file after it")
        name, engine = packed[0]
        ratio = engine.processor_ratio or engine.ratio
        if ratio is None:
            raise ModelError(f"{path}: {name} was not measured in {backend.title}")
        cells: list[Any] = [
            name.split("/")[0],
            backend.title.split(",")[0],
            _ms(engine),
            _ms(runtime),
            _ms(floats[0]) if floats else "–",
            f"**{1 / ratio.median:.2f}**",
            f"{1 / ratio.high:.2f}–{1 / ratio.low:.2f}",
            _mib(engine),
            _mib(runtime),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _ms(entry: ModelLatency) -> str:
    ms = entry.median_ms if entry.processor_ms is None else entry.processor_ms
    return "–" if ms is None else f"{ms:,.0f} ms"


def _mib(entry: ModelLatency) -> str:
    return "–" if entry.memory_bytes is None else f"{entry.memory_bytes / 2**20:.0f} MiB"

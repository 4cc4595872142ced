"""Reports for tests of the gate, the baseline and the renderers: as JSON values, to be changed, and as documents."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from eval.measures import FLAWS, MASK
from eval.report import Report

SIZE = {"raw_bytes": 4_500_000, "gzip_bytes": 4_200_000, "brotli_bytes": 4_000_000, "brotli_quality": 9}
GRAPH: dict[str, Any] = {
    "interface": "tensor", "size": 320, "input_name": "input", "output_name": "alpha", "opset": 18, "nodes": 371,
    "parameters": 1_130_000, "gmacs": 19.8, "integer_share": 0.0, "dead_convolutions": [], "metadata": {},
}  # fmt: skip


def as_report(value: dict[str, Any]) -> Report:
    """`value` as a document, checked as one that is read is."""
    return msgspec.json.decode(json.dumps(value), type=Report)


def model_entry(name: str, **graph: Any) -> dict[str, Any]:
    return {"name": name, "file": "x.onnx", "sha256": "0" * 64, "size": dict(SIZE), "graph": {**GRAPH, **graph}}


def latency_entry(ratio: float) -> dict[str, Any]:
    return {
        "status": "measured",
        "engine_start_ms": 300.0,
        "session_ms": 120.0,
        "first_run_ms": 1500.0 * ratio,
        "memory_bytes": 200 << 20,
        "median_ms": 1250.0 * ratio,
        "min_ms": 1200.0 * ratio,
        "spread": 0.05,
        "rounds_ms": [1250.0 * ratio + i * 7 for i in range(12)],
        "ratio": {"median": ratio, "low": ratio - 0.01, "high": ratio + 0.01, "pairs": 12},
        "masks": [{"picture": "a", "mean_difference": 1e-6, "iou_with_native": 0.999}],
    }


def means(iou: float) -> dict[str, Any]:
    values = {**dict.fromkeys(MASK, 0.8), **dict.fromkeys(FLAWS, 0.01)}
    return {**values, "iou": iou, "mae": 0.04, "boundary_iou": 0.7, "count": 100, "constant": 0, "mattes": 0}


def quality_entry(iou: float, agreement: float) -> dict[str, Any]:
    rows = [
        {
            **dict.fromkeys(MASK, 0.8),
            "iou": iou + (i - 4.5) / 100,
            "stem": f"ecssd_{i}",
            "set": "ecssd",
            "constant": False,
        }
        for i in range(10)
    ]
    return {
        "overall": means(iou),
        "sets": {"ecssd": means(iou)},
        "agreement": {"iou": agreement, "iou_p5": 0.95, "iou_worst": 0.9, "mae": 1 - agreement},
        "pictures": rows,
    }


def report_value() -> dict[str, Any]:
    """A sound report of `small/fp32` and `small/int8`."""
    return {
        "schema_version": 1,
        "date": "2026-01-01",
        "models": [model_entry("small/fp32"), model_entry("small/int8", integer_share=0.99)],
        "quality": {
            "source": "photographs",
            "pictures": 100,
            "sets": {"ecssd": 100},
            "reference": "small/fp32",
            "models": {"small/fp32": quality_entry(0.85, 1.0), "small/int8": quality_entry(0.845, 0.99)},
        },
        "latency": {
            "backends": {
                "wasm": {
                    "title": "wasm",
                    "status": "measured",
                    "rounds": 12,
                    "models": {"small/fp32": latency_entry(1.0), "small/int8": latency_entry(0.6)},
                }
            }
        },
    }

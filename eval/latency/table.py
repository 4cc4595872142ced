"""A latency measurement as text for the terminal."""

from __future__ import annotations

from typing import Any

from eval.text import Column, text_table

__all__ = ["latency_text"]

COLUMNS = (
    "median ms",
    "spread",
    "ratio",
    "95 %",
    "cpu ms",
    "cpu ratio",
    "start",
    "session",
    "first run",
    "memory",
    "mask Δ",
)


def latency_text(result: dict[str, Any]) -> str:
    """One table for each backend."""
    return "\n\n".join(_backend(record) for record in result["backends"].values())


def _backend(record: dict[str, Any]) -> str:
    really = record.get("really", {})
    caption = [
        *(str(really[k]) for k in ("browser", "node", "engine") if k in really),
        *([f"{really['threads']} threads"] if really.get("threads", 1) > 1 else []),
        *([f"{record['rounds']} rounds"] if record.get("rounds") else []),
        *([record["reason"]] if "reason" in record else []),
    ]
    rows = [[name, *_cells(entry)] for name, entry in record["models"].items()]
    columns = [Column("model", left=True), *map(Column, COLUMNS)]
    return text_table(f"{record['title']} · {record['status']}", columns, rows, " · ".join(caption))


def _cells(entry: dict[str, Any]) -> list[str]:
    ratio, processor_ratio = entry.get("ratio"), entry.get("processor_ratio")
    return [
        f"{entry['median_ms']:.1f}" if "median_ms" in entry else entry.get("reason", "–"),
        f"{entry['spread']:.1%}" if "spread" in entry else "–",
        f"{ratio['median']:.3f}" if ratio else "–",
        f"{ratio['low']:.3f}–{ratio['high']:.3f}" if ratio else "–",
        f"{entry['processor_ms']:.1f}" if "processor_ms" in entry else "–",
        f"{processor_ratio['median']:.3f}" if processor_ratio else "–",
        *(f"{entry[key]:.0f} ms" if key in entry else "–" for key in ("engine_start_ms", "session_ms", "first_run_ms")),
        f"{entry['memory_bytes'] / 2**20:.0f} MiB" if entry.get("memory_bytes") else "–",
        f"{max(row['mean_difference'] for row in entry['masks']):.1e}" if entry.get("masks") else "–",
    ]

"""A latency measurement in the terminal."""

from __future__ import annotations

from typing import Any

__all__ = ["print_latency"]


def print_latency(result: dict[str, Any], console: Any) -> None:
    """One table per backend on a rich console."""
    from rich.table import Table

    for record in result["backends"].values():
        really = record.get("really", {})
        title = f"{record['title']} · {record['status']}"
        table = Table(title=title, title_justify="left", caption_justify="left", header_style="bold")
        table.caption = " · ".join(
            [*(str(really[k]) for k in ("browser", "node", "engine") if k in really)]
            + ([f"{really['threads']} threads"] if really.get("threads", 1) > 1 else [])
            + ([f"{record['rounds']} rounds"] if record.get("rounds") else [])
            + ([record["reason"]] if "reason" in record else [])
        )
        for column in (
            "model",
            "median ms",
            "spread",
            "ratio",
            "95 %",
            "start",
            "session",
            "first run",
            "memory",
            "mask Δ",
        ):
            table.add_column(column, justify="left" if column == "model" else "right", no_wrap=column != "model")
        for name, m in record["models"].items():
            ratio = m.get("ratio")
            table.add_row(
                name,
                f"{m['median_ms']:.1f}" if "median_ms" in m else m.get("reason", "–"),
                f"{m['spread']:.1%}" if "spread" in m else "–",
                f"{ratio['median']:.3f}" if ratio else "–",
                f"{ratio['low']:.3f}–{ratio['high']:.3f}" if ratio else "–",
                *(f"{m[k]:.0f} ms" if k in m else "–" for k in ("engine_start_ms", "session_ms", "first_run_ms")),
                f"{m['memory_bytes'] / 2**20:.0f} MiB" if m.get("memory_bytes") else "–",
                f"{max(row['mean_difference'] for row in m['masks']):.1e}" if m.get("masks") else "–",
            )
        console.print(table)

"""The report as Markdown that fits a pull-request comment."""

from __future__ import annotations

from typing import Any

from .report import faults_of, speed_backend, worst_stems

__all__ = ["render_markdown"]

LIMIT = 60_000  # a comment holds 65,536 characters; the gate's verdict is to fit too


def render_markdown(report: dict[str, Any]) -> str:
    """Tables of size, quality and latency; what is missing first."""
    quality, latency = report["quality"], report["latency"]
    names = [model["name"] for model in report["models"]]
    source = f"{quality['pictures']} pictures of {quality['source']}" if "pictures" in quality else "no quality"
    parts = [
        f"## Model report\n\n{source} · {report['date']}" + (f" · `{report['commit']}`" if report["commit"] else "")
    ]
    parts += [f"> **Note:** {_text(fault)}" for fault in faults_of(report)]
    parts.append(_table(["", *names], _summary(report, names)))
    if "sets" in quality and len(quality["sets"]) > 1:
        rows = [
            [f"{name} ({count})", *(_quality(quality["models"][model]["sets"][name]) for model in names)]
            for name, count in quality["sets"].items()
        ]
        parts.append("### IoU · MAE by set\n\n" + _table(["set", *names], rows))
    for record in latency.get("backends", {}).values():
        measured = {name: m for name, m in record["models"].items() if "median_ms" in m}
        if measured:
            rows = [[name, *_latency(entry)] for name, entry in measured.items()]
            head = ["model", "median", "ratio [95 %]", "spread", "session", "first run", "memory", "mask Δ to native"]
            really = record.get("really", {})
            what = " · ".join(str(really[key]) for key in ("browser", "node", "engine") if key in really)
            threads = f" · {really['threads']} threads" if really.get("threads", 1) > 1 else ""
            parts.append(
                f"### {_text(record['title'])}\n\n{_table(head, rows)}\n\n"
                f"<sub>{what}{threads} · {record['rounds']} rounds</sub>"
            )
    worst = [f"- {_text(name)}: {', '.join(f'`{stem}`' for stem in worst_stems(report, name, 5))}" for name in names]
    if "models" in quality:
        parts.append("### Worst pictures\n\n" + "\n".join(worst))
    return "\n\n".join(parts)[:LIMIT] + "\n"


def _summary(report: dict[str, Any], names: list[str]) -> list[list[str]]:
    models = {model["name"]: model for model in report["models"]}
    judged = report["quality"].get("models", {})
    rows = [
        ["brotli", *(f"{models[name]['size']['brotli_bytes'] / 1e6:.2f} MB" for name in names)],
        ["raw", *(f"{models[name]['size']['raw_bytes'] / 1e6:.2f} MB" for name in names)],
        ["in integers", *(_share(models[name]["graph"]) for name in names)],
    ]
    for title, metric in (
        ("IoU", "iou"),
        ("MAE", "mae"),
        ("weighted Fβ", "f_weighted"),
        ("S-measure", "s_measure"),
        ("boundary IoU", "boundary_iou"),
    ):
        if judged:
            rows.append([title, *(f"{judged[name]['overall'][metric]:.4f}" for name in names)])
    if judged:
        rows.append(
            [f"agreement with {names[0]} (IoU)", *(f"{judged[name]['agreement']['iou']:.4f}" for name in names)]
        )
    for name in ("wasm", "wasm-threads", "webgpu", "node", "native"):
        record = report["latency"].get("backends", {}).get(name)
        if record and any("median_ms" in m for m in record["models"].values()):
            mark = " **←**" if name == speed_backend(report) else ""
            rows.append([record["title"] + mark, *(_short(record["models"].get(model, {})) for model in names)])
    return rows


def _share(graph: dict[str, Any] | None) -> str:
    return f"{graph['integer_share']:.0%} of {graph['gmacs']:.1f} GMAC" if graph else "–"


def _quality(values: dict[str, Any]) -> str:
    return f"{values['iou']:.4f} · {values['mae']:.4f}"


def _short(entry: dict[str, Any]) -> str:
    if "median_ms" not in entry:
        return "–"
    return f"{entry['median_ms']:.0f} ms" + (f" (×{entry['ratio']['median']:.2f})" if "ratio" in entry else "")


def _latency(entry: dict[str, Any]) -> list[str]:
    ratio = entry.get("ratio")
    return [
        f"{entry['median_ms']:.0f} ms",
        f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio else "–",
        f"{entry['spread']:.1%}",
        f"{entry['session_ms']:.0f} ms",
        f"{entry['first_run_ms']:.0f} ms",
        f"{entry['memory_bytes'] / 2**20:.0f} MiB" if entry.get("memory_bytes") else "–",
        f"{max(row['mean_difference'] for row in entry['masks']):.1e}" if entry.get("masks") else "–",
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(value: str) -> str:
    return value.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

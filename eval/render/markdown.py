"""The report as Markdown that fits a pull-request comment."""

from __future__ import annotations

from collections.abc import Sequence

from eval.changes import change_cells
from eval.gate import Verdict
from eval.measures import FLAWS, MASK
from eval.models import GraphFacts
from eval.report import Means, ModelLatency, Report

from .findings import faults_of, speed_backend, worst_against_first, worst_against_truth

__all__ = ["render_markdown"]

LIMIT = 60_000  # a comment holds 65,536 characters; the gate's verdict is to fit too
MEASURES = ("iou", "mae", "f_weighted", "s_measure", "boundary_iou", "holes", "islands", "grey_interior")


def render_markdown(report: Report, verdict: Verdict | None = None) -> str:
    """Tables of size, quality, changes since the baseline and latency; what is missing first."""
    quality, names = report.quality, report.names
    source = f"{quality.pictures} pictures of {quality.source}" if quality.models else "no quality"
    parts = [f"## Model report\n\n{_text(source)} · {report.date}" + (f" · `{report.commit}`" if report.commit else "")]
    parts += [f"> **Note:** {_text(fault)}" for fault in faults_of(report)]
    parts.append(_table(["", *names], _summary(report)))
    if verdict is not None and verdict.changes:
        rows = [[change.model, change.title, *change_cells(change)] for change in verdict.changes]
        parts.append(
            "### Against the baseline\n\n" + _table(["model", "", "baseline", "now", "difference", "95 %"], rows)
        )
    if len(quality.sets) > 1:
        rows = [
            [f"{name} ({count})", *(_iou_and_mae(quality.models[model].sets[name]) for model in names)]
            for name, count in quality.sets.items()
        ]
        parts.append("### IoU · MAE by set\n\n" + _table(["set", *names], rows))
    for record in report.latency.backends.values():
        measured = {name: entry for name, entry in record.models.items() if entry.median_ms is not None}
        if measured:
            rows = [[name, *_latency(entry)] for name, entry in measured.items()]
            head = ["model", "median", "ratio [95 %]", "spread", "session", "first run", "memory", "mask Δ to native"]
            parts.append(f"### {_text(record.title)}\n\n{_table(head, rows)}\n\n<sub>{_text(record.setting)}</sub>")
    if quality.models:
        worst = [f"- {_text(name)}: {_stems(worst_against_truth(report, name, 5))}" for name in names]
        parts.append("### Worst against the truth\n\n" + "\n".join(worst))
        if names[1:]:
            worst = [f"- {_text(name)}: {_stems(worst_against_first(report, name, 5))}" for name in names[1:]]
            parts.append(f"### Furthest from {_text(names[0])}\n\n" + "\n".join(worst))
    return "\n\n".join(parts)[:LIMIT] + "\n"


def _summary(report: Report) -> list[list[str]]:
    judged = report.quality.models
    rows = [
        ["brotli", *(f"{model.size.brotli_bytes / 1e6:.2f} MB" for model in report.models)],
        ["raw", *(f"{model.size.raw_bytes / 1e6:.2f} MB" for model in report.models)],
        ["in integers", *(_share(model.graph) for model in report.models)],
    ]
    for name in MEASURES if judged else ():
        measure = {**MASK, **FLAWS}[name]
        values = [getattr(judged[model].overall, name) for model in report.names]
        if values[0] is not None:
            shown = [_figure(value, measure.percent) for value in values]
            rows.append([measure.title if measure.higher_is_better else f"{measure.title} ↓", *shown])
    for name in ("iou", "mae", "boundary_iou"):
        again = [judged[model].second_look for model in report.names] if judged else []
        if any(again):
            measure = MASK[name]
            shown = [_figure(getattr(one.overall, name) if one else None, measure.percent) for one in again]
            rows.append([f"{measure.title}{'' if measure.higher_is_better else ' ↓'}, second look", *shown])
    if judged:
        agreement = [f"{judged[name].agreement.iou:.4f}" for name in report.names]
        rows.append([f"agreement with {report.names[0]} (IoU)", *agreement])
    fastest = speed_backend(report)
    for record in report.latency.backends.values():
        if record.has_times:
            title = record.title + (" **←**" if record is fastest else "")
            rows.append([title, *(_short(record.models.get(name)) for name in report.names)])
    return rows


def _figure(value: float | None, percent: bool) -> str:
    return "–" if value is None else f"{100 * value:.2f} %" if percent else f"{value:.4f}"


def _share(graph: GraphFacts | None) -> str:
    return f"{graph.integer_share:.0%} of {graph.gmacs:.1f} GMAC" if graph else "–"


def _iou_and_mae(values: Means) -> str:
    return f"{values.iou:.4f} · {values.mae:.4f}"


def _short(entry: ModelLatency | None) -> str:
    if entry is None or entry.median_ms is None:
        return "–"
    return f"{entry.median_ms:.0f} ms" + (f" (×{entry.ratio.median:.2f})" if entry.ratio else "")


def _latency(entry: ModelLatency) -> list[str]:
    ratio = entry.ratio
    return [
        f"{entry.median_ms:.0f} ms",
        f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else "–",
        f"{entry.spread:.1%}" if entry.spread is not None else "–",
        f"{entry.session_ms:.0f} ms" if entry.session_ms is not None else "–",
        f"{entry.first_run_ms:.0f} ms" if entry.first_run_ms is not None else "–",
        f"{entry.memory_bytes / 2**20:.0f} MiB" if entry.memory_bytes else "–",
        f"{max(row.mean_difference for row in entry.masks):.1e}" if entry.masks else "–",
    ]


def _stems(stems: Sequence[str]) -> str:
    return ", ".join(f"`{_text(stem).replace('`', '')}`" for stem in stems)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(value: str) -> str:
    return value.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

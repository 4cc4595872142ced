"""Models beside each other: masks against the truth, with one look and with the runner's two, and time in a browser."""

from __future__ import annotations

import os
from collections.abc import Sequence

from u2net.errors import ModelError

from .report import Judged, Means, Report, load_report

__all__ = ["leaderboard_table"]

BROWSER = "wasm"  # the backend whose times are shown
FEWEST = 10  # pictures of a set that is worth columns of its own


def leaderboard_table(reports: Sequence[str | os.PathLike[str]]) -> str:
    """A Markdown table with a row for each model that any of the reports judges; a model's first row counts.

    Times are of the backend `wasm`, as ratios to the first model of the report that has them. Raises `ArtifactError`
    for what is no report, `ModelError` where none judges masks or where they are of different pictures.
    """
    loaded = [load_report(path) for path in reports]
    rows: dict[str, Judged] = {}
    for report in loaded:
        for name, judged in report.quality.models.items():
            rows.setdefault(name, judged)
    if not rows:
        raise ModelError("no report judges masks: run `u2net eval MODEL`, without --no-quality")
    if len({judged.overall.count for judged in rows.values()}) > 1:
        raise ModelError("the reports judge different pictures; run `u2net eval` on the same --data")
    times = _times(loaded)
    sets = list(dict.fromkeys(n for judged in rows.values() for n, s in judged.sets.items() if s.count >= FEWEST))
    shown = {name: (judged.overall, judged.second_look) for name, judged in rows.items()}
    columns: dict[str, list[str]] = {
        "IoU": [f"{first.iou:.4f}" for first, _ in shown.values()],
        "MAE": [f"{first.mae:.4f}" for first, _ in shown.values()],
        "boundary IoU": [f"{first.boundary_iou:.4f}" for first, _ in shown.values()],
    }
    for part in sets:
        columns[f"{part} ({_count(rows, part)})"] = [_of(judged.sets.get(part)) for judged in rows.values()]
    if any(second for _, second in shown.values()):
        seconds = [second for _, second in shown.values()]
        columns |= {
            "two looks: IoU": [f"**{second.overall.iou:.4f}**" if second else "" for second in seconds],
            "MAE of these": [f"{second.overall.mae:.4f}" if second else "" for second in seconds],
            "boundary": [f"{second.overall.boundary_iou:.4f}" if second else "" for second in seconds],
        }
        for part in sets:
            columns[f"{part} with two"] = [_of(second.sets.get(part) if second else None) for second in seconds]
        columns |= {
            "gain over 0.05": [str(second.gained) if second else "" for second in seconds],
            "lose as much": [f"{second.lost} (worst {second.worst:+.2f})" if second else "" for second in seconds],
            "passes": [f"{second.looks:.1f}" if second else "" for second in seconds],
        }
    if times:
        columns["time"] = [times.get(name, "") for name in rows]
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {' | '.join([name, *cells])} |" for name, *cells in zip(rows, *columns.values(), strict=True)]
    return "\n".join(lines)


def _count(rows: dict[str, Judged], part: str) -> int:
    return next(judged.sets[part].count for judged in rows.values() if part in judged.sets)


def _of(means: Means | None) -> str:
    return f"{means.iou:.4f}" if means else ""


def _times(reports: Sequence[Report]) -> dict[str, str]:
    """Each timed model's median ratio to the first of its report, as 1/x where it is faster."""
    found: dict[str, str] = {}
    for report in reports:
        backend = report.latency.backends.get(BROWSER)
        for name, entry in (backend.models if backend else {}).items():
            if entry.ratio:
                ratio = entry.ratio.median
                found.setdefault(name, f"1/{1 / ratio:.1f}" if ratio < 0.95 else f"{ratio:.2g}")
    return found

"""The report's three files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.gate import Verdict
from eval.report import Report
from eval.thumbnails import Thumbnails
from u2net.documents import write_document
from u2net.files import write_bytes

from .html import render_html
from .markdown import render_markdown

__all__ = ["write_report"]


def write_report(
    folder: Path,
    report: Report,
    thumbnails: Mapping[str, Thumbnails],
    sensitivity: Sequence[Path] = (),
    verdict: Verdict | None = None,
) -> list[Path]:
    """Write `report.json`, `report.html` and `report.md` into `folder`, each atomically, and return their paths.

    `thumbnails` are small pictures by stem; `sensitivity` are SVG or PNG files to show; `verdict` is the gate's, where
    it has been asked.
    """
    paths = [folder / f"report.{suffix}" for suffix in ("json", "html", "md")]
    write_document(paths[0], report)
    write_bytes(paths[1], render_html(report, thumbnails, sensitivity, verdict).encode())
    write_bytes(paths[2], render_markdown(report, verdict).encode())
    return paths

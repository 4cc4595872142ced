"""`u2net weights`: list and fetch the public U²-Net weights."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .commandline import Application, result
from .fetch import fetch_weights, is_whole
from .zoo import ALIASES, PUBLIC_WEIGHTS, default_path, own_weights

__all__ = ["application"]

application = Application("u2net weights", "The public U²-Net weights, verified against pinned checksums.")


@application.command(
    examples="""
u2net weights fetch small
u2net weights fetch full --out u2net.onnx
"""
)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(PUBLIC_WEIGHTS)} (or {', '.join(ALIASES)})")],
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="where to put them ($U2NET_HOME or ~/.u2net, as rembg does)")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="a mirror of your own; the checksum stays the published one")
    ] = None,
) -> None:
    """Download weights, or go on with a download that was cut off.

    They are ONNX files; `u2net export --weights FILE` reads them.
    """
    line = _ProgressLine(name)
    try:
        path = fetch_weights(name, out, urls=(url,) if url else (), progress=line)
    finally:
        line.end()
    weights = PUBLIC_WEIGHTS[ALIASES.get(name, name)]
    facts = {"name": weights.name, "path": str(path), "size_bytes": weights.size_bytes, "sha256": weights.sha256}
    result(facts, str(path))


@application.command("list", examples="u2net weights list --json")
def list_() -> None:
    """List what there is, and what is here already."""
    rows = []
    for weights in PUBLIC_WEIGHTS.values():
        path = default_path(weights)
        here = is_whole(path, weights.size_bytes, weights.sha256)
        rows.append(
            {
                "name": weights.name,
                "what": weights.what,
                "size_bytes": weights.size_bytes,
                "sha256": weights.sha256,
                "licence": weights.licence,
                "urls": list(weights.urls),
                "path": str(path) if here else None,
            }
        )
    lines = [f"{r['name']:6} {r['size_bytes']:>12,} bytes  {r['what']}  ({r['path'] or 'not fetched'})" for r in rows]
    result(rows, "\n".join(lines))


@application.command(examples="u2net weights path small")
def path(name: Annotated[str, typer.Argument(metavar="MODEL", help="lite, small-fast, small-tuned, small, …")]) -> None:
    """Print where the weights of a model lie: in this installation, or where they were fetched to."""
    found = own_weights(name)
    result({"name": name, "path": str(found)}, str(found))


class _ProgressLine:
    """One line on a terminal that says how far a download is; nothing where stderr is no terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shown = ""

    def __call__(self, done: int, total: int) -> None:
        text = f"{self.name}  {done / 1e6:.1f} of {total / 1e6:.1f} MB  {100 * done // total} %"
        if text != self.shown and sys.stderr.isatty():
            sys.stderr.write(f"\r{text:<60}")
            sys.stderr.flush()
        self.shown = text

    def end(self) -> None:
        if self.shown and sys.stderr.isatty():
            sys.stderr.write("\n")

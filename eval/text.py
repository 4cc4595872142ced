"""Tables for the terminal, as plain text whose names are never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Column", "text_table"]


@dataclass(frozen=True)
class Column:
    """A column: its head, and whether it is aligned left."""

    title: str
    left: bool = False


def text_table(title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """`rows` under their heads, as wide as what they hold."""
    widths = [max(len(line[i]) for line in [[c.title for c in columns], *rows]) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            f"{c:<{w}}" if column.left else f"{c:>{w}}" for c, w, column in zip(cells, widths, columns, strict=True)
        ]
        return "  ".join(padded).rstrip()

    lines = [title, line([column.title for column in columns]), "  ".join("─" * width for width in widths)]
    return "\n".join([*lines, *map(line, rows), *([caption] if caption else [])])

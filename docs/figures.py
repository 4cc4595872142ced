"""Put the tables of `figures/` into the documents that show them.

    python docs/figures.py            (make docs)

A command of the project writes a table (`--out`, build/…/NAME.md); its first line here says which command it was. A
document shows it between `<!-- figures: NAME -->` and `<!-- end -->`, and nobody types a figure there by hand:
`tests/test_figures.py` compares the two.
"""

from __future__ import annotations

import re
from pathlib import Path

from u2net.files import write_bytes

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).with_name("figures")
BLOCK = re.compile(r"<!-- figures: ([a-z0-9-]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def documents() -> list[Path]:
    """README, the model card and every page of the documentation."""
    return [ROOT / "README.md", ROOT / "u2net" / "weights" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown(text: str) -> str:
    """`text` with its tables as the files have them."""

    def table(found: re.Match[str]) -> str:
        return f"<!-- figures: {found[1]} -->\n{(FOLDER / f'{found[1]}.md').read_text(encoding='utf-8')}<!-- end -->"

    return BLOCK.sub(table, text)


if __name__ == "__main__":
    for document in documents():
        text = document.read_text(encoding="utf-8")
        if shown(text) != text:
            write_bytes(document, shown(text).encode())

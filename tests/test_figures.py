"""What the documents show of `docs/figures/` is what a command wrote there."""

from __future__ import annotations

import runpy

import pytest

from tests.support.paths import ROOT

FIGURES = runpy.run_path(str(ROOT / "docs" / "figures.py"))
DOCUMENTS = FIGURES["documents"]()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_those_of_the_files(document) -> None:
    text = document.read_text(encoding="utf-8")
    assert FIGURES["shown"](text) == text, "run `make docs`"


def test_every_table_names_its_command_and_is_shown() -> None:
    shown = {found[1] for document in DOCUMENTS for found in FIGURES["BLOCK"].finditer(document.read_text("utf-8"))}
    files = sorted(FIGURES["FOLDER"].glob("*.md"))
    assert files and {file.stem for file in files} == shown
    for file in files:
        assert file.read_text(encoding="utf-8").startswith(("<!-- python -m ", "<!-- make ")), f"{file.name}: of what?"


def test_a_figure_typed_by_hand_is_found() -> None:
    name = next(iter(FIGURES["FOLDER"].glob("*.md"))).stem
    typed = f"<!-- figures: {name} -->\n| 99 % |\n<!-- end -->"
    assert FIGURES["shown"](typed) != typed

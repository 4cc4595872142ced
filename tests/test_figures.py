"""What the documents show of `docs/figures/` is what a command wrote there."""

from __future__ import annotations

import re
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


def test_readmes_models_are_those_of_the_leaderboard() -> None:
    """Rounded, the quality of the float models and the time of the engine's."""
    table = (FIGURES["FOLDER"] / "leaderboard.md").read_text(encoding="utf-8").splitlines()[1:]
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table if line)
    rows = {cells[0]: dict(zip(head, cells, strict=True)) for cells in lines}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    models = re.findall(r"^\| `([a-z-]+)` \|.*\| ([^|]+) \| .*IoU (0\.\d+), MAE (0\.\d+)", readme, flags=re.M)
    assert [name for name, *_ in models] == ["small", "small-tuned", "small-fast", "lite"]
    for name, time, iou, mae in models:
        row = rows[f"{name}/fp32"]
        assert (iou, mae) == (f"{float(row['IoU']):.3f}", f"{float(row['MAE']):.3f}"), name
        assert time == (rows.get(f"{name}/int8.u2e") or rows["small-tuned/int8.u2e"])["time"], name

"""Checkpoints in the forms that people have, and the table of them in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.forms import CHECKPOINTS, checkpoint_outcome, wide_network
from tests.support.paths import ROOT
from u2net.network.model import U2Net

REFUSED = 9  # at the end of the table


@pytest.fixture(scope="module")
def model() -> U2Net:
    return wide_network()


@pytest.mark.parametrize("form", CHECKPOINTS)
def test_a_form_does_what_the_documentation_says(tmp_path: Path, model: U2Net, form: str) -> None:
    outcome = checkpoint_outcome(form, model, tmp_path)
    refused = form in list(CHECKPOINTS)[-REFUSED:]
    assert outcome.startswith("refused: ") if refused else outcome == "the same network"
    documented = (ROOT / "docs" / "forms.md").read_text(encoding="utf-8")
    assert f"| {form} | {outcome} |\n" in documented, "run `make docs`"

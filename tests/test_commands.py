"""Every command has help and an example, refuses nonsense in one line, and stands in docs/commands.md."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from u2net.cli import STAGES, load
from u2net.commandline import Application
from u2net.cutout import application as cutouts


def applications() -> dict[str, Application]:
    """Every application, by the name that it has on the command line."""
    found = {"u2net cutout": cutouts}
    for name, stage in STAGES.items():
        application = load(name)
        assert application is not None, f"{name} is not mounted"
        if stage.command is None:
            found[f"u2net {name}"] = application
    return found


COMMANDS = [(called, name) for called, application in applications().items() for name in application.commands]


@pytest.mark.parametrize(("called", "name"), COMMANDS)
def test_help(called: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    application = applications()[called]
    assert application.run([name, "--help"], called) == 0
    said = capsys.readouterr()
    assert said.err == "" and said.out.startswith(f"Usage: {called}")
    assert "--json" in said.out and "--quiet" in said.out
    assert "Examples:" in said.out and application.examples[name].strip(), "an example each"
    assert max(len(line) for line in said.out.splitlines()) <= 120


@pytest.mark.parametrize("called", sorted(applications()))
def test_nonsense_is_refused_in_one_line(called: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert applications()[called].run(["--no-such-option"], called) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1


@pytest.mark.parametrize(
    "stage", ["u2net", *sorted({stage.package for stage in STAGES.values() if not stage.package.startswith("u2net.")})]
)
def test_a_stage_is_a_module_too(stage: str) -> None:
    """`python -m STAGE --version` is the same application, and says so without loading what it does not need."""
    done = subprocess.run(
        [sys.executable, "-m", stage, "--version"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("u2net-remover "), done.stderr


def test_help_of_a_stage_loads_nothing_heavy() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "scipy", "rich", "playwright")
    code = (
        "import sys; from u2net.cli import STAGES, load\n"
        "for name in STAGES: load(name)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_document_is_the_program() -> None:
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "docs" / "commands.py"))["page"]() == written, "run `make docs`"

"""The README stays true: its commands run, its options exist, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from datasets.synthetic import SyntheticSet
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")

#: Commands that are run by other means: the whole suite is running right now, and these need an hour or a network.
NOT_RUN_HERE = ("make test", "make compare-int8", "make bench", "make train", "git clone", "npm install", "pip install")


def _commands() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", README, flags=re.S | re.M)
    return [line[2:].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's photo.jpg."""
    path = tmp_path_factory.mktemp("readme") / "photo.jpg"
    Image.fromarray(SyntheticSet(count=1, seed=3, size=(480, 360))[0].rgb).save(path)
    return path


def test_there_are_commands() -> None:
    assert any(c.startswith("make export quantize") for c in _commands())
    assert "make test" in _commands()


def _run(command: str) -> None:
    """Run in the repository itself; the README speaks to somebody with the environment active."""
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"


@pytest.mark.xdist_group("readme")
@pytest.mark.parametrize("command", [c for c in _commands() if not c.startswith(NOT_RUN_HERE)])
def test_command_runs(command: str, photograph: Path, tmp_path: Path) -> None:
    """With a picture at hand."""
    _run(command.replace("photo.jpg", str(photograph)).replace("cutout.png", str(tmp_path / "cutout.png")))


@pytest.mark.xdist_group("readme")
def test_python_runs(photograph: Path, tmp_path: Path) -> None:
    """With the model that the first command makes; made here if this test comes first."""
    _run("make export quantize")
    (block,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.S | re.M)
    code = block.replace('"build/', f'"{ROOT}/build/').replace("photo.jpg", str(photograph))
    result = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "cutout.png").stat().st_size > 0


def test_every_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, flags=re.M))
    named = {t for c in _commands() if c.startswith("make ") for t in re.findall(r"\b[a-z][a-z0-9-]+\b(?!=)", c[5:])}
    named = {t for t in named if not re.search(rf"\b{t}=|={t}\b|/{t}\b", README)}
    assert named <= targets, named - targets


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README):
        assert (ROOT / target).exists(), target

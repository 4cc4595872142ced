"""The lock pins PyTorch's CPU build; where an index has only PyPI's, `make` takes that, and says so."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

VERSION = re.findall(r"^torch==([0-9.]+)\+cpu ;", (ROOT / "constraints.txt").read_text(), flags=re.M)[0]


def _wheel(folder: Path, version: str) -> None:
    folder.mkdir(exist_ok=True)
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`python -m pip` of an environment that holds nothing."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
    program = folder / "python"
    own = folder / "environment" / "bin" / "python"
    program.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" -m pip --python "{own}" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("builds", [[VERSION], [VERSION, f"{VERSION}+cpu"]])
def test_the_lock_takes_what_the_index_has(builds: list[str], python: Path, tmp_path: Path) -> None:
    for build in builds:
        _wheel(tmp_path / "index", build)
    lock = tmp_path / "constraints.txt"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_NO_INDEX": "1"}
    environment["PIP_FIND_LINKS"] = str(tmp_path / "index")
    command = ["make", f"PY={python}", f"LOCK={lock}", str(lock)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    pinned = re.findall(r"^torch==(\S+) ; sys_platform == \"linux\"", lock.read_text(), flags=re.M)
    assert pinned == [builds[-1]]
    assert ("TORCH_INDEX" in result.stderr) == (len(builds) == 1)
    assert len(lock.read_text().splitlines()) == len((ROOT / "constraints.txt").read_text().splitlines())

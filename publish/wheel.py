"""Wheels: the runner alone for a bundle, and the whole project for a registry, each with a model inside.

Both are built by hatchling from a staged copy, so that the model lies in the wheel and never in the source tree; what
goes where is in `hatch_build.py`. The same inputs give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import u2net
from u2net.errors import ArtifactError, OutputError
from u2net.zoo import DEFAULT_MODEL

from .settings import ROOT

__all__ = ["build_full_wheel", "build_wheel"]

RUNNER = Path(u2net.__file__).parent
#: 2020-02-02, the first moment that every zip tool agrees on: the wheel holds no build time.
SOURCE_DATE_EPOCH = "1580601600"
_PROJECT = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
_STAGES = ("datasets", "train", "export", "quantize", "engine", "eval", "publish")
#: What a release must hold and the toolchain cannot make on a user's machine.
_BUILT = ("web/dist/index.js", "web/demo-dist/index.html", "build/engine/engine.wasm")


def build_wheel(out: Path, model: Path | None = None, model_name: str = DEFAULT_MODEL) -> Path:
    """Build the wheel of the runner alone into the folder `out` and return its path.

    `model`, an ONNX file, becomes `u2net/models/<model_name>.onnx` in the wheel, where the runner looks first. Raises
    `OutputError` where the build fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        _copy_runner(stage, model, model_name, leave_out=("*.safetensors",))
        return _build(stage, out)


def build_full_wheel(out: Path, model: Path | None = None, model_name: str = DEFAULT_MODEL) -> Path:
    """Build the wheel of the runner and the toolchain into the folder `out` and return its path.

    Raises `ArtifactError` where the browser package or the engine is not built, `OutputError` where the build fails.
    """
    for name in _BUILT:
        if not (ROOT / name).is_file():
            raise ArtifactError(f"{name} is not built: run `make web`")
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        _copy_runner(stage, model, model_name)
        for name in (*_STAGES, "web/dist", "web/demo-dist", "build/engine"):
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(ROOT / name, stage / name, ignore=ignored)
        for name in ("web/package.json", "web/README.md", "web/LICENSE", "web/node_modules/client-zip/LICENSE.txt"):
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, stage / name)
        return _build(stage, out)


def _copy_runner(stage: Path, model: Path | None, model_name: str, leave_out: tuple[str, ...] = ()) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "models", *leave_out)
    shutil.copytree(RUNNER, stage / "u2net", ignore=ignored)
    for name in _PROJECT:
        shutil.copyfile(ROOT / name, stage / name)
    if model is not None:
        (stage / "u2net" / "models").mkdir()
        shutil.copyfile(model, stage / "u2net" / "models" / f"{model_name}.onnx")


def _build(stage: Path, out: Path) -> Path:
    for path in stage.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with tempfile.TemporaryDirectory() as built:
        result = subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built],
            cwd=stage,
            env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH},
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = sorted(Path(built).glob("*.whl"))
        if result.returncode != 0 or len(wheels) != 1:
            said = " ".join((result.stderr or result.stdout).split())[-400:]
            raise OutputError(f"the wheel could not be built, `make setup` installs what it needs: {said}")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(wheels[0], out / wheels[0].name))

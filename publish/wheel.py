"""The runner as a Python wheel with the default model inside: `pip install` it and `u2net photo.jpg` works offline.

Built by hatchling from a staged copy of `u2net/`, so that the model lies in the wheel and never in the source tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from u2net.errors import OutputError
from u2net.zoo import DEFAULT_MODEL

__all__ = ["build_wheel"]

ROOT = Path(__file__).resolve().parent.parent
#: 2020-02-02, the first moment that every zip tool agrees on: the wheel holds no build time.
SOURCE_DATE_EPOCH = "1580601600"


def build_wheel(out: Path, model: Path | None = None, model_name: str = DEFAULT_MODEL) -> Path:
    """Build the wheel into the folder `out` and return its path.

    `model`, an ONNX file, becomes `u2net/models/<model_name>.onnx` in the wheel, where the runner looks first. Raises
    `OutputError` where the build fails. The same inputs give the same bytes.
    """
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary) / "source"
        shutil.copytree(
            ROOT / "u2net", stage / "u2net", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "models")
        )
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / name, stage / name)
        if model is not None:
            (stage / "u2net" / "models").mkdir()
            shutil.copyfile(model, stage / "u2net" / "models" / f"{model_name}.onnx")
        for path in stage.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        built = Path(temporary) / "wheel"
        result = subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)],
            cwd=stage,
            env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH},
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = sorted(built.glob("*.whl"))
        if result.returncode != 0 or len(wheels) != 1:
            raise OutputError(f"the wheel could not be built: {(result.stderr or result.stdout).strip()[-300:]}")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(wheels[0], out / wheels[0].name))

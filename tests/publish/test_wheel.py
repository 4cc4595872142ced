"""The wheel with the toolchain: installed into an environment of its own, it runs the pipeline in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from datasets.synthetic import SyntheticSet
from hatch_build import STAGES, TOOLCHAIN, rewrite
from publish.wheel import build_full_wheel
from tests.support.forms import wide_network
from tests.support.web_browser import web_dist  # noqa: F401
from u2net.cli import load
from u2net.network.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def wheel(web_dist: Path, tiny_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    return build_full_wheel(tmp_path_factory.mktemp("wheel"), tiny_fp32)


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`u2net` of an environment that holds the wheel, and what it depends on from this one, but not this repository."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.skip("written for POSIX environments")
    install = ["pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", *map(str, install)], check=True)
    [own] = (folder / "lib").glob("python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its .pth files are not read
    return folder / "bin" / "u2net"


def _run(program: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_no_name_that_others_use(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        sources = {name: archive.read(name).decode() for name in names if name.endswith(".py")}
    assert {name.split("/")[0] for name in names} - {"u2net", TOOLCHAIN} == {f"{_stem(wheel)}.dist-info"}
    assert {f"{TOOLCHAIN}/{stage}/cli.py" for stage in STAGES} <= set(names)
    for name in ("eval/policy.toml", "eval/browser/bench.mjs", "eval/browser/package-lock.json", "engine/src/engine.c",
                 "train/configs/lite.toml", "LICENSE", "web/dist/index.js", "web/demo-dist/index.html"):  # fmt: skip
        assert f"{TOOLCHAIN}/{name}" in names
    assert not [name for name in names if "node_modules/onnxruntime" in name or "__pycache__" in name]
    left = [
        f"{name}: {line}"
        for name, source in sources.items()
        for line in re.findall(rf"^\\s*(?:from|import) (?:{'|'.join(STAGES)})\\b.*", source, flags=re.M)
    ]
    assert left == []


def _stem(wheel: Path) -> str:
    return "-".join(wheel.name.split("-")[:2])


def test_every_stage_has_help(program: Path, tmp_path: Path) -> None:
    for stage in (*(stage for stage in STAGES if load(stage)), "gate", "weights"):
        result = _run(program, tmp_path, stage, "--help")
        assert result.returncode == 0, (stage, result.stderr)
        assert result.stdout.lower().startswith(f"usage: u2net {'eval' if stage == 'gate' else stage}"), stage


def test_the_pipeline_on_an_outside_teams_files(program: Path, tmp_path: Path) -> None:
    """A checkpoint, calibration pictures and evaluation pairs of their own, in a folder of their own."""
    pictures = SyntheticSet(count=10, seed=5, size=(160, 120))
    from PIL import Image

    for folder in ("photos", "pairs/images", "pairs/masks"):
        (tmp_path / folder).mkdir(parents=True)
    for index, sample in enumerate(pictures):
        Image.fromarray(sample.rgb).save(tmp_path / "photos" / f"{index}.png")
        if index < 3:
            Image.fromarray(sample.rgb).save(tmp_path / "pairs" / "images" / f"{index}.png")
            Image.fromarray((sample.alpha > 0.5).astype("uint8") * 255).save(
                tmp_path / "pairs" / "masks" / f"{index}.png"
            )
    save_checkpoint(wide_network(), tmp_path / "own.safetensors")
    steps = (
        ("export", "--weights", "own.safetensors", "--size", "64", "--parity-count", "1", "--out", "out/fp32.onnx"),
        (
            "quantize",
            "out/fp32.onnx",
            "--calib",
            "photos",
            "--fast",
            "--floor",
            "0",
            "--max-mae",
            "1",
            "--out",
            "out/int8.onnx",
        ),
        ("engine", "out/int8.onnx", "--calib", "photos", "--count", "1", "--out", "out/int8.u2e"),
        (
            "eval",
            "out/fp32.onnx",
            "out/int8.onnx",
            "--data",
            "pairs",
            "--no-latency",
            "--workers",
            "1",
            "--out",
            "report",
        ),
    )
    for step in steps:
        result = _run(program, tmp_path, *step)
        assert result.returncode == 0, (step, result.stderr)
    report = json.loads((tmp_path / "report" / "report.json").read_bytes())
    assert report["quality"]["pictures"] == 3
    assert (tmp_path / "report" / "report.html").is_file()
    sidecar = json.loads((tmp_path / "out" / "int8.json").read_bytes())
    assert sidecar["stage"] == "quantize"
    gated = _run(program, tmp_path, "gate", "report/report.json")
    assert gated.returncode == 1 and "Traceback" not in gated.stderr


@pytest.mark.parametrize(
    ("source", "becomes"),
    [
        ("from datasets.folder import a\n", f"from {TOOLCHAIN}.datasets.folder import a\n"),
        ("import engine\n", f"from {TOOLCHAIN} import engine\n"),
        ("import engine as e\n", f"from {TOOLCHAIN} import engine as e\n"),
        ("é = 1; from eval import b\n", f"é = 1; from {TOOLCHAIN}.eval import b\n"),
        ("from .eval import c\nimport evaluate\n", "from .eval import c\nimport evaluate\n"),
        ("text = 'from eval import b'\n", "text = 'from eval import b'\n"),
    ],
)
def test_imports_are_rewritten(source: str, becomes: str) -> None:
    assert rewrite(source, "a.py") == becomes


@pytest.mark.parametrize(
    "source",
    [
        "import eval.gate\n",
        "import os, eval\n",
        "import_module('eval.gate')\n",
        "command = [python, '-m', 'export']\n",
        "from \\\n    eval import gate\n",
    ],
)
def test_what_cannot_be_rewritten_stops_the_build(source: str) -> None:
    with pytest.raises(ValueError, match=r"a\.py:1: .* cannot be rewritten"):
        rewrite(source, "a.py")

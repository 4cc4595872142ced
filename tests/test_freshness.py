"""A stage knows whether its output is what it is asked for; make always asks it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.quantize_graphs import save_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints of one tiny shape."""
    import torch

    from u2net.network.checkpoint import save_checkpoint
    from u2net.network.model import StageWidths, U2Net, U2NetConfig

    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        paths.append(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
        save_checkpoint(U2Net(U2NetConfig("tiny", (StageWidths(2, 4),) * 11, size=64)).eval(), paths[-1])
    return paths


def test_export_is_done_once_and_again_when_asked_for_something_else(
    weights: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export import stage
    from export.settings import ExportSettings

    out = tmp_path / "fp32.onnx"
    said: list[str] = []

    def export(checkpoint: Path) -> None:
        settings = ExportSettings(size=64)
        stage.export_checkpoint(checkpoint, out, settings, fp16=True, parity_count=1, tell=said.append)

    export(weights[0])
    assert said == []
    export(weights[0])
    assert "up to date" in said.pop()
    (tmp_path / "fp16.onnx").unlink()

    def begins(*arguments: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(stage, "export_model", begins)  # tracing takes long, and others test what it gives
    with pytest.raises(InterruptedError):
        export(weights[1])
    assert "inputs.weights" in said[0] and "fp16.onnx is missing" in said[0]
    assert out.is_file()


def test_quantize_is_done_once_and_again_when_asked_for_something_else(tmp_path: Path) -> None:
    from quantize.settings import QuantizeSettings
    from quantize.stage import quantize_file

    source, out = save_network(tmp_path / "fp32.onnx", size=64), tmp_path / "int8.onnx"

    def said(count: int) -> str:
        lines: list[str] = []
        settings = QuantizeSettings(method="nearest", count=count, check_count=2, floor=0.0)
        quantize_file(source, out, None, settings, tell=lines.append)
        return " ".join(lines)

    assert said(2) == ""
    assert "up to date" in said(2)
    assert "settings.count" in said(3)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("export WEIGHTS=README.md", "-m export --model"),
        ("quantize CALIB=docs COUNT=8", "-m quantize build/lite/fp32.onnx --calib docs --count 8"),
        ("quantize", "-m engine build/lite/int8.onnx"),
        ("eval EVAL=docs", "-m eval build/lite/fp32.onnx build/lite/int8.onnx build/lite/int8.u2e --data docs"),
    ],
)
def test_make_asks_the_stage_whatever_is_built(target: str, command: str) -> None:
    """With a built model too: `touch` what file times would be judged by, and make must still call the stage."""
    (ROOT / "build" / "lite").mkdir(parents=True, exist_ok=True)
    words = ["make", "-n", "MODEL=lite", *target.split()]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout

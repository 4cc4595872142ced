"""What tests share: real photographs where they lie beside the repository, models built once for a whole run."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import BUILT, ROOT, SHARED

FEW = ("--parity-count", "1")  # parity with PyTorch has tests of its own


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs, masks and weights; tests that ask for it are skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real photographs at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small_weights(shared: Path) -> Path:
    """The authors' weights of `small`."""
    path = shared / "weights" / "u2netp.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    return path


def _built(path: Path, make: Callable[[Path], None]) -> Path:
    """`path`, made by one of the test processes while the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path


def _run(*arguments: str | Path) -> None:
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="session")
def small_fp32(small_weights: Path) -> Path:
    """`small` with the authors' weights as float ONNX, 320×320, `tensor` interface, with its sidecar."""
    return _built(
        BUILT / "small" / "fp32.onnx",
        lambda path: _run("-m", "export", "--model", "small", "--weights", small_weights, *FEW, "--out", path),
    )


@pytest.fixture(scope="session")
def lite_fp32() -> Path:
    """The repository's own `lite` as float ONNX, 320×320, `tensor` interface, with its sidecar; fp16.onnx beside it."""
    weights = ROOT / "u2net" / "weights" / "lite.safetensors"
    if not weights.is_file():
        pytest.skip("lite has no weights yet")
    return _built(
        BUILT / "lite" / "fp32.onnx",
        lambda path: _run("-m", "export", "--model", "lite", "--weights", weights, "--fp16", *FEW, "--out", path),
    )


@pytest.fixture(scope="session")
def lite_int8(lite_fp32: Path) -> Path:
    """`lite` in int8 by the quick recipe, calibrated on eight procedural scenes, with its sidecar."""
    return _built(
        BUILT / "lite" / "int8.onnx",
        lambda path: _run("-m", "quantize", lite_fp32, "--fast", "--count", "8", "--check", "32", "--out", path),
    )


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """Random weights of a U²-Net with two to four channels: for tests of plumbing, where masks mean nothing."""

    def make(path: Path) -> None:
        import torch

        from u2net.network.checkpoint import save_checkpoint
        from u2net.network.model import StageWidths, U2Net, U2NetConfig

        torch.manual_seed(0)
        save_checkpoint(U2Net(U2NetConfig("tiny", (StageWidths(2, 4),) * 11)).eval(), path)

    return _built(BUILT / "tiny.safetensors", make)


@pytest.fixture(scope="session")
def tiny_fp32(tiny_checkpoint: Path) -> Path:
    """`tiny_checkpoint` as float ONNX, 320×320, `tensor` interface, with its sidecar."""
    return _built(
        BUILT / "tiny" / "fp32.onnx",
        lambda path: _run("-m", "export", "--weights", tiny_checkpoint, *FEW, "--out", path),
    )

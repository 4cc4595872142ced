"""Every command has help worth printing, refuses nonsense in one line, and is importable without side effects."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from u2net.cli import load

COMMANDS = [
    "u2net",
    "u2net weights",
    "u2net weights fetch",
    "u2net cutout",
    "datasets",
    "datasets list",
    "datasets preview",
    "datasets make",
    "datasets check",
    "export",
    "export ort",
    "quantize",
    "quantize sensitivity",
    "quantize ablation",
    "quantize compare",
    "engine",
    "engine build",
    "eval",
    "eval gate",
    "eval baseline",
    "eval latency",
    "eval bench",
    "eval edges",
    "eval throughput",
    "eval gallery",
    "train",
    "train cache",
    "train prune",
    "train distill",
    "train finetune",
    "train curve",
    "publish",
    "publish verify",
    "publish sign",
    "publish schema",
]


def _run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command.split(), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    result = _run(command, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.lower().startswith("usage: python -m " + command.split()[0])
    assert len(result.stdout) > 150
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["u2net", "datasets", "export", "quantize", "engine", "eval", "train", "publish"])
def test_nonsense_is_refused_without_a_traceback(command: str) -> None:
    result = _run(command, "--no-such-option")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr.splitlines()[-1]


def test_every_stage_is_mounted() -> None:
    """The program finds every stage, and its line of help is that stage's own subject."""
    for name in ("export", "engine", "datasets", "publish", "weights"):
        application = load(name)
        assert application is not None and application.summary, name

"""Where the time goes: every operator of a packed model in the engine under Node, whose V8 is Chromium's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from u2net.errors import ConfigError, ModelError

from .build import build_wasm
from .format import EngineModel, Operator, OperatorKind, read_model

__all__ = ["Step", "operator_table", "profile_model"]

#: `enum StepKind` of engine/src/network.h.
STEPS = ("stem", "convolution, Winograd", "convolution, direct", "pool", "resize", "add", "gate", "side map", "fuse")


@dataclass(frozen=True)
class Step:
    """One operator: how it is computed, the size of its output, and the least time of some rounds."""

    kind: str
    height: int
    width: int
    inputs: int  # channels
    outputs: int  # channels
    macs: int  # multiply-accumulates of the plain sum, however it is computed
    ms: float


def profile_model(path: str | os.PathLike[str], rounds: int = 60, wasm: Path | None = None) -> list[Step]:
    """The steps of the model at `path`, in order, in the engine `wasm` (by default what engine/src compiles to).

    Raises `ConfigError` without Node, `ModelError` for another file.
    """
    node = shutil.which("node")
    if node is None:
        raise ConfigError("no Node.js found: install Node 20 or later")
    try:
        model = read_model(Path(path).read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    with tempfile.TemporaryDirectory() as folder:
        if wasm is None:
            wasm = Path(folder) / "engine.wasm"
            build_wasm(wasm)
        command = [node, str(Path(__file__).with_name("profile.mjs")), str(wasm), os.fspath(path), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModelError(f"{path}: the engine refuses it: {' '.join(done.stderr.split())[-200:]}")
    return [
        _step(model, operator, STEPS[timed["kind"]], timed["ms"])
        for operator, timed in zip(model.operators, json.loads(done.stdout), strict=True)
    ]


def _step(model: EngineModel, operator: Operator, kind: str, ms: float) -> Step:
    output = model.buffers[operator.output.buffer]
    inputs = 3 if operator.kind == OperatorKind.STEM else operator.input.channels
    outputs = 1 if operator.kind == OperatorKind.SIDE else operator.output.channels
    macs = operator.weights * output.height * output.width
    return Step(kind, output.height, output.width, inputs, outputs, macs, ms)


def operator_table(steps: Sequence[Step]) -> str:
    """Time by kind of operator, those of convolutions also by size, as a Markdown table."""
    groups: dict[str, list[Step]] = {}
    for step in steps:
        name = step.kind
        if name.startswith("convolution"):
            name += f", {step.height}×{step.width}"
        groups.setdefault(name, []).append(step)
    total = sum(step.ms for step in steps)
    lines = ["| operator | number | ms | share | GMAC | GMAC/s |", "|---|---:|---:|---:|---:|---:|"]
    for name, group in sorted(groups.items(), key=lambda item: -sum(step.ms for step in item[1])):
        lines.append(_row(name, group, total))
    return "\n".join([*lines, _row("**all**", steps, total)])


def _row(name: str, steps: Sequence[Step], total_ms: float) -> str:
    ms, macs = sum(step.ms for step in steps), sum(step.macs for step in steps)
    rate = f"{macs / 1e6 / ms:.0f}" if macs and ms else ""
    return f"| {name} | {len(steps)} | {ms:.2f} | {ms / total_ms:.0%} | {macs / 1e9:.3f} | {rate} |"

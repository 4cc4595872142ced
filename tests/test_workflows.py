"""Workflows and the action: inputs that are used are declared and passed on, every script is one that bash reads."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.paths import ROOT

GITHUB = ROOT / ".github"
ACTION = GITHUB / "actions" / "judge" / "action.yml"
FILES = [*sorted((GITHUB / "workflows").glob("*.yml")), ACTION]


def _steps(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in document.get("jobs", {}).values():
        yield from job["steps"]
    yield from document.get("runs", {}).get("steps", [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name + "/" + path.name)
def test_scripts_and_inputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    trigger = document.get(True, {})  # YAML 1.1 reads `on` as true
    events = trigger if isinstance(trigger, dict) else {}
    declared = set(document.get("inputs", {}))
    for event in events.values():
        declared |= set((event or {}).get("inputs", {})) if isinstance(event, dict) else set()
    assert set(re.findall(r"inputs\.([\w-]+)", text)) <= declared
    for step in _steps(document):
        script = step.get("run", "")
        assert "${{" not in script.replace("${{ matrix.python }}", ""), "inputs reach scripts by the environment alone"
        checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        if path == ACTION and script:
            assert step.get("shell") == "bash"


def test_the_workflow_passes_every_input_on() -> None:
    action = yaml.safe_load(ACTION.read_text())
    workflow = yaml.safe_load((GITHUB / "workflows" / "model.yml").read_text())
    [step] = [step for step in _steps(workflow) if "judge" in step.get("uses", "")]
    inputs = set(workflow[True]["workflow_call"]["inputs"])
    assert set(step["with"]) == inputs - {"lfs"} <= set(action["inputs"])
    assert {"weights", "calib", "eval", "baseline", "policy"} <= inputs

"""The engine, built once for all test processes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from engine.build import build_wasm
from tests.engine.host import EngineHost


@pytest.fixture(scope="session")
def wasm_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all processes of this run share
    path = folder / "engine.wasm"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            build_wasm(path)
    return path


@pytest.fixture(scope="session")
def host(wasm_path: Path) -> EngineHost:
    return EngineHost(wasm_path.read_bytes())

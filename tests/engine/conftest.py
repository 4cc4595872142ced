"""The engine, built once for all test processes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from engine.build import build_wasm
from engine.runtime import WasmEngine


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """engine.wasm for one thread (False) and for several (True)."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all processes of this run share
    paths = {False: folder / "engine.wasm", True: folder / "engine-threads.wasm"}
    with (folder / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for threads, path in paths.items():
            if not path.exists():
                build_wasm(path, threads)
    return paths


@pytest.fixture(scope="session")
def wasm_path(built: dict[bool, Path]) -> Path:
    return built[False]


@pytest.fixture(scope="session")
def host(wasm_path: Path) -> WasmEngine:
    return WasmEngine(wasm_path.read_bytes())

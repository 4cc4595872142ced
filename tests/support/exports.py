"""Exported graphs of tiny random networks, made once for all test processes: tracing takes seconds.

PYTEST_DONT_REWRITE: test modules import this before it is registered as a plugin, and it asserts nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from typing import Any

import onnx
import pytest

from export.exporter import export_model, fold_batch_norm
from export.settings import ExportSettings
from tests.u2net.network.test_checkpoint import network

__all__ = ["SIZE", "Exported", "exported"]

SIZE = 64
Exported = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`exported(network_settings, **export_settings)`: the graph of `test_checkpoint.network` at 64×64."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all processes of this run share

    def make(model: dict[str, Any] | None = None, **settings: Any) -> onnx.ModelProto:
        name = json.dumps([model or {}, settings], sort_keys=True).encode().hex()
        path = folder / f"export-{name[-200:]}.onnx"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                proto = export_model(
                    fold_batch_norm(network(**(model or {}))), ExportSettings(**{"size": SIZE, **settings})
                )
                path.write_bytes(proto.SerializeToString(deterministic=True))
        return onnx.load_model(path)

    return make

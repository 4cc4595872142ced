"""pymatting without `import pymatting`, which compiles all of its functions: half a minute where nothing is cached.

PYTEST_DONT_REWRITE: it asserts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

__all__ = ["estimate_foreground_ml", "needs_pymatting", "without_pymatting"]


def needs_pymatting() -> None:
    """Skip the test where pymatting is not installed."""
    if find_spec("pymatting") is None:
        pytest.skip("pymatting is not installed")


def estimate_foreground_ml(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """pymatting's function of that name, out of its own module: the packages around it are empty for this test."""
    needs_pymatting()
    spec = find_spec("pymatting")
    assert spec is not None and spec.submodule_search_locations is not None
    (root,) = spec.submodule_search_locations
    for package in ("", ".foreground", ".util"):
        empty = ModuleType(f"pymatting{package}")
        empty.__path__ = [root + package.replace(".", "/")]
        monkeypatch.setitem(sys.modules, empty.__name__, empty)
    module = "pymatting.foreground.estimate_foreground_ml"
    monkeypatch.delitem(sys.modules, module, raising=False)
    function: Callable[..., Any] = import_module(module).estimate_foreground_ml
    return function


def without_pymatting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let others import what they want of pymatting, and nothing of it work: for what does not matte."""
    for name in ("", ".alpha.estimate_alpha_cf", ".foreground.estimate_foreground_ml", ".util.util"):
        parts = f"pymatting{name}".split(".")
        for count in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:count]), MagicMock())

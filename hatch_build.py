"""The build hook of the wheel: the stages of the toolchain go into it as `u2net_toolchain.<stage>`.

At the top of the repository a stage is a plain folder, so that `python -m export` works there. In site-packages a
package called `datasets` or `eval` would hide somebody else's, so there they lie under one name of ours and their
imports of each other are rewritten. What cannot be rewritten (`import eval.gate`, a module's name in a string) stops
the build.

`u2net_toolchain/` is to the stages what the repository is: what they look for beside their own folder lies there too,
the browser package and the demo among them where they were built. A source tree with none of the stages in it gives the
runner alone: that is the wheel in a bundle.
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STAGES = ("datasets", "train", "export", "quantize", "engine", "eval", "publish")
TOOLCHAIN = "u2net_toolchain"
#: What the stages look for beside their folders. What is built is left out where it was not built.
COMPANIONS = (
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "hatch_build.py",
    "build/engine/engine.wasm",
    "build/engine/engine-threads.wasm",
    "web/package.json",
    "web/README.md",
    "web/LICENSE",
    "web/dist",
    "web/demo-dist",
    "web/node_modules/client-zip/LICENSE.txt",
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", ".built", "model")


class StagesHook(BuildHookInterface[Any]):
    """Puts the stages into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the rewritten stages into a temporary folder and have it included."""
        root = Path(self.root)
        if version == "editable" or not all((root / stage / "__init__.py").is_file() for stage in STAGES):
            return
        self._temporary = tempfile.TemporaryDirectory()
        target = Path(self._temporary.name) / TOOLCHAIN
        write_toolchain(root, target)
        build_data["force_include"][str(target)] = TOOLCHAIN

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        if hasattr(self, "_temporary"):
            self._temporary.cleanup()


def write_toolchain(root: Path, target: Path) -> None:
    """Write the stages of the repository `root` and what they need into the folder `target`."""
    target.mkdir()
    (target / "__init__.py").write_text(
        '"""The stages of the toolchain: `u2net export`, `u2net quantize` and so on."""\n'
    )
    for stage in STAGES:
        shutil.copytree(root / stage, target / stage, ignore=LEFT_OUT)
    for path in sorted(target.rglob("*.py")):
        path.write_text(rewrite(path.read_text(encoding="utf-8"), f"{path.relative_to(target)}"), encoding="utf-8")
    for name in COMPANIONS:
        source = root / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=LEFT_OUT)
        elif source.is_file():
            shutil.copyfile(source, target / name)


def rewrite(source: str, name: str) -> str:
    """`source` with its imports of stages under their names in the wheel; raises `ValueError` naming what cannot be."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source, name)):
        for fault in _faults(node):
            raise ValueError(f"{name}:{node.lineno}: {fault} cannot be rewritten for the wheel")  # type: ignore[attr-defined]
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_stage(node.module):
            pattern, new = rf"from(\s+){re.escape(node.module or '')}\b", rf"from\1{TOOLCHAIN}.{node.module}"
        elif isinstance(node, ast.Import) and _is_stage(node.names[0].name):
            pattern, new = r"import(\s+)", rf"from {TOOLCHAIN} import\1"
        else:
            continue
        # Columns of the syntax tree are bytes.
        line = lines[node.lineno - 1].encode()
        before, rest = line[: node.col_offset].decode(), line[node.col_offset :].decode()
        replaced, count = re.subn(rf"\A{pattern}", new, rest)
        if count != 1:
            raise ValueError(f"{name}:{node.lineno}: this import cannot be rewritten for the wheel")
        lines[node.lineno - 1] = before + replaced
    return "".join(lines)


def _is_stage(module: str | None) -> bool:
    return module is not None and module.split(".")[0] in STAGES


def _faults(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import) and any(_is_stage(alias.name) for alias in node.names):
        [*others] = node.names[1:]
        if others or "." in node.names[0].name:
            yield f"`import {', '.join(alias.name for alias in node.names)}`"
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__", "find_spec")):
        names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        yield from (f"the module's name {each!r}" for each in names if _is_stage(each))
    if isinstance(node, ast.List):
        words = [element.value if isinstance(element, ast.Constant) else None for element in node.elts]
        for flag, module in pairwise(words):
            if flag == "-m" and isinstance(module, str) and _is_stage(module):
                yield f"`-m {module}`"

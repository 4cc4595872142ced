"""Every refusal of the pipeline carries its cure: a command, an option, or what to give instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

ROOMS = ("export", "quantize", "datasets", "train", "eval", "publish")
FAMILY = re.compile(r"\w*(Config|Model|Data|Quality|Checkpoint|Image|Artifact|Output)Error")
#: A command or an option, or a verb that tells the reader what to do.
CURE = re.compile(
    r"`|--[a-z]|CURE|\b(give|install|leave|say|use|run|try|make|take|save|name|unpack|download|free|there (are|is)"
    r"|must|needs?)\b"
)
#: What no command can mend, the disk or a value that only our own code can pass, and texts made elsewhere.
BEYOND = re.compile(
    r"cannot (be )?(written|write|read)|strerror|_mismatch|would not be a manifest|cannot be a file of a bundle"
)


def refusals(room: str) -> Iterator[tuple[str, str]]:
    """Where a refusal is, and its text with the names of what is put into it."""
    for path in sorted((ROOT / room).rglob("*.py")):
        if "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and FAMILY.fullmatch(call.func.id):
                yield f"{path.relative_to(ROOT)}:{call.lineno}", " ".join(map(ast.unparse, call.args))


@pytest.mark.parametrize("room", ROOMS)
def test_a_refusal_says_what_to_do(room: str) -> None:
    found = list(refusals(room))
    assert found
    bare = [f"{where} {text}" for where, text in found if not CURE.search(text) and not BEYOND.search(text)]
    assert not bare, "\n".join(bare)


def test_a_bare_refusal_is_found() -> None:
    assert not CURE.search("'the model is wrong'") and CURE.search("'wrong; say --size 320'")

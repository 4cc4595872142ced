"""Typed documents: what does not fit is one line that names the file, the key and the cure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from u2net.documents import Document, document_json, read_json, read_toml, write_document
from u2net.errors import ArtifactError, ConfigError


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    share: float = 0.0


class Recipe(Document, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "recipe"
    VERSION: ClassVar[int] = 2
    CURE: ClassVar[str] = "make it with `cook`"

    parts: tuple[Part, ...]
    note: str | None = None


GOOD = Recipe(schema_version=2, parts=(Part("salt", 0.5), Part("sugar")))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    write_document(path, GOOD)
    assert read_json(path, Recipe) == GOOD
    assert json.loads(path.read_bytes()) == {
        "schema_version": 2,
        "parts": [{"name": "salt", "share": 0.5}, {"name": "sugar", "share": 0.0}],
    }
    assert path.read_bytes() == document_json(GOOD)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"schema_version": 2}', "not valid: parts is missing;"),
        ('{"schema_version": 2, "parts": 3}', "not valid: parts: expected array, got int;"),
        ('{"schema_version": 2, "parts": [{"name": 1}]}', "not valid: parts[0].name: expected str, got int;"),
        ('{"schema_version": 2, "parts": [{}]}', "not valid: parts[0]: name is missing;"),
        ('{"schema_version": 2, "parts": [{"name": "a", "b": 1}]}', "not valid: parts[0]: b is not known;"),
        ('{"schema_version": 2, "parts": [{"name": "a", "share": NaN}]}', "not valid: JSON is malformed"),
        ('{"schema_version": 2, "parts": [{"name": "a", "share": 1e999}]}', "out of range"),
        ('{"parts": []}', "is not of schema version 2;"),
        ('{"schema_version": 1, "parts": []}', "is not of schema version 2;"),
        ("{", "not valid: input data was truncated;"),
        ("[]", "not valid: expected object, got array;"),
        ("", "not valid"),
        ("[" * 100_000, "not valid"),
        ('{"schema_version": 2, "a": ' + "[" * 100_000, "not valid"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_json(path, Recipe)
    message = str(caught.value)
    assert message.startswith(f"the recipe {path} is not")
    assert reason in message
    assert message.endswith("; make it with `cook`")
    assert message.isprintable()


def test_a_key_cannot_forge_a_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    key = "\n\x1b[2Jgate: passed" + "x" * 10_000
    path.write_text(json.dumps({"schema_version": 2, "parts": [{"name": "a", key: 1}]}))
    with pytest.raises(ArtifactError) as caught:
        read_json(path, Recipe)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_document_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.document"
    path.write_bytes(data)
    for read in (read_json, read_toml):
        with pytest.raises(ConfigError):
            read(path, Recipe, ConfigError)


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('schema_version = 2\n[[parts]]\nname = "salt"\nshare = 0.5\n[[parts]]\nname = "sugar"\n')
    assert read_toml(path, Recipe) == GOOD
    path.write_text('schema_version = 2\n[[parts]]\nname = ["salt"]\n')
    with pytest.raises(ConfigError, match=r"not valid: parts\[0\]\.name: expected str, got array"):
        read_toml(path, Recipe, ConfigError)
    path.write_text("not toml at all")
    with pytest.raises(ConfigError, match="not valid: "):
        read_toml(path, Recipe, ConfigError)


def test_only_regular_files_of_bounded_size(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe.json", tmp_path / "large.json"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    for path, reason in (
        (pipe, "is not a regular file"),
        (large, "is larger than"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path, "cannot be read|is not a regular file"),
        (tmp_path / "none.json", "cannot be read: No such file"),
    ):
        with pytest.raises(ArtifactError, match=reason) as caught:
            read_json(path, Recipe)
        assert str(caught.value).startswith("the recipe ")


def test_the_runner_and_the_training_script_do_without_it() -> None:
    """A light install and a training machine have no msgspec."""
    code = (
        "import sys; sys.modules['msgspec'] = None\n"
        "import u2net, u2net.cli, u2net.batch, u2net.fetch, u2net.remover, train, train.__main__\n"
        "assert 'u2net.documents' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

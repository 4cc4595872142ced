"""Artifacts: atomic writes, sidecars that speak of these very bytes, paths that forge nothing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from u2net.artifact import read_sidecar, sidecar_path, verify_artifact, write_sidecar
from u2net.errors import ArtifactError, OutputError
from u2net.files import atomic_path, canonical_json, check_path, sha256_bytes, sha256_file, write_bytes, write_json


def artifact(folder: Path, data: bytes = b"model") -> Path:
    path = folder / "fp32.onnx"
    write_bytes(path, data)
    write_sidecar(path, stage="export", settings={"size": 320}, inputs={"weights": "0" * 64}, figures={"nodes": 3})
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_written_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "deep" / "a.onnx"
    write_bytes(path, b"one")
    assert path.read_bytes() == b"one"
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("the stage fails here")
    assert path.read_bytes() == b"one"
    assert names(path.parent) == ["a.onnx"]


def test_temporary_file_is_hidden_and_has_the_suffix(tmp_path: Path):
    with atomic_path(tmp_path / "a.onnx") as temporary:
        assert temporary.parent == tmp_path and temporary.name.startswith(".") and temporary.suffix == ".onnx"
        temporary.write_bytes(b"x")


def test_new_files_are_as_open_as_the_umask_says(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a limit on file sizes stands in for a full disk
    try:
        with pytest.raises(OutputError, match=r"cannot write .*a\.onnx") as caught:
            write_bytes(tmp_path / "a.onnx", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_folder_in_the_way_is_one_line(tmp_path: Path):
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_bytes(tmp_path / "a.onnx", b"x")
    assert names(tmp_path) == ["a.onnx"]


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "\x1b[2J", "a\x00b", "a\x7f", "a\x9bb"])
def test_control_characters_are_refused_and_not_repeated(name: str):
    with pytest.raises(ArtifactError) as caught:
        check_path(f"/tmp/{name}.onnx")
    assert str(caught.value).isprintable()


def test_other_scripts_are_fine():
    assert check_path("/tmp/Ελένη 写真.onnx").name == "Ελένη 写真.onnx"


def test_sidecar_says_what_is_true(tmp_path: Path):
    path = artifact(tmp_path)
    sidecar = verify_artifact(path)
    assert sidecar["sha256"] == hashlib.sha256(b"model").hexdigest() and sidecar["size_bytes"] == 5
    assert sidecar["settings"] == {"size": 320} and sidecar["stage"] == "export" and sidecar["file"] == "fp32.onnx"
    assert sidecar == read_sidecar(path) == json.loads(sidecar_path(path).read_text())


def test_sidecars_of_two_forms_do_not_collide(tmp_path: Path):
    assert sidecar_path(tmp_path / "fp32.onnx") == tmp_path / "fp32.json"
    assert sidecar_path(tmp_path / "fp32.ort") == tmp_path / "fp32.ort.json"


def test_changed_bytes_are_noticed(tmp_path: Path):
    path = artifact(tmp_path)
    path.write_bytes(b"Model")
    with pytest.raises(ArtifactError, match="not the file that its sidecar speaks of"):
        verify_artifact(path)
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        verify_artifact(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 99}', "\x00\xff"])
def test_damaged_sidecars_are_refused(tmp_path: Path, text: str):
    path = artifact(tmp_path)
    sidecar_path(path).write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_sidecar(path)
    assert "\n" not in str(caught.value)


def test_missing_sidecar_is_refused(tmp_path: Path):
    path = artifact(tmp_path)
    sidecar_path(path).unlink()
    with pytest.raises(ArtifactError, match="has no sidecar"):
        verify_artifact(path)


def test_same_facts_same_bytes(tmp_path: Path):
    one, other = artifact(tmp_path / "a"), artifact(tmp_path / "b")
    assert sidecar_path(one).read_bytes() == sidecar_path(other).read_bytes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_canonical_json_does_not_depend_on_order(value: dict):
    backwards = dict(reversed(list(value.items())))
    try:
        data = canonical_json(value)
    except UnicodeEncodeError:  # lone surrogates are no text
        return
    assert data == canonical_json(backwards) and data.endswith(b"\n")
    assert json.loads(data) == value


def test_canonical_json_has_no_nan():
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


@given(st.binary(max_size=300_000))
def test_checksums_agree_with_hashlib(data: bytes):
    assert sha256_bytes(data) == sha256_bytes(memoryview(data)) == hashlib.sha256(data).hexdigest()


def test_file_checksum(tmp_path: Path):
    data = os.urandom(3_000_001)
    write_bytes(tmp_path / "a", data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_json_is_written_atomically(tmp_path: Path):
    write_json(tmp_path / "a.json", {"b": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"b": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1} and names(tmp_path) == ["a.json"]

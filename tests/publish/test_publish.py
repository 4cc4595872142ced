"""Bundles: what is made verifies, and no change to it goes unnoticed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import brotli
import msgspec
import numpy as np
import pytest

from publish.compress import Compressor
from publish.manifest import (
    DocumentFile,
    ModelFile,
    describe_file,
    describe_model,
    read_manifest,
    role_of,
    write_manifest,
)
from publish.selftest import answer_difference, expected_answer, self_test_picture
from publish.verify import verify_bundle
from publish.wheel import build_wheel
from tests.support.paths import ROOT
from u2net.errors import ArtifactError
from u2net.files import write_json


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, tiny_fp32: Path) -> Path:
    """The least that is a bundle: one model, a document, a manifest, compressed siblings."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copyfile(tiny_fp32, folder / "fp32.onnx")
    (folder / "README.md").write_text("A bundle. " * 500)
    files: list[Any] = [
        describe_file(folder, "fp32.onnx", ModelFile, precision="fp32", format="onnx"),
        describe_file(folder, "README.md", DocumentFile),
    ]
    manifest = describe_model(folder / "fp32.onnx", "tiny", "1.0.0")
    write_manifest(folder, msgspec.structs.replace(manifest, files=files))
    for suffix, compress in ((".br", brotli.compress), (".gz", gzip.compress)):
        (folder / f"README.md{suffix}").write_bytes(compress((folder / "README.md").read_bytes()))
    return folder


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A copy to harm."""
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


def test_a_bundle_verifies(bundle: Path) -> None:
    found = verify_bundle(bundle)
    assert found["files"] == 2
    assert found["models"] == 1
    assert found["name"] == "u2net-tiny"


def _alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _edit(bundle: Path, change: Any) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    change(manifest)
    write_json(bundle / "manifest.json", manifest)


def _wrong_answer(manifest: dict[str, Any]) -> None:
    manifest["self_test"]["alpha"] = expected_alpha(255)


def expected_alpha(value: int) -> str:
    import base64

    return base64.b64encode(bytes([value]) * 256).decode()


def _make_pipe(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    os.mkfifo(bundle / "manifest.json")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda b: _alter(b / "fp32.onnx"), "fp32.onnx is not the file"),
        (lambda b: (b / "README.md").unlink(), "README.md is missing"),
        (lambda b: (b / "more.js").write_text("x"), "more.js is not in the manifest"),
        (lambda b: _alter(b / "README.md.br"), "README.md.br does not hold"),
        (lambda b: (b / "README.md.gz").write_bytes(gzip.compress(b"other")), "README.md.gz does not hold"),
        (lambda b: (b / "link").symlink_to("/etc/passwd"), "link is a link"),
        (lambda b: (b / "a\nerror: forged").write_text("x"), r"'a\\nerror: forged' is not in the manifest"),
        (lambda b: _edit(b, lambda m: m["files"][1].update(path="../README.md")), r"files\[1\].path: expected"),
        (lambda b: _edit(b, lambda m: m["files"][1].update(path="/etc/passwd")), r"files\[1\].path: expected"),
        (lambda b: _edit(b, lambda m: m["files"][1].pop("role")), r"files\[1\]: role is missing"),
        (lambda b: _edit(b, lambda m: m["files"][0].pop("precision")), r"files\[0\]: precision is missing"),
        (lambda b: _edit(b, lambda m: m["files"][0].update(bytes="many")), r"files\[0\].bytes: expected int, got str"),
        (lambda b: _edit(b, lambda m: m["files"].append("x")), r"files\[2\]: expected object, got str"),
        (lambda b: _edit(b, lambda m: m["self_test"].update(grid=0)), "self_test.grid: expected int >= 1"),
        (lambda b: _edit(b, lambda m: m["self_test"].update(alpha="AAAA")), "self_test is damaged"),
        (lambda b: _edit(b, lambda m: m.update(name="a\nerror: forged")), "name: expected str matching"),
        (lambda b: _edit(b, lambda m: m["files"].pop(0)), "lists no model"),
        (lambda b: _edit(b, lambda m: m["files"].append(m["files"][0])), "twice"),
        (lambda b: _edit(b, lambda m: m.update(schema_version=2)), "schema version"),
        (lambda b: _edit(b, lambda m: m.update(files=[])), "files: expected array of length >= 1"),
        (lambda b: (b / "manifest.json").write_text("{"), "is not valid"),
        (lambda b: (b / "manifest.json").unlink(), "no manifest.json"),
        (lambda b: (b / "manifest.json").write_text("[" * 100_000), "is not valid"),
        (_make_pipe, "not a regular file"),
    ],
)
def test_every_change_is_noticed(bundle: Path, harm: Any, said: str) -> None:
    harm(bundle)
    with pytest.raises(ArtifactError, match=said) as refused:
        verify_bundle(bundle)
    assert str(refused.value).isprintable()


def test_a_model_that_answers_otherwise_is_noticed(bundle: Path) -> None:
    before = json.loads((bundle / "manifest.json").read_bytes())["self_test"]["alpha"]
    _edit(bundle, _wrong_answer)
    for sibling in bundle.glob("manifest.json.*"):
        sibling.unlink()
    assert before != expected_alpha(255)
    with pytest.raises(ArtifactError, match="self-test"):
        verify_bundle(bundle)


def _path_is_safe(path: str) -> bool:
    entry = {"role": "document", "path": path, "bytes": 1, "sha256": "0" * 64}
    try:
        msgspec.convert(entry, DocumentFile)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("path", ["a.onnx", "npm/u2net-remover-0.1.0.tgz", ".htaccess", "a/b/c.d", "a/..b", "..a/b"])
def test_safe_paths(path: str) -> None:
    assert _path_is_safe(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "..",
        "a/../b",
        "a//b",
        ".",
        "a/.",
        "a\\b",
        "c:/a",
        "a b",
        "%2e%2e/a",
        "http://x/a",
        "a\n",
        "a/\n",
        "é",
    ],
)
def test_unsafe_paths(path: str) -> None:
    assert not _path_is_safe(path)


def test_siblings_hold_the_same_bytes_twice_alike(tmp_path: Path) -> None:
    text = ("alpha beta gamma " * 1000).encode()
    noise = np.random.default_rng(0).bytes(4096)
    digests = []
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        (folder / "a.js").write_bytes(text)
        (folder / "short.js").write_bytes(b"x")
        (folder / "photo.jpg").write_bytes(text)
        (folder / "noise.onnx").write_bytes(noise)
        compressor = Compressor()
        written = compressor.write_siblings(folder.iterdir())
        assert {p.name for p in written} == {"a.js.br", "a.js.gz"}
        assert brotli.decompress((folder / "a.js.br").read_bytes()) == text
        assert gzip.decompress((folder / "a.js.gz").read_bytes()) == text
        digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in written])
        [sizes] = compressor.sizes([folder / "a.js"])
        assert sizes == {"raw": len(text), "gzip": written[1].stat().st_size, "brotli": written[0].stat().st_size}
    assert digests[0] == digests[1]


def test_self_test_picture_is_the_specified_one() -> None:
    """Corner, centre and one pixel worked out by hand from the specification in web/src/selftest.ts."""
    picture = self_test_picture(320)
    assert picture.shape == (320, 320, 3)
    assert picture[0, 0].tolist() == [60, 90, 140]
    assert picture[319, 319].tolist() == [60 + (255 * 60 >> 8), 90 + (255 * 60 >> 8), 140 + (510 * 30 >> 9)]
    v = 255 * 160 // 319
    assert picture[160, 160].tolist() == [230 - (v * 60 >> 8), 80 + (v * 50 >> 8), 40]


def test_a_model_agrees_with_its_own_answer(tiny_fp32: Path) -> None:
    assert answer_difference(tiny_fp32, expected_answer(tiny_fp32)) <= 0.5 / 255


def test_wheel_runs_without_the_toolchain(tmp_path: Path, tiny_fp32: Path) -> None:
    """Twice the same bytes; the default model inside; imported from the wheel alone with torch and onnx blocked."""
    first = build_wheel(tmp_path / "1", tiny_fp32, "lite")
    second = build_wheel(tmp_path / "2", tiny_fp32, "lite")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert "u2net/models/lite.onnx" in names
    assert not [n for n in names if n.endswith((".safetensors", ".pyc"))]
    needs = next(n for n in names if n.endswith("METADATA"))
    required = [
        line.split(":")[1].split(">")[0].strip().lower()
        for line in (tmp_path / "installed" / needs).read_text().splitlines()
        if line.startswith("Requires-Dist") and "extra" not in line
    ]
    assert sorted(required) == ["numpy", "onnxruntime", "pillow", "typer"]
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'scipy', 'rich'): sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
        "from PIL import Image\nfrom u2net import Remover\n"
        "cutout = Remover().cutout(Image.new('RGB', (64, 48), 'red'))\n"
        "assert cutout.image().size == (64, 48)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_signature(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from publish.signature import check_signature, sign_bundle

    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ours", "theirs")}
    for name, key in keys.items():
        (tmp_path / f"{name}.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (tmp_path / f"{name}.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    with pytest.raises(ArtifactError, match="not signed"):
        check_signature(bundle, tmp_path / "ours.pub")
    sign_bundle(bundle, tmp_path / "ours.pem")
    check_signature(bundle, tmp_path / "ours.pub")
    verify_bundle(bundle)
    with pytest.raises(ArtifactError, match="does not hold"):
        check_signature(bundle, tmp_path / "theirs.pub")
    _alter(bundle / "README.md")
    with pytest.raises(ArtifactError, match="does not hold"):
        check_signature(bundle, tmp_path / "ours.pub")


@pytest.mark.parametrize(
    "arguments", [["verify", "nowhere"], ["verify", "."], ["--model", "lite", "--build", "nowhere"]]
)
def test_faults_are_one_line(tmp_path: Path, arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "publish", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_manifest_is_read_back(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.input.size == 320
    assert {role_of(file) for file in manifest.files} == {"model", "document"}

"""The browser package's own unit tests (`npm test`), its types, and the sizes that a first visit pays for."""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

from tests.support.paths import ROOT

import gzip
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.web_browser import web_dist  # noqa: F401

WEB = ROOT / "web"
PACKAGE_GZIP_BYTES = 25_000

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm")


def npm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["npm", *arguments], cwd=WEB, capture_output=True, text=True, check=False, timeout=170)


def test_unit_tests_and_types() -> None:
    for script in ("check", "test"):
        result = npm("run", "--silent", script)
        assert result.returncode == 0, result.stdout + result.stderr


def test_package_contents_and_size(tmp_path: Path, web_dist: Path) -> None:
    """What `npm pack` ships: nothing but built code and types, 25 kB at most, types first, one copy of nothing."""
    result = npm("pack", "--ignore-scripts", "--json", "--pack-destination", str(tmp_path))
    assert result.returncode == 0, result.stderr
    [tarball] = tmp_path.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        names = {member.name.removeprefix("package/") for member in archive.getmembers()}
        code = {n: archive.extractfile(f"package/{n}").read() for n in names if n.endswith(".js")}  # type: ignore[union-attr]
    assert {"package.json", "dist/index.js", "dist/worker.js", "dist/index.d.ts", "LICENSE", "README.md"} <= names
    assert all(re.fullmatch(r"package\.json|README\.md|LICENSE|dist/[\w.-]+\.(js|d\.ts)", name) for name in names), (
        names
    )
    size_bytes = sum(len(gzip.compress(data, 9)) for data in code.values())
    print(f"package: {size_bytes} bytes gzip in {len(code)} files")
    assert size_bytes <= PACKAGE_GZIP_BYTES
    joined = b"".join(code.values())
    assert not re.search(rb"\beval\(|new Function\(|https?://(?!www\.w3\.org)", joined), (
        "no eval, no address of anyone's"
    )
    package = json.loads((WEB / "package.json").read_text())
    assert next(iter(package["exports"]["."])) == "types"
    assert package["sideEffects"] is False
    assert "dependencies" not in package
    assert "onnxruntime-web" in package["peerDependencies"]


def test_lock_names_no_host() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert not any("resolved" in entry for entry in lock["packages"].values())
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name), (
        "every package is pinned by hash"
    )

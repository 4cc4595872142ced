"""The browser package's own unit tests (`npm test`), its types, and the sizes that a first visit pays for."""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.web_browser import packed_bundle, web_dist  # noqa: F401

WEB = ROOT / "web"
CODE_GZIP_BYTES = 30_000  # all that runs in a page and its worker, without engine and model
STANDALONE_GZIP_BYTES = 60_000  # with the engine

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm")


def npm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["npm", *arguments],
        cwd=WEB,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
        env={**os.environ, **environment},
    )


def test_unit_tests_and_types(packed_bundle: Path) -> None:
    for script in ("check", "test"):
        result = npm("run", "--silent", script, U2NET_TEST_BUNDLE=str(packed_bundle))
        assert result.returncode == 0, result.stdout + result.stderr
    assert "# skipped 0" in result.stdout


@pytest.fixture(scope="module")
def tarball(web_dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npm")
    result = npm("pack", "--ignore-scripts", "--pack-destination", str(folder))
    assert result.returncode == 0, result.stderr
    [path] = folder.glob("*.tgz")
    return path


def test_package_contents_and_size(tarball: Path) -> None:
    """What `npm pack` ships: built code with source maps and types, the model, and no more; types first."""
    with tarfile.open(tarball) as archive:
        names = {member.name.removeprefix("package/") for member in archive.getmembers()}
        code = {n: archive.extractfile(f"package/{n}").read() for n in names if n.endswith(".js")}  # type: ignore[union-attr]
    entries = ("index", "worker", "onnxruntime", "react", "element", "node", "cli", "standalone")
    assert {"package.json", "LICENSE", "README.md", *(f"dist/{name}.js" for name in entries)} <= names
    allowed = r"package\.json|README\.md|LICENSE|dist/[\w.-]+\.(js|js\.map|d\.ts|u2e)"
    assert all(re.fullmatch(allowed, name) for name in names), names
    binary = {"dist/engine-threads.js"}  # the engine's bytes and no code of ours
    assert {f"{name}.map" for name in code.keys() - binary} <= names
    standalone = len(gzip.compress(code["dist/standalone.js"], 9))
    print(f"standalone.js: {standalone} bytes gzip")
    assert standalone <= STANDALONE_GZIP_BYTES
    assert b"__esModule" not in code["dist/standalone.js"], (
        "no module of it is CommonJS: bytes in one cost a property each when it is imported"
    )
    joined = b"".join(code.values())
    assert not re.search(rb"\beval\(|new Function\(|https?://(?!www\.w3\.org)", joined), (
        "no eval, no address of anyone's"
    )
    package = json.loads((WEB / "package.json").read_text())
    assert next(iter(package["exports"]["."])) == "types"
    assert "dependencies" not in package, "nothing else is needed"
    assert all(package["peerDependenciesMeta"][name]["optional"] for name in package["peerDependencies"])


def test_only_what_is_used_is_bundled(web_dist: Path, tmp_path: Path) -> None:
    """`RemoverError` alone brings no model, no engine and no worker; `createRemover` brings no ONNX Runtime.

    Of a package without a model, whose manifest would count as code.
    """
    dist = tmp_path / "dist"
    build = ("node", "scripts/build.mjs", "--package", "--model", tmp_path / "none", "--dist", dist)
    subprocess.run([str(part) for part in build], cwd=WEB, check=True, capture_output=True)
    sizes = {}
    for name in ("RemoverError", "svgPath", "createRemover", "worker"):
        script = tmp_path / f"{name}.js"
        use = f'import {{ {name} }} from "{dist}/index.js"; console.log({name});'
        script.write_text(f'import "{dist}/worker.js";' if name == "worker" else use)
        out = tmp_path / name
        flags = ("--bundle", "--format=esm", "--minify", "--splitting", f"--outdir={out}")
        subprocess.run([str(WEB / "node_modules/.bin/esbuild"), str(script), *flags], check=True, capture_output=True)
        files = out.glob("*.js") if name == "worker" else [out / script.name]
        code = [path.read_bytes() for path in files if not path.name.startswith("engine-")]
        sizes[name] = sum(len(gzip.compress(data, 9)) for data in code)
    print(sizes)
    assert sizes["RemoverError"] <= 400
    assert sizes["svgPath"] <= 800
    assert sizes["createRemover"] <= 10_000, "the rest is loaded by the worker, or when the page does the work itself"
    assert sizes["createRemover"] + sizes["worker"] <= CODE_GZIP_BYTES


def test_require_and_servers(web_dist: Path) -> None:
    """Importing is safe where there is no page, `require` works, and what only pages have is defined nowhere else."""
    dist = web_dist / "dist"
    scripts = [f"if (!require('{dist}/node.js').createRemover) throw 1"]
    for name, export in (("index", "createRemover"), ("element", "RemoveBackgroundElement"), ("standalone", "preload")):
        scripts.append(f"import('{dist}/{name}.js').then((api) => {{ if (!api.{export}) throw 1 }})")
    for script in scripts:
        result = subprocess.run(["node", "--no-warnings", "-e", script], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_verify_finds_every_fault(packed_bundle: Path, tmp_path: Path) -> None:
    def verify(folder: Path) -> tuple[int, str]:
        command = ["node", str(WEB / "dist" / "cli.js"), "verify", str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout + result.stderr

    bundle = tmp_path / "bundle"
    shutil.copytree(packed_bundle, bundle)
    code, text = verify(bundle)
    assert code == 0, text
    assert "selfTestDifference" in text
    (bundle / "int8.u2e.br").write_bytes(b"a compressed copy may lie beside")
    assert verify(bundle)[0] == 0
    (bundle / "extra.js").write_text("")
    assert verify(bundle) == (1, 'u2net-remover: "extra.js" is not in the manifest\n')
    (bundle / "extra.js").unlink()
    model = (bundle / "int8.u2e").read_bytes()
    (bundle / "int8.u2e").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    assert "sha256 differs" in verify(bundle)[1]
    (bundle / "int8.u2e").unlink()
    assert "int8.u2e is missing" in verify(bundle)[1]
    assert verify(tmp_path)[0] == 1
    assert subprocess.run(["node", WEB / "dist" / "cli.js"], capture_output=True, check=False).returncode == 2


def test_lock_names_no_host() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert not any("resolved" in entry for entry in lock["packages"].values())
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name), (
        "every package is pinned by hash"
    )

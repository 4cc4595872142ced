"""The whole of `python -m publish` on `lite`: made twice, verified, refused without a passing gate, used as served."""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from publish.manifest import read_manifest
from tests.support.paths import BUILT, ROOT
from tests.support.web_browser import chromium, launch, run_once, web_dist  # noqa: F401
from tests.support.web_host import WebHost
from tests.web.test_demo import choose, downloaded, iou, picture, pixels
from tests.web.test_package import scene
from u2net import Remover

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]

BUILD = BUILT / "publish"
#: Four procedural pictures and no browser timings: a gate that a real model passes and a ruined one does not.
POLICY = """\
schema_version = 1
[require]
pictures = 4
[[check]]
models = "*/int8"
what = "agreement.iou"
floor = 0.8
because = "int8 must give the float model's masks"
[[check]]
models = "*"
what = "dead_convolutions"
ceiling = 0
because = "a convolution whose weights are all zero computes nothing"
"""


def publish(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "publish", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def stages(web_dist: Path) -> list[str | Path]:
    """What the stages before leave behind, made by their commands, and the options that say where."""
    weights = ROOT / "u2net" / "weights" / "lite.safetensors"
    folder = BUILD / "lite"
    fp32, int8, report = folder / "fp32.onnx", folder / "int8.onnx", BUILD / "report"
    python = (sys.executable, "-m")
    options: tuple[str | Path, ...] = ("--model", "lite", "--weights", weights, "--fp16", "--parity-count", "1")
    run_once(fp32, [weights], *python, "export", *options, "--out", fp32)
    run_once(int8, [fp32], *python, "quantize", fp32, "--fast", "--count", "8", "--check", "32", "--out", int8)
    options = ("--no-latency", "--limit", "4", "--workers", "1", "--out", report)
    run_once(report / "report.html", [int8], *python, "eval", fp32, int8, *options)
    (BUILD / "policy.toml").write_text(POLICY)
    return ["--build", BUILD, "--report", report, "--brotli", "3"]


@pytest.fixture(scope="module")
def bundle(stages: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    result = publish(*stages, "--policy", BUILD / "policy.toml", "--out", out, "--json")
    assert result.returncode == 0, result.stderr
    folder = Path(json.loads(result.stdout)["folder"])
    assert [folder] == list(out.iterdir()), "nothing half-made is left beside it"
    return folder


def test_a_bundle_is_whole(bundle: Path) -> None:
    checked = publish("verify", bundle)
    assert checked.returncode == 0, checked.stderr
    manifest = read_manifest(bundle)
    files = {entry["path"]: entry for entry in manifest["files"]}
    models = {(entry["precision"], entry["format"]) for entry in files.values() if entry["role"] == "model"}
    assert models >= {("int8", "onnx"), ("fp16", "onnx"), ("fp32", "onnx"), ("fp32", "ort")}
    assert {entry["provider"] for entry in files.values() if entry["role"] == "engine"} == {"wasm", "webgpu"}
    assert {"README.md", "MODEL_CARD.md", "LICENSE", "rembg/README.md", "report/report.html", "demo/index.html"} <= set(
        files
    )
    assert {entry["role"] for entry in files.values()} >= {"package", "wheel", "demo", "report", "huggingface"}
    for name in ("int8.onnx", "ort-wasm-simd-threaded.wasm", "demo/assets/main.js", "manifest.json"):
        for suffix in (".br", ".gz"):
            assert (bundle / f"{name}{suffix}").is_file()
    assert manifest["figures"]["int8"]
    assert manifest["licences"][0]["spdx"] == "Apache-2.0"
    assert all((bundle / licence["file"]).stat().st_size > 500 for licence in manifest["licences"])
    assert "Microsoft" in (bundle / "licences" / "onnxruntime.txt").read_text()
    card = (bundle / "MODEL_CARD.md").read_text()
    for word in ("Hair", "Glass", "Several subjects", "Camouflage", "Licence"):
        assert word in card
    [tarball] = (bundle / "npm").glob("*.tgz")
    with tarfile.open(tarball) as archive:
        assert "package/dist/index.js" in archive.getnames()


def test_twice_the_same_bytes(bundle: Path, stages: list[str | Path], tmp_path: Path) -> None:
    result = publish(*stages, "--policy", BUILD / "policy.toml", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    again = tmp_path / bundle.name
    names = sorted(path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [name for name in names if (bundle / name).read_bytes() != (again / name).read_bytes()] == []


def test_two_at_a_time_convert_once(stages: list[str | Path], tmp_path: Path) -> None:
    build = tmp_path / "build"
    shutil.copytree(BUILD / "lite", build / "lite", ignore=shutil.ignore_patterns("*.ort", "*.ort.json"))
    options = [build if option == BUILD else option for option in stages]
    command = [sys.executable, "-m", "publish", *map(str, options), "--policy", str(BUILD / "policy.toml"), "--out"]
    outs = [tmp_path / "a", tmp_path / "b"]
    running = [subprocess.Popen([*command, str(out)], cwd=ROOT, stderr=subprocess.PIPE, text=True) for out in outs]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    for name in ("fp32.ort", "int8.ort", "manifest.json"):
        first, second = (next(out.glob(f"*/{name}")).read_bytes() for out in outs)
        assert first == second, name


def test_no_bundle_without_a_passing_gate(stages: list[str | Path], tmp_path: Path) -> None:
    """The project's own policy wants more pictures and a browser's timings than this report has."""
    result = publish(*stages, "--out", tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("publish: the gate fails: ")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def served(bundle: Path) -> Iterator[WebHost]:
    """The published folder on a plain static host, below an address of its own."""
    with WebHost({f"/models/{bundle.name}/": bundle}) as host:
        yield host


def test_the_published_demo_works_as_served(chromium: Browser, bundle: Path, served: WebHost) -> None:
    """A picture in, a PNG out, by the int8 model of this very bundle; the mask is the Python runner's."""
    image = scene(640, 480)
    with chromium.new_context(accept_downloads=True) as context:
        page = context.new_page()
        page.goto(f"{served.origin}/models/{bundle.name}/demo/")
        page.locator("html[data-state=ready]").wait_for(timeout=60_000, state="attached")
        assert "lite, int8" in (page.text_content("#engine-facts") or "")
        choose(page, picture(image))
        name, data = downloaded(page)
        assert name == "photo-cutout.png"
        assert page.inner_text("#sent b") == "0 bytes sent"
    alpha = pixels(data)[..., 3]
    expected = Remover(bundle / "int8.onnx").cutout(image).alpha
    assert alpha.shape == (480, 640)
    assert (expected > 128).any()
    # Integer kernels of the browser and of this machine round differently here and there.
    assert iou(alpha, expected) > 0.98
    assert np.abs(alpha.astype(int) - expected).mean() < 2


def test_the_published_wheel_holds_the_model(bundle: Path) -> None:
    import zipfile

    [wheel] = (bundle / "python").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("u2net/models/lite.onnx") == (bundle / "int8.onnx").read_bytes()


def test_the_report_opens_without_a_network(chromium: Browser, bundle: Path, served: WebHost) -> None:
    """The report that is shipped asks nobody for anything and has its pictures inside."""
    with chromium.new_context() as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{served.origin}/models/{bundle.name}/report/report.html")
        broken = page.evaluate("[...document.images].filter((i) => !i.complete || !i.naturalWidth).length")
        assert broken == 0
    assert [url for url in asked if not url.startswith((f"{served.origin}/models/", "data:"))] == []


def test_a_picture_through_the_served_package(chromium: Browser, bundle: Path, served: WebHost) -> None:
    """The package without the demo: `base` is the address of the folder, as its README says."""
    data = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(data, "PNG")
    assert 'createRemover({ base: "/models/u2net-lite/" })' in (bundle / "README.md").read_text()
    served.pages["/page/"] = "<!doctype html><title>test</title>"
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{served.origin}/page/")
        size = page.evaluate(
            """async ([folder, bytes]) => {
              const { createRemover } = await import(`${folder}demo/assets/remover.js`);
              const remover = await createRemover({ base: folder, device: 'wasm' });
              const { width, height, image, backend } = await remover.cutout(new Blob([new Uint8Array(bytes)]));
              await remover.dispose();
              return [width, height, image.type, backend];
            }""",
            [f"/models/{bundle.name}/", list(data.getvalue())],
        )
    assert size == [64, 48, "image/png", "onnxruntime-wasm"]


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_a_host_that_compresses(chromium: Browser, bundle: Path, served: WebHost, encoding: str) -> None:
    """What comes down is what the card and README say; progress counts whole files; the second visit fetches none."""
    served.compression = encoding
    served.pages["/page/"] = "<!doctype html><title>test</title>"
    sizes = read_manifest(bundle)["sizes"]
    fetched = [sizes[name] for name in ("int8.onnx", "ort-wasm-simd-threaded.wasm")]
    models_and_engine = sum(size["brotli" if encoding == "br" else encoding] for size in fetched)
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{served.origin}/page/")
        create = """async (folder) => {
          const { createRemover } = await import(`${folder}demo/assets/remover.js`);
          const steps = [];
          const remover = await createRemover({ base: folder, device: 'wasm', onProgress: (p) => steps.push(p) });
          await remover.dispose();
          return steps;
        }"""
        steps = page.evaluate(create, f"/models/{bundle.name}/")
        first_visit = served.sent_bytes
        page.reload()
        page.evaluate(create, f"/models/{bundle.name}/")
    assert steps[-1]["loaded"] == steps[-1]["total"] >= sum(size["raw"] for size in fetched)
    assert all(0 <= step["loaded"] <= step["total"] for step in steps)
    assert models_and_engine < first_visit < models_and_engine + 150_000
    if encoding == "br":
        assert f"downloads {models_and_engine / 1e6:.1f} MB" in (bundle / "README.md").read_text()
    assert served.sent_bytes - first_visit < 150_000

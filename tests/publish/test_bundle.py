"""The whole of `python -m publish` on `lite`: made twice, verified, refused without a passing gate, used as served."""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from eval.report import load_report
from publish.bundle import _npm_pack
from publish.card import model_card
from publish.manifest import EngineFile, ModelFile, read_manifest, role_of
from tests.support.paths import BUILT, ROOT
from tests.support.web_browser import chromium, launch, run_once, web_dist  # noqa: F401
from tests.support.web_host import WebHost
from tests.web.test_demo import choose, downloaded, iou, picture, pixels
from tests.web.test_package import scene
from u2net import Remover
from u2net.errors import OutputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]

BUILD = BUILT / "publish"
INT8_ONNX = "huggingface/onnx/model_quantized.onnx"
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
def stages(web_dist: Path, lite_fp32: Path, lite_int8: Path) -> list[str | Path]:
    """What the stages before leave behind, made by their commands, and the options that say where."""
    packed, report = lite_int8.with_suffix(".u2e"), BUILD / "report"
    python = (sys.executable, "-m")
    run_once(packed, [lite_int8], *python, "engine", lite_int8, "--count", "1", "--out", packed)
    options = ("--no-latency", "--limit", "4", "--workers", "1", "--out", report)
    run_once(report / "report.html", [lite_int8], *python, "eval", lite_fp32, lite_int8, *options)
    (BUILD / "policy.toml").write_text(POLICY)
    return ["--model", "lite", "--build", BUILT, "--report", report, "--brotli-quality", "3"]


def make(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """make, with an environment that is up to date by a stamp of its own, so that no test installs anything."""
    stamp = BUILD / "environment"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()
    command = ["make", f"VENV={stamp}", f"PY={sys.executable}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_make_publish_is_the_whole_pipeline(tmp_path: Path) -> None:
    """From nothing: export, quantize, pack, eval, gate, the browser package, the bundle, in this order."""
    build = tmp_path / "nothing" / "lite"
    planned = make("--dry-run", "publish", "MODEL=lite", f"BUILD={build}", f"REPORT={tmp_path / 'report'}")
    assert planned.returncode == 0, planned.stderr
    commands = re.findall(
        r"-m (export|quantize|engine(?! build)|eval gate|eval|publish)\b|(make)\S* (?:web|gate)", planned.stdout
    )
    order = [stage for stage, _ in commands if stage]
    assert sorted(order) == sorted(["export", "quantize", "engine", "eval", "eval gate", "publish"])
    assert order.index("export") < order.index("quantize") < order.index("eval") < order.index("eval gate")
    assert order.index("quantize") < order.index("engine") < order.index("publish") == len(order) - 1
    assert re.search(r"make\S* web\n", planned.stdout)


@pytest.fixture(scope="module")
def bundle(stages: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the make target itself, with a relative DIST as the Makefile's own is, from models that are built."""
    out = tmp_path_factory.mktemp("dist")
    result = make(
        "publish",
        "MODEL=lite",
        f"BUILD={BUILT / 'lite'}",
        f"REPORT={BUILD / 'report'}",
        f"POLICY={BUILD / 'policy.toml'}",
        f"DIST={os.path.relpath(out, ROOT)}",
        "BROTLI=3",
        *("-o", "eval"),  # the models and the report are there; one with latencies takes minutes
    )
    assert result.returncode == 0, result.stdout + result.stderr
    [folder] = out.iterdir()  # nothing half-made is left beside it
    assert folder.name == f"u2net-lite-{metadata.version('u2net-remover')}"
    return folder


def test_what_npm_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`npm pack` that fails says why; an empty reason helps nobody."""
    web = tmp_path / "web"
    (web / "dist").mkdir(parents=True)
    (web / "dist" / "index.js").write_text("")
    (web / "package.json").write_text("{ not json")
    monkeypatch.setattr("publish.bundle.WEB", web)
    with pytest.raises(OutputError, match=r"could not pack the browser package: npm .*(JSON|EJSONPARSE)"):
        _npm_pack(tmp_path / "out")


def test_npm_packs_into_a_relative_folder(web_dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _npm_pack(Path("dist") / "npm").is_file()


def test_a_bundle_is_whole(bundle: Path) -> None:
    checked = publish("verify", bundle)
    assert checked.returncode == 0, checked.stderr
    manifest = read_manifest(bundle)
    files = {file.path: file for file in manifest.files}
    models = {(file.precision, file.format) for file in files.values() if isinstance(file, ModelFile)}
    assert models == {("int8", "u2e"), ("int8", "onnx")}
    assert {"README.md", "MODEL_CARD.md", "LICENSE", "rembg/README.md", "report/report.html", "demo/index.html"} <= set(
        files
    )
    roles = {role_of(file) for file in files.values()}
    assert roles == {"model", "package", "wheel", "demo", "report", "huggingface", "recipe", "licence", "document"}
    for name in ("int8.u2e", "demo/assets/main.js", "manifest.json"):
        assert (bundle / f"{name}.br").is_file()
        assert (bundle / f"{name}.gz").is_file() == (name != "int8.u2e"), "gzip saves too little of weights"
    assert manifest.figures["int8"]
    assert manifest.licences[0].spdx == "Apache-2.0"
    assert all((bundle / licence.file).stat().st_size > 500 for licence in manifest.licences)
    [tarball] = (bundle / "npm").glob("*.tgz")
    with tarfile.open(tarball) as archive:
        assert "package/dist/index.js" in archive.getnames()


def test_a_bundle_is_small(bundle: Path) -> None:
    sizes = {path: path.stat().st_size for path in bundle.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 8e6, sorted(((size, path.name) for path, size in sizes.items()), reverse=True)[:9]
    assert not [path for path in sizes if path.suffix in (".wasm", ".ort")]


def test_the_card_leads_with_figures_on_real_sets_and_with_terms(bundle: Path) -> None:
    card = (bundle / "MODEL_CARD.md").read_text()
    for word in ("Hair", "Glass", "Several subjects", "Camouflage", "Licence"):
        assert word in card
    assert re.findall(r"^## (.*)", card, flags=re.M)[:2] == ["How good it is", "Where the weights come from"]
    assert "ecssd (150)" in card and "non-commercial research" in card
    side = read_manifest(bundle).input.size
    assert f"Input {side}×{side} RGB, output {side}×{side}" in card
    assert not re.search(r"\d\s?(ms|s)\b", card), "no time of one machine"


def test_a_card_of_other_weights_claims_nothing(bundle: Path, stages: list[str | Path]) -> None:
    """Figures and terms of the project's own weights stand only where those very weights are in the bundle."""
    provenance = read_manifest(bundle).provenance
    other = {**provenance, "fp32": {**provenance["fp32"], "inputs": {"weights": "ab" * 32}}}
    report = load_report(bundle / "report" / "report.json")
    card = model_card("lite", 320, [], {}, other, report)
    assert "ecssd (150)" not in card and "clothing-dataset" not in card
    assert "ab" * 32 in card
    assert "Portraits of our own." in model_card("lite", 320, [], {}, other, report, "Portraits of our own.")


def test_on_request_onnxruntime_too(stages: list[str | Path], tmp_path: Path) -> None:
    extras = [part for extra in ("fp16", "fp32", "onnxruntime") for part in ("--extras", extra)]
    result = publish(*stages, *extras, "--brotli-quality", "0", "--policy", BUILD / "policy.toml", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    [folder] = tmp_path.iterdir()
    manifest = read_manifest(folder)
    assert {file.provider for file in manifest.files if isinstance(file, EngineFile)} == {"wasm"}
    assert {file.precision for file in manifest.files if isinstance(file, ModelFile)} == {"int8", "fp16", "fp32"}
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 25 << 20
    assert "Microsoft" in (folder / "licences" / "onnxruntime.txt").read_text()
    assert publish(*stages, "--extras", "gguf").stderr.startswith("error: --extras must be of fp16, ")


def test_twice_the_same_bytes(bundle: Path, stages: list[str | Path], tmp_path: Path) -> None:
    result = publish(*stages, "--policy", BUILD / "policy.toml", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    again = tmp_path / bundle.name
    names = sorted(path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [name for name in names if (bundle / name).read_bytes() != (again / name).read_bytes()] == []


def test_no_bundle_without_a_passing_gate(stages: list[str | Path], tmp_path: Path) -> None:
    """The project's own policy wants more pictures and a browser's timings than this report has."""
    result = publish(*stages, "--out", tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: the gate fails: ")
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
        page.locator("#load-text", has_text="works offline").wait_for(timeout=60_000, state="attached")
        assert "lite, int8" in (page.text_content("#engine-facts") or "")
        choose(page, picture(image))
        name, data = downloaded(page)
        assert name == "photo-cutout.png"
        assert page.inner_text("#sent b") == "0 bytes sent"
    alpha = pixels(data)[..., 3]
    expected = Remover(bundle / INT8_ONNX).cutout(image).alpha
    assert alpha.shape == (480, 640)
    assert (expected > 128).any()
    # Integer kernels of the browser and of this machine round differently here and there.
    assert iou(alpha, expected) > 0.98
    assert np.abs(alpha.astype(int) - expected).mean() < 2


def test_the_published_wheel_holds_the_model(bundle: Path) -> None:
    import zipfile

    [wheel] = (bundle / "python").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("u2net/models/lite.onnx") == (bundle / INT8_ONNX).read_bytes()


def test_the_report_opens_without_a_network(chromium: Browser, bundle: Path, served: WebHost) -> None:
    """The report that is shipped asks nobody for anything and has its pictures inside."""
    with chromium.new_context() as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{served.origin}/models/{bundle.name}/report/report.html")
        decoded = page.evaluate(
            """Promise.all([...document.querySelectorAll("image")].map(async (element) => {
              const picture = new Image();
              picture.src = element.getAttribute("href");
              await picture.decode();
              return picture.naturalWidth === element.width.baseVal.value;
            }))"""
        )
        assert decoded and all(decoded)
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
    assert size == [64, 48, "image/png", "engine"]


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_a_host_that_compresses(chromium: Browser, bundle: Path, served: WebHost, encoding: str) -> None:
    """What comes down is what the card and README say; progress counts whole files; the second visit fetches none."""
    served.compression = encoding
    served.pages["/page/"] = "<!doctype html><title>test</title>"
    size = read_manifest(bundle).sizes["int8.u2e"]
    model = size.brotli if encoding == "br" else size.raw  # weights have no .gz
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
    assert steps[-1]["loaded"] == steps[-1]["total"] >= model
    assert all(0 <= step["loaded"] <= step["total"] for step in steps)
    assert model < first_visit < model + 150_000
    if encoding == "br":
        assert f"{model / 1e6:.1f} MB on the wire" in (bundle / "README.md").read_text()
    assert served.sent_bytes - first_visit < 150_000

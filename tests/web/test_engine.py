"""The package's own engine, and what a page puts in and gets out, in real Chromium under a strict policy."""

# ruff: noqa: F811, E501 – fixtures are imported and then named as parameters; scripts of pages have long lines

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from PIL import Image

from engine.format import read_model
from engine.reference import run_reference
from tests.support.web_browser import (  # noqa: F401
    call,
    chromium,
    host_of,
    launch,
    packed_bundle,
    tiny_bundle,
    web_dist,
)
from tests.support.web_host import ISOLATION, WebHost
from tests.web.test_package import BYTES, decoded, encoded, scene
from u2net.postprocess import FAST, matte
from u2net.preprocess import to_tensor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]
CREATE = "const remover = await api.createRemover({ base: 'model/', ...(x?.options) }); "


@pytest.fixture
def host(packed_bundle: Path) -> Iterator[WebHost]:
    with host_of(packed_bundle) as server:
        yield server


@pytest.fixture
def page(chromium: Browser, host: WebHost) -> Iterator[Page]:
    """An empty page of a fresh profile; the test fails where the page breaks its content security policy."""
    with chromium.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{host.origin}/app/")
        yield page
        assert not [text for text in said if "Content Security Policy" in text]


# ---- the engine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["worker", "main"])
@pytest.mark.parametrize("size", [(333, 241), (1501, 1340), (1, 1)])
def test_alpha_is_that_of_the_engines_reference(
    page: Page, packed_bundle: Path, size: tuple[int, int], mode: str
) -> None:
    image = scene(*size)
    out = call(
        page,
        BYTES + CREATE + "const r = await remover.cutout(file('picture'), { output: 'alpha', refine: 'fast' });"
        "return { alpha: await bytes(r.image), info: remover.info, backend: r.backend }",
        {"picture": encoded(image, "PNG"), "options": {"mode": mode}},
    )
    assert "error" not in out, out
    assert out["backend"] == out["info"]["backend"] == "engine"
    assert out["info"]["mode"] == mode
    assert out["info"]["selfTestDifference"] < 0.02
    model = read_model((packed_bundle / "int8.u2e").read_bytes())
    saliency = run_reference(model, to_tensor(np.asarray(image), 320)[0])
    expected = matte(np.asarray(image), saliency, FAST)
    difference = np.abs(decoded(out["alpha"]).astype(int) - expected)
    assert difference.max() <= 5, "where a float32 of the resize falls to the other side of a tie, an 8-bit step"
    assert (difference <= 1).mean() > 0.99


def test_threads_give_the_same_masks(page: Page) -> None:
    """Workers of the worker over one memory, where the page is isolated; and why there is one thread, where there is."""
    out = call(
        page,
        BYTES + "const masks = [], infos = []; for (const options of x.cases) {"
        " const remover = await api.createRemover({ base: 'model/', ...options });"
        " for (let i = 0; i < 3; i++) {"
        "  const r = await remover.cutout(file('picture'), { maskOnly: true });"
        "  masks.push(r.alpha.data.reduce((hash, value) => (Math.imul(hash, 31) + value) | 0, 7)); }"
        " infos.push([remover.info.threads, remover.info.threadsReason ?? '']); await remover.dispose(); }"
        "return { masks, infos }",
        {"picture": encoded(scene(), "PNG"), "cases": [{"threads": 1}, {"threads": 3}, {}, {"mode": "main"}]},
    )
    assert "error" not in out, out
    assert len(set(out["masks"])) == 1
    assert [threads for threads, _ in out["infos"]] == [1, 3, min(4, max(2, (os.cpu_count() or 1) - 1)), 1]
    assert [reason for _, reason in out["infos"]] == [
        "one thread was asked for",
        "",
        "",
        "threads are for work that is done in a worker",
    ]


def test_without_isolation_one_thread_and_the_reason(chromium: Browser, packed_bundle: Path) -> None:
    with host_of(packed_bundle, headers={}) as host, chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{host.origin}/app/")
        info = call(page, CREATE + "return remover.info")
    assert (info["backend"], info["threads"]) == ("engine", 1)
    assert "cross-origin isolated" in info["threadsReason"]


def test_nothing_but_manifest_and_model_is_fetched(page: Page, host: WebHost) -> None:
    assert call(page, CREATE + "return remover.info.backend") == "engine"
    asked = [path for _, path, _ in host.requests if "/model/" in path]
    assert asked == ["/app/model/manifest.json", "/app/model/int8.u2e"]
    assert not [path for _, path, _ in host.requests if "ort" in path], "ONNX Runtime is not loaded"


def test_a_model_that_answers_wrong_is_not_used(page: Page, host: WebHost, packed_bundle: Path) -> None:
    manifest = json.loads((packed_bundle / "manifest.json").read_text())
    answer = base64.b64decode(manifest["self_test"]["alpha"])
    manifest["self_test"]["alpha"] = base64.b64encode(bytes(255 - value for value in answer)).decode()
    host.pages["/app/model/manifest.json"] = json.dumps(manifest)
    out = call(page, CREATE)
    assert out["error"] == "EngineError"
    assert "the engine failed: its mask of the self-test differs by" in out["message"]
    kept = page.evaluate("async () => (await (await caches.open('u2net-remover-1')).keys()).map(({ url }) => url)")
    assert any("int8.u2e?sha256=" in url for url in kept), "what has been downloaded is kept"


def test_onnx_runtime_takes_over_with_a_reason(
    chromium: Browser, packed_bundle: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """A bundle with both: a damaged model for the engine leaves the work to ONNX Runtime, where that was imported."""
    folder = tmp_path / "both"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    packed = (packed_bundle / "int8.u2e").read_bytes()
    damaged = packed[:-1] + bytes([packed[-1] ^ 1])
    (folder / "int8.u2e").write_bytes(damaged)
    from publish.manifest import ModelFile, describe_file

    entry = msgspec.to_builtins(describe_file(folder, "int8.u2e", ModelFile, precision="int8", format="u2e"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": [entry, *manifest["files"]]}))
    with host_of(folder) as host, chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{host.origin}/app/")
        info = call(page, CREATE + "return remover.info")
    assert info["backend"] == "onnxruntime-wasm"
    assert "damaged" in info["engineReason"]


def test_a_worker_that_dies_costs_one_picture(page: Page) -> None:
    out = call(
        page,
        BYTES
        + """
        let made; const make = () => made = new Worker(new URL('pages/worker.js', document.baseURI), { type: 'module' });
        const remover = await api.createRemover({ base: 'model/', worker: make });
        const first = made; const failed = (error) => [error.name, error.code, error.message];
        const lost = remover.cutout(file('picture')).catch(failed);
        const waiting = remover.cutout(file('picture')).catch(failed);
        for (let turn = 0; turn < 20; turn++) await null; // they are on their way
        first.dispatchEvent(new ErrorEvent('error', { message: 'out of memory' }));
        const answers = [await lost, await waiting];
        const next = await remover.cutout(file('picture'));
        await remover.dispose();
        return { answers, width: next.width, another: made !== first,
          late: await remover.cutout(file('picture')).catch((error) => error.name) }""",
        {"picture": encoded(scene(), "PNG")},
    )
    assert out["answers"] == [["WorkerError", "worker", "the worker failed: out of memory"]] * 2
    assert (out["width"], out["another"], out["late"]) == (360, True, "DisposedError")


def test_where_no_worker_can_be_started_the_page_does_the_work(chromium: Browser, packed_bundle: Path) -> None:
    policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'none'; connect-src 'self'; img-src 'self'"
    with host_of(packed_bundle, {"Content-Security-Policy": policy}) as host, chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{host.origin}/app/")
        info = call(page, CREATE + "return remover.info")
        assert (info["mode"], info["backend"]) == ("main", "engine")
        assert "worker" in info["modeReason"]
        asked = call(page, CREATE, {"options": {"mode": "worker"}})
        assert asked["error"] == "WorkerError"


def test_without_wasm_in_the_policy_the_error_says_so(chromium: Browser, packed_bundle: Path) -> None:
    policy = "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'"
    with host_of(packed_bundle, {"Content-Security-Policy": policy}) as host, chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{host.origin}/app/")
        out = call(page, CREATE)
    assert out["error"] == "EngineError"
    assert "wasm-unsafe-eval" in out["message"]


def test_preload_leaves_nothing_to_fetch_but_the_manifest(page: Page, host: WebHost) -> None:
    seen = call(
        page, "const seen = []; await api.preload({ base: 'model/', onProgress: (p) => seen.push(p) }); return seen"
    )
    assert seen[-1]["phase"] == "ready"
    assert seen[-1]["loaded"] == seen[-1]["total"] > 0
    host.requests.clear()
    out = call(page, "const seen = []; await api.createRemover({ base: 'model/', mode: 'main', onProgress: (p) => seen.push(p) });"
                     "return seen")  # fmt: skip
    assert [path for _, path, _ in host.requests if "/model/" in path] == ["/app/model/manifest.json"]
    assert out[-1] == {"phase": "ready", "loaded": 0, "total": 0}


# ---- what goes in ---------------------------------------------------------------------------------------------------

INPUTS = {
    "string": "'photo.png'",
    "URL": "new URL('photo.png', document.baseURI)",
    "object URL": "URL.createObjectURL(blob)",
    "data URL": "await new Promise((done) => { const reader = new FileReader(); reader.onload = () => done(reader.result);"
    " reader.readAsDataURL(blob); })",
    "Blob": "blob",
    "File": "new File([blob], 'a.jpg', { type: 'image/jpeg' })",
    "Response": "await fetch('photo.png')",
    "ArrayBuffer": "await blob.arrayBuffer()",
    "Uint8Array": "new Uint8Array(await blob.arrayBuffer())",
    "DataView": "new DataView(await blob.arrayBuffer())",
    "<img>": "Object.assign(new Image(), { src: 'photo.png' })",
    "canvas": "draw(Object.assign(document.createElement('canvas'), { width: 36, height: 27 }))",
    "OffscreenCanvas": "draw(new OffscreenCanvas(36, 27))",
    "ImageBitmap": "await createImageBitmap(blob)",
    "ImageData": "draw(new OffscreenCanvas(36, 27)).getContext('2d').getImageData(0, 0, 36, 27)",
    "plain pixels": "((i) => ({ data: new Uint8Array(i.data), width: i.width, height: i.height }))"
    "(draw(new OffscreenCanvas(36, 27)).getContext('2d').getImageData(0, 0, 36, 27))",
    "VideoFrame": "new VideoFrame(draw(new OffscreenCanvas(36, 27)), { timestamp: 0 })",
}
WRONG_INPUTS = {
    "undefined": ("undefined", "ConfigError"),
    "null": ("null", "ConfigError"),
    "object": ("({})", "ConfigError"),
    "number": ("7", "ConfigError"),
    "missing": ("'nowhere.png'", "DownloadError"),
    "no URL": ("'http://'", "ConfigError"),
    "failed Response": ("await fetch('nowhere.png')", "DownloadError"),
    "read Response": ("await (async (r) => { await r.blob(); return r })(await fetch('photo.png'))", "ConfigError"),
    "text": ("new Blob(['hello'])", "UnsupportedImageError"),
    "empty bytes": ("new ArrayBuffer(0)", "EmptyImageError"),
    "broken <img>": ("Object.assign(new Image(), { src: 'nowhere.png' })", "UnsupportedImageError"),
    "empty canvas": ("Object.assign(document.createElement('canvas'), { width: 0 })", "EmptyImageError"),
    "closed bitmap": ("await createImageBitmap(blob).then((b) => { b.close(); return b })", "EmptyImageError"),
    "short pixels": ("({ data: new Uint8Array(10), width: 5, height: 5 })", "ConfigError"),
    "other site": (
        "await (async (i) => { i.src = x.other; await i.decode(); return i })(new Image())",
        "UnsupportedImageError",
    ),
}


def test_every_kind_of_picture(chromium: Browser, packed_bundle: Path, tmp_path: Path) -> None:
    """All kinds give one matte; what the caller gave stays usable; what is no picture has a typed error."""
    scene(36, 27).save(tmp_path / "photo.png")
    cases = {**{name: (code, "") for name, code in INPUTS.items()}, **WRONG_INPUTS}
    body = "".join(
        f"answers[{json.dumps(name)}] = await (async () => {{ const picture = {code}; const r = await remover.cutout(picture,"
        " { maskOnly: true, refine: 'fast' }); if (picture instanceof ImageBitmap && !picture.width) throw new Error('closed');"
        " return [r.width, r.height, Array.from(r.alpha.data)] })().catch((e) => [e.name, e.message]);"
        for name, (code, _) in cases.items()
    )
    headers = {**ISOLATION, "Cross-Origin-Resource-Policy": "cross-origin"}
    with (
        host_of(packed_bundle, headers) as host,
        host_of(packed_bundle, headers) as other,
        chromium.new_context() as context,
    ):
        host.mounts["/app/photo.png"] = other.mounts["/app/photo.png"] = tmp_path / "photo.png"
        page = context.new_page()
        page.goto(f"{host.origin}/app/")
        for mode in ("worker", "main"):
            answers = call(
                page,
                BYTES
                + CREATE
                + "const answers = {}; const blob = file('picture'); const bitmap = await createImageBitmap(blob);"
                "const draw = (canvas) => { canvas.getContext('2d').drawImage(bitmap, 0, 0); return canvas };"
                + body
                + "return answers",
                {
                    "picture": encoded(scene(36, 27), "PNG"),
                    "other": f"{other.origin}/app/photo.png",
                    "options": {"mode": mode},
                },
            )
            assert "error" not in answers, answers
            expected = answers["Blob"]
            assert expected[:2] == [36, 27]
            for name in INPUTS:
                assert answers[name] == expected, (mode, name, answers[name][:2])
            for name, (_, error) in WRONG_INPUTS.items():
                assert answers[name][0] == error, (mode, name, answers[name][:2])


# ---- what comes out -------------------------------------------------------------------------------------------------


def test_crop_mask_and_subject(page: Page) -> None:
    image = Image.new("RGB", (300, 200), (40, 60, 220))
    image.paste((220, 60, 40), (120, 60, 180, 160))
    out = call(
        page,
        BYTES + CREATE + "const photo = file('picture'); const result = {};"
        "for (const [name, options] of Object.entries(x.cases)) {"
        "  const r = await remover.cutout(photo, { refine: 'fast', ...options });"
        "  result[name] = { size: [r.width, r.height], subject: r.subject, notes: r.notes,"
        "    alpha: [r.alpha.width, r.alpha.height], image: r.image && await bytes(r.image) } }"
        "const empty = await remover.cutout(new ImageData(new Uint8ClampedArray(400 * 4).fill(255), 20), { crop: true });"
        "result.empty = { size: [empty.width, empty.height], subject: empty.subject, notes: empty.notes };"
        "return result",
        {
            "picture": encoded(image, "PNG"),
            "cases": {
                "whole": {},
                "crop": {"crop": {"margin": 0}},
                "webp": {"crop": {"margin": 0}, "output": "webp"},
                "square": {"crop": {"margin": 0.1, "square": True}, "background": "#00ff00"},
                "mask": {"crop": True, "maskOnly": True},
                "alpha": {"crop": {"margin": 0}, "output": "alpha"},
            },
        },
    )
    assert "error" not in out, out
    box = out["whole"]["subject"]["box"]
    assert abs(box["x"] - 120) <= 4 and abs(box["y"] - 60) <= 4
    assert abs(box["width"] - 60) <= 8 and abs(box["height"] - 100) <= 8
    assert out["whole"]["subject"]["found"]
    assert abs(out["whole"]["subject"]["area"] - 0.1) < 0.02
    whole = decoded(out["whole"]["image"])
    y, x = slice(box["y"], box["y"] + box["height"]), slice(box["x"], box["x"] + box["width"])
    assert np.array_equal(decoded(out["crop"]["image"]), whole[y, x])
    assert np.array_equal(decoded(out["webp"]["image"])[..., 3], whole[y, x, 3])
    assert np.array_equal(decoded(out["alpha"]["image"]), whole[y, x, 3])
    assert out["crop"]["size"] == out["crop"]["alpha"] == [box["width"], box["height"]]
    side = max(box["width"], box["height"])
    square = decoded(out["square"]["image"])
    assert square.shape[:2] == (side + 2 * round(0.1 * side),) * 2
    assert np.array_equal(square[0, 0], (0, 255, 0, 255))
    assert out["mask"]["image"] is None
    assert out["empty"]["size"] == [20, 20]
    assert (out["empty"]["subject"]["found"], out["empty"]["subject"]["box"]) == (False, None)
    assert "nothing was found in the picture" in out["empty"]["notes"]


def test_the_element(chromium: Browser, packed_bundle: Path, tmp_path: Path) -> None:
    """Pictures inside <remove-background> are replaced, new ones too, and what fails stays as it is."""
    image = Image.new("RGB", (36, 27), (40, 60, 220))
    image.paste((220, 60, 40), (12, 6, 24, 20))
    image.save(tmp_path / "photo.png")
    with host_of(packed_bundle) as host, chromium.new_context() as context:
        host.mounts["/app/photo.png"] = tmp_path / "photo.png"
        host.mounts["/app/dist/"] = host.mounts["/app/pages/"].parent / "dist"
        host.pages["/app/"] = (
            "<!doctype html><script type='module' src='dist/element.js'></script>"
            "<remove-background base='model/'><img src='photo.png' alt='A disc'></remove-background>"
        )
        page = context.new_page()
        page.goto(f"{host.origin}/app/")
        page.locator("remove-background[data-state=done]").wait_for(timeout=30_000)
        seen = page.evaluate(
            """async () => {
              const element = document.querySelector('remove-background');
              const [first] = element.children; await first.decode();
              const canvas = new OffscreenCanvas(36, 27).getContext('2d'); canvas.drawImage(first, 0, 0);
              const corner = canvas.getImageData(0, 0, 1, 1).data[3];
              const event = new Promise((done) => element.addEventListener('cutouterror', (e) => done(e.detail.error.name)));
              element.append(Object.assign(new Image(), { src: 'nowhere.png', alt: '' }));
              return [first.src.slice(0, 5), first.alt, first.naturalWidth, corner, await event, element.children[1].getAttribute('src')];
            }"""
        )
    assert seen == ["blob:", "A disc", 36, 0, "UnsupportedImageError", "nowhere.png"]

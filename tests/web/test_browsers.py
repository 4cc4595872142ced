"""The package in the browsers that are installed: Chromium, Firefox and WebKitGTK (`make browsers` installs them).

    python -m tests.web.test_browsers [MODEL]    # time of build/MODEL beside onnxruntime-web, in each, interleaved

A browser opens a page, which does the work and posts what it found back to its host: no driver is needed.
"""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.format import read_model
from engine.reference import run_reference
from eval.latency.opened import browser_command, browser_environment
from tests.support.paths import ROOT
from tests.support.web_browser import STRICT, WEB, chromium_path, make_bundle, packed_bundle, web_dist  # noqa: F401
from tests.support.web_host import WebHost
from tests.web.test_demo import iou
from tests.web.test_package import scene
from u2net.postprocess import BALANCED, FAST, matte
from u2net.preprocess import to_tensor

BROWSERS = ("chromium", "firefox", "webkit")
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]

CUT_OUT = """
const { createRemover } = await import('/pages/remover.js');
const say = (answer) => fetch('/answer', { method: 'POST', body: JSON.stringify(answer) });
try {
  const photo = await (await fetch('/photo.png')).blob();
  const answer = { masks: [], infos: [], outputs: {} };
  for (const options of [{ threads: 1 }, { threads: 2 }, { mode: 'main' }]) {
    const remover = await createRemover({ base: '/model/', ...options });
    const { alpha, subject } = await remover.cutout(photo, { maskOnly: true, refine: 'fast' });
    answer.masks.push(Array.from(alpha.data));
    answer.infos.push(remover.info);
    answer.subject = subject;
    if (options.threads === 2) {
      for (const output of ['png', 'jpeg', 'alpha', 'webp', 'bitmap']) {
        const made = await remover.cutout(photo, { output, crop: true }).catch((error) => error);
        answer.outputs[output] = made.code ?? made.image.type ?? 'ImageBitmap';
      }
      answer.failure = await remover.cutout(new Blob(['no picture'])).catch((error) => error.code);
      answer.after = (await remover.cutout(photo)).width;
    }
    await remover.dispose();
  }
  await say(answer);
} catch (error) {
  await say({ error: String(error) + (error.stack ?? '') });
}
"""


def command(browser: str, url: str, profile: Path) -> list[str] | None:
    """What opens `url`; None where the browser is not installed."""
    if browser == "chromium":
        path = chromium_path()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        return [path, *flags, url] if path else None
    return browser_command(browser, url, profile)


def ask(browser: str, host: WebHost, timeout_s: float) -> dict[str, Any] | None:
    """What the page at / of `host` answers in `browser`; None where that is not installed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        opened = command(browser, f"{host.origin}/", Path(home) / "profile")
        if opened is None:
            return None
        (Path(home) / "profile").mkdir()
        with subprocess.Popen(
            opened,
            env=browser_environment(Path(home)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                answer = host.answered.get(timeout=timeout_s)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
    parsed: dict[str, Any] = json.loads(answer)
    assert "error" not in parsed, parsed
    return parsed


def page_of(script: str) -> dict[str, str]:
    return {"/": f"<!doctype html><title>test</title><script type='module'>{script}</script>"}


INLINE = STRICT["Content-Security-Policy"].replace("script-src", "script-src 'unsafe-inline'")


@pytest.mark.parametrize("browser", BROWSERS)
def test_masks_and_files(browser: str, packed_bundle: Path, web_dist: Path, tmp_path: Path) -> None:
    """In each browser: the mask of the engine's reference, on one thread, on two, and on the page; every output."""
    image = scene(333, 241)
    image.save(tmp_path / "photo.png")
    mounts = {"/pages/": web_dist / "test-dist", "/model/": packed_bundle, "/photo.png": tmp_path / "photo.png"}
    headers = {**STRICT, "Content-Security-Policy": INLINE}
    with WebHost(mounts, headers=headers, pages=page_of(CUT_OUT)) as host:
        answer = ask(browser, host, 120)
    if answer is None:
        pytest.skip(f"{browser} is not installed")
    assert [info["backend"] for info in answer["infos"]] == ["engine"] * 3
    threads = [info["threads"] for info in answer["infos"]]
    if browser == "webkit":  # WebKitGTK lets no worker of a worker have the memory, which is said
        assert threads[1] == 2 or "could not be started" in answer["infos"][1]["threadsReason"]
    else:
        assert threads == [1, 2, 1], answer["infos"][1].get("threadsReason")
    model = read_model((packed_bundle / "int8.u2e").read_bytes())
    expected = matte(np.asarray(image), run_reference(model, to_tensor(np.asarray(image), 320)[0]), FAST)
    first = np.array(answer["masks"][0])
    difference = np.abs(first.reshape(expected.shape) - expected)
    assert difference.max() <= 5
    assert (difference <= 1).mean() > 0.99
    assert all(np.array_equal(first, mask) for mask in answer["masks"])
    # WebKit cannot write WebP, and says so.
    assert answer["outputs"].pop("webp") in ("image/webp", "encode")
    wanted = {"png": "image/png", "jpeg": "image/jpeg", "alpha": "image/png", "bitmap": "ImageBitmap"}
    assert answer["outputs"] == wanted
    assert answer["failure"] == "unsupported-image"
    assert answer["after"] == 333


#: The demo in a frame, used from outside: its sample, then a file, mended and downloaded.
USE_DEMO = """
const say = (answer) => fetch('/answer', { method: 'POST', body: JSON.stringify(answer) });
const frame = document.createElement('iframe');
frame.style = 'width: 1200px; height: 900px';
const until = async (what, find) => {
  for (const end = Date.now() + 60_000; Date.now() < end; await new Promise((wake) => setTimeout(wake, 50))) {
    const found = find();
    if (found) return found;
  }
  throw new Error(`no ${what}: ${frame.contentDocument.documentElement.dataset.state}`);
};
try {
  frame.src = '/app/demo/';
  document.body.append(frame);
  const query = (selector) => frame.contentDocument?.querySelector(selector);
  await until('sample', () => query('#live[data-state=done]'));
  await until('ready', () => query('html[data-state=ready]'));
  const page = frame.contentWindow, errors = [];
  page.addEventListener('error', (event) => errors.push(event.message));
  page.addEventListener('unhandledrejection', (event) => errors.push(String(event.reason)));
  const saved = new Promise((resolve) => {
    page.HTMLAnchorElement.prototype.click = function () { resolve([this.download, fetch(this.href)]); };
  });
  const transfer = new page.DataTransfer();
  transfer.items.add(new page.File([await (await fetch('/photo.png')).blob()], 'photo.png', { type: 'image/png' }));
  query('#files').files = transfer.files;
  query('#files').dispatchEvent(new page.Event('change', { bubbles: true }));
  await until('cut-out', () => query('.card.done'));
  query('[aria-label="Repair photo.png"]').click();
  await until('brushes', () => query('#repair:not([hidden])'));
  query('#fill').click();
  await until('filled holes', () => query('#status').textContent.includes('oles'));
  query('#repair-done').click();
  await until('repaired cut-out', () => query('.card.done .detail')?.textContent.includes('333'));
  query('.save').click();
  const [name, response] = await saved;
  const bitmap = await createImageBitmap(await (await response).blob());
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), context = canvas.getContext('2d');
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  await say({
    name, errors, size: [bitmap.width, bitmap.height], alpha: Array.from(data.filter((_, i) => i % 4 === 3)),
    sent: query('#sent b').textContent, line: query('#load-text').textContent,
  });
} catch (error) {
  await say({ error: String(error) + (error.stack ?? '') });
}
"""


@pytest.mark.parametrize("browser", BROWSERS)
def test_the_demo(browser: str, packed_bundle: Path, web_dist: Path, tmp_path: Path) -> None:
    """In each browser: the sample cut out at once, then a file, through the repair, to the download."""
    image = scene(333, 241)
    image.save(tmp_path / "photo.png")
    mounts = {
        "/app/demo/": web_dist / "demo-dist",
        "/app/demo/model/": packed_bundle,
        "/photo.png": tmp_path / "photo.png",
    }
    with WebHost(mounts, headers={}, pages=page_of(USE_DEMO)) as host:
        answer = ask(browser, host, 120)
    if answer is None:
        pytest.skip(f"{browser} is not installed")
    assert (answer["name"], answer["size"], answer["errors"]) == ("photo-cutout.png", [333, 241], [])
    assert answer["sent"] in ("0 bytes sent", "Bytes sent: not counted")
    model = read_model((packed_bundle / "int8.u2e").read_bytes())
    expected = matte(np.asarray(image), run_reference(model, to_tensor(np.asarray(image), 320)[0]), BALANCED)
    alpha = np.array(answer["alpha"]).reshape(expected.shape)
    assert iou(alpha, expected) > 0.98


SIDE_BY_SIDE = """
const { createRemover } = await import('/pages/remover.js');
const say = (answer) => fetch('/answer', { method: 'POST', body: JSON.stringify(answer) });
try {
  const { photos, rounds } = await (await fetch('/task.json')).json();
  const worker = () => new Worker('/pages/worker.js', { type: 'module' });
  const removers = {}, times = {}, start = {};
  for (const [name, base] of [['engine', '/packed/'], ['onnxruntime', '/onnx/']]) {
    const begin = performance.now();
    removers[name] = await createRemover({ base, worker, threads: 1 });
    start[name] = performance.now() - begin;
    times[name] = [];
    if (!removers[name].info.backend.startsWith(name)) throw new Error(JSON.stringify(removers[name].info));
  }
  const pictures = await Promise.all(photos.map(async (url) => (await fetch(url)).blob()));
  for (let round = 0; round < rounds; round++) {
    for (const name of Object.keys(removers)) {
      const picture = pictures[round % pictures.length];
      const { timings } = await removers[name].cutout(picture, { maskOnly: true, refine: 'fast' });
      times[name].push(timings.inferenceMs);
    }
  }
  await say({ times, start, agent: navigator.userAgent });
} catch (error) {
  await say({ error: String(error) + (error.stack ?? '') });
}
"""


def main(model: str = "small-fast", rounds: int = 25) -> None:
    """Print, for each browser, the time of one picture in the engine and in onnxruntime-web, int8, one thread."""
    from tests.support.paths import SHARED

    built = ROOT / "build" / model
    photos = sorted((SHARED / "data" / "eval" / "images").glob("*.jpg"))[::75][:4]
    packed = make_bundle("side-packed", "--u2e", built / "int8.u2e", "--reference", built / "fp32.onnx")
    onnx = make_bundle("side-onnx", "--int8", built / "int8.onnx", "--reference", built / "fp32.onnx", "--runtime")
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task.json"
        task.write_text(json.dumps({"photos": [f"/{photo.name}" for photo in photos], "rounds": rounds}))
        mounts = {"/pages/": WEB / "test-dist", "/packed/": packed, "/onnx/": onnx, "/task.json": task}
        mounts |= {f"/{photo.name}": photo for photo in photos}
        for browser in BROWSERS:
            with WebHost(mounts, headers={}, pages=page_of(SIDE_BY_SIDE)) as host:
                answer = ask(browser, host, 280)
            if answer is None:
                print(f"{browser}: not installed")
                continue
            engine, runtime = answer["times"]["engine"], answer["times"]["onnxruntime"]
            ratio = statistics.median(b / a for a, b in zip(engine, runtime, strict=True))
            print(
                f"{browser} {model}: engine {statistics.median(engine):.1f} ms (least {min(engine):.1f}), "
                f"onnxruntime-web {statistics.median(runtime):.1f} (least {min(runtime):.1f}), "
                f"{ratio:.2f} times as fast; "
                f"start {answer['start']['engine']:.0f} against {answer['start']['onnxruntime']:.0f} ms"
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "small-fast")

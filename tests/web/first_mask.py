"""What a first visit costs: bytes to download, and the time from navigation to the first mask, in a fresh Chromium.

    python -m tests.web.first_mask build/small-fast [--out FILE.md]        # a part of make bench

The demo until its sample is cut out, and the package alone with the model for its own engine and with the same int8
model for onnxruntime-web, one after the other in turns. All comes from this machine, so that the time is that of the
work and not of a network; what a network adds follows from the bytes. The folder holds fp32.onnx, int8.onnx and
int8.u2e.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import brotli

from tests.support.web_browser import FLAGS, WEB, chromium_path, host_of, make_bundle
from tests.support.web_host import ISOLATION, WebHost
from tests.web.test_package import scene
from u2net.files import write_bytes

PAGE = """<!doctype html><title>first mask</title><script type="module">
import {{ createRemover }} from '{package}';
try {{
  const photo = fetch('/photo.png').then((response) => response.blob());
  const remover = await createRemover({{ base: '/model/', threads: 1{options} }});
  const {{ alpha }} = await remover.cutout(await photo, {{ maskOnly: true, refine: 'fast' }});
  console.info(JSON.stringify({{ ms: performance.now(), backend: remover.info.backend, pixels: alpha.data.length }}));
}} catch (error) {{
  console.info(JSON.stringify({{ error: String(error) }}));
}}
</script>"""
#: Pages say by console what they have done: to be asked by Playwright would cost them the time of its scripts.
WATCH = """addEventListener('DOMContentLoaded', () => {
  const live = document.getElementById('live');
  const look = () => live.dataset.state === 'done' && console.info('cut out');
  new MutationObserver(look).observe(live, { attributes: true });
});"""
#: Bundle, entry, options: standalone.js is what a page without a bundler loads; ONNX Runtime needs one, and a worker.
WAYS = {
    "engine": ("/dist/standalone.js", ""),
    "onnxruntime": ("/pages/remover.js", ", worker: () => new Worker('/pages/worker.js', { type: 'module' })"),
}
ROUNDS = 7


def first_mask_ms(bundle: Path, way: str) -> float:
    """Milliseconds from navigation to the mask of a 600×400 picture, in a browser that has never been here."""
    from playwright.sync_api import sync_playwright

    photo = io.BytesIO()
    scene(600, 400).save(photo, "PNG")
    package, options = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.png"
        path.write_bytes(photo.getvalue())
        mounts = {
            "/dist/": WEB / "dist",
            "/pages/": WEB / "test-dist",
            "/model/": bundle,
            "/photo.png": path,
        }
        pages = {"/": PAGE.format(package=package, options=options)}
        with WebHost(mounts, headers=ISOLATION, pages=pages) as host, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=[*FLAGS, "--disable-gpu"])
            page = browser.new_page()
            with page.expect_console_message(lambda message: message.type == "info", timeout=120_000) as said:
                page.goto(f"{host.origin}/")
            found = json.loads(said.value.text)
            browser.close()
    assert "error" not in found, found
    assert found["backend"].startswith(way), found
    assert found["pixels"] == 600 * 400
    return float(found["ms"])


class Visit(NamedTuple):
    """Of the demo, by a browser that has never been here."""

    wall_ms: float  # until its sample is cut out
    processor_ms: float  # until then, of all the browser's processes and threads
    fetched: list[Path]  # with what the service worker fetches afterwards


def visit_demo(bundle: Path) -> Visit:
    """One visit, in a browser of its own."""
    from playwright.sync_api import sync_playwright

    with host_of(bundle, headers={}) as host, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=[*FLAGS, "--disable-gpu"])
        page = browser.new_page()
        page.add_init_script(WATCH)
        page.wait_for_timeout(500)  # the browser's own start is no part of it
        session = browser.new_browser_cdp_session()

        def processor_ms() -> float:
            processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
            return 1000 * sum(process["cpuTime"] for process in processes)

        before, start = processor_ms(), time.monotonic()
        with page.expect_console_message(lambda message: message.text == "cut out", timeout=120_000):
            page.goto(f"{host.origin}/app/demo/", wait_until="commit")
        wall = 1000 * (time.monotonic() - start)
        processor = processor_ms() - before
        page.locator("#load-text", has_text="works offline").wait_for(timeout=120_000)
        fetched = host.fetched()
        browser.close()
    return Visit(wall, processor, fetched)


def brotli_bytes(paths: list[Path]) -> int:
    """Bytes of `paths`, each compressed on its own."""
    return sum(len(brotli.compress(path.read_bytes(), quality=11, lgwin=24)) for path in paths)


def main(built: Path, out: Path | None) -> None:
    """Print the table, and write it to `out`."""
    bundles = {
        "engine": make_bundle("first-packed", "--u2e", built / "int8.u2e", "--reference", built / "fp32.onnx"),
        "onnxruntime": make_bundle(
            "first-onnx", "--int8", built / "int8.onnx", "--reference", built / "fp32.onnx", "--runtime"
        ),
    }
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    visits, loads = [], []
    for _ in range(ROUNDS):
        visits.append(visit_demo(bundles["engine"]))
        loads.append(os.getloadavg()[0])
        for way, bundle in bundles.items():
            times[way].append(first_mask_ms(bundle, way))
    engine, runtime = (statistics.median(times[way]) for way in WAYS)
    ratio = statistics.median(a / b for a, b in zip(times["engine"], times["onnxruntime"], strict=True))
    fetched, walls = visits[0].fetched, [visit.wall_ms for visit in visits]
    rows = {
        f"first visit of the demo, brotli, {len(fetched)} files": f"{brotli_bytes(fetched):,} bytes",
        "navigation to the demo's sample cut out": f"{statistics.median(walls):,.0f} ms",
        "the least of them": f"{min(walls):,.0f} ms",
        "processor time of all the browser's processes": f"{statistics.median(v.processor_ms for v in visits):,.0f} ms",
        "the package alone, navigation to the first mask": f"{engine:,.0f} ms",
        "the same with onnxruntime-web": f"{runtime:,.0f} ms",
        "ratio of neighbours": f"1/{1 / ratio:.1f}",
        "load of the machine meanwhile": f"{min(loads):.1f} to {max(loads):.1f}",
    }
    head = [f"| {built.name}, medians of {ROUNDS} fresh browsers | |", "|---|---:|"]
    table = "\n".join([*head, *(f"| {what} | {figure} |" for what, figure in rows.items())])
    print(table)
    if out is not None:
        command = f"python -m tests.web.first_mask build/{built.name} --out {out.name}"
        write_bytes(out, f"<!-- {command} -->\n{table}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[3]) if sys.argv[2:3] == ["--out"] else None)

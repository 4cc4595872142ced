"""The package as its users build with it: packed by npm, installed into fresh applications, used in Chromium.

Those that install much run with `make browsers`, or with U2NET_BROWSERS=1.
"""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.support.paths import BUILT
from tests.support.web_browser import (  # noqa: F401
    FLAGS,
    STRICT,
    WEB,
    chromium,
    chromium_path,
    launch,
    packed_bundle,
    run_once,
    web_dist,
)
from tests.support.web_host import WebHost

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

APPS = Path(__file__).parent / "apps"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("web"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="no npm"),
]
slow = pytest.mark.skipif(not os.environ.get("U2NET_BROWSERS"), reason="installs much: make browsers")


@pytest.fixture(scope="session")
def package(web_dist: Path, packed_bundle: Path) -> Path:
    """The package as npm packs it, with the packed probe as the model that it brings: redder than blue is subject."""
    folder = BUILT / "package"
    tarball = folder / "u2net-remover.tgz"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "README.md", "LICENSE"):
        shutil.copyfile(WEB / name, folder / name)
    dist = folder / "dist"
    inputs = [web_dist / "dist" / ".built", packed_bundle / "manifest.json"]
    arguments = ("--package", "--model", packed_bundle, "--dist", dist)
    run_once(dist / ".built", inputs, "node", WEB / "scripts" / "build.mjs", *arguments, cwd=WEB)
    pack = f"npm pack --ignore-scripts --silent && mv u2net-remover-*.tgz {tarball.name}"
    run_once(tarball, [dist / ".built"], "sh", "-c", pack, cwd=folder)
    return tarball


@pytest.fixture(scope="session")
def unpacked(package: Path) -> Path:
    """What is in the tarball, as a folder."""
    folder = package.with_name("unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(package) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11 has it from 3.11.4 on
        archive.extractall(folder)
    return folder / "package"


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red on blue."""
    path = tmp_path_factory.mktemp("photograph") / "photo.jpg"
    image = Image.new("RGB", (300, 200), (40, 60, 220))
    image.paste((220, 60, 40), (100, 50, 200, 150))
    image.save(path, quality=95)
    return path


def run(folder: Path, *command: str) -> None:
    environment = {**os.environ, "NEXT_TELEMETRY_DISABLED": "1"}
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def installed(name: str, package: Path, folder: Path) -> Path:
    """A fresh application with the tarball in it."""
    app = folder / name
    shutil.copytree(APPS / name, app)
    run(app, "npm", "install", "--no-fund", "--no-audit", "--silent", str(package))
    return app


def cut_out(page: Page, url: str, photograph: Path) -> None:
    """As a person does it: choose a file, and see it without its background."""
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    page.locator("input:not([disabled])").wait_for(timeout=30_000)
    page.set_input_files("input", str(photograph))
    page.get_by_alt_text("Without its background").wait_for(timeout=30_000)
    seen = page.evaluate(
        """async () => {
          const image = document.querySelector('img'); await image.decode();
          const canvas = document.createElement('canvas').getContext('2d');
          canvas.canvas.width = image.naturalWidth; canvas.canvas.height = image.naturalHeight;
          canvas.drawImage(image, 0, 0);
          const alpha = (x, y) => canvas.getImageData(x, y, 1, 1).data[3];
          return [image.naturalWidth, image.naturalHeight, alpha(10, 10), alpha(150, 100)];
        }"""
    )
    assert seen == [300, 200, 0, 255]
    assert problems == []


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with chromium.new_context() as context:
        yield context.new_page()


def test_vite_react_and_strict_typescript(package: Path, photograph: Path, tmp_path: Path, page: Page) -> None:
    """`npm install TARBALL` and nothing else, ten lines, strict types of everything, built, under a strict policy."""
    app = installed("vite", package, tmp_path)
    assert not (app / "node_modules" / "onnxruntime-web").exists(), "nothing else is needed"
    run(app, "npx", "tsc", "--project", ".")
    run(app, "npx", "vite", "build", "--logLevel", "error")
    with WebHost({"/": app / "dist"}, headers=STRICT) as host:
        cut_out(page, f"{host.origin}/", photograph)
        wasm = [path for _, path, _ in host.requests if "wasm" in path or "ort" in path]
    assert wasm == []


@pytest.mark.parametrize("how", ["module", "import map"])
def test_plain_page_from_another_origin(unpacked: Path, photograph: Path, page: Page, how: str) -> None:
    """No bundler, and the package on another host, which sends nothing but what every content network does."""
    cdn = WebHost({"/u2net-remover/": unpacked / "dist"}, headers={"Access-Control-Allow-Origin": "*"})
    with cdn, WebHost({}) as host:
        url = f"{cdn.origin}/u2net-remover/standalone.js"
        mapping = f'<script type="importmap">{{"imports": {{"u2net-remover": "{url}"}}}}</script>'
        host.pages["/"] = f"""<!doctype html><title>Cut-out</title>{mapping if how == "import map" else ""}
          <label>Photograph <input type="file" disabled></label>
          <script type="module">
            import {{ createRemover }} from "{"u2net-remover" if how == "import map" else url}";
            const input = document.querySelector("input");
            const remover = await createRemover();
            document.title = remover.info.mode;
            input.disabled = false;
            input.onchange = async () => {{
              const {{ image }} = await remover.cutout(input.files[0]);
              const picture = Object.assign(new Image(), {{ src: URL.createObjectURL(image) }});
              picture.alt = "Without its background";
              document.body.append(picture);
            }};
          </script>"""
        cut_out(page, f"{host.origin}/", photograph)
        assert page.title() == "worker", "a shim of the page's own origin starts the worker"
        assert {path for _, path, _ in cdn.requests} == {"/u2net-remover/standalone.js", "/u2net-remover/model.u2e"}


def test_policy_of_a_plain_page_from_another_origin(unpacked: Path, page: Page) -> None:
    """With `worker-src blob:` and the other origin the worker runs; without, the page does the work, and says why."""
    cdn = WebHost({"/u2net-remover/": unpacked / "dist"}, headers={"Access-Control-Allow-Origin": "*"})
    with cdn:
        script = f"script-src 'self' {cdn.origin} 'wasm-unsafe-eval'; connect-src {cdn.origin}; default-src 'none'"
        for workers, mode in ((f"blob: {cdn.origin}", "worker"), ("'none'", "main")):
            policy = {"Content-Security-Policy": f"{script}; worker-src {workers}"}
            with WebHost({}, headers=policy, pages={"/": "<!doctype html><title>test</title>"}) as host:
                page.goto(f"{host.origin}/")
                info = page.evaluate(
                    "async (url) => (await (await import(url)).createRemover()).info",
                    f"{cdn.origin}/u2net-remover/standalone.js",
                )
            assert (info["mode"], info["backend"]) == (mode, "engine"), info
            assert mode == "worker" or "worker" in info["modeReason"]


def test_extension(unpacked: Path, photograph: Path, tmp_path: Path, launch: Callable[..., Browser]) -> None:
    """A Manifest V3 extension: its own scheme, its own policy, no host at all."""
    from playwright.sync_api import BrowserType

    extension = tmp_path / "extension"
    shutil.copytree(APPS / "extension", extension)
    shutil.copytree(unpacked / "dist", extension / "u2net-remover")
    # An unpacked extension is named after its path.
    digest = hashlib.sha256(str(extension).encode()).hexdigest()[:32]
    name = digest.translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop"))
    browser = launch()
    kind: BrowserType = browser.browser_type
    browser.close()
    flags = [*FLAGS, "--disable-gpu", f"--disable-extensions-except={extension}", f"--load-extension={extension}"]
    context = kind.launch_persistent_context(
        str(tmp_path / "profile"),
        executable_path=chromium_path(),
        args=[*flags, "--headless=new"],
        ignore_default_args=["--disable-extensions", "--headless"],
    )
    try:
        cut_out(context.new_page(), f"chrome-extension://{name}/popup.html", photograph)
    finally:
        context.close()


def test_node(package: Path, photograph: Path, tmp_path: Path) -> None:
    """In Node the same call cuts out plain pixels; for files it names the package that decodes them."""
    run(tmp_path, "npm", "install", "--no-fund", "--no-audit", "--silent", str(package))
    (tmp_path / "app.mjs").write_text(
        """
        import { createRemover } from "u2net-remover";
        import { readFileSync, writeFileSync } from "node:fs";
        const remover = await createRemover();
        const data = new Uint8Array(60 * 40 * 4);
        for (let i = 0; i < 60 * 40; i++) data.set(i % 60 < 30 ? [220, 60, 40, 255] : [40, 60, 220, 255], i * 4);
        const { image } = await remover.cutout({ data, width: 60, height: 40 });
        writeFileSync("cutout.png", Buffer.from(await image.arrayBuffer()));
        const error = await remover.cutout(readFileSync(process.argv[2])).catch((error) => error);
        if (error.code !== "unsupported-image" || !error.message.includes("npm install sharp")) throw error;
        await remover.dispose();
        """
    )
    (tmp_path / "app.cjs").write_text("if (!require('u2net-remover').createRemover) throw 1")
    run(tmp_path, "node", "app.mjs", str(photograph))
    run(tmp_path, "node", "--no-warnings", "app.cjs")
    run(tmp_path, "npx", "u2net-remover", "--help")
    cutout = Image.open(tmp_path / "cutout.png")
    assert cutout.size == (60, 40)
    assert (cutout.getpixel((10, 20))[3], cutout.getpixel((50, 20))[3]) == (255, 0)  # type: ignore[index]


@slow
def test_webpack(package: Path, photograph: Path, tmp_path: Path, page: Page) -> None:
    app = installed("webpack", package, tmp_path)
    run(app, "npx", "webpack", "--mode", "production")
    shutil.copyfile(app / "index.html", app / "dist" / "index.html")
    with WebHost({"/": app / "dist"}, headers=STRICT) as host:
        cut_out(page, f"{host.origin}/", photograph)


@slow
@pytest.mark.parametrize("bundler", ["--turbopack", "--webpack"])
def test_next(package: Path, photograph: Path, tmp_path: Path, page: Page, bundler: str) -> None:
    """Next's app router, exported; its own inline scripts allow no strict policy, but the page is isolated."""
    app = installed("next", package, tmp_path)
    run(app, "npx", "next", "build", bundler)
    headers = {name: value for name, value in STRICT.items() if name != "Content-Security-Policy"}
    with WebHost({"/": app / "out"}, headers=headers) as host:
        cut_out(page, f"{host.origin}/", photograph)

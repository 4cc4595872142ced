"""Every snippet of the browser package's documentation is compiled under strict TypeScript; what can be run is run."""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.support.paths import ROOT
from tests.support.web_browser import STRICT, WEB, chromium, launch, packed_bundle, web_dist  # noqa: F401
from tests.support.web_host import WebHost
from tests.web.test_apps import package, photograph, run, unpacked  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]
PAGES = (ROOT / "docs" / "web.md", WEB / "README.md", ROOT / "README.md")
#: What readers have in their own pages.
AROUND = """
declare const input: HTMLInputElement & { files: FileList };
declare const preview: HTMLImageElement;
declare const bar: HTMLProgressElement;
declare const canvas: HTMLCanvasElement;
declare const video: HTMLVideoElement;
declare const file: File;
"""


def snippets(language: str, kind: str | None = None) -> Iterator[tuple[str, str]]:
    """Fenced blocks in the pages, with where they are; of one `kind`, the word after the language."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if match[1] == language and (kind is None or match[2] == kind):
                yield f"{page.name}:{text[: match.start()].count(chr(10)) + 1}", match[3]


def test_snippets_compile_under_strict_typescript(web_dist: Path, tmp_path: Path) -> None:
    (tmp_path / "around.d.ts").write_text(AROUND)
    found = [*snippets("ts"), *snippets("tsx")]
    assert len(found) >= 5
    for index, (_, code) in enumerate(found):
        (tmp_path / f"snippet{index}.tsx").write_text(f"{code}\nexport {{}};\n")
    options = {
        "target": "ES2022",
        "module": "ESNext",
        "moduleResolution": "bundler",
        "lib": ["ES2022", "DOM", "DOM.Iterable"],
        "types": [],
        "jsx": "react-jsx",
        "strict": True,
        "exactOptionalPropertyTypes": True,
        "noEmit": True,
        "paths": {
            "u2net-remover": [f"{WEB}/dist/index.d.ts"],
            "u2net-remover/*": [f"{WEB}/dist/*.d.ts"],
            "*": [f"{WEB}/node_modules/@types/*", f"{WEB}/node_modules/*"],
        },
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*"]}))
    tsc = ["node", str(WEB / "node_modules" / "typescript" / "bin" / "tsc"), "-p", str(tmp_path)]
    result = subprocess.run(tsc, capture_output=True, text=True, check=False)
    assert result.returncode == 0, (result.stdout, [place for place, _ in found])


@pytest.fixture
def host(unpacked: Path, photograph: Path) -> Iterator[WebHost]:
    mounts = {"/u2net-remover/": unpacked / "dist", "/photo.jpg": photograph}
    policy = STRICT["Content-Security-Policy"].replace("script-src", "script-src 'unsafe-inline'")
    with WebHost(mounts, headers={**STRICT, "Content-Security-Policy": policy}) as server:
        yield server


def corner_and_centre(page: Page) -> list[int]:
    return page.evaluate(
        """async () => {
          const image = document.querySelector('img');
          while (!image.src.startsWith('blob:')) await new Promise((wake) => setTimeout(wake, 50));
          await image.decode();
          const canvas = new OffscreenCanvas(300, 200).getContext('2d'); canvas.drawImage(image, 0, 0);
          return [canvas.getImageData(10, 10, 1, 1).data[3], canvas.getImageData(150, 100, 1, 1).data[3]];
        }"""
    )


@pytest.mark.parametrize("kind", ["plain", "element"])
def test_pages_run(chromium: Browser, host: WebHost, photograph: Path, kind: str) -> None:
    [(_, code)] = snippets("html", kind)
    host.pages["/"] = f"<!doctype html><title>test</title>{code}"
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{host.origin}/")
        if kind == "plain":
            page.evaluate(
                "async () => { while (!document.querySelector('input').onchange)"
                " await new Promise((wake) => setTimeout(wake, 50)) }"
            )
            page.set_input_files("input", str(photograph))
        assert corner_and_centre(page) == [0, 255]


def test_the_node_script_runs(package: Path, photograph: Path, tmp_path: Path) -> None:
    [(_, code)] = snippets("js", "node")
    run(tmp_path, "npm", "install", "--no-fund", "--no-audit", "--silent", str(package), "sharp")
    (tmp_path / "photo.jpg").write_bytes(photograph.read_bytes())
    (tmp_path / "app.mjs").write_text(code)
    run(tmp_path, "node", "app.mjs")
    cutout = Image.open(tmp_path / "cutout.png")
    assert cutout.size == (300, 200)
    assert (cutout.getpixel((10, 10))[3], cutout.getpixel((150, 100))[3]) == (0, 255)  # type: ignore[index]


def test_every_option_and_error_is_documented() -> None:
    text = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")
    sources = {
        name: (WEB / "src" / f"{name}.ts").read_text(encoding="utf-8") for name in ("types", "errors", "network")
    }
    names = re.findall(r"^export class (\w+)", sources["errors"], re.MULTILINE)
    for interface in ("BundleOptions", "RemoverOptions", "ConvertOptions", "CropOptions", "CutoutOptions", "Timings"):
        [body] = re.findall(
            rf"export interface {interface}\b[^{{]*\{{(.*?)^\}}", sources["types"], re.MULTILINE | re.DOTALL
        )
        names += re.findall(r"^  (\w+)\??:", body, re.MULTILINE)
    assert len(names) > 30
    assert [name for name in names if not re.search(rf"[`{{ ,]{name}\b", text)] == []

"""The report's three files: self-contained, escaped, readable on a phone, and saying what is missing."""

from __future__ import annotations

import io
import json
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.charts import Point, curves_chart, rounds_chart, scatter_chart, ticks
from eval.html import render_html
from eval.latency.engines import EngineError, find_chromium
from eval.markdown import render_markdown
from eval.metrics import Aggregate, Truth, score
from eval.report import faults_of, speed_backend, worst_stems, write_report

NAMES = ("small/fp32", "small/int8", "<script>alert(1)</script>|x")
VOID = {"meta", "link", "img", "br"}


def picture_bytes(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def judged(index: int) -> dict[str, Any]:
    rng = np.random.default_rng(index)
    rows, total = [], Aggregate()
    for i in range(12):
        mask = np.zeros((30, 40), bool)
        mask[5:20, 8 : 20 + i] = True
        noisy = np.clip(mask * 255 - rng.integers(0, 90 + 40 * index, mask.shape), 0, 255).astype(np.uint8)
        scores = score(noisy, Truth(mask, mask.astype(float)))
        total.add(scores)
        rows.append({"stem": f"set_{i}", "set": "set", **scores.values, "constant": False})
    agreement = {"iou": 1 - index / 50, "iou_p5": 0.9, "iou_worst": 0.8, "mae": index / 100}
    sets = {"set": total.results(), "other": total.results()}
    return {
        "overall": total.results(), "sets": sets, "curves": total.curves(), "agreement": agreement, "pictures": rows,
    }  # fmt: skip


def timed(ratio: float) -> dict[str, Any]:
    return {
        "status": "measured",
        "engine_start_ms": 300.0,
        "session_ms": 120.0,
        "first_run_ms": 1500.0 * ratio,
        "memory_bytes": 200 << 20,
        "median_ms": 1250.0 * ratio,
        "min_ms": 1200.0 * ratio,
        "spread": 0.05,
        "rounds_ms": [1250.0 * ratio + i * 7 for i in range(12)],
        "ratio": {"median": ratio, "low": ratio - 0.01, "high": ratio + 0.01, "pairs": 12},
        "masks": [{"picture": "a", "mean_difference": 1e-6, "iou_with_native": 1.0}],
    }


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    graph = {
        "gmacs": 19.8, "integer_share": 0.5, "parameters": 1_130_000, "nodes": 371, "size": 320, "interface": "tensor",
        "dead_convolutions": [],
    }  # fmt: skip
    backends = {
        "wasm": {
            "title": "Chromium, wasm, 1 thread",
            "status": "measured",
            "rounds": 12,
            "really": {"browser": "Chromium 1", "engine": "onnxruntime-web 1", "threads": 1},
            "models": {name: timed(1 - 0.2 * i) for i, name in enumerate(NAMES)},
        },
        "webgpu": {"title": "WebGPU", "status": "skipped", "reason": "no <adapter>", "rounds": 0, "models": {}},
    }
    size = {"raw_bytes": 4_500_000, "gzip_bytes": 4_200_000, "brotli_bytes": 4_000_000}
    return {
        "schema_version": 1,
        "date": "2026-01-01 10:00 UTC",
        "commit": "abc",
        "libraries": {"numpy": "2"},
        "models": [{"name": n, "file": "x", "sha256": "0" * 64, "size": size, "graph": graph} for n in NAMES],
        "quality": {
            "source": "photographs & more",
            "pictures": 12,
            "sets": {"set": 11, "other": 1},
            "stretch": False,
            "reference": NAMES[0],
            "models": {name: judged(i) for i, name in enumerate(NAMES)},
        },
        "latency": {"machine": {"cpu": "Test <CPU>", "cores": 2}, "backends": backends},
    }


@pytest.fixture(scope="module")
def thumbnails() -> dict[str, dict[str, bytes]]:
    one = {"input": picture_bytes("JPEG"), "truth": picture_bytes("PNG"), **dict.fromkeys(NAMES, picture_bytes("PNG"))}
    return {f"set_{i}": one for i in range(12)}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()


def test_html_is_self_contained_and_escaped(report, thumbnails, tmp_path):
    picture = tmp_path / "sensitivity.svg"
    picture.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(2)</script></svg>")
    text = render_html(report, thumbnails, [picture], ["small/int8: too <slow>"])
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert all(load.startswith("data:") for load in page.loads)
    assert "@import" not in text
    assert "url(" not in text
    for wanted in (
        "&lt;script&gt;alert(1)",
        "no &lt;adapter&gt;",
        "too &lt;slow&gt;",
        "Test &lt;CPU&gt;",
        "& more".replace("&", "&amp;"),
    ):
        assert wanted in text
    assert text.count('class="row"') == 30  # the ten worst of each of three models


def test_worst_pictures_are_the_worst(report):
    rows = report["quality"]["models"][NAMES[2]]["pictures"]
    worst = worst_stems(report, NAMES[2])
    assert len(worst) == 10
    iou = {row["stem"]: row["iou"] for row in rows}
    assert [iou[stem] for stem in worst] == sorted(iou.values())[:10]


def test_markdown_fits_a_comment(report):
    text = render_markdown(report)
    assert len(text) < 60_000
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 15
    assert any("×0.80" in line for line in tables)
    assert "<script>" not in text
    assert r"\|x" in text
    assert "webgpu skipped: no &lt;adapter>" in text


def test_parts_that_were_left_out(report, thumbnails):
    empty = {**report, "quality": {"skipped": "--no-quality"}, "latency": {"skipped": "--no-latency"}, "commit": None}
    assert faults_of(empty) == ["quality was skipped: --no-quality", "latency was skipped: --no-latency"]
    assert speed_backend(empty) is None
    assert Page(render_html(empty, {})).open == []
    assert "no quality" in render_markdown(empty)


def test_files(report, thumbnails, tmp_path):
    paths = write_report(tmp_path / "out", report, thumbnails)
    assert [path.name for path in paths] == ["report.json", "report.html", "report.md"]
    assert json.loads(paths[0].read_text())["models"][1]["name"] == NAMES[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.81, 0.83), (0, 2500), (3, 3), (0, 7.3)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 1 <= len(found) <= 12
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    assert found == sorted(set(found))


def test_charts_of_little_data():
    for chart in (
        scatter_chart([Point("only & one", 10.0, 0.9, 1e6)], "ms"),
        rounds_chart([(0, "one", [5.0])]),
        curves_chart([("flat", [0.5] * 256)], "IoU"),
    ):
        assert Page(chart).open == []
        assert "nan" not in chart


def has_browser() -> bool:
    try:
        find_chromium()
    except EngineError:
        return False
    return True


def remember(asked: list[str], request: Any) -> None:
    asked.append(request.url)


@pytest.mark.browser
@pytest.mark.skipif(not has_browser(), reason="no Chromium here")
def test_page_fits_its_window_and_loads_nothing(report, thumbnails, tmp_path):
    """At 390 and 1280 px nothing sticks out sideways, and the page asks for nothing beyond its own file."""
    from playwright.sync_api import sync_playwright

    (_, path, _) = write_report(tmp_path, report, thumbnails)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(driver.chromium.executable_path))
        try:
            for width in (390, 1280):
                page = browser.new_page(viewport={"width": width, "height": 900})
                asked: list[str] = []
                page.on("request", partial(remember, asked))
                page.goto(Path(path).as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
                assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
                page.close()
        finally:
            browser.close()

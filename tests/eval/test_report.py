"""The report's three files: self-contained, escaped, readable on a phone, and saying what is missing."""

from __future__ import annotations

import io
import json
from functools import partial
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from eval.baseline import Baseline
from eval.changes import change_cells
from eval.cli import main
from eval.closeness import closeness_table
from eval.gate import Breach, Verdict, judge_report, verdict_text
from eval.latency.engines import EngineError, find_chromium
from eval.measures import AGREEMENT, MEASURES
from eval.metrics import Aggregate, Truth, score
from eval.policy import Check, Policy, Require
from eval.render.charts import Point, curves_chart, rounds_chart, scatter_chart, ticks
from eval.render.files import write_report
from eval.render.findings import faults_of, speed_backend, worst_against_first, worst_against_truth
from eval.render.html import render_html
from eval.render.markdown import render_markdown
from eval.report import Report, load_report
from eval.thumbnails import Thumbnails
from tests.support.reports import as_report, latency_entry, means, model_entry, report_value
from u2net.documents import write_document
from u2net.errors import ModelError

CHECK = Check(what="quality.iou", below_baseline=0.5)
NAMES = ("small/fp32", "small/int8", "<script>alert(1)</script>|x")
VOID = {"meta", "link", "img", "br"}


def picture_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(buffer, "WEBP")
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
        agreement = 1 - index * ((i * 5) % 12) / 100  # in another order than the truth's
        rows.append({"stem": f"set_{i}", "set": "set", **scores.values, "constant": False, "agreement_iou": agreement})
    overall = {"iou": 1 - index / 50, "iou_p5": 0.9, "iou_worst": 0.8, "mae": index / 100}
    sets = {"set": total.results(), "other": total.results()}
    return {
        "overall": total.results(), "sets": sets, "curves": total.curves(), "agreement": overall, "pictures": rows,
    }  # fmt: skip


@pytest.fixture(scope="module")
def report() -> Report:
    backends = {
        "wasm": {
            "title": "Chromium, wasm, 1 thread",
            "status": "measured",
            "rounds": 12,
            "really": {"browser": "Chromium 1", "engine": "onnxruntime-web 1", "threads": 1},
            "models": {name: latency_entry(1 - 0.2 * i) for i, name in enumerate(NAMES)},
        },
        "webgpu": {"title": "WebGPU", "status": "skipped", "reason": "no <adapter>", "rounds": 0, "models": {}},
    }
    return as_report({
        "schema_version": 1,
        "date": "2026-01-01 10:00 UTC",
        "commit": "abc",
        "libraries": {"numpy": "2"},
        "models": [model_entry(name, integer_share=0.5) for name in NAMES],
        "quality": {
            "source": "photographs & more",
            "pictures": 12,
            "sets": {"set": 11, "other": 1},
            "stretch": False,
            "reference": NAMES[0],
            "models": {name: judged(i) for i, name in enumerate(NAMES)},
        },
        "latency": {
            "machine": {"cpu": "Test <CPU>", "cores": 2, "system": "Linux"},
            "backends": backends,
        },
    })  # fmt: skip


@pytest.fixture(scope="module")
def thumbnails() -> dict[str, Thumbnails]:
    mask = picture_bytes()
    one = Thumbnails(mask, mask, dict.fromkeys(NAMES, mask), dict.fromkeys(NAMES[1:], mask))
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
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()


def test_html_is_self_contained_and_escaped(report, thumbnails, tmp_path):
    picture = tmp_path / "sensitivity.svg"
    picture.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(2)</script></svg>")
    verdict = Verdict((Breach("small/int8", "too <slow>"),), 1)
    text = render_html(report, thumbnails, [picture], verdict)
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert all(load.startswith(("data:", "#p")) for load in page.loads)
    shown = [load for load in page.loads if load.startswith("#p")]
    in_the_page = [load for load in page.loads if load.startswith("data:image/webp")]
    assert len(shown) > len(set(shown)) == len(in_the_page) > 0, "in the page once, however often shown"
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
    assert text.count('class="row"') == 50  # ten of each of three models, and of two that are not the first


def test_every_measure_is_explained_in_a_line(report, thumbnails):
    text = unescape(render_html(report, thumbnails))
    for measure in [*MEASURES.values(), *AGREEMENT.values()]:
        assert len(measure.meaning) < 90 and measure.meaning in text, measure
        assert measure.title in text


def test_worst_pictures_are_the_worst(report):
    """Two lists: against the truth, and against the first model's masks."""
    rows = report.quality.models[NAMES[2]].pictures
    worst, furthest = worst_against_truth(report, NAMES[2]), worst_against_first(report, NAMES[2])
    assert len(worst) == len(furthest) == 10 and worst != furthest
    iou = {row.stem: row.iou for row in rows}
    assert [iou[stem] for stem in worst] == sorted(iou.values())[:10]
    agreement = {row.stem: row.agreement_iou for row in rows}
    assert [agreement[stem] for stem in furthest] == sorted(agreement.values())[:10]
    assert worst_against_first(report, NAMES[0]) == []


def test_changes_stand_in_every_form(report, thumbnails, tmp_path):
    """What changed since the baseline, with its interval: in the HTML, the Markdown and the gate."""
    policy = Policy(schema_version=1, require=Require(baseline=str(tmp_path / "base.json")), checks=(CHECK,))
    write_document(tmp_path / "base.json", Baseline(schema_version=1).with_report(report))
    value = json.loads(json.dumps(msgspec.to_builtins(report)))
    changed = value["quality"]["models"][NAMES[1]]
    changed["overall"]["iou"] -= 0.05
    for row in changed["pictures"]:
        row["iou"] -= 0.05
    verdict = judge_report(as_report(value), policy)
    (worse,) = [change for change in verdict.changes if change.is_worse]
    then, now, difference, interval = change_cells(worse)
    assert difference == "−0.0500" and interval == "−0.0500 to −0.0500"
    for text in (render_html(as_report(value), thumbnails, (), verdict), render_markdown(as_report(value), verdict)):
        assert "Against the baseline" in text
        for cell in (then, now, difference, interval):
            assert cell in text
    assert f"changed: {NAMES[1]} IoU: {then} → {now} (−0.0500; 95 % −0.0500 to −0.0500)" in verdict_text(verdict)


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
    value = msgspec.to_builtins(report)
    skipped = {"quality": {"skipped": "--no-quality"}, "latency": {"skipped": "--no-latency"}, "commit": None}
    empty = as_report({**value, **skipped})
    assert faults_of(empty) == ["quality was skipped: --no-quality", "latency was skipped: --no-latency"]
    assert speed_backend(empty) is None
    assert Page(render_html(empty, {})).open == []
    assert "no quality" in render_markdown(empty)


def test_files(report, thumbnails, tmp_path):
    paths = write_report(tmp_path / "out", report, thumbnails)
    assert [path.name for path in paths] == ["report.json", "report.html", "report.md"]
    assert load_report(paths[0]) == report
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


def test_closeness_of_masks_is_one_table(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report_value()))
    (row,) = closeness_table([path]).splitlines()[2:]
    judged = load_report(path).quality.models["small/int8"]
    assert row.startswith("| small/int8 | small/fp32 | ")
    assert f" {judged.agreement.iou:.4f} | {judged.agreement.iou_p5:.4f} | " in row
    assert row.endswith(f" | {judged.overall.iou:.4f} | 0.8500 |")
    path.write_text(json.dumps({**report_value(), "quality": {"skipped": "--no-quality"}}))
    with pytest.raises(ModelError, match="without --no-quality"):
        closeness_table([path])


def test_the_leaderboard_is_one_table_of_several_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each model once, with what every report knows of it; the file says which command made it."""
    value = report_value()
    looked = {
        "overall": means(0.9), "sets": {"ecssd": means(0.91)}, "gained": 7, "lost": 1, "worst": -0.2, "used": 60,
        "looks": 1.9,
    }  # fmt: skip
    value["quality"]["models"]["small/int8"]["second_look"] = looked
    timed, judged, board = (tmp_path / name for name in ("timed.json", "judged.json", "board.md"))
    timed.write_text(json.dumps({**value, "quality": {"skipped": "--no-quality"}}))
    judged.write_text(json.dumps({**value, "latency": {"skipped": "--no-latency"}}))
    assert main(["leaderboard", str(judged), "--out", str(board), str(timed)]) == 0
    command, head, _, first, second = board.read_text().splitlines()
    assert command == f"<!-- python -m eval leaderboard {judged} {timed} -->"
    assert capsys.readouterr().out.splitlines() == [head, *board.read_text().splitlines()[2:]]
    names = [name.strip() for name in head.split("|")]
    cells = dict(zip(names, (cell.strip() for cell in second.split("|")), strict=True))
    assert cells["IoU"] == "0.8450" and cells["two looks: IoU"] == "**0.9000**" and cells["ecssd with two"] == "0.9100"
    assert cells["gain over 0.05"] == "7" and cells["lose as much"] == "1 (worst -0.20)" and cells["time"] == "1/1.7"
    assert first.startswith("| small/fp32 | 0.8500 |") and first.endswith(" | 1 |")
    assert main(["leaderboard", str(judged), "--out", str(tmp_path / "board.txt")]) == 2
    assert "say --out board.md" in capsys.readouterr().err
    assert main(["leaderboard", str(timed)]) == 1
    assert "no report judges masks" in capsys.readouterr().err
    value["quality"]["models"]["small/int8"]["overall"]["count"] = 3
    judged.write_text(json.dumps(value))
    assert main(["leaderboard", str(judged)]) == 1
    assert "judge different pictures" in capsys.readouterr().err

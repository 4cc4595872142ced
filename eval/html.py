"""The report as one HTML file that needs nothing else: no network, no script; light and dark; 390 px and up."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from .charts import MODEL_COLOURS, Point, colour, curves_chart, rounds_chart, scatter_chart
from .report import faults_of, speed_backend, worst_stems

__all__ = ["render_html"]

QUALITY_ROWS = (
    ("IoU", "iou", "intersection over union at one half"),
    ("mean IoU over thresholds", "iou_mean", ""),
    ("MAE ↓", "mae", "mean absolute error, not stretched"),
    ("Fβ adaptive", "f_adaptive", "β² = 0.3"),
    ("Fβ mean", "f_mean", ""),
    ("Fβ max", "f_max", ""),
    ("weighted Fβ", "f_weighted", ""),
    ("S-measure", "s_measure", ""),
    ("E-measure adaptive", "e_adaptive", ""),
    ("E-measure mean", "e_mean", ""),
    ("E-measure max", "e_max", ""),
    ("boundary Fβ, 3 px", "boundary_f", ""),
    ("boundary IoU", "boundary_iou", ""),
)
MATTE_ROWS = (("SAD ↓", "sad"), ("MSE ↓", "mse"), ("gradient ↓", "gradient"), ("connectivity ↓", "connectivity"))
LOWER_IS_BETTER = ("mae", "sad", "mse", "gradient", "connectivity")
WORSE_BY = 0.005  # a difference to the first model that is worth a colour

STYLE = """
:root{color-scheme:light dark;--bg:#f7f7f5;--card:#fff;--ink:#1d2125;--soft:#5d6670;--line:#e1e3e5;--tint:#f0f1f0;
--good:#176b43;--bad:#b3261e;--warn:#8a5a00;--warnbg:#fdf3dc;
--m0:#1f63c6;--m1:#c8500f;--m2:#0d7d6c;--m3:#8a3fc2;--m4:#b8255f;--m5:#5f7311}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e8eaec;--soft:#9aa4ae;--line:#30363c;
--tint:#23282d;--good:#6fce9c;--bad:#ff8a80;--warn:#f2c063;--warnbg:#33290f;
--m0:#7db1ff;--m1:#ff9d66;--m2:#54cdb8;--m3:#c997f5;--m4:#ff86b0;--m5:#b9cf5a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:1.15rem;margin:0 0 4px}h3{font-size:.95rem;margin:18px 0 8px}
p{margin:0 0 10px}.soft{color:var(--soft);font-size:.86rem}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px;margin-top:18px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:14px;margin-top:18px}
.card{background:var(--card);border:1px solid var(--line);border-top:4px solid var(--c);border-radius:12px;
padding:16px 18px}
.card h2{overflow-wrap:anywhere}.card dl{display:grid;grid-template-columns:1fr 1fr;gap:10px 14px;margin:10px 0 0}
.card dt{color:var(--soft);font-size:.78rem}.card dd{margin:0;font-size:1.35rem;font-weight:650;line-height:1.2;
font-variant-numeric:tabular-nums}.card dd small{display:block;font-size:.78rem;font-weight:400;color:var(--soft)}
.notes{background:var(--warnbg);color:var(--warn);border-radius:12px;padding:12px 18px;margin-top:18px}
.notes ul,.gate ul{margin:0;padding-left:1.1em}
.gate{border-left:5px solid var(--good)}.gate.bad{border-color:var(--bad)}
.wide{overflow-x:auto;margin:0 -20px;padding:0 20px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal}
thead th{font-size:.82rem;color:var(--soft);font-weight:600;vertical-align:bottom}
th .dot,h3 .dot,.key .dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;background:var(--c);
margin-right:.4em}
tr.group td{padding-top:16px;font-weight:650;border-bottom-color:var(--soft)}
td small{color:var(--soft);font-size:.8em;margin-left:.45em}td .up{color:var(--good)}td .down{color:var(--bad)}
.side table{max-width:900px}.side th:first-child{width:36%}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:20px 28px}
.charts figure{margin:0;max-width:560px}figcaption{font-weight:600;font-size:.92rem;margin-bottom:4px}
figcaption small{display:block;font-weight:400;color:var(--soft)}
svg.chart{width:100%;height:auto;display:block;overflow:visible}.chart text{font-size:10.5px;fill:var(--soft)}
.chart .label{font-size:11px;font-weight:600;fill:var(--ink)}.chart .median{stroke:currentColor;stroke-width:2}
.chart .grid{stroke:var(--line);stroke-width:1}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.86rem;margin:8px 0 0}
.worst{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px 24px}
.row{min-width:0}.row header{display:flex;justify-content:space-between;gap:10px;font-size:.82rem;margin-bottom:4px}
.row header span:first-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.tiles{display:grid;grid-auto-flow:column;grid-auto-columns:1fr;gap:5px}
.tiles div{min-width:0}.tiles img{width:100%;aspect-ratio:var(--a);object-fit:contain;background:#6b7078;
border-radius:5px;display:block}
.tiles p{font-size:.72rem;color:var(--soft);margin:2px 0 0;line-height:1.25;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}
details{margin-top:10px}summary{cursor:pointer;font-weight:600}.full{max-width:100%;background:#fff;border-radius:8px}
code{font-size:.86em;overflow-wrap:anywhere}footer{margin-top:24px}
@media (max-width:560px){main{padding:18px 12px 40px}section{padding:16px 14px}.wide{margin:0 -14px;padding:0 14px}
h1{font-size:1.4rem}th,td{padding:5px 7px}table{font-size:.82rem}.card dd{font-size:1.15rem}
td small{display:block;margin:0}}
"""


def render_html(
    report: dict[str, Any],
    thumbnails: Mapping[str, Mapping[str, bytes]],
    sensitivity: Sequence[Path] = (),
    breaches: Sequence[str] | None = None,
) -> str:
    """The page. See `eval.report.write_report` for the arguments."""
    names = [model["name"] for model in report["models"]]
    parts = [
        _head(report),
        _notes(report),
        _gate(breaches),
        _cards(report),
        _overview(report, names),
        _table_section(report, names),
        _latency_section(report, names),
        _sensitivity(sensitivity),
        _worst(report, names, thumbnails),
        _footer(report),
    ]
    title = f"Model report: {', '.join(names)}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _dot(index: int) -> str:
    return f'<span class="dot" style="--c:{colour(index)}"></span>'


def _head(report: dict[str, Any]) -> str:
    quality, latency = report["quality"], report["latency"]
    said = []
    if "pictures" in quality:
        sets = ", ".join(f"{name} {count}" for name, count in quality["sets"].items())
        said.append(f"{quality['pictures']} pictures of <b>{escape(quality['source'])}</b> ({escape(sets)})")
    if latency.get("machine"):
        machine = latency["machine"]
        said.append(f"{escape(str(machine['cpu']))}, {machine['cores']} cores")
    said.append(escape(report["date"]))
    if report["commit"]:
        said.append(f"<code>{escape(report['commit'])}</code>")
    return f'<h1>Model report</h1><p class="soft">{" · ".join(said)}</p>'


def _notes(report: dict[str, Any]) -> str:
    faults = faults_of(report)
    if not faults:
        return ""
    return f'<div class="notes"><ul>{"".join(f"<li>{escape(fault)}</li>" for fault in faults)}</ul></div>'


def _gate(breaches: Sequence[str] | None) -> str:
    if breaches is None:
        return ""
    if not breaches:
        return '<section class="gate"><h2>Gate: passed</h2></section>'
    items = "".join(f"<li>{escape(breach)}</li>" for breach in breaches)
    return f'<section class="gate bad"><h2>Gate: failed</h2><ul>{items}</ul></section>'


def _cards(report: dict[str, Any]) -> str:
    backend = speed_backend(report)
    cards = []
    for index, model in enumerate(report["models"]):
        name, size = model["name"], model["size"]
        facts = [("as sent (brotli)", _mb(size["brotli_bytes"]), f"{_mb(size['raw_bytes'])} raw")]
        judged = report["quality"].get("models", {}).get(name)
        if judged:
            against = f"agreement {judged['agreement']['iou']:.3f}" if index else "reference"
            facts.append(("mean IoU", f"{judged['overall']['iou']:.4f}", against))
            facts.append(
                ("MAE", f"{judged['overall']['mae']:.4f}", f"boundary IoU {judged['overall']['boundary_iou']:.3f}")
            )
        entry = report["latency"]["backends"][backend]["models"].get(name, {}) if backend else {}
        if "median_ms" in entry:
            title = report["latency"]["backends"][backend]["title"] if backend else ""
            ratio = f"× {entry['ratio']['median']:.3f} · " if index and "ratio" in entry else ""
            facts.append(("a picture takes", f"{entry['median_ms']:,.0f} ms", ratio + title))
        items = "".join(
            f"<div><dt>{escape(a)}</dt><dd>{escape(b)}<small>{escape(c)}</small></dd></div>" for a, b, c in facts
        )
        cards.append(f'<div class="card" style="--c:{colour(index)}"><h2>{escape(name)}</h2><dl>{items}</dl></div>')
    return f'<div class="cards">{"".join(cards)}</div>'


def _key(names: Sequence[str]) -> str:
    return (
        '<div class="key">'
        + "".join(f"<span>{_dot(i)}{escape(name)}</span>" for i, name in enumerate(names))
        + "</div>"
    )


def _overview(report: dict[str, Any], names: Sequence[str]) -> str:
    judged, backend = report["quality"].get("models", {}), speed_backend(report)
    if not judged:
        return ""
    figures = []
    if backend:
        entries = report["latency"]["backends"][backend]["models"]
        sizes = {model["name"]: model["size"]["brotli_bytes"] for model in report["models"]}
        points = [
            Point(name, entries[name]["median_ms"], judged[name]["overall"]["iou"], sizes[name])
            for name in names
            if "median_ms" in entries.get(name, {})
        ]
        title = report["latency"]["backends"][backend]["title"]
        figures.append(
            "<figure><figcaption>Quality against latency<small>up and left is better; area is size as sent</small>"
            f"</figcaption>{scatter_chart(points, f'ms per picture ({title})')}</figure>"
        )
    for label, curve in (("IoU", "iou"), ("Fβ", "f")):
        lines = [(name, judged[name]["curves"][curve]) for name in names]
        figures.append(
            f"<figure><figcaption>{label} by threshold<small>flat: the cut-off hardly matters</small></figcaption>"
            f"{curves_chart(lines, label)}</figure>"
        )
    return f'<section><div class="charts">{"".join(figures)}</div>{_key(names)}</section>'


def _table_section(report: dict[str, Any], names: Sequence[str]) -> str:
    quality, models = report["quality"], {model["name"]: model for model in report["models"]}
    head = "".join(f"<th>{_dot(i)}{escape(name)}</th>" for i, name in enumerate(names))
    rows: list[str] = []

    def group(title: str) -> None:
        rows.append(f'<tr class="group"><td colspan="{len(names) + 1}">{escape(title)}</td></tr>')

    def row(title: str, cells: Sequence[str], hint: str = "") -> None:
        label = f'<span title="{escape(hint)}">{escape(title)}</span>' if hint else escape(title)
        rows.append(f"<tr><td>{label}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")

    if "models" in quality:
        judged = [quality["models"][name] for name in names]
        group(f"Quality, mean of {quality['pictures']} pictures" + (", stretched" if quality["stretch"] else ""))
        for title, metric, hint in QUALITY_ROWS:
            row(title, _compared([j["overall"][metric] for j in judged], metric), hint)
        if judged[0]["overall"].get("matte"):
            group(f"True mattes ({judged[0]['overall']['mattes']})")
            for title, metric in MATTE_ROWS:
                row(title, _compared([j["overall"]["matte"][metric] for j in judged], metric))
        if len(quality["sets"]) > 1:
            group("IoU by set")
            for name, count in quality["sets"].items():
                row(f"{name} ({count})", _compared([j["sets"][name]["iou"] for j in judged], "iou"))
        if len(names) > 1:
            group(f"Agreement with {quality['reference']}")
            row("IoU", [f"{j['agreement']['iou']:.4f}" for j in judged])
            row("5th percentile of IoU", [f"{j['agreement']['iou_p5']:.4f}" for j in judged])
            row("worst picture's IoU", [f"{j['agreement']['iou_worst']:.4f}" for j in judged])
            row("mean absolute difference ↓", [f"{j['agreement']['mae']:.4f}" for j in judged])
    measured = [record for record in report["latency"].get("backends", {}).values() if _has_times(record)]
    if measured:
        group("Latency, median (ratio to the first)")
        for record in measured:
            row(record["title"], [_ms(record["models"].get(name, {}), i) for i, name in enumerate(names)])
    group("Size")
    for title, key in (("raw", "raw_bytes"), ("gzip", "gzip_bytes"), ("brotli", "brotli_bytes")):
        row(title, [_mb(models[name]["size"][key]) for name in names])
    group("Graph")
    graphs = [models[name]["graph"] for name in names]
    row("multiplications", [f"{g['gmacs']:.2f} G" if g else "–" for g in graphs])
    row("of them in integers", [f"{g['integer_share']:.0%}" if g else "–" for g in graphs])
    row("parameters", [f"{g['parameters'] / 1e6:.2f} M" if g else "–" for g in graphs])
    row("nodes", [f"{g['nodes']}" if g else "–" for g in graphs])
    row("input", [f"{g['size']}², {g['interface']}" if g else "–" for g in graphs])
    return (
        '<section><h2>Models side by side</h2><div class="wide side"><table><thead><tr><th></th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _has_times(record: dict[str, Any]) -> bool:
    return any("median_ms" in entry for entry in record["models"].values())


def _compared(values: Sequence[float], metric: str) -> list[str]:
    """Figures, each after the first with its difference to the first."""
    cells = [f"{values[0]:.4f}"]
    for value in values[1:]:
        difference = value - values[0]
        gain = -difference if metric in LOWER_IS_BETTER else difference
        mark = "up" if gain > WORSE_BY else "down" if gain < -WORSE_BY else ""
        signed = f"{difference:+.4f}".replace("-", "−")
        cells.append(f'{value:.4f}<small class="{mark}">{signed}</small>')
    return cells


def _ms(entry: dict[str, Any], index: int) -> str:
    if "median_ms" not in entry:
        return escape(entry.get("reason", "–"))[:40]
    ratio = f"<small>× {entry['ratio']['median']:.3f}</small>" if index and "ratio" in entry else ""
    return f"{entry['median_ms']:,.0f} ms{ratio}"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB"


def _latency_section(report: dict[str, Any], names: Sequence[str]) -> str:
    latency = report["latency"]
    if "skipped" in latency:
        return ""
    figures, tables = [], []
    for record in latency["backends"].values():
        if not _has_times(record):
            continue
        models = [
            (index, name, record["models"][name]["rounds_ms"])
            for index, name in enumerate(names)
            if record["models"].get(name, {}).get("rounds_ms")
        ]
        really = record.get("really", {})
        what = " · ".join(str(really[key]) for key in ("browser", "node", "engine") if key in really)
        threads = f" · {really['threads']} threads" if really.get("threads", 1) > 1 else ""
        what = f"{what}{threads} · {record['rounds']} rounds"
        figures.append(
            f"<figure><figcaption>{escape(record['title'])}<small>{escape(what)}</small></figcaption>"
            f"{rounds_chart(models)}</figure>"
        )
        tables.append(_latency_table(record, names))
    if not figures:
        return ""
    return (
        '<section><h2>Latency</h2><p class="soft">Every dot is one round; models take turns within a round, on the same'
        " picture, and ratios are taken round by round, so that a slow minute of the machine hits all alike.</p>"
        f'<div class="charts">{"".join(figures)}</div>'
        f"<details><summary>All figures</summary>{''.join(tables)}</details></section>"
    )


def _latency_table(record: dict[str, Any], names: Sequence[str]) -> str:
    rows = []
    columns = (
        "median",
        "fastest",
        "spread",
        "ratio",
        "95 %",
        "engine start",
        "session",
        "first run",
        "memory",
        "mask Δ",
    )
    for name in names:
        entry = record["models"].get(name)
        if not entry or "median_ms" not in entry:
            continue
        ratio = entry.get("ratio")
        cells = [
            f"{entry['median_ms']:,.1f} ms",
            f"{entry['min_ms']:,.1f} ms",
            f"{entry['spread']:.1%}",
            f"{ratio['median']:.3f}" if ratio else "–",
            f"{ratio['low']:.3f} – {ratio['high']:.3f}" if ratio else "–",
            *(f"{entry[key]:,.0f} ms" for key in ("engine_start_ms", "session_ms", "first_run_ms")),
            f"{entry['memory_bytes'] / 2**20:,.0f} MiB" if entry.get("memory_bytes") else "–",
            _difference(entry),
        ]
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{column}</th>" for column in columns)
    return (
        f'<h3>{escape(record["title"])}</h3><div class="wide"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _difference(entry: dict[str, Any]) -> str:
    if not entry.get("masks"):
        return "–"
    largest = max(row["mean_difference"] for row in entry["masks"])
    return f"{largest:.1e}" if largest else "none"


def _sensitivity(paths: Sequence[Path]) -> str:
    pictures = []
    for path in paths:
        kind = {".svg": "image/svg+xml", ".png": "image/png"}.get(path.suffix)
        if kind and path.is_file():
            # As an image, so that nothing in the file can run.
            pictures.append(
                f'<img class="full" alt="{escape(path.parent.name)}" src="{_data(path.read_bytes(), kind)}">'
            )
    if not pictures:
        return ""
    return (
        '<section><h2>Sensitivity</h2><p class="soft">What each part of the network costs in masks when it alone'
        f" becomes 8-bit.</p>{''.join(pictures)}</section>"
    )


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _worst(report: dict[str, Any], names: Sequence[str], thumbnails: Mapping[str, Mapping[str, bytes]]) -> str:
    judged = report["quality"].get("models", {})
    if not judged or not thumbnails:
        return ""
    iou = {name: {row["stem"]: row["iou"] for row in judged[name]["pictures"]} for name in names}
    parts = []
    for index, name in enumerate(names):
        rows = "".join(
            _tiles(stem, names, iou, thumbnails[stem]) for stem in worst_stems(report, name) if stem in thumbnails
        )
        parts.append(f'<h3>{_dot(index)}{escape(name)}</h3><div class="worst">{rows}</div>')
    return (
        '<section><h2>Worst pictures</h2><p class="soft">The ten with the lowest IoU of each model, worst first. A low'
        " figure is not always the model's fault: some truths are coarse or mean another subject.</p>"
        f"{''.join(parts)}</section>"
    )


def _tiles(
    stem: str, names: Sequence[str], iou: Mapping[str, Mapping[str, float]], pictures: Mapping[str, bytes]
) -> str:
    tiles = [("input", pictures["input"], "image/jpeg"), ("truth", pictures["truth"], "image/png")]
    tiles += [(f"{name} {iou[name][stem]:.3f}", pictures[name], "image/png") for name in names[:MODEL_COLOURS]]
    cells = "".join(
        f'<div><img alt="{escape(title)}" src="{_data(content, kind)}"><p>{escape(title)}</p></div>'
        for title, content, kind in tiles
    )
    return (
        f'<div class="row"><header><span>{escape(stem)}</span></header>'
        f'<div class="tiles" style="--a:{_aspect(pictures["input"]):.3f}">{cells}</div></div>'
    )


def _aspect(picture: bytes) -> float:
    """Width by height of an encoded picture; tall ones are shown no taller than 3 : 4."""
    with Image.open(io.BytesIO(picture)) as image:
        return max(image.width / image.height, 0.75)


def _footer(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["libraries"].items())
    files = "".join(
        f"<li>{escape(model['name'])}: <code>sha256 {model['sha256']}</code></li>" for model in report["models"]
    )
    return (
        '<footer class="soft"><p>Ground truth is what is above 128 of 255. Masks are judged in 8 bits at the picture\'s'
        " own size, without min-max stretching. Fβ has β² = 0.3. MB are 10⁶ bytes, MiB 2²⁰.</p>"
        f"<details><summary>Files and versions</summary><ul>{files}</ul><p>{escape(versions)}</p></details></footer>"
    )

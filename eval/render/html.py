"""The report as one HTML file that needs nothing else: no network, no script; light and dark; 390 px and up."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from eval.changes import change_cells
from eval.gate import Verdict
from eval.measures import AGREEMENT, FLAWS, MASK, MATTE, Measure
from eval.report import BackendLatency, MaskMeans, ModelLatency, Report
from eval.thumbnails import Thumbnails
from u2net.preprocess import write_size

from .charts import MODEL_COLOURS, Point, colour, curves_chart, rounds_chart, scatter_chart
from .findings import faults_of, speed_backend, worst_against_first, worst_against_truth

__all__ = ["render_html"]

STYLE = Path(__file__).with_name("style.css")
WORSE_BY = 0.005  # a difference to the first model that is worth a colour


def render_html(
    report: Report,
    thumbnails: Mapping[str, Thumbnails],
    sensitivity: Sequence[Path] = (),
    verdict: Verdict | None = None,
) -> str:
    """The page. See `eval.render.files.write_report` for the arguments."""
    parts = [
        _head(report),
        _notes(report),
        _gate(verdict),
        _cards(report),
        _overview(report),
        _changes(verdict),
        _table_section(report),
        _latency_section(report),
        _sensitivity(sensitivity),
        _worst(report, thumbnails),
        _footer(report),
    ]
    title = f"Model report: {', '.join(report.names)}"
    style = STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _dot(index: int) -> str:
    return f'<span class="dot" style="--c:{colour(index)}"></span>'


def _head(report: Report) -> str:
    quality, machine = report.quality, report.latency.machine
    said = []
    if quality.models:
        sets = ", ".join(f"{name} {count}" for name, count in quality.sets.items())
        said.append(f"{quality.pictures} pictures of <b>{escape(quality.source)}</b> ({escape(sets)})")
    if machine:
        said.append(f"{escape(machine.cpu)}, {machine.cores} cores")
    said.append(escape(report.date))
    if report.commit:
        said.append(f"<code>{escape(report.commit)}</code>")
    return f'<h1>Model report</h1><p class="soft">{" · ".join(said)}</p>'


def _notes(report: Report) -> str:
    faults = faults_of(report)
    if not faults:
        return ""
    return f'<div class="notes"><ul>{"".join(f"<li>{escape(fault)}</li>" for fault in faults)}</ul></div>'


def _gate(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    note = f'<p class="soft">{escape(verdict.note)}</p>' if verdict.note else ""
    if verdict.passed:
        holds = f'<p class="soft">{verdict.checks} checks hold.</p>'
        return f'<section class="gate"><h2>Gate: passed</h2>{holds}{note}</section>'
    items = "".join(f"<li>{escape(str(breach))}</li>" for breach in verdict.breaches)
    return f'<section class="gate bad"><h2>Gate: failed</h2><ul>{items}</ul>{note}</section>'


def _cards(report: Report) -> str:
    backend = speed_backend(report)
    cards = []
    for index, model in enumerate(report.models):
        size = model.size
        facts = [("as sent (brotli)", _mb(size.brotli_bytes), f"{_mb(size.raw_bytes)} raw")]
        judged = report.quality.models.get(model.name)
        if judged:
            against = f"agreement {judged.agreement.iou:.3f}" if index else "reference"
            overall = judged.overall
            facts.append(("mean IoU", f"{overall.iou:.4f}", against))
            facts.append(("MAE", f"{overall.mae:.4f}", f"boundary IoU {overall.boundary_iou:.3f}"))
        entry = backend.models.get(model.name) if backend else None
        if backend and entry and entry.median_ms is not None:
            ratio = f"× {entry.ratio.median:.3f} · " if index and entry.ratio else ""
            facts.append(("a picture takes", f"{entry.median_ms:,.0f} ms", ratio + backend.title))
        items = "".join(
            f"<div><dt>{escape(a)}</dt><dd>{escape(b)}<small>{escape(c)}</small></dd></div>" for a, b, c in facts
        )
        cards.append(
            f'<div class="card" style="--c:{colour(index)}"><h2>{escape(model.name)}</h2><dl>{items}</dl></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _key(names: Sequence[str]) -> str:
    spans = "".join(f"<span>{_dot(i)}{escape(name)}</span>" for i, name in enumerate(names))
    return f'<div class="key">{spans}</div>'


def _overview(report: Report) -> str:
    judged, backend = report.quality.models, speed_backend(report)
    if not judged:
        return ""
    figures = []
    if backend:
        points = [
            Point(model.name, entry.median_ms, judged[model.name].overall.iou, model.size.brotli_bytes)
            for model in report.models
            if (entry := backend.models.get(model.name)) and entry.median_ms is not None
        ]
        figures.append(
            "<figure><figcaption>Quality against latency<small>up and left is better; area is size as sent</small>"
            f"</figcaption>{scatter_chart(points, f'ms per picture ({backend.title})')}</figure>"
        )
    for label, curve in (("IoU", "iou"), ("Fβ", "f")):
        lines = [(name, judged[name].curves[curve]) for name in report.names if curve in judged[name].curves]
        if not lines:
            continue
        figures.append(
            f"<figure><figcaption>{label} by threshold<small>flat: the cut-off hardly matters</small></figcaption>"
            f"{curves_chart(lines, label)}</figure>"
        )
    return f'<section><div class="charts">{"".join(figures)}</div>{_key(report.names)}</section>'


def _changes(verdict: Verdict | None) -> str:
    if verdict is None or not verdict.changes:
        return ""
    rows = []
    for model in dict.fromkeys(change.model for change in verdict.changes):
        rows.append(f'<tr class="group"><td colspan="5">{escape(model)}</td></tr>')
        for change in verdict.changes:
            if change.model == model:
                mark = "down" if change.is_worse else "up" if change.is_better else ""
                then, now, difference, interval = map(escape, change_cells(change))
                rows.append(
                    f"<tr><td>{escape(change.title)}</td><td>{then}</td><td>{now}</td>"
                    f'<td><span class="{mark}">{difference}</span></td><td>{interval}</td></tr>'
                )
    return (
        '<section><h2>Against the baseline</h2><p class="soft">Intervals are of the mean difference over the same'
        " pictures (paired bootstrap, 95 %); one that contains zero is no change that can be told from chance.</p>"
        '<div class="wide"><table class="changes"><thead><tr><th></th><th>baseline</th><th>now</th><th>difference</th>'
        f"<th>95 %</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


class _Table:
    """Rows of the table of models, each with a title and one line that says what it is."""

    def __init__(self, columns: int) -> None:
        self.columns, self.rows, self.meanings = columns, list[str](), dict[str, str]()

    def group(self, title: str) -> None:
        self.rows.append(f'<tr class="group"><td colspan="{self.columns + 1}">{escape(title)}</td></tr>')

    def row(self, title: str, cells: Sequence[str], meaning: str = "") -> None:
        says = f'<small class="meaning">{escape(meaning)}</small>' if meaning else ""
        self.rows.append(f"<tr><td>{escape(title)}{says}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        if meaning:
            self.meanings[title] = meaning

    def measures(self, measures: Mapping[str, Measure], values: Sequence[Mapping[str, float | None]]) -> None:
        for name, measure in measures.items():
            found = [value.get(name) for value in values]
            if any(value is not None for value in found):
                title = measure.title if measure.higher_is_better else f"{measure.title} ↓"
                self.row(title, list(_compared(found, measure)), measure.meaning)


_CHANGED = "pictures whose IoU changes by more than 0.05 with a second look"


def _values(means: MaskMeans) -> dict[str, float | None]:
    return {name: getattr(means, name) for name in (*MASK, *FLAWS)}


def _table_section(report: Report) -> str:
    quality, names = report.quality, report.names
    table = _Table(len(names))
    if quality.models:
        judged = [quality.models[name] for name in names]
        values = [_values(one.overall) for one in judged]
        table.group(f"Quality, mean of {quality.pictures} pictures" + (", stretched" if quality.stretch else ""))
        table.measures(MASK, values)
        if any(value["holes"] is not None for value in values):
            table.group("What people see as mistakes")
            table.measures(FLAWS, values)
        again = [one.second_look for one in judged if one.second_look]
        if len(again) == len(judged):
            table.group("After a second look, as the runner takes it")
            table.measures(MASK, [_values(second.overall) for second in again])
            table.row("IoU rises, falls", [f"{second.gained}, {second.lost}" for second in again], _CHANGED)
            table.row("passes a picture", [f"{second.looks:.2f}" for second in again], "of the network, mean")
        if judged[0].overall.matte:
            table.group(f"True mattes ({judged[0].overall.mattes})")
            table.measures(MATTE, [one.overall.matte or {} for one in judged])
        if len(quality.sets) > 1:
            table.group("IoU by set")
            for name, count in quality.sets.items():
                table.row(f"{name} ({count})", list(_compared([one.sets[name].iou for one in judged], MASK["iou"])))
        if len(names) > 1:
            table.group(f"Agreement with {quality.reference}")
            for name, measure in AGREEMENT.items():
                title = measure.title if measure.higher_is_better else f"{measure.title} ↓"
                table.row(title, [f"{getattr(one.agreement, name):.4f}" for one in judged], measure.meaning)
    measured = [record for record in report.latency.backends.values() if record.has_times]
    if measured:
        table.group("Latency, median (ratio to the first)")
        for record in measured:
            table.row(record.title, [_ms(record.models.get(name), i) for i, name in enumerate(names)])
    table.group("Size")
    sizes = [model.size for model in report.models]
    table.row("raw", [_mb(size.raw_bytes) for size in sizes], "the file as it lies")
    table.row("gzip", [_mb(size.gzip_bytes) for size in sizes], "as a host without brotli sends it")
    table.row("brotli", [_mb(size.brotli_bytes) for size in sizes], "as most hosts send it")
    table.group("Graph")
    graphs = [model.graph for model in report.models]
    table.row("multiplications", [f"{g.gmacs:.2f} G" if g else "–" for g in graphs], "of all convolutions, one picture")
    table.row("of them in integers", [f"{g.integer_share:.0%}" if g else "–" for g in graphs], "computed in 8 bits")
    table.row("parameters", [f"{g.parameters / 1e6:.2f} M" if g else "–" for g in graphs])
    table.row("nodes", [f"{g.nodes}" if g else "–" for g in graphs])
    table.row("input", [f"{write_size(g.size)} px, {g.interface}" if g else "–" for g in graphs])
    head = "".join(f"<th>{_dot(i)}{escape(name)}</th>" for i, name in enumerate(names))
    meanings = "".join(f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>" for title, text in table.meanings.items())
    return (
        '<section><h2>Models side by side</h2><p class="soft">Small figures are differences to the first model,'
        f" coloured from {WORSE_BY} on. ↓: lower is better.</p>"
        f'<div class="wide side"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(table.rows)}</tbody></table></div>"
        f'<details class="glossary"><summary>What the rows mean</summary><dl>{meanings}</dl></details></section>'
    )


def _compared(values: Sequence[float | None], measure: Measure) -> Iterator[str]:
    """Figures, each after the first with its difference to the first."""
    first = values[0]

    def shown(value: float, sign: str = "") -> str:
        return f"{100 * value:{sign}.2f} %" if measure.percent else f"{value:{sign}.4f}"

    for index, value in enumerate(values):
        if value is None:
            yield "–"
        elif index == 0 or first is None:
            yield shown(value)
        else:
            gain = (value - first) * (1 if measure.higher_is_better else -1)
            mark = "up" if gain > WORSE_BY else "down" if gain < -WORSE_BY else ""
            yield f'{shown(value)}<small class="{mark}">{shown(value - first, "+").replace("-", "−")}</small>'


def _ms(entry: ModelLatency | None, index: int) -> str:
    if entry is None or entry.median_ms is None:
        return escape((entry.reason if entry else None) or "–")[:40]
    ratio = f"<small>× {entry.ratio.median:.3f}</small>" if index and entry.ratio else ""
    return f"{entry.median_ms:,.0f} ms{ratio}"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB"


def _latency_section(report: Report) -> str:
    figures, tables = [], []
    for record in report.latency.backends.values():
        if not record.has_times:
            continue
        models = [
            (index, name, record.models[name].rounds_ms)
            for index, name in enumerate(report.names)
            if name in record.models and record.models[name].rounds_ms
        ]
        figures.append(
            f"<figure><figcaption>{escape(record.title)}<small>{escape(record.setting)}</small></figcaption>"
            f"{rounds_chart(models)}</figure>"
        )
        tables.append(_latency_table(record, report.names))
    if not figures:
        return ""
    return (
        '<section><h2>Latency</h2><p class="soft">Every dot is one round; models take turns within a round, on the same'
        " picture, and ratios are taken round by round, so that a slow minute of the machine hits all alike.</p>"
        f'<div class="charts">{"".join(figures)}</div>'
        f"<details><summary>All figures</summary>{''.join(tables)}</details></section>"
    )


LATENCY_COLUMNS = (
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


def _latency_table(record: BackendLatency, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        entry = record.models.get(name)
        if entry is None or entry.median_ms is None:
            continue
        ratio = entry.ratio
        cells = [
            _figure(entry.median_ms, ",.1f", " ms"),
            _figure(entry.min_ms, ",.1f", " ms"),
            _figure(entry.spread, ".1%"),
            f"{ratio.median:.3f}" if ratio else "–",
            f"{ratio.low:.3f} – {ratio.high:.3f}" if ratio else "–",
            _figure(entry.engine_start_ms, ",.0f", " ms"),
            _figure(entry.session_ms, ",.0f", " ms"),
            _figure(entry.first_run_ms, ",.0f", " ms"),
            f"{entry.memory_bytes / 2**20:,.0f} MiB" if entry.memory_bytes else "–",
            _difference(entry),
        ]
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{column}</th>" for column in LATENCY_COLUMNS)
    return (
        f'<h3>{escape(record.title)}</h3><div class="wide"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _figure(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _difference(entry: ModelLatency) -> str:
    if not entry.masks:
        return "–"
    largest = max(row.mean_difference for row in entry.masks)
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


def _worst(report: Report, thumbnails: Mapping[str, Thumbnails]) -> str:
    if not report.quality.models or not thumbnails:
        return ""
    names = report.names[:MODEL_COLOURS]
    first = names[0]
    rows = {name: {row.stem: row for row in report.quality.models[name].pictures} for name in names}
    album = _Album()

    def iou(name: str, stem: str) -> tuple[str, str]:
        return name, f"IoU {rows[name][stem].iou:.3f}"

    against_truth = [
        _list(
            index,
            name,
            [
                _tiles(album, stem, [iou(other, stem) for other in names], thumbnails[stem])
                for stem in worst_against_truth(report, name)
                if stem in thumbnails
            ],
            is_open=index == 0,
        )
        for index, name in enumerate(names)
    ]
    against_first = [
        _list(
            index,
            name,
            [
                _tiles(
                    album,
                    stem,
                    [iou(first, stem), iou(name, stem)],
                    thumbnails[stem],
                    (name, f"agreement {rows[name][stem].agreement_iou:.3f}"),
                )
                for stem in worst_against_first(report, name)
                if stem in thumbnails
            ],
            is_open=index == 1,
        )
        for index, name in enumerate(names)
        if index
    ]
    parts = [
        '<section><h2>Worst against the truth</h2><p class="soft">The ten pictures with the lowest IoU of each model,'
        " worst first. A low figure need not be the model's fault: some truths are coarse or mean another subject.</p>",
        *against_truth,
        "</section>",
    ]
    if against_first:
        parts += [
            f'<section><h2>Furthest from {escape(first)}</h2><p class="soft">The ten pictures on which a model agrees'
            " least with the first one, worst first, whatever the truth is. In the last tile"
            ' <b class="lost">orange</b> is lost and <b class="added">blue</b> is added.</p>',
            *against_first,
            "</section>",
        ]
    return album.definitions() + "".join(parts)


class _Album:
    """Small pictures, each in the page once however often it is shown: most stand in several lists."""

    def __init__(self) -> None:
        self._places: dict[bytes, tuple[int, int, int]] = {}  # encoded → number, width, height

    def show(self, content: bytes, says: str) -> str:
        """An element that shows the encoded picture `content`, whose text for those who do not see it is `says`."""
        if content not in self._places:
            with Image.open(io.BytesIO(content)) as image:
                self._places[content] = (len(self._places), *image.size)
        number, width, height = self._places[content]
        return (
            f'<svg role="img" aria-label="{escape(says)}" viewBox="0 0 {width} {height}"><use href="#p{number}"/></svg>'
        )

    def definitions(self) -> str:
        """The pictures themselves, for a place before the first that is shown. Hidden by size: what is inside an
        element without display is not drawn by reference either."""
        images = "".join(
            f'<image id="p{number}" width="{width}" height="{height}" href="{_data(content, "image/webp")}"/>'
            for content, (number, width, height) in self._places.items()
        )
        return f'<svg class="album" aria-hidden="true"><defs>{images}</defs></svg>'


def _list(index: int, name: str, tiles: Sequence[str], is_open: bool) -> str:
    return (
        f"<details{' open' if is_open else ''}><summary>{_dot(index)}{escape(name)}</summary>"
        f'<div class="worst">{"".join(tiles)}</div></details>'
    )


def _tiles(
    album: _Album,
    stem: str,
    shown: Sequence[tuple[str, str]],
    pictures: Thumbnails,
    difference: tuple[str, str] | None = None,
) -> str:
    tiles = [("input", "", pictures.input), ("truth", "", pictures.truth)]
    tiles += [(name, figure, pictures.masks[name]) for name, figure in shown]
    if difference is not None:
        name, figure = difference
        tiles.append(("difference", figure, pictures.differences[name]))
    cells = "".join(
        f"<div>{album.show(content, f'{title} {figure}'.strip())}<p>{escape(title)}<br>{escape(figure)}</p></div>"
        for title, figure, content in tiles
    )
    return (
        f'<div class="row"><header>{escape(stem)}</header>'
        f'<div class="tiles" style="--a:{_aspect(pictures.input):.3f}">{cells}</div></div>'
    )


def _aspect(picture: bytes) -> float:
    """Width by height of an encoded picture; tall ones are shown no taller than 3 : 4."""
    with Image.open(io.BytesIO(picture)) as image:
        return max(image.width / image.height, 0.75)


def _footer(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.libraries.items())
    files = "".join(
        f"<li>{escape(model.name)}: <code>sha256 {escape(model.sha256)}</code></li>" for model in report.models
    )
    return (
        '<footer class="soft"><p>Ground truth is what is above 128 of 255. Masks are judged in 8 bits at the picture\'s'
        " own size, without min-max stretching. Fβ has β² = 0.3. MB are 10⁶ bytes, MiB 2²⁰.</p>"
        f"<details><summary>Files and versions</summary><ul>{files}</ul><p>{escape(versions)}</p></details></footer>"
    )

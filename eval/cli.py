"""The command line of the eval stage: thin functions, whose work is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from datasets.masks import MASK_VALUES_HELP
from u2net.commandline import Application, Figures, deliver, progress, refuse, result, say
from u2net.errors import ConfigError
from u2net.postprocess import PRESETS

from .latency.engines import BACKENDS
from .latency.settings import LatencySettings

__all__ = ["application", "main"]

application = Application("eval", "Judge models: mask quality, latency in a real browser, one report.", default="eval")

Models = Annotated[list[Path], typer.Argument(metavar="MODEL", help="ONNX files; the others are compared to the first")]
Data = Annotated[
    Path | None, typer.Option(metavar="DIR", help="folder with images/ and masks/ (by default the procedural set)")
]
MaskValues = Annotated[str | None, typer.Option(metavar="VALUES", help=MASK_VALUES_HELP)]
OneModel = Annotated[Path | None, typer.Option(metavar="FILE", help="a model (by default the runner's own)")]
Presets = Annotated[str, typer.Option(metavar="LIST", help="presets of the runner, with commas between")]
Report = Annotated[Path, typer.Argument(metavar="REPORT.json", help="made by `u2net eval`")]
BaselineFile = Annotated[
    Path | None, typer.Option(metavar="FILE.json", help="compare with this (by default what the policy names)")
]
Backends = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help=f"of {', '.join(BACKENDS)}, with commas between; one that is named and cannot run is an error"
        " (by default those of Chromium that this machine has, Node where there is no browser, and native)",
        rich_help_panel="Latency",
        show_default=False,
    ),
]
POLICY = Path(__file__).with_name("policy.toml")
ALL_PRESETS = ",".join(PRESETS)


@application.command(
    "eval",
    examples="""
u2net eval build/small/fp32.onnx build/small/int8.onnx --data pairs/ --out build/report
u2net eval fp32.onnx int8.onnx --no-latency --limit 40
u2net eval fp32.onnx int8.onnx --no-latency --second-look --data pairs/
u2net eval small.safetensors u2net.pth --data pairs/ --min-max
""",
)
def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL", help="ONNX files, or checkpoints (quality only); the first is the reference"),
    ],
    *,
    data: Data = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="where the report goes")] = Path("build/report"),
    limit: Annotated[
        int, typer.Option(metavar="N", help="judge so many pictures only, evenly spread (0: all)", min=0)
    ] = 0,
    workers: Annotated[
        int, typer.Option(metavar="N", help="processes that judge pictures (0: one for each core)", min=0)
    ] = 0,
    min_max: Annotated[
        bool, typer.Option("--min-max", help="stretch each mask to [0, 1] first, as published tables do")
    ] = False,
    second_look: Annotated[
        bool, typer.Option("--second-look", help="judge masks after a second look too, as the runner takes it")
    ] = False,
    no_quality: Annotated[bool, typer.Option("--no-quality", help="leave quality out (the gate will say so)")] = False,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="leave latency out (the gate will say so)")] = False,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="show this policy's verdict in the report")
    ] = None,
    baseline: BaselineFile = None,
    mask_values: MaskValues = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="forget what an earlier run left in OUT/partial")] = False,
    backends: Backends = "",
    latency: Annotated[LatencySettings, "Latency"],
) -> int:
    """Judge models: masks against ground truth, latency in a real headless Chromium, one report.

    The first model is the one that others are compared with. A run that was stopped goes on where it was.
    """
    from u2net.files import check_path

    from .evaluate import Evaluation, evaluate_models
    from .quality import QualitySettings

    quality = QualitySettings(stretch=min_max, workers=workers, limit=limit, second_look=second_look)
    evaluation = Evaluation(
        models=models,
        data=data,
        out=check_path(out),
        quality=None if no_quality else quality,
        latency=None if no_latency else _named(latency, backends),
        policy=policy,
        baseline=baseline,
        fresh=fresh,
        mask_values=mask_values,
    )
    with progress() as report:
        done = evaluate_models(evaluation, report)
    result(done.report_json, done.text)
    return _failures(done.failures)


@application.command(
    examples="""
u2net eval latency build/small/fp32.onnx build/small/int8.onnx
u2net eval latency a.onnx b.onnx --backends wasm,native --rounds 20 --out latency.json
"""
)
def latency(
    models: Models,
    *,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="test picture (by default some of --data, else procedural)")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="folder with images/ and masks/")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="write the result there, after every round")
    ] = None,
    backends: Backends = "",
    settings: Annotated[LatencySettings, "Latency"],
) -> int:
    """Measure ONNX models side by side in a real headless Chromium; ratios are to the first."""
    from .latency.command import latency_of

    with progress() as report:
        measured = latency_of(models, _named(settings, backends), image, data, out, report)
    result(measured.result, measured.text)
    return _failures(measured.failures)


@application.command(examples="u2net eval engines lite.json small.json --out engines.md")
def engines(
    results: Annotated[list[Path], typer.Argument(metavar="LATENCY.json", help="made by `u2net eval latency --out`")],
    *,
    out: Figures = None,
) -> None:
    """One table of latency results: the project's own engine beside onnxruntime-web, in processor time."""
    from .latency.comparison import comparison_table

    _deliver_table(comparison_table(results), out)


@application.command(examples="u2net eval closeness build/report/report.json --out closeness.md")
def closeness(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json", help="made by `u2net eval`")],
    *,
    out: Figures = None,
) -> None:
    """One table of reports: how close each model's masks are to the first model's, and all of them to the truth."""
    from .closeness import closeness_table

    _deliver_table(closeness_table(reports), out)


@application.command(examples="u2net eval leaderboard small.json lite.json --out leaderboard.md")
def leaderboard(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json", help="made by `u2net eval --second-look`")],
    *,
    out: Figures = None,
) -> None:
    """One table of reports: every model's masks against the truth, with one look and with two, and its time."""
    from .leaderboard import leaderboard_table

    _deliver_table(leaderboard_table(reports), out)


def _deliver_table(table: str, out: Path | None) -> None:
    deliver({"table": table.splitlines()}, table, out, table)


def _named(settings: LatencySettings, backends: str) -> LatencySettings:
    return replace(settings, backends=tuple(filter(None, backends.split(","))))


def _failures(failures: Sequence[str]) -> int:
    for failure in failures:
        refuse(failure, 1)
    return 1 if failures else 0


@application.command(
    examples="""
u2net gate build/report/report.json
u2net gate report.json --policy policy.toml --baseline baseline.json --markdown report.md
"""
)
def gate(
    report: Report,
    policy: Annotated[
        Path, typer.Option(metavar="FILE.toml", help="what must hold", show_default="eval/policy.toml")
    ] = POLICY,
    baseline: BaselineFile = None,
    require_baseline: Annotated[
        bool, typer.Option("--require-baseline", help="fail where there is no baseline for this data yet")
    ] = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="append the verdict to this file (the report's Markdown)")
    ] = None,
) -> int:
    """Fail, naming each breach, where a report does not keep a policy."""
    from .gate import append_verdict, judge_report, verdict_text
    from .policy import load_policy
    from .report import load_report

    verdict = judge_report(load_report(report), load_policy(policy), baseline, require_baseline)
    if markdown is not None:
        append_verdict(markdown, verdict)
    result(verdict.as_dict(), verdict_text(verdict))
    return 0 if verdict.passed else 1


@application.command(
    examples="""
u2net eval baseline build/report/report.json
u2net eval baseline report.json --out baseline.json
"""
)
def baseline(
    report: Report,
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="the baseline to add it to")] = Path(
        "eval/baseline.json"
    ),
) -> None:
    """Make a report what later ones are compared with; commit the result.

    It takes the place of an earlier report on the same data with the same first model; others stay.
    """
    from u2net.documents import write_document

    from .baseline import load_baseline
    from .report import load_report

    updated = load_baseline(out).with_report(load_report(report))
    write_document(out, updated)
    result(sorted(updated.reports), f"{out}: {', '.join(sorted(updated.reports))}")


@application.command(examples="u2net eval bench --data pairs/ --model build/small/int8.onnx")
def bench(
    data: Data = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="whose masks to judge (by default disturbed truths)")
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="pairs", min=1)] = 32,
) -> None:
    """Time the metrics against PySODMetrics on the same pairs at 400×300, on one core."""
    from .bench import bench_metrics, bench_text, pairs_of

    figures = bench_metrics(pairs_of(data, model, count))
    result(figures, bench_text(figures))


@application.command(
    examples="""
u2net eval edges
u2net eval edges --data pairs/ --model build/small/int8.onnx --out edges.json
"""
)
def edges(
    model: Annotated[Path | None, typer.Option(metavar="FILE", help="judge this model's own maps too")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="folder with images/ and masks/")] = None,
    sets: Annotated[str, typer.Option(metavar="LIST", help="sets of it whose outlines are judged")] = "ecssd",
    count: Annotated[int, typer.Option(metavar="N", help="procedural scenes of each kind", min=0)] = 6,
    seed: Annotated[int, typer.Option(metavar="S", help="of the procedural scenes")] = 100,
    presets: Presets = ALL_PRESETS,
    out: Figures = None,
) -> None:
    """Measure edges and colours of the runner's presets against plain resizing (`fast`)."""
    from .edges import measure_masks, measure_scenes, table

    chosen = _presets(presets)
    rows = measure_scenes(count, seed, chosen) if count else []
    if data is not None:
        rows += measure_masks(model, data, sets.split(","), chosen)
    figures = [{**vars(row), "mean": row.mean} for row in rows]
    deliver({"rows": figures}, table(rows), out)


@application.command(examples="u2net eval gallery --data pairs/ --model build/small/int8.onnx --out build/gallery")
def gallery(
    model: OneModel = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of pictures (or with images/)")] = None,
    count: Annotated[int, typer.Option(metavar="N", help="pictures", min=1)] = 24,
    preset: Annotated[str, typer.Option(metavar="NAME", help=f"one of {', '.join(PRESETS)}")] = "balanced",
    out: Annotated[Path, typer.Option(metavar="DIR", help="where the pages go")] = Path("build/gallery"),
) -> None:
    """Make contact sheets to look at: picture, matte, cut-out on grey and on a checkerboard."""
    from .gallery import write_gallery

    (chosen,) = _presets(preset)
    pages = write_gallery(out, model, data, count, chosen, say)
    result({"pages": [str(page) for page in pages]}, "\n".join(map(str, pages)))


@application.command(
    examples="u2net eval shares build/small/int8.u2e build/small-0.5/int8.u2e --data photos/ --out build/small/prune"
)
def shares(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.u2e", help="the whole network, then the pruned ones")],
    out: Annotated[Path, typer.Option(metavar="PREFIX", help="writes PREFIX.svg, .md and .json")],
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="pictures (the procedural set)")] = None,
    count: Annotated[int, typer.Option(metavar="N", help="pictures to measure on", min=1)] = 24,
) -> None:
    """Measure what pruning to a share of the multiplications costs in masks and gains in time and bytes."""
    from .shares import measure_shares

    with progress() as report:
        rows, table = measure_shares(models, data, out, count, report)
    result(rows, table)


@application.command(
    examples="""
u2net eval throughput --gate
u2net eval throughput --kill 50 --count 200
"""
)
def throughput(
    model: OneModel = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="photographs to use (by default procedural ones)")
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="procedural photographs", min=1)] = 100,
    presets: Presets = "fast,balanced",
    jobs: Annotated[int | None, typer.Option(metavar="N", help="processes of the runner (by default its own)")] = None,
    kill: Annotated[int, typer.Option(metavar="N", help="only kill a batch so many times, and compare", min=0)] = 0,
    gate: Annotated[bool, typer.Option("--gate", help="fail where a bar is missed")] = False,
    out: Figures = None,
) -> int:
    """Measure how fast and frugal the runner is, and whether it survives being killed."""
    from .throughput import measure, throughput_text

    figures = measure(model, data, count, _presets(presets), jobs, kill)
    deliver(figures, throughput_text(figures), out)
    return 1 if gate and figures.get("missed") else 0


@application.command(examples="u2net eval panoramas --model build/small-fast/int8.onnx")
def panoramas(model: OneModel = None, out: Figures = None) -> None:
    """Measure whether subjects in wide pictures are found as well as in a square crop around them."""
    from dataclasses import asdict

    from u2net.infer import Session
    from u2net.remover import default_model

    from .panoramas import measure_panoramas, panoramas_text

    rows = measure_panoramas(Session(model or default_model()))
    figures = [asdict(row) | {"share": row.share} for row in rows]
    deliver(figures, panoramas_text(rows), out)


def _presets(text: str) -> list[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in PRESETS:
            raise ConfigError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return application.run(argv)

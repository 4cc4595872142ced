"""The command line of the quantize stage."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net.commandline import Application, Changes, progress, result, say, table_file
from u2net.errors import ConfigError

from .settings import QuantizeSettings

__all__ = ["application", "main"]

# Layers are small: a second BLAS thread gains little, loses much where cores are shared, and would let the last bits of
# the sums, and so the bytes of the model, depend on the machine's number of cores. numpy reads these when it is loaded.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

FAST_SAMPLES = 8192  # pixels per layer that --fast solves on

application = Application(
    "quantize",
    "Turn a float32 ONNX U²-Net into an int8 one that gives the same masks, and prove that it does.",
    default="quantize",
)


def _budget(text: str) -> float:
    name, _, value = text.partition("=")
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if name != "iou" or not 0 <= share <= 1:
        raise typer.BadParameter(f"expected iou=X with X in [0, 1], got {text!r}")
    return share


Model = Annotated[Path, typer.Argument(metavar="FLOAT.onnx", help="the float model, whoever exported it")]
Calib = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="pictures to calibrate and measure on (the procedural set)", rich_help_panel="Pictures"
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="pictures to measure on (others of --calib)", rich_help_panel="Pictures"),
]
Count = Annotated[int, typer.Option(metavar="N", help="pictures to calibrate on", rich_help_panel="Pictures")]
Seed = Annotated[int, typer.Option(metavar="N", help="which pictures", rich_help_panel="Pictures")]
Check = Annotated[int, typer.Option(metavar="N", help="pictures to measure on", rich_help_panel="Pictures")]
Threads = Annotated[int, typer.Option(metavar="N", help="of onnxruntime")]
Tables = Annotated[Path | None, typer.Option(metavar="FILE", help="writes FILE.md and FILE.json")]


@application.command(
    examples="""
u2net quantize build/small/fp32.onnx --calib photographs/ --out build/small/int8.onnx
u2net quantize build/small/fp32.onnx --out build/small/int8.onnx --fast
u2net quantize build/small/fp32.onnx --calib photographs/ --out mixed.onnx --budget iou=0.99
u2net quantize sensitivity --help
"""
)
def quantize(
    model: Model,
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="where the int8 model goes")],
    changes: Annotated[dict[str, Any], Changes(QuantizeSettings)],
    calib: Calib = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="round to nearest after refitting (--method refit), on half the samples")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="iou=X",
            parser=_budget,
            help="keep the fewest layers in float that reach this mean IoU",
            rich_help_panel="Gates",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="quantize again, even if nothing has changed")] = False,
) -> None:
    """Turn a float32 ONNX U²-Net into an int8 one that gives the same masks, and prove that it does.

    Agreement with float is measured every time, on pictures that were not calibrated on, and recorded in the sidecar
    beside the model. Where it is not good enough, nothing is written and the exit status is 1. A model whose sidecar
    already says what is asked for is left as it is.

    Further commands: sensitivity (what each layer costs), ablation (what each pass brings), compare (beside the usual
    tools), trust (what the verdict says beside what is true), outliers (where masks agree least, and why).
    """
    from .stage import quantize_file

    if fast:
        if changes.get("method", "refit") != "refit":
            raise ConfigError(f"--fast means --method refit; drop it for --method {changes['method']}")
        changes |= {"method": "refit", "samples": FAST_SAMPLES}
    settings = QuantizeSettings(**changes, budget=budget)
    with progress() as report:
        sidecar = quantize_file(model, out, calib, settings, report, force=force, tell=say)
    for warning in sidecar["figures"].get("warnings", ()):
        say(f"warning: {warning}")
    result(sidecar, _describe(out, sidecar))


@application.command(examples="u2net quantize sensitivity build/small/fp32.onnx --calib photographs/ --out sensitivity")
def sensitivity(
    model: Model,
    out: Annotated[Path, typer.Option(metavar="PREFIX", help="writes PREFIX.svg, PREFIX-curve.svg, .md and .json")],
    calib: Calib = None,
    count: Count = 16,
    check: Check = 6,
    seed: Seed = 0,
    raw: Annotated[
        bool, typer.Option("--raw", help="measure the model as it is, before its ranges are repaired")
    ] = False,
    threads: Threads = 2,
) -> None:
    """Make one layer at a time int8, all others float, and measure what it does to the masks.

    Then leave the most harmful 1, 2, 4 … layers in float and measure what that gains in masks and costs in time and
    bytes: the curve says where --budget or --keep-float pay.
    """
    from .sensitivity import sensitivity_report

    settings = QuantizeSettings(
        count=count, seed=seed, check_count=check, threads=threads, split=not raw, equalize=not raw
    )
    with progress() as report:
        value, table = sensitivity_report(model, out, calib, settings, report)
    result(value, table)


@application.command(examples="u2net quantize ablation build/small/fp32.onnx --calib photographs/ --data others/")
def ablation(
    model: Model,
    calib: Calib = None,
    data: Data = None,
    count: Count = 64,
    check: Check = 64,
    seed: Seed = 0,
    out: Tables = None,
    threads: Threads = 2,
) -> None:
    """Switch the passes on one after another and measure the agreement with float each time."""
    from .compare import ablation as measure

    settings = QuantizeSettings(count=count, seed=seed, check_count=check, threads=threads, floor=0.0)
    _measure(measure, model, calib, data, settings, out)


@application.command(examples="u2net quantize compare build/small/fp32.onnx --calib photographs/ --data others/")
def compare(
    model: Model,
    calib: Calib = None,
    data: Data = None,
    count: Count = 64,
    check: Check = 64,
    seed: Seed = 0,
    fast: Annotated[bool, typer.Option("--fast", help="only the fast method of this project")] = False,
    out: Tables = None,
    threads: Threads = 2,
) -> None:
    """Quantize one model by this project, onnxruntime's quantize_static and NNCF, and measure them alike.

    All are calibrated on the same pictures and measured on the same other ones.
    """
    from .compare import compare as measure

    settings = QuantizeSettings(
        "refit" if fast else "learned", count=count, seed=seed, check_count=check, threads=threads, floor=0.0
    )
    _measure(measure, model, calib, data, settings, out)


@application.command(
    examples="u2net quantize trust build/small/fp32.onnx --calib photographs/ --data others/ --out trust"
)
def trust(
    model: Model,
    calib: Annotated[Path, typer.Option(metavar="DIR", help="good pictures to calibrate on")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="others, on which what is true is measured")],
    domain: Annotated[Path | None, typer.Option(metavar="DIR", help="pictures of another kind")] = None,
    check: Check = 60,
    fast: Annotated[bool, typer.Option("--fast", help="round to nearest after refitting")] = False,
    out: Tables = None,
    threads: Threads = 2,
) -> None:
    """Compare what quantize says of good and bad calibration folders with what is true on other pictures.

    A killed run is continued by the same command, where --out is given.
    """
    from .trust import trust as measure

    settings = QuantizeSettings("refit" if fast else "learned", check_count=check, threads=threads)
    with progress() as report:
        rows, table = measure(model, calib, data, domain, settings, report, out and out.with_suffix(".json"))
    _write_tables(rows, table, out)


@application.command(
    examples="u2net quantize outliers build/small/fp32.onnx build/small/int8.onnx --data others/ --out outliers"
)
def outliers(
    model: Model,
    int8: Annotated[Path, typer.Argument(metavar="INT8.onnx", help="what was made of it")],
    data: Data = None,
    count: Annotated[
        int, typer.Option(metavar="N", help="pictures to measure on", rich_help_panel="Pictures", min=1)
    ] = 300,
    worst: Annotated[int, typer.Option(metavar="N", help="of them to show", min=1)] = 12,
    out: Tables = None,
    threads: Threads = 2,
) -> None:
    """Show the pictures on which int8 masks agree least with float, and how certain the float masks were.

    A float mask that changes as much when the threshold moves from 0.45 to 0.55 is no fault of the quantization.
    """
    from .outliers import outliers as measure

    with progress() as report:
        rows, table = measure(model, int8, data, count, worst, threads, report)
    _write_tables(rows, table, out)


def _measure(
    measure: Callable[..., tuple[list[dict[str, Any]], str]],
    model: Path,
    calib: Path | None,
    data: Path | None,
    settings: QuantizeSettings,
    out: Path | None,
) -> None:
    with progress() as report:
        rows, table = measure(model, calib, data, settings, report)
    _write_tables(rows, table, out)


def _write_tables(rows: list[dict[str, Any]], table: str, out: Path | None) -> None:
    if out is not None:
        from u2net.files import write_bytes, write_json

        write_json(out.with_suffix(".json"), {"rows": rows})
        write_bytes(out.with_suffix(".md"), table_file(table))
    result(rows, table)


def _describe(path: Path, sidecar: dict[str, Any]) -> str:
    figures = sidecar["figures"]
    check = figures["check"]
    held_out = f"{check['pictures']} pictures of {check['source']} that were not calibrated on"
    lines = [
        f"{path}  {sidecar['size_bytes']:,} bytes, sha256 {sidecar['sha256'][:12]}",
        _agreed(held_out, figures["agreement"]),
    ]
    if "agreement_on_scenes" in figures:
        scenes = figures["agreement_on_scenes"]
        lines.append(_agreed(f"{scenes['pictures']} procedural scenes", scenes))
    if figures.get("integer_convolutions"):
        kept = figures["float_convolutions"]
        lines.append(
            f"{figures['integer_convolutions']} of {figures['convolutions']} convolutions run in integer kernels, "
            f"{figures['integer_macs_share']:.1%} of the multiply-accumulates; in float: {', '.join(kept) or 'none'}"
        )
    return "\n".join(lines)


def _agreed(what: str, figures: dict[str, Any]) -> str:
    empty = f"; {figures['empty_pictures']} without a subject left out of the IoU" if figures["empty_pictures"] else ""
    return (
        f"against float on {what}: mean IoU {figures['iou_mean']:.4f}, pooled {figures['iou_pooled']:.4f}, "
        f"5th percentile {figures['iou_p5']:.4f}, MAE {figures['mae_mean']:.4f}{empty}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return application.run(argv)

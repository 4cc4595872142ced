"""The command line of the quantize stage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from u2net.errors import ConfigError, U2NetError

__all__ = ["main"]

#: Pixels per layer that --fast solves on.
FAST_SAMPLES = 8192

EPILOG = """examples:
  python -m quantize build/small/fp32.onnx --calib photographs/ --out build/small/int8.onnx
  python -m quantize build/small/fp32.onnx --out build/small/int8.onnx --fast
  python -m quantize build/small/fp32.onnx --calib photographs/ --out mixed.onnx --budget iou=0.99
  python -m quantize build/small/fp32.onnx --out build/small/fp16.onnx --format fp16

further commands, each with its own --help:
  python -m quantize sensitivity MODEL   what each layer costs in masks when it becomes int8
  python -m quantize ablation MODEL      what each pass brings
  python -m quantize compare MODEL       beside onnxruntime's quantize_static and NNCF

Agreement with float is measured every time, on pictures that were not calibrated on, and recorded in the sidecar beside
the model. Below --floor nothing is written and the exit status is 1.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for what `U2NetError` reports, 2 for wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {"sensitivity": _sensitivity, "ablation": _ablation, "compare": _compare}
    command = commands.get(words[0]) if words else None
    try:
        return command(words[1:]) if command is not None else _quantize(words)
    except U2NetError as error:
        print(f"quantize: {_one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quantize: interrupted", file=sys.stderr)
        return 130


def _quantize(words: Sequence[str]) -> int:
    parser = build_parser()
    arguments = parser.parse_args(words)
    settings = _settings(arguments)
    from .stage import quantize_file

    with _progress() as report:
        sidecar = quantize_file(
            arguments.model,
            arguments.out,
            arguments.calib,
            settings,
            report,
            force=arguments.force,
            tell=lambda text: print(text, file=sys.stderr),
        )
    if arguments.json:
        print(json.dumps(sidecar, indent=2, sort_keys=True))
    else:
        _describe(arguments.out, sidecar)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m quantize MODEL`."""
    parser = argparse.ArgumentParser(
        prog="python -m quantize",
        description="Turn a float32 ONNX U²-Net into an int8 one that gives the same masks, and prove that it does.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="FLOAT.onnx", type=Path, help="the float model, as `python -m export` makes it"
    )
    parser.add_argument("--out", metavar="FILE.onnx", type=Path, required=True, help="where the int8 model goes")
    parser.add_argument("--force", action="store_true", help="quantize again, even if nothing has changed")
    _add_pictures(parser)
    how = parser.add_argument_group("how")
    how.add_argument(
        "--fast", action="store_true", help="round to nearest after refitting (--method refit), on half the samples"
    )
    how.add_argument(
        "--method",
        choices=("nearest", "bias", "refit", "learned"),
        help="nearest: round; bias: and correct biases layer by layer; refit: solve weights and biases against the "
        "float output, then round; learned: solve for the integers themselves (default)",
    )
    how.add_argument(
        "--calibrator",
        choices=("minmax", "percentile", "entropy", "mse"),
        default="mse",
        help="how activation ranges are chosen (default mse)",
    )
    how.add_argument(
        "--format",
        choices=("qdq", "qoperator", "weights", "fp16"),
        default="qdq",
        help="qdq: QuantizeLinear and DequantizeLinear around float operators (default); qoperator: QLinearConv nodes; "
        "weights: int8 weights, float arithmetic; fp16: float16 weights, float arithmetic",
    )
    how.add_argument("--keep-float", metavar="LAYER", action="append", default=[], help="keep this layer in float")
    gates = parser.add_argument_group("gates")
    gates.add_argument(
        "--check", metavar="N", type=int, default=24, help="pictures to measure on, never calibrated on (default 24)"
    )
    gates.add_argument(
        "--floor", metavar="IOU", type=float, default=0.9, help="least mean and pooled mask IoU (default 0.9)"
    )
    gates.add_argument(
        "--max-mae", metavar="X", type=float, default=0.03, help="largest mean difference of the maps (default 0.03)"
    )
    gates.add_argument(
        "--budget", metavar="iou=X", type=_budget, help="keep the fewest layers in float that reach this mean mask IoU"
    )
    return parser


def _add_pictures(parser: argparse.ArgumentParser, count: int = 64) -> None:
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--calib", metavar="DIR", type=Path, help="pictures to calibrate on (the procedural set)")
    pictures.add_argument("--count", type=int, default=count, metavar="N", help=f"how many of them (default {count})")
    pictures.add_argument("--seed", type=int, default=0, metavar="N", help="which of them (default 0)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of onnxruntime (default 2)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def _settings(arguments: argparse.Namespace) -> Any:
    if arguments.fast and arguments.method not in (None, "refit"):
        raise ConfigError(f"--fast means --method refit; drop it for --method {arguments.method}")
    from .settings import QuantizeSettings

    return QuantizeSettings(
        method="refit" if arguments.fast else arguments.method or "learned",
        calibrator=arguments.calibrator,
        format=arguments.format,
        count=arguments.count,
        seed=arguments.seed,
        check_count=arguments.check,
        floor=arguments.floor,
        max_mae=arguments.max_mae,
        budget=arguments.budget,
        samples=FAST_SAMPLES if arguments.fast else QuantizeSettings.samples,
        keep_float=tuple(arguments.keep_float),
        threads=arguments.threads,
    )


def _budget(text: str) -> float:
    name, _, value = text.partition("=")
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if name != "iou" or not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected iou=X with X in [0, 1], got {text!r}")
    return share


def _sensitivity(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m quantize sensitivity",
        description="Make one layer at a time int8, all others float, and measure what it does to the masks.",
    )
    parser.add_argument("model", metavar="FLOAT.onnx", type=Path)
    parser.add_argument("--out", metavar="PREFIX", type=Path, required=True, help="writes PREFIX.svg, .md and .json")
    parser.add_argument("--check", type=int, default=6, metavar="N", help="pictures to measure on (default 6)")
    parser.add_argument("--raw", action="store_true", help="measure the model as it is, before its ranges are repaired")
    _add_pictures(parser, 16)
    arguments = parser.parse_args(words)
    from .sensitivity import sensitivity_report
    from .settings import QuantizeSettings

    settings = QuantizeSettings(
        count=arguments.count,
        seed=arguments.seed,
        check_count=arguments.check,
        threads=arguments.threads,
        split=not arguments.raw,
        equalize=not arguments.raw,
    )
    with _progress() as report:
        value, table = sensitivity_report(arguments.model, arguments.out, arguments.calib, settings, report)
    print(json.dumps(value, indent=2, sort_keys=True) if arguments.json else table)
    return 0


def _ablation(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m quantize ablation",
        description="Switch the passes on one after another and measure the agreement with float each time.",
    )
    _add_measurement(parser)
    arguments = parser.parse_args(words)
    from .compare import ablation

    return _measure(arguments, ablation)


def _compare(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m quantize compare",
        description="Quantize one model by this project, onnxruntime's quantize_static (three calibrators) and NNCF's "
        "defaults on the same pictures, and measure all of them on the same other pictures.",
    )
    _add_measurement(parser)
    parser.add_argument("--fast", action="store_true", help="include only the fast method of this project")
    arguments = parser.parse_args(words)
    from .compare import compare

    return _measure(arguments, compare)


def _add_measurement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FLOAT.onnx", type=Path)
    parser.add_argument("--data", metavar="DIR", type=Path, help="pictures to measure on (others of --calib)")
    parser.add_argument("--check", type=int, default=64, metavar="N", help="how many of them (default 64)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="writes FILE.md and FILE.json")
    _add_pictures(parser)


def _measure(arguments: argparse.Namespace, measure: Any) -> int:
    from .settings import QuantizeSettings

    settings = QuantizeSettings(
        count=arguments.count,
        seed=arguments.seed,
        check_count=arguments.check,
        threads=arguments.threads,
        floor=0.0,
        method="refit" if getattr(arguments, "fast", False) else "learned",
    )
    with _progress() as report:
        rows, table = measure(arguments.model, arguments.calib, arguments.data, settings, report)
    if arguments.out is not None:
        from u2net.files import write_bytes, write_json

        write_json(arguments.out.with_suffix(".json"), {"rows": rows})
        write_bytes(arguments.out.with_suffix(".md"), (table + "\n").encode())
    print(json.dumps(rows, indent=2, sort_keys=True) if arguments.json else table)
    return 0


@contextmanager
def _progress() -> Iterator[Any]:
    """Bars on standard error, one per piece of work, as `report(what, done, total)`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<32}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in known or done < bars.tasks[known[what]].completed:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done)

        yield report


def _describe(path: Path, sidecar: dict[str, Any]) -> None:
    from rich.console import Console

    figures = sidecar["figures"]
    agreed, check = figures["agreement"], figures["check"]
    lines = [
        f"{path}  {sidecar['size_bytes']:,} bytes, sha256 {sidecar['sha256'][:12]}",
        _agreed(f"{check['pictures']} pictures of {check['source']} that were not calibrated on", agreed),
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
    lines += [f"warning: {warning}" for warning in figures["warnings"]]
    console = Console(stderr=True)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _agreed(what: str, figures: dict[str, Any]) -> str:
    empty = f"; {figures['empty_pictures']} without a subject left out of the IoU" if figures["empty_pictures"] else ""
    return (
        f"against float on {what}: mean IoU {figures['iou_mean']:.4f}, pooled {figures['iou_pooled']:.4f}, "
        f"5th percentile {figures['iou_p5']:.4f}, MAE {figures['mae_mean']:.4f}{empty}"
    )


def _one_line(text: str) -> str:
    """`text` with control characters escaped: a file's name must not forge lines of a log."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

"""`python -m eval latency`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from eval.models import candidates, transfer_sizes
from u2net.files import canonical_json, write_json

from .backend_run import Save
from .engines import BACKENDS
from .measure import faults, measure_latency
from .pictures import load_pictures
from .settings import LatencySettings
from .table import print_latency

__all__ = ["add_arguments", "build_parser", "run", "settings_from"]


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """The options that say how latency is measured."""
    default = LatencySettings()
    parser.add_argument(
        "--backends",
        metavar="LIST",
        help=f"comma-separated, of {', '.join(BACKENDS)}; one that is named and cannot run is an error."
        " Without it: every browser backend that this machine has (Node where there is no browser), and native",
    )
    parser.add_argument("--rounds", type=int, default=default.rounds, help="least rounds (default %(default)s)")
    parser.add_argument(
        "--max-rounds",
        type=int,
        help=f"most rounds, while ratios are not within ±{100 * default.precision:.0f} %% (default 3 × --rounds)",
    )
    parser.add_argument(
        "--cold-starts", type=int, default=default.cold_starts, help="fresh starts per model (default %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=default.threads, help="threads of wasm-threads (default %(default)s)"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the loopback server (default: any free one)")
    parser.add_argument(
        "--software-webgpu", action="store_true", help="accept a software WebGPU adapter (slow; right masks)"
    )


def settings_from(arguments: argparse.Namespace) -> LatencySettings:
    """The settings that `add_arguments`' options say."""
    return LatencySettings(
        backends=tuple(filter(None, (arguments.backends or "").split(","))),
        rounds=arguments.rounds,
        max_rounds=arguments.max_rounds if arguments.max_rounds is not None else 3 * arguments.rounds,
        cold_starts=arguments.cold_starts,
        threads=arguments.threads,
        port=arguments.port,
        software_gpu=arguments.software_webgpu,
    )


def run(arguments: argparse.Namespace) -> int:
    """`python -m eval latency`."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    models = candidates(arguments.models)
    pictures = load_pictures(arguments.image, arguments.data)
    settings = settings_from(arguments)
    save: Save = (lambda partial: write_json(arguments.out, partial)) if arguments.out else (lambda partial: None)
    console = Console(stderr=True)
    with Bar(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("starting", total=1.0)
        result = measure_latency(
            models, pictures, settings, save=save, progress=lambda m, f: bar.update(task, description=m, completed=f)
        )
    for model in models:
        result.setdefault("sizes", {})[model.name] = asdict(transfer_sizes(model.path))
    save(result)
    if arguments.json:
        sys.stdout.write(canonical_json(result).decode())
    else:
        output = Console(width=None if sys.stdout.isatty() else 120)
        print_latency(result, output)
        for name, size in result["sizes"].items():
            kb = {key: f"{size[key] / 1e3:,.0f} kB" for key in ("raw_bytes", "gzip_bytes", "brotli_bytes")}
            output.print(f"{name}: {kb['raw_bytes']} raw, {kb['gzip_bytes']} gzip, {kb['brotli_bytes']} brotli")
    found = faults(result)
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if found else 0


def build_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of `python -m eval latency`."""
    parser.description = "Measure ONNX models side by side in a real headless Chromium; the first is the baseline."
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx", help="models; ratios are to the first")
    parser.add_argument("--image", metavar="FILE", help="test picture (default: from --data, else procedural)")
    parser.add_argument("--data", metavar="DIR", help="folder with images/ and masks/ to take test pictures from")
    add_arguments(parser)
    parser.add_argument("--out", metavar="FILE.json", help="write the result there, after every round")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser

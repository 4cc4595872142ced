"""The command line of the export stage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from u2net.errors import ConfigError, U2NetError

__all__ = ["main"]

EPILOG = """examples:
  python -m export --weights u2netp.safetensors --out build/small/fp32.onnx
  python -m export --weights u2net.pth --out build/full/fp32.onnx --fp16 --ort
  python -m export --weights u2netp.onnx --interface image --out build/small/image.onnx

Beside every model lies a sidecar .json: checksums, settings, library versions and the measured parity.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Turn a U²-Net checkpoint into an ONNX model that is proven against PyTorch on pictures.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", metavar="NAME", help="lite, small, full, …: refuse weights of another model")
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, help=".safetensors, .pth or .onnx (the model's own, by default lite's)"
    )
    parser.add_argument("--out", metavar="FILE.onnx", type=Path, required=True, help="where the model goes")
    graph = parser.add_argument_group("the graph")
    graph.add_argument("--size", type=int, metavar="PIXELS", help="side of the input (the size that was trained for)")
    graph.add_argument("--dynamic", action="store_true", help="leave height and width free")
    graph.add_argument("--side-maps", action="store_true", help="give the six side maps as well")
    graph.add_argument(
        "--interface",
        choices=("tensor", "image"),
        default="tensor",
        help="tensor: normalised float32 NCHW in, float32 out (default); image: uint8 RGBA NHWC in, alpha out",
    )
    graph.add_argument(
        "--alpha", choices=("uint8", "float32"), default="uint8", help="what the image interface gives (default uint8)"
    )
    forms = parser.add_argument_group("further forms, beside --out")
    forms.add_argument("--fp16", action="store_true", help="weights stored in float16, as fp16.onnx")
    forms.add_argument("--ort", action="store_true", help="onnxruntime's own format, .ort, by onnxruntime.tools")
    proof = parser.add_argument_group("proof")
    proof.add_argument("--parity-images", metavar="DIR", type=Path, help="pictures to compare on (the procedural set)")
    proof.add_argument("--parity-count", metavar="N", type=int, default=8, help="how many of them (default 8)")
    parser.add_argument("--json", action="store_true", help="print the sidecars as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for what `U2NetError` reports, 2 for wrong usage."""
    arguments = build_parser().parse_args(argv)
    try:
        made = _run(arguments)
    except U2NetError as error:
        print(f"export: {_one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: interrupted", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(made, indent=2, sort_keys=True))
    return 0


def _one_line(text: str) -> str:
    """`text` with control characters escaped: a file's name must not forge lines of a log."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from .stage import ExportSettings, export_checkpoint

    if arguments.parity_count < 1:
        raise ConfigError("--parity-count must be at least 1: parity is part of the export")
    settings = ExportSettings(
        size=arguments.size,
        dynamic=arguments.dynamic,
        side_maps=arguments.side_maps,
        interface=arguments.interface,
        alpha=arguments.alpha,
    )
    console = Console(stderr=True)
    with console.status("loading …") as status:
        made = export_checkpoint(
            arguments.weights,
            arguments.out,
            settings,
            model=arguments.model,
            fp16=arguments.fp16,
            ort=arguments.ort,
            parity_images=arguments.parity_images,
            parity_count=arguments.parity_count,
            progress=lambda what: status.update(f"{what} …"),
        )
    for path, sidecar in made.items():
        figures = sidecar["figures"]
        parity = f"within {figures['max_difference']:.1e} of PyTorch, " if "max_difference" in figures else ""
        console.print(
            f"{path}  {sidecar['size_bytes']:,} bytes, {parity}sha256 {sidecar['sha256'][:12]}",
            highlight=False,
            soft_wrap=True,
        )
    return made

"""The command line of the engine stage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from u2net.errors import U2NetError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for what `U2NetError` reports, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m engine", description="Pack an int8 U²-Net for the engine, and build the engine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="int8 ONNX → one flat file")
    pack.add_argument("model", type=Path, metavar="INT8.onnx")
    pack.add_argument("--out", type=Path, required=True, metavar="FILE.u2e")
    pack.add_argument("--height", type=int, help="of a model that leaves it free")
    pack.add_argument("--width", type=int, help="of a model that leaves it free")
    pack.add_argument("--calib", type=Path, metavar="DIR", help="pictures to compare on (the procedural set)")
    pack.add_argument("--count", type=int, default=8, metavar="N", help="how many of them (default 8)")
    pack.add_argument("--json", action="store_true", help="print the sidecar")
    build = commands.add_parser("build", help="C → engine.wasm")
    build.add_argument("--out", type=Path, required=True, metavar="engine.wasm")
    build.add_argument("--threads", action="store_true", help="for several threads over one memory")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "pack":
            from .stage import pack_file

            size = _size(arguments.height, arguments.width)
            sidecar = pack_file(arguments.model, arguments.out, size, pictures=arguments.calib, count=arguments.count)
            if arguments.json:
                print(json.dumps(sidecar, indent=2, sort_keys=True))
            else:
                _describe(arguments.out, sidecar)
        else:
            from .build import build_wasm

            size_bytes = build_wasm(arguments.out, arguments.threads)
            print(f"{arguments.out}  {size_bytes:,} bytes", file=sys.stderr)
    except U2NetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _describe(path: Path, sidecar: dict[str, Any]) -> None:
    figures = sidecar["figures"]
    agreed, bounds = figures["agreement"], figures["bounds"]
    print(f"{path}  {sidecar['size_bytes']:,} bytes, sha256 {sidecar['sha256'][:12]}", file=sys.stderr)
    print(
        f"against onnxruntime on {agreed['pictures']} pictures: mean IoU {agreed['iou_mean']:.4f}, "
        f"MAE {agreed['mae_mean']:.5f}",
        file=sys.stderr,
    )
    print(
        f"no sum can overflow: of {bounds['convolutions']} convolutions the largest is {bounds['largest_sum']:,}; "
        f"{figures['memory_bytes'] / 2**20:.1f} MiB of memory",
        file=sys.stderr,
    )


def _size(height: int | None, width: int | None) -> tuple[int, int] | None:
    if height is None and width is None:
        return None
    return (height or width or 0, width or height or 0)

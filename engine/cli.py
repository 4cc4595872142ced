"""The command line of the engine stage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

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
    pack.add_argument("--json", action="store_true", help="print the sidecar")
    build = commands.add_parser("build", help="C → engine.wasm")
    build.add_argument("--out", type=Path, required=True, metavar="engine.wasm")
    build.add_argument("--threads", action="store_true", help="for several threads over one memory")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "pack":
            from .stage import pack_file

            size = _size(arguments.height, arguments.width)
            sidecar = pack_file(arguments.model, arguments.out, size)
            if arguments.json:
                print(json.dumps(sidecar, indent=2, sort_keys=True))
            else:
                print(f"{arguments.out}  {sidecar['size_bytes']:,} bytes, sha256 {sidecar['sha256'][:12]}",
                      file=sys.stderr)  # fmt: skip
        else:
            from .build import build_wasm

            size_bytes = build_wasm(arguments.out, arguments.threads)
            print(f"{arguments.out}  {size_bytes:,} bytes", file=sys.stderr)
    except U2NetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _size(height: int | None, width: int | None) -> tuple[int, int] | None:
    if height is None and width is None:
        return None
    return (height or width or 0, width or height or 0)

"""The command line of the engine stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net.commandline import Application, Figures, deliver, progress, result, say

from .settings import PackSettings

__all__ = ["application", "main"]

application = Application("engine", "Pack an int8 U²-Net into the file that the browser's engine runs.", default="pack")


@application.command(
    examples="""
u2net engine build/lite/int8.onnx --out build/lite/int8.u2e
u2net engine build/lite/int8.onnx --calib photographs/ --out build/lite/int8.u2e
u2net engine build/lite/int8.onnx --height 256 --width 384 --out wide.u2e
"""
)
def pack(
    model: Annotated[Path, typer.Argument(metavar="INT8.onnx", help="the model, as `u2net quantize` makes it")],
    out: Annotated[Path, typer.Option(metavar="FILE.u2e", help="where the file goes")],
    settings: PackSettings,
    calib: Annotated[
        Path | None, typer.Option(metavar="DIR", help="pictures to compare on (the procedural set)")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="pack again, even if nothing has changed")] = False,
) -> None:
    """Pack an int8 U²-Net into the file that the browser's engine runs.

    What the engine cannot run is refused by the name of its node. The file is run before it is written, and its maps
    are compared with onnxruntime's; the sidecar FILE.u2e.json holds the figures.
    """
    from .stage import pack_file

    with progress() as report:
        sidecar = pack_file(
            model,
            out,
            settings,
            pictures=calib,
            force=force,
            progress=lambda what: report(what, 0, 1),
            tell=say,
        )
    result(sidecar, _lines(out, sidecar))


@application.command(examples="u2net engine build --out engine.wasm")
def build(
    out: Annotated[Path, typer.Option(metavar="engine.wasm", help="where the program goes")],
    threads: Annotated[bool, typer.Option("--threads", help="for several threads over one memory")] = False,
) -> None:
    """Compile the engine to WebAssembly: the same source gives the same bytes."""
    from .build import build_wasm

    size_bytes = build_wasm(out, threads)
    result({"file": str(out), "size_bytes": size_bytes}, f"{out}  {size_bytes:,} bytes")


@application.command(
    examples="u2net engine profile build/small-fast/int8.u2e\nu2net engine profile int8.u2e --out operators.md"
)
def profile(
    model: Annotated[Path, typer.Argument(metavar="FILE.u2e", help="a packed model")],
    rounds: Annotated[int, typer.Option(metavar="N", help="runs, of which the least time counts", min=1)] = 60,
    out: Figures = None,
) -> None:
    """Where the time of a picture goes: every operator in Node, one thread, with the rate of its multiplications."""
    from .profile import operator_table, profile_model

    with progress() as report:
        report("running in Node", 0, 1)
        steps = profile_model(model, rounds)
    table = operator_table(steps)
    deliver({"steps": [asdict(step) for step in steps]}, table, out, table)


def _lines(path: Path, sidecar: dict[str, Any]) -> str:
    figures = sidecar["figures"]
    agreed, bounds = figures["agreement"], figures["bounds"]
    return (
        f"{path}  {sidecar['size_bytes']:,} bytes, sha256 {sidecar['sha256'][:12]}\n"
        f"against onnxruntime on {agreed['pictures']} pictures: mean IoU {agreed['iou_mean']:.4f}, "
        f"MAE {agreed['mae_mean']:.5f}\n"
        f"no sum can overflow: the largest of {bounds['convolutions']} convolutions is {bounds['largest_sum']:,}; "
        f"{figures['memory_bytes'] / 2**20:.1f} MiB of memory"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return application.run(argv)

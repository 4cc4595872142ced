"""The command line of the export stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net.commandline import Application, progress, result, say
from u2net.errors import ConfigError

from .settings import ExportSettings

__all__ = ["application", "main"]

application = Application(
    "export",
    "Turn a U²-Net checkpoint into an ONNX model that is proven against PyTorch on pictures.",
    default="export",
)
forms = "Further forms, beside --out"
proof = "Proof"


@application.command(
    examples="""
u2net export --weights u2netp.safetensors --out build/small/fp32.onnx
u2net export --weights u2net.pth --out build/full/fp32.onnx --fp16
u2net export --weights u2netp.onnx --interface image --out build/small/image.onnx
u2net export --model small --name portraits --weights mine.pth --out build/portraits/fp32.onnx
"""
)
def export(
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="where the model goes")],
    settings: ExportSettings,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE", help="lite, small, full, … or a TOML file of widths: refuse weights of another shape"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="what the result is called (by default as its shape)")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=".safetensors, .pth or .onnx (by default the weights that come with --model)"
        ),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="weights stored in float16, as fp16.onnx", rich_help_panel=forms)
    ] = False,
    ort: Annotated[bool, typer.Option("--ort", help="onnxruntime's own format, .ort", rich_help_panel=forms)] = False,
    parity_images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="pictures to compare on (the procedural set)", rich_help_panel=proof),
    ] = None,
    parity_count: Annotated[int, typer.Option(metavar="N", help="how many of them", rich_help_panel=proof)] = 8,
    force: Annotated[bool, typer.Option("--force", help="export again, even if nothing has changed")] = False,
) -> None:
    """Turn a U²-Net checkpoint into an ONNX model that is proven against PyTorch on pictures.

    Beside every model lies a sidecar .json: checksums, settings, library versions and the measured parity. A model
    whose sidecar already says what is asked for is left as it is.
    """
    from .stage import export_checkpoint

    if parity_count < 1:
        raise ConfigError("--parity-count must be at least 1: parity is part of the export; leave it out for 8")
    with progress() as report:
        made = export_checkpoint(
            weights,
            out,
            settings,
            model=model,
            name=name,
            fp16=fp16,
            ort=ort,
            parity_images=parity_images,
            parity_count=parity_count,
            force=force,
            progress=lambda what: report(what, 0, 1),
            tell=say,
        )
    result(made, "\n".join(_line(path, sidecar) for path, sidecar in made.items()))


@application.command(examples="u2net export ort build/small/int8.onnx")
def ort(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.onnx", help="models with their sidecars")],
) -> None:
    """Convert models of this project to onnxruntime's own format, beside them."""
    from .ort_format import write_ort

    made = {}
    for model in models:
        path, sidecar = write_ort(model)
        made[str(path)] = sidecar
    result(made, "\n".join(f"{path}  {sidecar['size_bytes']:,} bytes" for path, sidecar in made.items()))


def _line(path: str, sidecar: dict[str, Any]) -> str:
    figures = sidecar["figures"]
    parity = f"within {figures['max_difference']:.1e} of PyTorch, " if "max_difference" in figures else ""
    return f"{path}  {sidecar['size_bytes']:,} bytes, {parity}sha256 {sidecar['sha256'][:12]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return application.run(argv)

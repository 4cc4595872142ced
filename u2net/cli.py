"""The program `u2net`: `u2net photo.jpg` cuts out a picture, `u2net STAGE …` runs a stage of the toolchain.

A stage is imported when it is asked for: under the name that it has in an installed wheel, else as the folder of the
repository, so nothing of the toolchain is loaded, or needed, to cut out a picture.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from .commandline import EVERYWHERE, Application, print_version, refuse

__all__ = ["STAGES", "Stage", "load", "main"]


@dataclass(frozen=True)
class Stage:
    """A word after `u2net`: what it does, the package that does it, and the command of that package's application."""

    summary: str
    package: str
    command: str | None = None


STAGES: dict[str, Stage] = {
    "export": Stage("checkpoint → ONNX, proven against PyTorch", "export"),
    "quantize": Stage("float ONNX → int8 ONNX that gives the same masks", "quantize"),
    "engine": Stage("int8 ONNX → one flat file for the browser's engine", "engine"),
    "eval": Stage("mask quality and browser latency of models, in one report", "eval"),
    "gate": Stage("fail where a report breaks a policy", "eval", "gate"),
    "publish": Stage("the folder that a front-end team hosts", "publish"),
    "train": Stage("distil, fine-tune and prune", "train"),
    "datasets": Stage("look at, make and check sets of pictures", "datasets"),
    "serve": Stage("cut-outs over HTTP: a picture in, a file out", "u2net.serve.cli"),
    "weights": Stage("list and fetch the public U²-Net weights", "u2net.weights_cli"),
}
TOOLCHAIN = "u2net_toolchain"  # the package that holds the stages in an installed wheel


def load(name: str) -> Application | None:
    """The application of stage `name`; None where the toolchain is not installed."""
    package = STAGES[name].package
    if package.startswith("u2net."):
        return import_module(package).application
    for candidate in (f"{TOOLCHAIN}.{package}", package):
        try:
            found = find_spec(f"{candidate}.cli")
        except ModuleNotFoundError:
            continue
        if found is not None:
            return getattr(import_module(f"{candidate}.cli"), "application", None)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; the exit status is 0, 1 for what failed or was refused, 2 for wrong usage, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    prog = "u2net" if not sys.argv[0].endswith(("__main__.py", "-m")) else "python -m u2net"
    if "_U2NET_COMPLETE" in os.environ:
        from .completion import complete

        return complete()
    first = next((word for word in words if word not in EVERYWHERE), "--help")
    if first in ("-h", "--help"):
        print(overview(prog))
        return 0 if words else 2
    if first == "--version":
        return print_version()
    if first not in STAGES:
        from .cutout import application

        return application.run(words, prog)
    stage = STAGES[first]
    application_ = load(first)
    if application_ is None:
        return refuse(f"{prog} {first} is part of the toolchain: pip install 'u2net-remover[toolchain]'", 1)
    words.remove(first)
    rest = [stage.command, *words] if stage.command else words
    return application_.run(rest, f"{prog} {first}" if not stage.command else f"{prog} {stage.package}")


def overview(prog: str = "u2net") -> str:
    """What `u2net --help` prints."""
    width = max(len(name) for name in STAGES)
    stages = "\n".join(f"  {name:<{width}}  {stage.summary}" for name, stage in STAGES.items())
    return f"""\
Usage: {prog} PICTURE... [-o OUT]      cut the subject out of pictures
       {prog} STAGE ...                make, measure and publish the model that does it

Cut out pictures:
  {prog} photo.jpg                     writes photo-cutout.png beside it
  {prog} photo.jpg -o shop.jpg --background white
  {prog} photos/ -o cutouts/
  {prog} cutout --help                 all options

Make a model: a U²-Net checkpoint becomes a small, fast model for the browser
  {prog} export --weights portraits.pth --out fp32.onnx
  {prog} quantize fp32.onnx --calib photos/ --out int8.onnx
  {prog} eval fp32.onnx int8.onnx --data pairs/ --out report

Stages, each with its own --help:
{stages}

Everywhere:
  --json         print the result as JSON
  --quiet, -q    only errors
  --version      the version
  --install-completion, --show-completion    of commands and options in your shell

Exit status: 0 all went well, 1 something failed or was refused, 2 the command itself was wrong."""

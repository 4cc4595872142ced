"""What the export stage can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer
from annotated_doc import Doc

from u2net.errors import ConfigError

__all__ = ["MOST_PICTURES", "ExportSettings"]

OLDEST_OPSET, NEWEST_OPSET = 13, 22  # per-channel integers need 13; the exporter is proven up to 22
LEAST_WHOLE_OPSET = 18  # what the nodes around the network, and those that read a picture's sides, are written in
MOST_PICTURES = 64


def _size(text: str) -> int | tuple[int, int]:
    from u2net.preprocess import read_size

    size = read_size(text)
    if size is None:
        raise typer.BadParameter(f"expected pixels, as 320, or height by width, as 256x320; got {text!r}")
    return size


def _batch(text: str) -> int | Literal["dynamic"]:
    text = str(text)  # the default is a number already
    if text == "dynamic":
        return "dynamic"
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise typer.BadParameter(f"expected a number of pictures, or dynamic; got {text!r}")
    return int(text)


@dataclass(frozen=True)
class ExportSettings:
    """What the exported graph takes and gives."""

    size: Annotated[
        int | tuple[int, int] | None,
        Doc("pixels of the input, one side or height by width (the size that was trained for)"),
        typer.Option(metavar="S|HxW", parser=_size),
    ] = None  # that one
    dynamic: Annotated[bool, Doc("leave height and width free")] = False  # static graphs let the engine plan memory
    batch: Annotated[
        int | Literal["dynamic"],
        Doc("pictures at a time, or dynamic to leave it free"),
        typer.Option(metavar="N|dynamic", parser=_batch),
    ] = 1  # what a page and the runner feed
    opset: Annotated[int, Doc("version of the ONNX operators"), typer.Option(metavar="13–22")] = (
        18  # every onnxruntime since 1.14 reads it, in browsers too
    )
    side_maps: Annotated[bool, Doc("give the six side maps as well")] = False  # used by training alone
    fp16: bool = False  # weights stored as float16: half the download, and no engine computes slower for it
    interface: Annotated[
        Literal["tensor", "image"],
        Doc("tensor: normalised float32 NCHW in, float32 out; image: uint8 RGBA NHWC in, alpha out"),
    ] = "tensor"  # what transformers.js and rembg feed
    alpha: Annotated[Literal["uint8", "float32"], Doc("what the image interface gives")] = (
        "uint8"  # what a canvas takes
    )

    def __post_init__(self) -> None:
        lengths = self.size if isinstance(self.size, tuple) else (self.size,)
        if any(side is not None and not 32 <= side <= 2048 for side in lengths):
            raise ConfigError(f"--size must be 32 to 2048 pixels, got {'x'.join(map(str, lengths))}")
        if isinstance(self.batch, int) and not 1 <= self.batch <= MOST_PICTURES:
            raise ConfigError(f"--batch must be 1 to {MOST_PICTURES} pictures, or dynamic, got {self.batch}")
        if not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
            raise ConfigError(f"--opset must be {OLDEST_OPSET} to {NEWEST_OPSET}, got {self.opset}")
        if (self.dynamic or self.batch == "dynamic") and self.opset < LEAST_WHOLE_OPSET:
            raise ConfigError(
                f"an --opset below {LEAST_WHOLE_OPSET} goes with fixed sides; leave --dynamic and --batch dynamic out"
            )
        if self.interface not in ("tensor", "image"):
            raise ConfigError(f"--interface is tensor or image, not {self.interface!r}")
        if self.alpha not in ("uint8", "float32"):
            raise ConfigError(f"--alpha is uint8 or float32, not {self.alpha!r}")
        if self.interface == "image":
            for wrong, what in (
                (self.side_maps, "--side-maps goes"),
                (self.batch != 1, "--batch goes"),
                (self.opset < LEAST_WHOLE_OPSET, f"an --opset below {LEAST_WHOLE_OPSET} goes"),
            ):
                if wrong:
                    raise ConfigError(f"{what} with the tensor interface; leave --interface image out")

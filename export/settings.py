"""What the export stage can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_doc import Doc

from u2net.errors import ConfigError

__all__ = ["ExportSettings"]


@dataclass(frozen=True)
class ExportSettings:
    """What the exported graph takes and gives."""

    size: Annotated[int | None, Doc("side of the input in pixels (the size that was trained for)")] = None  # that one
    dynamic: Annotated[bool, Doc("leave height and width free")] = False  # static graphs let the engine plan memory
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
        if self.size is not None and not 32 <= self.size <= 2048:
            raise ConfigError(f"--size must be 32 to 2048 pixels, got {self.size}")
        if self.interface not in ("tensor", "image"):
            raise ConfigError(f"the interface is tensor or image, not {self.interface!r}")
        if self.alpha not in ("uint8", "float32"):
            raise ConfigError(f"alpha is uint8 or float32, not {self.alpha!r}")
        if self.interface == "image" and self.side_maps:
            raise ConfigError("side maps go with the tensor interface: the image interface gives one alpha channel")

"""How a model is packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from u2net.commandline import Doc
from u2net.errors import ConfigError

__all__ = ["PackSettings"]


@dataclass(frozen=True)
class PackSettings:
    """What is packed and how it is proven. Raises `ConfigError` on values that cannot work."""

    height: Annotated[int | None, Doc("pixels, instead of the model's own")] = (
        None  # the size that the weights were trained for is the best
    )
    width: Annotated[int | None, Doc("pixels, instead of the model's own")] = None  # trained for it
    count: Annotated[int, Doc("pictures to compare on")] = 8  # maps differ by 0.0002 on average and vary little

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"--count must be at least 1, got {self.count}: the proof is part of packing")
        if any(side is not None and side < 1 for side in (self.height, self.width)):
            raise ConfigError("--height and --width must be at least 1")

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width); one of them stands for both. None where neither is given."""
        height, width = self.height or self.width, self.width or self.height
        return None if height is None or width is None else (height, width)

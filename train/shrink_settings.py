"""What `u2net train shrink` can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from u2net.commandline import Doc
from u2net.errors import ConfigError

__all__ = ["ShrinkSettings"]


@dataclass(frozen=True)
class ShrinkSettings:
    """How much goes, and how long is healed."""

    share: Annotated[float, Doc("of the multiplications that stays")] = 0.5  # half the time for a few points of IoU
    steps: Annotated[int, Doc("of healing after the fit; 0 leaves it out")] = 0  # sixty gave nothing
    minutes: Annotated[float, Doc("heal by the clock instead of by steps")] = 0.0  # steps give the same bytes twice
    count: Annotated[int, Doc("pictures to rank and to fit on")] = 96  # with 24 held out, those that are fitted to
    check: Annotated[int, Doc("pictures to measure on, held out of the same folder")] = 24  # a mean to about 0.01
    batch: Annotated[int, Doc("pictures in a step of healing")] = 4  # batch norm is frozen, so few will do
    lr: float = 3e-5  # the peak; at 1e-4 sixty steps took half of small-fast from IoU 0.933 to 0.90 of the whole
    ranking: int = 16  # pictures that channels are ranked on, one at a time
    fitting: int = 72  # pictures that what is left is fitted to: more are better, and each takes 20 MB and more
    seed: Annotated[int, Doc("which pictures, and in which order")] = 0  # any
    threads: Annotated[int, Doc("of torch")] = 1  # beside other work two wait for each other, ten times as long

    def __post_init__(self) -> None:
        if not 0.05 <= self.share <= 1:
            raise ConfigError(f"--share must be 0.05 to 1, got {self.share:g}")
        if (
            min(self.steps, self.minutes) < 0
            or min(self.count, self.check, self.batch, self.ranking, self.threads) < 1
            or self.lr <= 0
        ):
            raise ConfigError(
                "--count, --check, --batch and --threads must be at least 1, --steps and --minutes at least 0"
            )

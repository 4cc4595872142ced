"""What may be chosen about a latency measurement."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated

from annotated_doc import Doc

from u2net.errors import ConfigError

from .engines import BACKENDS

__all__ = ["LatencySettings"]


def _threads() -> int:
    return min(4, max(2, os.cpu_count() or 2))


@dataclass(frozen=True)
class LatencySettings:
    """How latency is measured. Raises `ConfigError` on values that cannot work."""

    backends: tuple[str, ...] = ()  # empty: all browser backends that this machine has, and native
    rounds: Annotated[int, Doc("least rounds")] = 12  # for a 95 % interval that leaves out two outliers on either side
    max_rounds: Annotated[int | None, Doc("most rounds, while ratios are not within ±2 % (3 × --rounds)")] = (
        None  # a noisy machine stops there, with a wider interval
    )
    precision: float = 0.02  # ±2 %: well inside the 5 % within which two runs are to agree
    warmup: int = 2  # the first run tiers up the wasm, the second fills the caches
    cold_starts: Annotated[int, Doc("fresh starts of each model")] = 3  # a median of three leaves out one hiccup
    threads: Annotated[int, Doc("threads of wasm-threads")] = field(default_factory=_threads)  # engine's own cap is 4
    port: Annotated[int, Doc("port of the loopback server (0: any free one)")] = 0  # any free one
    software_webgpu: Annotated[bool, Doc("accept a software WebGPU adapter (slow; right masks)")] = (
        False  # it computes the right mask in absurd time: for tests of the path only
    )

    def __post_init__(self) -> None:
        unknown = [name for name in self.backends if name not in BACKENDS]
        if unknown:
            raise ConfigError(f"unknown backend {unknown[0]}; there are {', '.join(BACKENDS)}")
        if self.rounds < 1 or self.warmup < 0 or self.cold_starts < 1 or self.threads < 2:
            raise ConfigError(
                "latency needs --rounds and --cold-starts of at least 1, --warmup of at least 0 and --threads of "
                "at least 2"
            )
        if not 0 <= self.port < 65536:
            raise ConfigError(f"there is no port {self.port}; --port takes 0 to 65535, 0 for any that is free")

    @property
    def most_rounds(self) -> int:
        """How many rounds end the measurement in any case."""
        return max(self.rounds, 3 * self.rounds if self.max_rounds is None else self.max_rounds)

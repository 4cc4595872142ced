"""A policy: what a report must have, and the bounds that its figures must keep.

A policy is TOML, schema version 1. `[require]` says what must be there, each `[[check]]` what must hold; `because` is
printed with a breach. A check names models by a pattern and one figure by a path:

    dead_convolutions · integer_share · constant_share · size.raw_bytes · size.gzip_bytes · size.brotli_bytes
    quality.<metric> (over all pictures) · quality.<set>.<metric> · agreement.<iou, iou_p5, iou_worst, mae>
    latency.<backend>.ratio · latency.<backend>.mask_difference · latency.<backend>.iou_with_native

and bounds it by any of

    floor, ceiling            absolute
    below_reference           at most this much worse than the report's first model
    below_baseline            at most this much worse than the baseline's figure
    growth                    at most this share above the baseline's figure

There is no path to an absolute time: a gate on milliseconds tests the machine.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from u2net.documents import Document, read_toml
from u2net.errors import ConfigError

__all__ = ["BOUNDS", "Check", "Policy", "Require", "load_policy"]

BOUNDS = ("floor", "ceiling", "below_reference", "below_baseline", "growth")
AGAINST_BASELINE = ("below_baseline", "growth")


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[check]]`: the figure `what` of the models whose names match the pattern `models`."""

    what: str
    models: str = "*"
    because: str = ""
    floor: float | None = None
    ceiling: float | None = None
    below_reference: float | None = None
    below_baseline: float | None = None
    growth: float | None = None

    def __post_init__(self) -> None:
        if not self.bounds:
            raise ValueError(f"the check of {self.what} says nothing: it needs one of {', '.join(BOUNDS)}")
        if not all(math.isfinite(limit) for limit in self.bounds.values()):
            raise ValueError(f"the check of {self.what} says nothing: its bound must be a finite number")

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are set."""
        return {name: limit for name in BOUNDS if (limit := getattr(self, name)) is not None}


class Require(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[require]`: so many pictures judged, these backends measured, and where the baseline lies."""

    pictures: Annotated[int, msgspec.Meta(ge=0)] = 1
    backends: tuple[str, ...] = ()
    baseline: str | None = None  # path; as read, relative to the policy's folder


class Policy(Document, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"checks": "check"}):
    """What a report must keep."""

    KIND: ClassVar[str] = "policy"
    CURE: ClassVar[str] = "docs/evaluation.md says what a policy may hold"

    require: Require = Require()
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        if not self.checks:
            raise ValueError("check is empty, so nothing is checked")

    @property
    def baseline(self) -> Path | None:
        """Where the baseline lies."""
        return Path(self.require.baseline) if self.require.baseline else None


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy. Raises `ConfigError` where it is not TOML, or holds what this module does not know."""
    policy = read_toml(path, Policy, ConfigError)
    if policy.baseline is None:
        return policy
    require = msgspec.structs.replace(policy.require, baseline=str(Path(path).parent / policy.baseline))
    return msgspec.structs.replace(policy, require=require)

"""What is known and decided about a graph on its way to 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .graph import FloatGraph
from .inputs import NetworkInputs
from .observe import Observations
from .region import Region, find_region

__all__ = ["ActivationRange", "Plan", "Prepared", "Progress", "QuantizedConv", "silent", "without"]

#: Called with what is being done, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class ActivationRange:
    """Scale and zero point of a group of uint8 tensors: value = scale · (q − zero_point)."""

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """Smallest value that can be told."""
        return -self.scale * self.zero_point

    @property
    def high(self) -> float:
        """Largest value that can be told."""
        return self.scale * (255 - self.zero_point)


@dataclass(frozen=True)
class QuantizedConv:
    """Weights of one integer convolution: value = scale · q per output channel, q in [−127, 127]."""

    weight: npt.NDArray[np.int8]  # (out_channels, in_channels, kernel height, kernel width)
    scale: npt.NDArray[np.float32]  # (out_channels,)
    bias: npt.NDArray[np.float32]  # (out_channels,), before it is rounded to multiples of input scale · weight scale

    def dequantized(self) -> npt.NDArray[np.float32]:
        """The weights that the integers stand for."""
        return self.weight.astype(np.float32) * self.scale[:, None, None, None]


@dataclass(frozen=True)
class Plan:
    """Everything that quantization decided about a graph."""

    region: Region
    ranges: Mapping[int, ActivationRange]  # by group
    convs: Mapping[str, QuantizedConv] = field(default_factory=dict)  # by name of the convolution

    def range_of(self, tensor: str) -> ActivationRange:
        """Scale and zero point of a quantized tensor."""
        return self.ranges[self.region.group[tensor]]


def without(graph: FloatGraph, plan: Plan, names: tuple[str, ...], reasons: dict[str, str]) -> Plan:
    """`plan` with some convolutions left in float; ranges stay what they are, group by group."""
    region = find_region(graph, names)
    ranges = {region.group[tensor]: plan.range_of(tensor) for tensor in region.group}
    convs = {name: conv for name, conv in plan.convs.items() if name in region.integer}
    return Plan(replace(region, reasons={**region.reasons, **reasons}), ranges, convs)


@dataclass(frozen=True)
class Prepared:
    """A float model that was run on the calibration pictures and whose channels were repaired."""

    original: FloatGraph
    graph: FloatGraph  # computes what `original` computes
    region: Region
    observed: Observations
    inputs: NetworkInputs
    split: tuple[str, ...]  # channels whose constant part was taken out
    rescaled: int  # channels, or tied sets of them, that got another scale

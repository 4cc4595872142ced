"""Which part of a tensor's values its 256 steps cover: minmax, percentile, entropy or MSE.

All four work on the extremes and samples that `observe` kept. A group of tensors that share one scale is one
distribution. The lower end is 0 for what comes out of ReLUs, so their zero point is 0 and quantizing is the ReLU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from u2net.errors import ConfigError

from .graph import FloatGraph
from .observe import Observations
from .plan import ActivationRange
from .region import Region
from .settings import Calibrator

__all__ = ["CALIBRATORS", "choose_ranges"]

Array64 = npt.NDArray[np.float64]

#: Share of values that `percentile` covers, as onnxruntime's percentile calibrator has it.
PERCENTILE = 0.9999
#: Bins of the histogram that percentile, entropy and MSE read.
BINS = 2048
#: Fractions of the extreme that MSE tries as the end of the range.
FRACTIONS = np.linspace(0.30, 1.0, 71)


@dataclass(frozen=True)
class _Histogram:
    """Magnitudes on one side of zero."""

    weights: Array64  # (BINS,)
    end: float

    @property
    def centres(self) -> Array64:
        return np.asarray((np.arange(BINS) + 0.5) * (self.end / BINS), np.float64)


def choose_ranges(
    graph: FloatGraph, region: Region, observed: Observations, calibrator: Calibrator = "mse"
) -> dict[int, ActivationRange]:
    """Scale and zero point of each group. Raises `ConfigError` for an unknown calibrator."""
    if calibrator not in CALIBRATORS:
        raise ConfigError(f"no calibrator is called {calibrator!r}; there are {', '.join(CALIBRATORS)}")
    ranges: dict[int, ActivationRange] = {}
    for group, sources in region.sources.items():
        bounds = [observed.extremes(graph, name) for name in sources]
        low = min(0.0, *(float(lowest.min()) for lowest, _ in bounds))
        high = max(0.0, *(float(highest.max()) for _, highest in bounds))
        values = [observed.samples_of(graph, name).ravel() for name in sources]
        upper = _end(values, high, 1, calibrator)
        lower = _end(values, -low, -1, calibrator)
        if upper + lower <= 0:  # a group that is zero on every picture
            upper = 1.0
        scale = np.float32((upper + lower) / 255)
        zero_point = round(lower / float(scale))
        ranges[group] = ActivationRange(float(scale), min(255, max(0, zero_point)))
    return ranges


def _end(values: list[npt.NDArray[np.float32]], extreme: float, sign: int, calibrator: Calibrator) -> float:
    if extreme <= 0 or calibrator == "minmax":
        return max(extreme, 0.0)
    weights = np.zeros(BINS)
    for part in values:  # each tensor of the group counts alike, whatever its resolution
        counts, _ = np.histogram(sign * part, BINS, (0.0, extreme))
        weights += counts / part.size
    return CALIBRATORS[calibrator](_Histogram(weights, extreme))


def _percentile(histogram: _Histogram) -> float:
    cumulative = np.cumsum(histogram.weights)
    if cumulative[-1] <= 0:
        return histogram.end
    position = int(np.searchsorted(cumulative, PERCENTILE * cumulative[-1]))
    return (min(position, BINS - 1) + 1) * histogram.end / BINS


def _mse(histogram: _Histogram) -> float:
    best, chosen = np.inf, histogram.end
    for fraction in FRACTIONS:
        end = histogram.end * float(fraction)
        step = end / 255
        error = float(histogram.weights @ _squared_error(histogram.centres, end, step, histogram.end / BINS))
        if error <= best:
            best, chosen = error, end
    return chosen


def _squared_error(centres: Array64, end: float, step: float, width: float) -> Array64:
    """Rounding noise step²/12 inside the range, the squared distance to its end outside."""
    return np.where(centres <= end, step**2 / 12, (centres - end) ** 2 + width**2 / 12)


def _entropy(histogram: _Histogram) -> float:
    """The end whose 128-step histogram diverges least from the clipped one (TensorRT; Migacz, GTC 2017)."""
    weights = histogram.weights.copy()
    weights[0] = weights[1]  # the zeros that a ReLU makes are exact at any scale and would drown the rest
    best, chosen = np.inf, histogram.end
    for stop in range(128, BINS + 1, 16):
        reference = weights[:stop].copy()
        reference[-1] += weights[stop:].sum()
        edges = np.linspace(0, stop, 129).round().astype(int)
        occupied = weights[:stop] > 0
        sums = np.add.reduceat(weights[:stop], edges[:-1])
        filled = np.maximum(np.add.reduceat(occupied.astype(float), edges[:-1]), 1)
        coarse = np.repeat(sums / filled, np.diff(edges)) * occupied
        if reference.sum() <= 0 or coarse.sum() <= 0:
            continue
        p, q = reference / reference.sum(), coarse / coarse.sum()
        both = p > 0
        divergence = float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-10))))
        if divergence < best:
            best, chosen = divergence, stop * histogram.end / BINS
    return chosen


CALIBRATORS: dict[str, Callable[[_Histogram], float]] = {
    "minmax": lambda histogram: histogram.end,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}

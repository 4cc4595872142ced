"""From float weights to int8 ones, one convolution at a time.

`round_nearest` is what common tools do. `round_compensated` looks for the integers whose *output* is nearest to the
float layer's, given the quantized inputs that the layer will really see. Per output channel that is a least-squares
problem in integers,

    minimise  ‖ X̂ q·Δ + b − Y ‖²,

X̂ the patches of the quantized network, Y the float network's output at the same pixels. Three steps:

1. the real-valued solution, drawn towards the float weights (ridge): it also makes up for the error that earlier layers
   left in X̂ (as asymmetric calibration does in GPTAQ, arXiv 2504.02692);
2. rounding one input tap at a time, the remaining taps taking up each error (GPTQ, Frantar et al., arXiv 2210.17323);
3. coordinate descent: every integer is moved to its best place given all others, until few move.

Means are taken out of X̂ and Y first and the bias put right afterwards, so a constant channel, however large, weighs
nothing in the choice of integers. All steps are closed-form or exhaustive: no learning rate, no random numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg

from .settings import RoundingSettings

__all__ = ["Moments", "round_compensated", "round_nearest", "refit"]

FloatArray = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]

LIMIT = 127  # int8 without −128, so that the kernel can be symmetric


class Moments:
    """Sums over samples of patches x (K,) and targets y (O,): with `second` order, the least-squares problem.

    Sums are taken around the first batch's means: products of a channel of 226 ± 0.2 in float32 would lose the 0.2.
    """

    def __init__(self, taps: int, outputs: int, second: bool = True) -> None:
        self.count = 0
        self.second = second
        self.origin_x = np.zeros(taps, np.float32)
        self.origin_y = np.zeros(outputs, np.float32)
        self.x = np.zeros(taps)
        self.y = np.zeros(outputs)
        if second:
            self.xx = np.zeros((taps, taps), np.float32, order="F")  # its upper half
            self.xy = np.zeros((taps, outputs))

    def add(self, patches: FloatArray, targets: FloatArray) -> None:
        """Take in patches (n, K) and targets (n, O)."""
        if self.count == 0:
            self.origin_x, self.origin_y = patches.mean(0), targets.mean(0)
        self.count += len(patches)
        x, y = patches - self.origin_x, targets - self.origin_y
        self.x += x.sum(0, dtype=np.float64)
        self.y += y.sum(0, dtype=np.float64)
        if self.second:
            self.xx = scipy.linalg.blas.ssyrk(1.0, x.T, beta=1.0, c=self.xx, overwrite_c=True)
            self.xy += x.T @ y

    @property
    def mean_x(self) -> Array64:
        """Means of the patches (K,)."""
        return self.origin_x + self.x / self.count

    @property
    def mean_y(self) -> Array64:
        """Means of the targets (O,)."""
        return self.origin_y + self.y / self.count

    def centred(self) -> tuple[Array64, Array64]:
        """Covariance of x (K, K) and covariance of x and y (K, O)."""
        x, y = self.x / self.count, self.y / self.count
        covariance = np.triu(self.xx).astype(np.float64) / self.count
        covariance += np.triu(covariance, 1).T
        covariance -= np.outer(x, x)
        return covariance, self.xy / self.count - np.outer(x, y)


def round_nearest(weight: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Round (O, …) to int8 with one scale per output channel. A channel of zeros gets scale 1."""
    peak = np.abs(weight).reshape(len(weight), -1).max(1)
    scale = np.where(peak > 0, peak / LIMIT, 1).astype(np.float32)
    shaped = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return np.clip(np.rint(weight / shaped), -LIMIT, LIMIT).astype(np.int8), scale


def refit(weight: FloatArray, moments: Moments, settings: RoundingSettings) -> tuple[FloatArray, FloatArray]:
    """Real-valued weights (O, K) nearest to the targets, drawn towards `weight` (O, K), and their bias (O,)."""
    solved = _Problem(weight, moments, settings).target.T
    bias = moments.mean_y - solved @ moments.mean_x
    return solved.astype(np.float32), bias.astype(np.float32)


def round_compensated(
    weight: FloatArray, moments: Moments, settings: RoundingSettings
) -> tuple[npt.NDArray[np.int8], FloatArray, FloatArray]:
    """Integers (O, K), scales (O,) and biases (O,) whose outputs are nearest to the targets in `moments`."""
    problem = _Problem(weight, moments, settings)
    factor = problem.feedback_factor()
    chosen, scales, error = problem.target, np.ones(len(weight)), np.full(len(weight), np.inf)
    starts = [(_error_feedback, shrink) for shrink in settings.shrinks] + [(_nearest, 1.0)]
    for start, shrink in starts:
        scale = _scales(problem.target, shrink)
        integers = start(problem.target / scale, factor)
        residual = integers * scale - problem.target
        found = np.einsum("ko,ko->o", residual, problem.matrix @ residual)
        better = found < error
        error = np.where(better, found, error)
        chosen = np.where(better, integers, chosen)
        scales = np.where(better, scale, scales)
    chosen = _coordinate_descent(chosen, problem.target / scales, problem.matrix, settings.sweeps)
    bias = moments.mean_y - (chosen * scales).T @ moments.mean_x
    return np.ascontiguousarray(chosen.T).astype(np.int8), scales.astype(np.float32), bias.astype(np.float32)


class _Problem:
    """The least-squares problem of one layer: `matrix` (K, K), damped, and its real-valued solution `target` (K, O)."""

    def __init__(self, weight: FloatArray, moments: Moments, settings: RoundingSettings) -> None:
        covariance, cross = moments.centred()
        start = weight.astype(np.float64).T
        level = max(float(np.mean(np.diagonal(covariance))), 1e-12)
        diagonal = np.diag_indices_from(covariance)
        self.matrix = covariance.copy()
        self.matrix[diagonal] += level * settings.damping
        cross -= covariance @ start
        covariance[diagonal] += level * settings.ridge
        self.target = start + scipy.linalg.cho_solve(scipy.linalg.cho_factor(covariance, check_finite=False), cross)
        self.target[:, ~start.any(0)] = 0  # a channel without weights has nothing to weigh

    def feedback_factor(self) -> Array64:
        """Upper Cholesky factor of the inverse: its rows say how later taps take up an earlier one's error."""
        lower = scipy.linalg.cholesky(self.matrix, lower=True, check_finite=False)
        inverse, _ = scipy.linalg.lapack.dpotri(lower, lower=1, overwrite_c=1)
        inverse = np.tril(inverse)
        inverse += np.tril(inverse, -1).T
        return scipy.linalg.cholesky(inverse, lower=False, check_finite=False)


def _scales(target: Array64, shrink: float) -> Array64:
    peak = np.abs(target).max(0) * shrink
    return np.where(peak > 0, peak / LIMIT, 1.0).astype(np.float32).astype(np.float64)


def _nearest(values: Array64, factor: Array64) -> Array64:
    """Each to its own nearest: seldom the best start, but then no layer is worse off than with plain rounding."""
    return np.clip(np.rint(values), -LIMIT, LIMIT)


def _error_feedback(values: Array64, factor: Array64, block: int = 64) -> Array64:
    """Round (K, O) tap by tap, spreading each error over the taps that are still to come."""
    values = values.copy()
    integers = np.empty_like(values)
    for start in range(0, len(values), block):
        stop = min(start + block, len(values))
        errors = np.empty((stop - start, values.shape[1]))
        for tap in range(start, stop):
            integers[tap] = np.clip(np.rint(values[tap]), -LIMIT, LIMIT)
            errors[tap - start] = (values[tap] - integers[tap]) / factor[tap, tap]
            values[tap + 1 : stop] -= np.outer(factor[tap, tap + 1 : stop], errors[tap - start])
        values[stop:] -= factor[start:stop, stop:].T @ errors
    return integers


def _coordinate_descent(integers: Array64, target: Array64, matrix: Array64, sweeps: int, block: int = 64) -> Array64:
    """Move each integer to its best place given all others, tap by tap. All (K, O), the target in integer steps."""
    integers = integers.copy()
    distance = integers - target
    diagonal = np.diagonal(matrix)
    for _ in range(sweeps):
        moved = 0
        for start in range(0, len(integers), block):
            stop = min(start + block, len(integers))
            gradient = matrix[start:stop] @ distance
            local = matrix[start:stop, start:stop]
            for tap in range(start, stop):
                row = gradient[tap - start]
                change = np.clip(np.rint(integers[tap] - row / diagonal[tap]), -LIMIT, LIMIT) - integers[tap]
                if change.any():
                    moved += int(np.count_nonzero(change))
                    integers[tap] += change
                    distance[tap] += change
                    gradient += np.outer(local[:, tap - start], change)
        if moved == 0:
            break
    return integers

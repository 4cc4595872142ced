"""Choosing integers: against brute force, against plain rounding, and where a constant channel would drown the rest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.rounding import Moments, refit, round_compensated, round_nearest
from quantize.settings import RoundingSettings

PLAIN = RoundingSettings(ridge=1e-6, shrinks=(1.0,))


def correlated(count, taps, seed=0, factors=6):
    random = np.random.default_rng(seed)
    mix = random.normal(size=(factors, taps))
    return (
        np.maximum(random.normal(size=(count, factors)) @ mix, 0) + 0.05 * random.normal(size=(count, taps))
    ).astype(np.float32)


def moments_of(patches, targets, batches=4):
    moments = Moments(patches.shape[1], targets.shape[1])
    for part in np.array_split(np.arange(len(patches)), batches):
        moments.add(patches[part], targets[part])
    return moments


def output_error(patches, targets, integers, scale, bias):
    return ((patches @ (integers * scale[:, None]).T + bias - targets) ** 2).mean(0)


def test_moments_are_numpys_covariances():
    patches, targets = correlated(500, 20), correlated(500, 3, seed=1)
    covariance, cross = moments_of(patches, targets).centred()
    together = np.cov(patches.T, targets.T, bias=True)
    np.testing.assert_allclose(covariance, together[:20, :20], atol=1e-4)
    np.testing.assert_allclose(cross, together[:20, 20:], atol=1e-4)


def test_moments_keep_a_ripple_on_a_huge_constant():
    """226 ± 0.2 in single precision: the variance must survive."""
    patches = correlated(4000, 8)
    patches[:, 3] = 226 + 0.2 * np.random.default_rng(0).normal(size=4000)
    covariance, _ = moments_of(patches, patches[:, :1]).centred()
    assert covariance[3, 3] == pytest.approx(patches[:, 3].astype(np.float64).var(), rel=1e-3)


def test_rounding_finds_what_brute_force_finds():
    """Three taps, all neighbouring integers tried: the chosen ones are hardly worse than the best."""
    patches = correlated(400, 3, factors=2)
    weight = np.random.default_rng(3).normal(size=(6, 3)).astype(np.float32)
    weight[:, 0] = 1.0  # pins the scale, so that brute force and the solver search one grid
    coarse = (np.round(weight * 8) / 8 + 0.05).astype(np.float32)
    targets = patches @ coarse.T
    integers, scale, bias = round_compensated(coarse, moments_of(patches, targets), PLAIN)
    found = output_error(patches, targets, integers, scale, bias)
    total = 0.0
    for row in range(6):
        centre = np.rint(coarse[row] / scale[row])
        best = np.inf
        for offset in itertools.product((-2, -1, 0, 1, 2), repeat=3):
            values = (centre + offset) * scale[row]
            residual = patches @ (values - coarse[row])
            best = min(best, residual.var())
        total += best
    assert found.sum() <= 1.5 * total


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), taps=st.integers(4, 40), outputs=st.integers(1, 8))
def test_never_worse_than_nearest_rounding(seed, taps, outputs):
    patches = correlated(600, taps, seed)
    weight = np.random.default_rng(seed + 1).normal(size=(outputs, taps)).astype(np.float32)
    targets = patches @ weight.T
    moments = moments_of(patches, targets)
    integers, scale, bias = round_compensated(weight, moments, RoundingSettings(ridge=1e-4))
    nearest, nearest_scale = round_nearest(weight)
    corrected = targets.mean(0) - patches.mean(0) @ (nearest * nearest_scale[:, None]).T
    ours = output_error(patches, targets, integers, scale, bias).sum()
    theirs = output_error(patches, targets, nearest, nearest_scale, corrected).sum()
    assert ours <= 1.02 * theirs
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() <= 127


def test_correlated_inputs_gain_much():
    patches = correlated(4000, 64)
    weight = np.random.default_rng(1).normal(size=(16, 64)).astype(np.float32)
    targets = patches @ weight.T
    integers, scale, bias = round_compensated(weight, moments_of(patches, targets), RoundingSettings(ridge=1e-4))
    nearest, nearest_scale = round_nearest(weight)
    corrected = targets.mean(0) - patches.mean(0) @ (nearest * nearest_scale[:, None]).T
    ours = output_error(patches, targets, integers, scale, bias).mean()
    assert ours < 0.35 * output_error(patches, targets, nearest, nearest_scale, corrected).mean()


def test_means_agree_exactly_and_earlier_errors_are_made_up_for():
    """Inputs that arrive 3 % too small with an offset: the layer's outputs still have the float mean and size."""
    patches = correlated(2000, 18)
    weight = np.random.default_rng(2).normal(size=(4, 18)).astype(np.float32)
    targets = patches @ weight.T + 5
    arriving = (0.97 * patches + 0.1).astype(np.float32)
    integers, scale, bias = round_compensated(weight, moments_of(arriving, targets), RoundingSettings(ridge=1e-3))
    outputs = arriving @ (integers * scale[:, None]).T + bias
    np.testing.assert_allclose(outputs.mean(0), targets.mean(0), atol=1e-3)
    assert (outputs - targets).std() < 0.3 * (arriving @ weight.T - targets).std()


def test_a_dead_layer_stays_finite():
    moments = moments_of(np.zeros((100, 9), np.float32), np.full((100, 2), 0.25, np.float32))
    integers, scale, bias = round_compensated(np.zeros((2, 9), np.float32), moments, RoundingSettings())
    assert not integers.any()
    assert np.isfinite(scale).all()
    np.testing.assert_allclose(bias, 0.25)


def test_refit_solves_ridge_regression():
    patches = correlated(800, 12)
    weight = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    targets = patches @ weight.T + 2
    start = weight + 0.5
    solved, bias = refit(start, moments_of(patches, targets), RoundingSettings(ridge=1e-7))
    np.testing.assert_allclose(solved, weight, atol=2e-2)
    np.testing.assert_allclose(bias, 2, atol=2e-2)
    held, _ = refit(start, moments_of(patches, targets), RoundingSettings(ridge=1e7))
    np.testing.assert_allclose(held, start, atol=1e-4)


def test_nearest_is_symmetric_per_channel():
    weight = np.array([[1.0, -0.5], [0.0, 0.0], [-2.54, 1.27]], np.float32)
    integers, scale = round_nearest(weight)
    np.testing.assert_array_equal(integers, [[127, -64], [0, 0], [-127, 64]])
    np.testing.assert_allclose(scale, [1 / 127, 1, 0.02], rtol=1e-6)

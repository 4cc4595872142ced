"""The paired bootstrap against scipy's, and how often its interval holds what is true."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from eval.bootstrap import paired_difference


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    rng = np.random.default_rng(3)
    old = rng.beta(8, 2, 120)
    new = old + rng.normal(0.01, 0.05, 120)
    found = paired_difference(list(new), list(old))
    expected = stats.bootstrap((new - old,), np.mean, n_resamples=20_000, method="percentile", rng=rng)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found.mean == pytest.approx((new - old).mean())
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.05 * width)
    assert paired_difference(list(new), list(old)) == found


def test_what_is_hard_for_both_does_not_widen_it() -> None:
    """Pictures differ by tenths, the two models by thousandths; unpaired, nothing could be told."""
    rng = np.random.default_rng(4)
    old = rng.uniform(0.2, 1, 60)
    found = paired_difference(list(old + rng.normal(0.004, 0.004, 60)), list(old))
    assert found.is_clear and found.high - found.low < 0.003
    assert not paired_difference(list(old), list(old)).is_clear


def test_it_covers_the_true_difference() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        found = paired_difference(list(rng.normal(0.1, 1, 60)), [0.0] * 60)
        covered += found.low <= 0.1 <= found.high
    assert 0.90 <= covered / 200 <= 0.99

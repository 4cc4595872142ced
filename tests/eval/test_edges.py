"""How edges are measured: maps that a perfect network could give, and what refinement makes of a photograph's matte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.edges import NETWORK_SIZE, measure_masks, perfect_maps
from tests.support.matting import needs_pymatting


def test_means_are_the_mattes_over_the_maps_pixels() -> None:
    alpha = np.random.default_rng(0).random((34, 22)).astype(np.float32)  # no divisors of the network's size
    fine = alpha.astype(np.float64).repeat(NETWORK_SIZE, axis=0).repeat(NETWORK_SIZE, axis=1)
    expected = fine.reshape(NETWORK_SIZE, 34, NETWORK_SIZE, 22).mean((1, 3))
    np.testing.assert_allclose(perfect_maps(alpha)["means"], expected, atol=1e-5)


def test_seen_is_resized_like_the_picture() -> None:
    column = np.linspace(0, 1, 640, dtype=np.float32)
    seen = perfect_maps(np.tile(column, (NETWORK_SIZE, 1)))["seen"]
    np.testing.assert_allclose(seen[7], column.reshape(-1, 2).mean(1), atol=1 / 255)


@pytest.mark.parametrize("map_name", ["means", "seen"])
def test_a_photographs_true_matte_is_brought_back(shared: Path, map_name: str) -> None:
    needs_pymatting()
    rows = measure_masks(None, shared / "data" / "eval", (), ("fast", "balanced", "best"))
    plain, balanced, best = (row.mean for row in rows if row.what.endswith(map_name))
    assert balanced <= 0.75 * plain
    assert best <= 0.60 * plain

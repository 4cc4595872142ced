"""Holes, islands and grey interiors, on masks whose flaws are known by construction, and against flood filling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from eval.flaws import flaws
from eval.metrics import Truth, score

NONE = {"holes": 0.0, "islands": 0.0, "grey_interior": 0.0}


def subject() -> np.ndarray:
    """A ring on legs, (100, 100): a true hole in its middle and a true gap between its legs."""
    truth = np.zeros((100, 100), bool)
    truth[20:70, 20:80] = True
    truth[40:50, 45:55] = False
    truth[70:100, 25:40] = truth[70:100, 60:75] = True
    return truth


def found(mask: np.ndarray, truth: np.ndarray, alpha: np.ndarray | None = None) -> dict[str, float]:
    values = score(mask, Truth(truth, alpha)).values
    return {name: values[name] for name in NONE}


def test_a_right_mask_has_none() -> None:
    truth = subject()
    assert found(truth * np.uint8(255), truth) == NONE
    assert found(np.zeros((100, 100), np.uint8), truth) == NONE  # nothing there is another fault, which IoU tells
    assert found(np.zeros((9, 9), np.uint8), np.zeros((9, 9), bool)) == NONE


def test_an_eye_is_a_hole_and_a_bite_is_none() -> None:
    truth = subject()
    mask = truth * np.uint8(255)
    mask[25:30, 25:35] = 0  # an eye of 50 pixels
    mask[20:40, 78:80] = 0  # a bite at the outline
    assert found(mask, truth) == {**NONE, "holes": 50 / np.count_nonzero(truth)}


def test_a_fence_post_is_an_island_and_a_thick_outline_is_none() -> None:
    truth = subject()
    mask = ndimage.binary_dilation(truth, iterations=2) * np.uint8(255)
    mask[2:12, 5:8] = 200
    assert found(mask, truth) == {**NONE, "islands": 30 / truth.size}


def test_a_torso_that_can_be_seen_through_is_grey_and_soft_edges_are_not() -> None:
    truth = np.zeros((200, 200), bool)
    truth[20:180, 20:180] = True
    deep = truth & ~Truth(truth).band
    mask = truth * np.uint8(255)
    mask[truth & ~deep] = 140  # a soft outline
    assert found(mask, truth) == NONE
    mask[80:120, 80:120] = 140
    assert found(mask, truth)["grey_interior"] == pytest.approx(1600 / np.count_nonzero(deep))
    veil = np.where(truth, 1.0, 0.0)
    veil[80:120, 80:120] = 0.55  # the truth itself is a veil there
    assert found(mask, truth, veil)["grey_interior"] == 0


@given(
    arrays.arrays(bool, (12, 12), elements=st.booleans()),
    arrays.arrays(np.uint8, (12, 12), elements=st.sampled_from([0, 100, 255])),
)
def test_against_flood_filling(truth: np.ndarray, mask: np.ndarray) -> None:
    """scipy's own filling of holes, and a part-by-part look at islands."""
    binary = mask > 127
    value = flaws(mask, binary, truth, np.zeros_like(truth))
    holes = ndimage.binary_fill_holes(binary) & ~binary & truth
    assert value["holes"] == int(holes.sum()) / max(int(truth.sum()), 1)
    labels, count = ndimage.label(binary, np.ones((3, 3)))
    parts = [labels == i for i in range(1, count + 1)]
    assert value["islands"] == sum(int(part.sum()) for part in parts if not (part & truth).any()) / truth.size
    assert all(0 <= share <= 1 for share in value.values())

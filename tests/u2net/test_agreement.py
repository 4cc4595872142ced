"""Agreement of two models: a lost subject counts as lost, a few stray pixels of either model do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from u2net.agreement import EMPTY_SHARE, agreement_iou, mask_iou

SIDE = 100


def square(side: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:side, :side] = True
    return mask


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (square(0), square(0), 1.0),
        (square(0), square(3), 1.0),  # 9 pixels of 10,000: under a thousandth
        (square(0), square(4), 0.0),  # 16 pixels: a subject that one model lost
        (square(2), square(50), 4 / 2500),
        (square(50), square(0), 0.0),
    ],
)
def test_what_two_masks_agree_to(a, b, expected):
    assert agreement_iou(a, b) == agreement_iou(b, a) == expected


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.01), st.floats(0, 0.01))
def test_it_is_the_iou_wherever_there_is_a_subject(seed, some, others):
    rng = np.random.default_rng(seed)
    a, b = rng.random((SIDE, SIDE)) < some, rng.random((SIDE, SIDE)) < others
    shown = (a | b).mean() >= EMPTY_SHARE
    assert agreement_iou(a, b) == (mask_iou(a, b) if shown else 1.0)

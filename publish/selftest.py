"""The picture that a browser's backend has to get right before it is trusted, and the answer that the manifest holds.

Version 1 of the picture: an orange disc of radius 0.3 on a blue gradient, in integers, so that every language draws the
same bytes. `web/src/selftest.ts` draws the same.
"""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from u2net.errors import ArtifactError
from u2net.infer import Session

__all__ = ["answer_difference", "expected_answer", "self_test_picture"]

PICTURE_VERSION = 1
GRID = 16  # block means: 256 bytes say where the subject is, and forgive rounding
TOLERANCE = 0.02  # float16 differs by under 0.002; a wrong kernel by 0.1 and more


def self_test_picture(size: int) -> npt.NDArray[np.uint8]:
    """The picture, uint8 (size, size, 3) RGB."""
    ramp = (255 * np.arange(size)) // (size - 1)
    u, v = ramp[None, :], ramp[:, None]
    offset = 2 * np.arange(size) - (size - 1)
    disc = 25 * (offset[None, :] ** 2 + offset[:, None] ** 2) <= 9 * size * size
    inside = (230 - ((v * 60) >> 8) + 0 * u, 80 + ((u * 50) >> 8) + 0 * v, np.full((size, size), 40))
    outside = (60 + ((u * 60) >> 8) + 0 * v, 90 + ((v * 60) >> 8) + 0 * u, 140 + (((u + v) * 30) >> 9))
    return np.stack([np.where(disc, a, b) for a, b in zip(inside, outside, strict=True)], axis=-1).astype(np.uint8)


def _block_means(model: Path, grid: int) -> npt.NDArray[np.float64]:
    session = Session(model, threads=1)
    saliency = session.saliency(self_test_picture(session.size))
    edges = [index * session.size // grid for index in range(grid + 1)]
    blocks = list(pairwise(edges))
    return np.array([[saliency[a:b, c:d].mean() for c, d in blocks] for a, b in blocks])


def expected_answer(model: Path) -> dict[str, Any]:
    """The manifest's `self_test`: the block means of the float `model`'s map of the picture, as base64 bytes."""
    answer = np.floor(_block_means(model, GRID) * 255 + 0.5).astype(np.uint8)
    return {
        "picture": PICTURE_VERSION,
        "grid": GRID,
        "alpha": base64.b64encode(answer.tobytes()).decode(),
        "tolerance": TOLERANCE,
    }


def answer_difference(model: Path, expected: dict[str, Any]) -> float:
    """Mean absolute difference, in [0, 1], between `model`'s answer and the `expected` one of a manifest."""
    try:
        grid = int(expected["grid"])
        answer = np.frombuffer(base64.b64decode(expected["alpha"], validate=True), np.uint8).reshape(grid, grid)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"the manifest's self_test is damaged: {error}") from error
    return float(np.abs(_block_means(model, grid) - answer / 255).mean())

"""The picture that a browser's backend has to get right before it is trusted, and the answer that the manifest holds.

Version 1 of the picture: an orange disc of radius 0.3 on a blue gradient, in integers, so that every language draws the
same bytes. `web/src/selftest.ts` draws the same.
"""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from u2net.errors import ArtifactError, ModelError
from u2net.infer import Session
from u2net.preprocess import to_tensor

__all__ = ["SelfTest", "answer_difference", "expected_answer", "self_test_picture"]

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


class SelfTest(msgspec.Struct, frozen=True):
    """The manifest's `self_test`.

    `alpha` is base64 of grid × grid bytes: block means of the float32 model's mask of the picture, 255 is subject. A
    model whose mask differs by more than `tolerance` on average, in [0, 1], is not to be trusted.
    """

    picture: int  # its version
    grid: Annotated[int, msgspec.Meta(ge=1, le=256)]
    alpha: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]*={0,2}$(?!\n)", max_length=1 << 17)]
    tolerance: Annotated[float, msgspec.Meta(gt=0, lt=1)]


def _saliency(model: Path) -> npt.NDArray[np.float32]:
    """float32 (size, size): the map that `model`, a `.u2e` or an ONNX file, gives of the picture."""
    if model.suffix != ".u2e":
        session = Session(model, threads=1)
        return session.saliency(self_test_picture(session.size))
    from engine.runtime import EngineSession  # only here: it starts a WebAssembly runtime

    engine = EngineSession(model)
    height, width = engine.input_size
    if height != width:
        raise ModelError(
            f"{model} takes pictures of {height}×{width} pixels; bundles hold models for squares, as `u2net export "
            "--size 320` makes them"
        )
    return engine.run(to_tensor(self_test_picture(height), height))


def _block_means(model: Path, grid: int) -> npt.NDArray[np.float64]:
    saliency = _saliency(model)
    edges = [index * len(saliency) // grid for index in range(grid + 1)]
    blocks = list(pairwise(edges))
    return np.array([[saliency[a:b, c:d].mean() for c, d in blocks] for a, b in blocks])


def expected_answer(model: Path) -> SelfTest:
    """The answer of the float `model`, an ONNX file."""
    answer = np.floor(_block_means(model, GRID) * 255 + 0.5).astype(np.uint8)
    return SelfTest(PICTURE_VERSION, GRID, base64.b64encode(answer.tobytes()).decode(), TOLERANCE)


def answer_difference(model: Path, expected: SelfTest) -> float:
    """Mean absolute difference, in [0, 1], between `model`'s answer and the `expected` one."""
    try:
        answer = np.frombuffer(base64.b64decode(expected.alpha, validate=True), np.uint8)
        answer = answer.reshape(expected.grid, expected.grid)
    except ValueError as error:
        raise ArtifactError(
            f"the manifest's self_test is damaged ({error}); publish again with `make publish`"
        ) from error
    return float(np.abs(_block_means(model, expected.grid) - answer / 255).mean())

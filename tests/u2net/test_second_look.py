"""The second look: windows, boxes, what is believed, and that small subjects and panoramas gain by it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.golden.generate import look, red_squares
from tests.support.runner_models import red_detector
from u2net import Remover
from u2net.infer import Session
from u2net.postprocess import FAST
from u2net.preprocess import resize_bilinear
from u2net.second_look import (
    MOST_WINDOWS,
    agreement,
    look_twice,
    merge_windows,
    put_back,
    sample_box,
    subject_box,
    windows,
)

sides = st.integers(1, 4000)


@given(sides, sides)
@example(1, 35)
def test_windows_cover_the_picture_and_overlap(width: int, height: int) -> None:
    parts = windows(width, height)
    if max(width, height) <= 2 * min(width, height):
        assert parts == [(0, 0, width, height)]
        return
    along = [(a, b) if width > height else (c, d) for a, c, b, d in parts]
    assert along[0][0] == 0 and along[-1][1] == max(width, height)
    assert len({end - start for start, end in along}) == 1
    assert all(0 < second[0] - first[0] < second[1] - first[0] for first, second in pairwise(along))
    assert all(3 * (first[1] - second[0]) >= first[1] - first[0] - 3 for first, second in pairwise(along))
    assert len(parts) <= 1.5 * (1.25 * MOST_WINDOWS) + 1  # sides are whole pixels, two or more: 2.5 becomes 2


@settings(max_examples=30, deadline=None)
@given(st.integers(30, 200), st.integers(3, 30), st.booleans())
def test_merged_windows_are_the_picture_as_seen_at_once(short: int, times: int, tall: bool) -> None:
    """Windows of a smooth scene, each seen exactly, join into that scene."""
    width, height = (short, short * times) if tall else (short * times, short)

    def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.5 + 0.3 * x / width + 0.2 * y / height

    maps = []
    for left, top, right, bottom in windows(width, height):
        at = (np.arange(24) + 0.5) / 24
        maps.append(scene(left + at[None] * (right - left), top + at[:, None] * (bottom - top)).astype(np.float32))
    whole = merge_windows(maps, windows(width, height), width, height)
    rows, columns = whole.shape
    expected = scene(
        (np.arange(columns) + 0.5)[None] * width / columns, (np.arange(rows) + 0.5)[:, None] * height / rows
    )
    # Beyond a window's outermost sample the map is clamped; neighbours know better there.
    np.testing.assert_allclose(whole, expected, atol=0.5 / 24)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_the_box_holds_what_was_found(width: int, height: int, data: st.DataObject) -> None:
    saliency = np.zeros((20, 20), np.float32)
    assert subject_box(saliency, width, height) is None
    row, column = data.draw(st.integers(0, 19)), data.draw(st.integers(0, 19))
    saliency[row, column] = 0.4
    box = subject_box(saliency, width, height)
    assert box is not None
    left, top, right, bottom = box
    assert 0 <= left <= column * width / 20 < (column + 1) * width / 20 <= right <= width
    assert 0 <= top <= row * height / 20 < (row + 1) * height / 20 <= bottom <= height


def test_what_is_put_back_unchanged_changes_nothing() -> None:
    y, x = np.mgrid[0:64, 0:64] / 64
    saliency = (0.4 + 0.3 * x + 0.2 * y).astype(np.float32)
    box = (100, 80, 350, 300)
    before = sample_box(saliency, box, 640, 480, 64)
    after = put_back(saliency, before, box, 640, 480)
    assert after.shape == (140, 164)  # 64 cells in the box, each way
    np.testing.assert_allclose(after, resize_bilinear(saliency, 140, 164), atol=0.01)


def iou(seen: np.ndarray, rgb: np.ndarray) -> float:
    height, width = rgb.shape[:2]
    return agreement(resize_bilinear(seen, height, width), (rgb[..., 0] > 200).astype(np.float32))


@pytest.mark.parametrize(
    ("height", "width", "square"),
    [(480, 640, (300, 200, 60, 90)), (200, 1200, (900, 60, 50, 100)), (1500, 150, (40, 700, 70, 120))],
)
def test_small_subjects_gain(height: int, width: int, square: tuple[int, int, int, int]) -> None:
    rgb = red_squares(height, width, [square])
    once = look(rgb, False, 32)
    seen = look_twice(rgb, lambda part, mirrored: look(part, mirrored, 32), 32)
    assert seen.box is not None
    assert iou(seen.saliency, rgb) > max(0.8, iou(once, rgb) + 0.05)


def test_a_second_look_that_sees_something_else_is_not_believed() -> None:
    first, second = np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32)
    first[10:20, 10:14] = 0.9
    second[:, 24:] = 1
    looks = iter((first, second, second))
    seen = look_twice(np.zeros((300, 300, 3), np.uint8), lambda part, mirrored: next(looks), 32)
    assert seen.box is None and seen.looks == 3
    np.testing.assert_array_equal(seen.saliency, first)


def test_a_mirrored_look_is_the_look_at_the_mirrored_picture(tmp_path: Path) -> None:
    rgb = red_squares(64, 64, [(5, 20, 30, 20)])
    for interface in ("tensor", "image"):
        session = Session(red_detector(tmp_path / f"{interface}.onnx", interface=interface))
        expected = session.saliency(np.ascontiguousarray(rgb[:, ::-1]))[:, ::-1]
        np.testing.assert_allclose(session.saliency(rgb, mirrored=True), expected, atol=1e-6)


def test_a_model_that_sees_oblong_pictures_looks_once(tmp_path: Path) -> None:
    shape, metadata = [1, 3, 32, 64], {"u2net.size": "32x64"}
    model = red_detector(tmp_path / "red.onnx", input_shape=shape, metadata=metadata)
    rgb = red_squares(200, 1200, [(900, 60, 50, 100)])
    cutout = Remover(model).cutout(rgb)
    assert cutout.looks == 1 and cutout.saliency.shape == (32, 64) and cutout.alpha.shape == (200, 1200)


def test_presets(tmp_path: Path) -> None:
    model = red_detector(tmp_path / "red.onnx")
    Image.fromarray(red_squares(400, 600, [(250, 150, 60, 60)])).save(tmp_path / "a.png")
    balanced = Remover(model).cutout(tmp_path / "a.png")
    assert balanced.looks >= 2 and balanced.timings["second_look_ms"] > 0
    fast = Remover(model, refinement=FAST).cutout(tmp_path / "a.png")
    assert fast.looks == 1 and "second_look_ms" not in fast.timings
    for cutout in (balanced, fast):
        assert {"decode_ms", "first_look_ms", "matte_ms", "colours_ms"} <= set(cutout.timings)

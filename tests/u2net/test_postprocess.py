"""From map to matte: against plain definitions, other implementations, exact mattes and the golden tensors."""

from __future__ import annotations

import json
import re
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from tests.golden import generate
from tests.support.matting import estimate_foreground_ml, needs_pymatting
from u2net import components, foreground, guided, matting, postprocess, preprocess, sampling, second_look
from u2net.composite import Background, composite
from u2net.contours import contours, simplify, svg_path
from u2net.errors import ConfigError
from u2net.postprocess import BALANCED, BEST, FAST, Refinement

GOLDEN = json.loads((Path(generate.__file__).parent / "golden.json").read_text(encoding="utf-8"))
DATA = (Path(generate.__file__).parent / "golden.bin").read_bytes()
SPECIFICATION = (preprocess, sampling, components, guided, foreground, postprocess)


def tensor(entry: dict[str, Any]) -> np.ndarray:
    raw = DATA[entry["offset"] : entry["offset"] + entry["length"]]
    return np.frombuffer(raw, np.dtype(entry["dtype"]).newbyteorder("<")).reshape(entry["shape"])


def compute(case: dict[str, Any]) -> np.ndarray:
    inputs = {name: tensor(entry) for name, entry in case["inputs"].items()}
    name, parameters = case["function"], case["parameters"]
    if name in ("matte", "refine_guided"):
        refinement = Refinement(**parameters)
        if name == "matte":
            return postprocess.matte(inputs["rgb"], inputs["saliency"], refinement, inputs.get("alpha"))
        bands = guided.refine_guided(inputs["rgb"], inputs["saliency"], refinement)
        return np.concatenate([v for _, v in bands])
    if name == "composite":
        return composite(inputs["rgb"], inputs["alpha"], Background(tuple(parameters["colour"])))
    if name == "to_pixels":
        return np.floor(preprocess.resize_for_network(inputs["rgb"], parameters["size"]) + 0.5).astype(np.uint8)
    if name == "look_twice":
        size = parameters["size"]
        seen = second_look.look_twice(inputs["rgb"], lambda part, mirrored: generate.look(part, mirrored, size), size)
        assert (seen.looks, seen.box) == (parameters["looks"], parameters["box"] and tuple(parameters["box"]))
        return seen.saliency
    if name == "merge_windows":
        sides = parameters["width"], parameters["height"]
        assert [list(part) for part in second_look.windows(*sides)] == parameters["windows"]
        return second_look.merge_windows(list(inputs["maps"]), second_look.windows(*sides), *sides)
    if name == "subject_box":
        return np.array(second_look.subject_box(inputs["saliency"], **parameters))
    if name == "sample_box":
        return second_look.sample_box(inputs["saliency"], **parameters)
    if name == "put_back":
        sides = parameters["width"], parameters["height"]
        return second_look.put_back(inputs["saliency"], inputs["seen"], parameters["box"], *sides)
    if name == "connected_components":
        return components.connected_components(inputs["mask"].astype(bool), **parameters)[0]
    home = next(module for module in SPECIFICATION if name in module.__all__)
    return getattr(home, name)(*inputs.values(), **parameters)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_golden(case: dict[str, Any]) -> None:
    actual, expected = compute(case), tensor(case["output"])
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max() <= case["tolerance"]


def test_upsampling_is_the_specification() -> None:
    saliency = np.random.default_rng(0).random((37, 41)).astype(np.float32)
    for height, width in ((1, 1), (37, 41), (1500, 700), (20, 3000)):
        expected = preprocess.resize_bilinear(saliency, height, width)
        np.testing.assert_array_equal(postprocess.upsample_map(saliency, height, width), expected)


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))), st.booleans())
def test_components_are_scipys(mask: np.ndarray, diagonal: bool) -> None:
    labels, count = components.connected_components(mask, diagonal)
    expected, number = ndimage.label(mask, np.ones((3, 3)) if diagonal else None)
    assert count == number
    np.testing.assert_array_equal(labels, expected)


def test_keep_and_fill() -> None:
    saliency = generate.blobs(96, 1)
    one = postprocess.clean(saliency, replace(FAST, keep_largest=True))
    assert components.connected_components(one >= 0.1, True)[1] == 1
    assert np.all((one == saliency) | (one == 0)) and one[38, 20] == saliency[38, 20]
    several = postprocess.clean(saliency, replace(FAST, min_area=0.005))
    assert 1 < components.connected_components(several >= 0.1, True)[1] < 4
    filled = postprocess.clean(saliency, replace(FAST, fill_holes=0.05))
    expected = ndimage.binary_fill_holes(saliency >= 0.5)
    np.testing.assert_array_equal(filled >= 0.5, expected)
    assert postprocess.clean(saliency, FAST) is saliency


def test_nothing_found_stays_nothing() -> None:
    nothing = np.zeros((32, 32), np.float32)
    rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    for preset in (FAST, BALANCED, replace(BALANCED, keep_largest=True, fill_holes=0.1, feather=3)):
        assert not postprocess.matte(rgb, nothing, preset).any()
        assert (postprocess.matte(rgb, nothing + 1, preset) == 255).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31))
def test_box_mean_is_the_mean_of_its_window(height: int, width: int, radius: int, seed: int) -> None:
    plane = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    means = sampling.box_mean(plane[None], radius)[0]
    y, x = seed % height, seed // 7 % width
    window = plane[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
    assert means[y, x] == pytest.approx(window.mean(dtype=np.float64), abs=1e-6)


def test_guided_filter_is_the_papers() -> None:
    """Without weights: the colour guided filter, written down plainly with numpy's solver."""
    rng = np.random.default_rng(1)
    guide, target = rng.random((3, 15, 18)).astype(np.float32), rng.random((15, 18)).astype(np.float32)
    r, epsilon = 2, 0.01
    a, b = np.zeros((3, 15, 18)), np.zeros((15, 18))
    for y in range(15):
        for x in range(18):
            window = (slice(max(0, y - r), y + r + 1), slice(max(0, x - r), x + r + 1))
            colours = guide[:, *window].reshape(3, -1).astype(np.float64)
            p = target[window].ravel().astype(np.float64)
            mean, var = colours.mean(axis=1), np.cov(colours, bias=True) + epsilon * np.eye(3)
            a[:, y, x] = np.linalg.solve(var, (colours * p).mean(axis=1) - mean * p.mean())
            b[y, x] = p.mean() - a[:, y, x] @ mean
    expected = sampling.box_mean(np.concatenate((a, b[None])), r)
    actual = guided.guided_coefficients(guide, target, r, epsilon, 0.0)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def scene(size: int = 480) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of thin spokes on a gradient, its exact matte, and that matte at a network's resolution."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size - 0.5
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    alpha = np.clip((0.2 - radius) * size / 4 + 0.5, 0, 1)
    spokes = np.clip((np.cos(angle * 30) - 0.6) * 3, 0, 1) * np.clip((0.35 - radius) * 20, 0, 1)
    alpha = np.maximum(alpha, spokes)[..., None]
    front = np.stack((200 + 30 * x, 60 + 40 * y, 50 + 0 * x), -1)
    back = np.stack((60 + 90 * x, 110 + 60 * y, 170 + 0 * x), -1)
    rgb = np.floor(front * alpha + back * (1 - alpha) + 0.5).astype(np.uint8)
    small = alpha[..., 0].reshape(size // 4, 4, size // 4, 4).mean((1, 3)).astype(np.float32)
    return rgb, alpha[..., 0], small


def error(matte: np.ndarray, alpha: np.ndarray) -> float:
    return float(np.abs(matte / 255 - alpha).sum())


def test_balanced_brings_thin_structures_back() -> None:
    rgb, alpha, small = scene()
    plain = error(postprocess.matte(rgb, small, FAST), alpha)
    assert error(postprocess.matte(rgb, small, BALANCED), alpha) <= 0.75 * plain


def test_best_brings_thin_structures_back() -> None:
    needs_pymatting()
    rgb, alpha, small = scene()
    plain = error(postprocess.matte(rgb, small, FAST), alpha)
    assert error(postprocess.matte(rgb, small, BEST), alpha) <= 0.6 * plain


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_cell_means_are_pillows_box(height: int, width: int, count: int, seed: int) -> None:
    plane = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    rows, columns = min(count, height), min(count + 3, width)
    expected = Image.fromarray(plane).resize((columns, rows), Image.Resampling.BOX, reducing_gap=None)
    actual = sampling.cell_means(plane[None], rows, columns, (height / rows, width / columns))[0]
    if height % rows == 0 and width % columns == 0:  # otherwise Pillow takes whole pixels only
        np.testing.assert_allclose(actual, np.asarray(expected), atol=1e-5)
    assert (actual * (height / rows) * (width / columns)).sum() == pytest.approx(plane.sum(), rel=1e-4)


def test_trusted_maps_are_kept_and_blurred_ones_mended() -> None:
    rgb, alpha = generate.picture(480, 480, 3)
    small = alpha.reshape(120, 4, 120, 4).mean((1, 3))
    edges = (small > 0.1) & (small < 0.9)
    exact = guided.fit_guided(rgb, small, BALANCED)
    assert exact.trust[edges].mean() > 0.9
    blurred = ndimage.gaussian_filter(small, 3.0)
    fitted = guided.fit_guided(rgb, blurred, BALANCED)
    assert fitted.trust[edges].mean() < 0.5
    assert np.abs(fitted.mended - small).sum() < 0.9 * np.abs(blurred - small).sum()
    assert (guided.fit_guided(rgb, blurred, replace(BALANCED, reach=0)).trust == 1).all()


def test_to_best_a_blurred_map_is_but_a_trimap() -> None:
    needs_pymatting()
    from u2net.matting import solve_matte

    rgb, alpha, small = scene()
    exact = guided.fit_guided(rgb, small, BALANCED)
    assert exact.kappa < 0.5
    fitted = guided.fit_guided(rgb, ndimage.gaussian_filter(small, 2.0), BALANCED)
    assert fitted.kappa > 0.9
    believed = solve_matte(replace(fitted, kappa=0.0))
    assert np.abs(solve_matte(fitted) - alpha).sum() < 0.95 * np.abs(believed - alpha).sum()


def test_best_is_no_worse_than_balanced() -> None:
    needs_pymatting()
    rgb, alpha, small = scene()
    assert error(postprocess.matte(rgb, small, BEST), alpha) <= error(postprocess.matte(rgb, small, BALANCED), alpha)


def test_cell_averages_are_cell_means() -> None:
    rgb, _, _ = scene(412)
    grid = guided.WorkingGrid(rgb, (100, 70), 640)
    down, across = grid.cell_averages()
    expected = grid.cells_of_planes(grid.guide)[1]
    np.testing.assert_allclose(down @ grid.guide[1] @ across.T, expected, atol=1e-6)


@pytest.mark.parametrize("preset", [BALANCED, BEST], ids=["balanced", "best"])
def test_mattes_averaged_down_give_a_trusted_map(preset: Refinement) -> None:
    if preset is BEST:
        needs_pymatting()
    rgb, _, small = scene()

    def distance(settings: Refinement) -> float:
        matte = (postprocess.matte(rgb, small, settings) / 255).astype(np.float32)
        rows, columns = small.shape
        down = sampling.cell_means(matte[None], rows, columns, (4, 4))[0]
        return float(np.abs(down - small).sum())

    assert distance(preset) < 0.35 * distance(FAST)


@pytest.mark.parametrize("preset", [BALANCED, BEST], ids=["balanced", "best"])
def test_translucent_subjects_stay_translucent(preset: Refinement) -> None:
    """A pane of glass, 40 % opaque, in front of stripes that its map knows nothing of."""
    if preset is BEST:
        needs_pymatting()
    size = 480
    y, x = np.mgrid[0:size, 0:size]
    alpha = np.where((abs(x - 240) < 120) & (abs(y - 240) < 140), 0.4, 0.0)
    back = np.where((x // 20 % 2)[..., None] > 0, (200, 180, 90), (40, 70, 110))
    rgb = np.floor(alpha[..., None] * (30, 200, 60) + (1 - alpha[..., None]) * back + 0.5).astype(np.uint8)
    small = alpha.reshape(size // 4, 4, size // 4, 4).mean((1, 3)).astype(np.float32)
    matte = postprocess.matte(rgb, small, preset) / 255
    assert np.abs(matte - 0.4)[130:350, 150:330].max() < 0.05
    assert error(matte * 255, alpha) <= error(postprocess.matte(rgb, small, FAST), alpha)


def test_best_without_pymatting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pymatting", None)
    matting._pymatting.cache_clear()
    rgb, _, small = scene(60)
    with pytest.raises(ConfigError, match="pip install"):
        postprocess.matte(rgb, small, BEST)


def test_who_waits_for_best_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_pymatting()
    told: list[str] = []
    matting._pymatting()
    matting.prepare_matting(told.append)
    assert told == [], "compiled already"
    monkeypatch.setattr(matting, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(matting, "_pymatting", lambda: time.sleep(0.2))
    matting.prepare_matting(told.append)
    assert len(told) == 1 and "compiling" in told[0]


def test_large_working_factors_and_tiny_pictures() -> None:
    rng = np.random.default_rng(0)
    small = rng.random((20, 20)).astype(np.float32)
    for height, width in ((1, 1), (1, 3000), (2000, 2), (3, 3), (33, 700)):
        rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        alpha = postprocess.matte(rgb, small)
        assert alpha.shape == (height, width)
        assert foreground.estimate_foreground(rgb, alpha).shape == rgb.shape


def test_threshold_feather_and_own_alpha() -> None:
    rgb, _, small = scene(120)
    hard = postprocess.matte(rgb, small, replace(FAST, threshold=0.5))
    assert set(np.unique(hard)) == {0, 255}
    soft = postprocess.matte(rgb, small, replace(FAST, threshold=0.5, feather=2.0))
    expected = ndimage.uniform_filter(ndimage.uniform_filter(hard / 255, 5), 5)
    assert np.abs(soft / 255 - expected)[10:-10, 10:-10].max() < 0.01
    own = np.full(hard.shape, 128, np.uint8)
    assert int(postprocess.matte(rgb, small, replace(FAST, threshold=0.5), own).max()) == 128


def test_foreground_colours_lose_the_background() -> None:
    rgb, alpha, _ = scene()
    size = rgb.shape[0]
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size - 0.5
    front = np.stack((200 + 30 * x, 60 + 40 * y, 50 + 0 * x), -1)
    eight = sampling.to_alpha(alpha.astype(np.float32))
    soft = (eight > 12) & (eight < 255)
    estimated = foreground.estimate_foreground(rgb, eight)
    before, after = np.abs(rgb - front)[soft].mean(), np.abs(estimated - front)[soft].mean()
    assert after <= 0.5 * before
    assert (estimated[eight == 0] == 0).all()
    np.testing.assert_array_equal(estimated[eight == 255], rgb[eight == 255])


def test_translucent_subjects_lose_the_background_too() -> None:
    """Nowhere unmixed: its colours can only be found by taking the background away."""
    size = 360
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size - 0.5
    alpha = np.clip((0.18 - np.hypot(x, y)) * 60, 0, 0.5)
    front = np.stack((200 + 60 * x, 60 + 40 * y, 50 + 0 * x), -1)
    back = np.stack((60 + 90 * x, 110 + 60 * y, 170 + 0 * x), -1)
    rgb = np.floor(front * alpha[..., None] + back * (1 - alpha[..., None]) + 0.5).astype(np.uint8)
    eight = sampling.to_alpha(alpha.astype(np.float32))
    soft = eight > 12
    estimated = foreground.estimate_foreground(rgb, eight)
    before, after = np.abs(rgb - front)[soft].mean(), np.abs(estimated - front)[soft].mean()
    assert after <= 0.35 * before


def test_foreground_is_as_good_as_pymattings(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = estimate_foreground_ml(monkeypatch)
    rgb, alpha, _ = scene(240)
    size = rgb.shape[0]
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size - 0.5
    front = np.stack((200 + 30 * x, 60 + 40 * y, 50 + 0 * x), -1)
    soft = (alpha > 0.05) & (alpha < 1)
    theirs = estimate(rgb / 255.0, alpha) * 255
    ours = foreground.estimate_foreground(rgb, sampling.to_alpha(alpha.astype(np.float32)))
    before = np.abs(rgb - front)[soft].mean()
    gained, possible = before - np.abs(ours - front)[soft].mean(), before - np.abs(theirs - front)[soft].mean()
    assert gained >= 0.8 * possible


@settings(max_examples=100, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 10), st.integers(1, 10))))
def test_contours_fill_to_the_mask(mask: np.ndarray) -> None:
    crossings = np.zeros(mask.shape, int)
    for polygon in contours(mask):
        for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                crossings[int(min(y0, y1)) : int(max(y0, y1)), int(x0) :] += 1
    np.testing.assert_array_equal(crossings % 2 == 1, mask)


def test_contours_of_a_square_and_a_circle() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:5] = True
    assert contours(mask) == [[(2, 1), (5, 1), (5, 4), (2, 4)]]
    assert svg_path(contours(mask)) == "M2 1L5 1L5 4L2 4Z"
    y, x = np.mgrid[0:200, 0:200]
    circle = np.hypot(x - 99.5, y - 99.5) < 80
    (full,), (short,) = contours(circle), contours(circle, 1.5)
    assert len(short) < len(full) / 5
    assert all(abs(np.hypot(px - 100, py - 100) - 80) < 2.5 for px, py in short)
    assert simplify([(0, 0), (1, 0), (1, 1)], 5) == [(0, 0), (1, 0), (1, 1)]


def test_the_grid_of_matting_is_coarser_where_more_is_unknown() -> None:
    from u2net.matting import MATTING_SIDE, MOST_UNKNOWN, matting_side

    height, width = 3000, 4000
    hard = np.zeros((320, 320), np.float32)
    hard[100:200, 100:200] = 1
    assert matting_side(hard, height, width) == pytest.approx(MATTING_SIDE, rel=0.05)
    assert matting_side(hard, 20, 12) == MATTING_SIDE
    assert postprocess.matte(np.zeros((20, 12, 3), np.uint8), hard, BEST).shape == (20, 12)
    pixels = []
    for share in (0.2, 0.5, 1.0):
        saliency = hard.copy()
        saliency[: int(320 * share)] = 0.5
        k = sampling.working_factor(height, width, matting_side(saliency, height, width))
        pixels.append(share * height * width / k**2)
    assert max(pixels) < 1.02 * MOST_UNKNOWN
    assert min(pixels) > 0.4 * MOST_UNKNOWN


@pytest.mark.parametrize(
    "changes",
    [
        {"min_area": -1},
        {"fill_holes": 2},
        {"feather": 1e9},
        {"threshold": 0},
        {"radius": 0},
        {"reach": -1},
        {"epsilon": 0},
        {"epsilon": float("nan")},
        {"working_side": 1},
    ],
)
def test_settings_that_cannot_work(changes: dict) -> None:
    with pytest.raises(ConfigError):
        replace(BALANCED, **changes)


def test_every_setting_has_its_reason() -> None:
    source = Path(postprocess.__file__).read_text(encoding="utf-8")
    body = source[source.index("class Refinement") : source.index("def __post_init__")]
    statements = re.split(r"^    (?=\w+: )", body, flags=re.M)
    for field in fields(Refinement):
        (statement,) = [text for text in statements if text.startswith(f"{field.name}: ")]
        assert "  # " in statement, field.name

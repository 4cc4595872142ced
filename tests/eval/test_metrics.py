"""The metrics against published values, PySODMetrics, published code and direct definitions, and their invariants."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage, signal

from eval import bench
from eval.measures import FLAWS, MASK
from eval.metrics import BETA2, Aggregate, Truth, score
from u2net.sampling import to_alpha

PUBLISHED = {
    "mae": "MAE",
    "s_measure": "Smeasure",
    "f_weighted": "wFmeasure",
    "e_adaptive": "adpEm",
    "e_mean": "meanEm",
    "e_max": "maxEm",
    "f_adaptive": "adpFm",
    "f_mean": "meanFm",
    "f_max": "maxFm",
    "iou": "sample_biiou",
    "iou_mean": "meaniou",
    "iou_max": "maxiou",
}


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def blob(rng: np.random.Generator, shape: tuple[int, int], spread: float = 8, level: float = 0.0) -> np.ndarray:
    return ndimage.gaussian_filter(rng.normal(size=shape), spread) > level


def soft(rng: np.random.Generator, mask: np.ndarray, noise: float = 0.15) -> np.ndarray:
    blurred = ndimage.gaussian_filter(mask.astype(float), 2) + rng.normal(0, noise, mask.shape)
    return to_alpha(blurred.astype(np.float32))


def test_published_values(shared):
    folder = shared / "data" / "reference" / "sod-metrics"
    published: dict[str, float] = {}
    for version in json.loads((folder / "version_performance.json").read_text()).values():
        published.update(version)  # the latest version that gives a measure
    total = Aggregate()
    for prediction in sorted((folder / "preds").iterdir()):
        truth = Truth(grey(folder / "masks" / prediction.name) > 128)
        total.add(score(grey(prediction), truth, stretch=True))
    results = total.results()
    assert results["count"] == 3
    for ours, theirs in PUBLISHED.items():
        assert results[ours] == pytest.approx(published[theirs], abs=1e-6), ours


@pytest.mark.parametrize("shape", [(60, 80), (33, 17), (12, 50), (9, 9)])
@pytest.mark.parametrize("kind", ["soft", "flipped", "constant", "full truth"])
def test_agrees_with_pysodmetrics(shape, kind):
    theirs = pytest.importorskip("py_sod_metrics")
    rng = np.random.default_rng(len(kind) * 1000 + shape[0])
    mask = blob(rng, shape, 3)
    mask[0, 0], mask[-1, -1] = True, False
    if kind == "full truth":
        mask[:] = True
    prediction = soft(rng, mask)
    if kind == "flipped":
        prediction = 255 - prediction
    if kind == "constant":
        prediction[:] = 255  # a value whose mean is exact: else rounding decides in theirs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others = [theirs.MAE(), theirs.Smeasure(), theirs.Emeasure(), theirs.WeightedFmeasure(), theirs.Fmeasure()]
        iou = theirs.FmeasureV2({"iou": theirs.IOUHandler(True, False, with_binary=True)})
        for metric in (*others, iou):
            metric.step(prediction, mask.astype(np.uint8) * 255)
        found: dict[str, dict] = {}
        for metric in (*others, iou):
            found |= metric.get_results()
    expected = {
        "mae": found["mae"],
        "s_measure": found["sm"],
        "e_adaptive": found["em"]["adp"],
        "e_mean": found["em"]["curve"].mean(),
        "e_max": found["em"]["curve"].max(),
        "f_weighted": found["wfm"],
        "f_adaptive": found["fm"]["adp"],
        "f_mean": found["fm"]["curve"].mean(),
        "f_max": found["fm"]["curve"].max(),
        "iou": found["iou"]["binary"],
        "iou_mean": found["iou"]["dynamic"].mean(),
    }
    ours = score(prediction, Truth(mask), stretch=True).values
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def published_boundary(mask: np.ndarray) -> np.ndarray:
    """`mask_to_boundary` of the boundary IoU authors (bowenc0221/boundary-iou-api), with SciPy for OpenCV's erosion."""
    height, width = mask.shape
    dilation = max(round(0.02 * np.sqrt(height**2 + width**2)), 1)
    padded = np.pad(mask, 1)
    eroded = ndimage.binary_erosion(padded, np.ones((3, 3), bool), iterations=dilation, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


@pytest.mark.parametrize("shape", [(120, 90), (50, 200), (5, 5)])
def test_boundary_iou_is_the_published_one(shape):
    rng = np.random.default_rng(3)
    mask = blob(rng, shape, 4, -0.01)
    prediction = soft(rng, mask)
    a, b = published_boundary(mask), published_boundary(prediction > 127)
    expected = (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0
    assert score(prediction, Truth(mask)).values["boundary_iou"] == pytest.approx(expected, abs=1e-12)


def test_relaxed_boundary_f_is_its_definition():
    rng = np.random.default_rng(4)
    for seed in range(4):
        mask = blob(rng, (70, 90), 6, 0.02)
        binary = soft(np.random.default_rng(seed), mask, 0.3) > 127

        def contour(area):
            return area ^ ndimage.binary_erosion(area, np.ones((3, 3), bool), border_value=1)

        a, b = contour(binary), contour(mask)
        near_a, near_b = (ndimage.distance_transform_edt(~edge) <= 3 for edge in (a, b))
        precision, recall = (a & near_b).sum() / a.sum(), (b & near_a).sum() / b.sum()
        expected = (1 + BETA2) * precision * recall / (BETA2 * precision + recall)
        found = score(to_alpha(binary.astype(float)), Truth(mask)).values["boundary_f"]
        assert found == pytest.approx(expected, abs=1e-12)


def test_matte_errors_are_their_definitions():
    """SAD and MSE directly; gradient with 2-D kernels; connectivity with another labelling, picture by picture."""
    rng = np.random.default_rng(5)
    alpha = to_alpha(ndimage.gaussian_filter(blob(rng, (64, 80), 8).astype(float), 3)) / 255
    prediction = to_alpha(np.clip(alpha + ndimage.gaussian_filter(rng.normal(0, 0.6, alpha.shape), 2), 0, 1))
    found = score(prediction, Truth(alpha > 0.5, alpha)).matte
    assert found is not None
    p = prediction / 255
    assert found["sad"] == pytest.approx(np.abs(p - alpha).sum() / 1000)
    assert found["mse"] == pytest.approx(((p - alpha) ** 2).mean())

    x = np.arange(-4, 5)
    gauss = np.exp(-(x**2) / (2 * 1.4**2)) / (1.4 * np.sqrt(2 * np.pi))
    kernel = np.outer(gauss, -x * gauss / 1.4**2)
    kernel /= np.sqrt((kernel**2).sum())

    def magnitude(matte):
        padded = np.pad(matte, 4, mode="edge")
        parts = [signal.convolve2d(padded, k, mode="valid") for k in (kernel, kernel.T)]
        return np.sqrt(parts[0] ** 2 + parts[1] ** 2)

    expected = ((magnitude(p) - magnitude(alpha)) ** 2).sum() / 1000
    assert found["gradient"] == pytest.approx(expected, rel=1e-9)
    assert found["connectivity"] == pytest.approx(connectivity(p, alpha) / 1000, rel=1e-9)


def connectivity(p: np.ndarray, alpha: np.ndarray) -> float:
    """Rhemann et al. 2009 as the public benchmark code words it, thresholds one after the other."""
    source = np.full(alpha.shape, -1.0)
    for i in range(1, 11):
        labels, count = ndimage.label((p >= i / 10) & (alpha >= i / 10))
        sizes = [(labels == k).sum() for k in range(1, count + 1)]
        omega = labels == (int(np.argmax(sizes)) + 1 if sizes else -1)
        source[(source == -1) & ~omega] = (i - 1) / 10
    source[source == -1] = 1
    degrees = []
    for matte in (alpha, p):
        distance = matte - source
        degrees.append(1 - distance * (distance >= 0.15))
    return float(np.abs(degrees[0] - degrees[1]).sum())


masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


@settings(max_examples=60, deadline=None)
@given(masks)
def test_perfect_mask(mask):
    found = score(mask.astype(np.uint8) * 255, Truth(mask, mask.astype(float)))
    assert found.values["mae"] == 0
    assert found.matte == {"sad": 0, "mse": 0, "gradient": pytest.approx(0, abs=1e-20), "connectivity": 0}
    for name in ("iou", "boundary_f", "boundary_iou"):
        assert found.values[name] == 1
    if mask.any():
        for name in ("iou_max", "f_max", "f_weighted"):
            assert found.values[name] == pytest.approx(1)
    # E-measure divides by size − 1 as published, so that the best is size / (size − 1).
    assert found.values["e_max"] == pytest.approx(mask.size / max(mask.size - 1, 1))
    if mask.size > 1:
        assert found.values["s_measure"] > 0.49


@settings(max_examples=60, deadline=None)
@given(masks)
def test_inverted_mask(mask):
    found = score((~mask).astype(np.uint8) * 255, Truth(mask)).values
    assert found["mae"] == 1
    assert found["iou"] == 0


@settings(max_examples=60, deadline=None)
@given(masks)
def test_empty_mask(mask):
    found = score(np.zeros(mask.shape, np.uint8), Truth(mask))
    assert found.constant
    assert found.values["mae"] == pytest.approx(mask.mean())
    assert found.values["iou"] == (0 if mask.any() else 1)
    assert found.values["boundary_iou"] == (0 if mask.any() else 1)


@settings(max_examples=80, deadline=None)
@given(masks, st.randoms(use_true_random=False), st.booleans())
def test_ranges_and_mirrors(mask, random, stretch):
    rng = np.random.default_rng(random.randrange(2**32))
    prediction = rng.integers(0, 256, mask.shape, dtype=np.uint8)
    found = score(prediction, Truth(mask, mask.astype(float)), stretch)
    assert set(found.values) == {*MASK, *FLAWS}
    bound = mask.size / max(mask.size - 1, 1) + 1e-12
    for name, value in found.values.items():
        assert 0 <= value <= (bound if name.startswith("e_") else 1 + 1e-12), name
    mirrored = score(prediction[:, ::-1].copy(), Truth(mask[:, ::-1].copy()), stretch)
    for name in ("iou", "mae", "f_max", "e_max", "boundary_f", "boundary_iou"):  # S divides off centre, W breaks ties
        assert mirrored.values[name] == pytest.approx(found.values[name], abs=1e-9), name


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("truth", [False, True])
def test_single_pixel(value, truth):
    found = score(np.full((1, 1), value, np.uint8), Truth(np.full((1, 1), truth), np.full((1, 1), float(truth))))
    assert all(np.isfinite(v) and 0 <= v <= 1 for v in found.values.values())
    assert found.values["mae"] == pytest.approx(abs(value / 255 - truth))
    assert found.values["iou"] == float((value > 127) == truth)


def test_a_truth_remembers_nothing_of_a_prediction():
    """Cached parts of a truth grow with what predictions need; the order of predictions must not matter."""
    rng = np.random.default_rng(6)
    mask = np.zeros((90, 110), bool)
    mask[30:50, 40:70] = blob(rng, (20, 30), 4)
    mask[40, 50] = True
    narrow, wide = np.zeros(mask.shape, np.uint8), rng.integers(0, 256, mask.shape, dtype=np.uint8)
    narrow[35:45, 45:60] = 200
    shared_truth = Truth(mask)
    for prediction in (narrow, wide, narrow):
        assert score(prediction, shared_truth).values == score(prediction, Truth(mask)).values


def test_aggregate_streams():
    rng = np.random.default_rng(7)
    all_scores = []
    for i in range(5):
        mask = blob(rng, (40, 50), 4)
        all_scores.append(score(soft(rng, mask), Truth(mask, mask.astype(float) if i % 2 else None)))
    forward, backward = Aggregate(all_scores).results(), Aggregate(all_scores[::-1]).results()
    assert forward == pytest.approx({**backward, "matte": pytest.approx(backward["matte"])})
    assert forward["count"] == 5
    assert forward["mattes"] == 2
    for i, name in enumerate(("iou", "f", "e")):
        curve = np.mean([one.curves[i] for one in all_scores], axis=0)
        assert forward[f"{name}_max"] == pytest.approx(curve.max())
        assert forward[f"{name}_max"] <= np.mean([one.curves[i].max() for one in all_scores]) + 1e-12
    assert Aggregate().results() == {"count": 0}


def test_soft_truths_are_mattes():
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    hard = np.where(ramp > 128, 255, 0).astype(np.uint8)
    assert Truth.of_bytes(ramp).alpha is not None
    assert Truth.of_bytes(hard).alpha is None
    assert Truth.of_bytes(hard, matte=True).alpha is not None
    edge = np.array([[128, 129]], np.uint8)
    assert Truth.of_bytes(edge).mask.tolist() == [[False, True]]


def test_wrong_shapes_and_types_are_refused():
    truth = Truth(np.ones((4, 5), bool))
    for prediction in (np.ones((5, 4), np.uint8), np.ones((4, 5), np.float32)):
        with pytest.raises(ValueError, match="one size"):
            score(prediction, truth)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bool"):
        Truth(np.ones((4, 5)))  # type: ignore[arg-type]


def test_faster_than_pysodmetrics():
    """`python -m eval bench` gives the figure (over 3); half of it must hold even on a busy machine."""
    pytest.importorskip("py_sod_metrics")
    result = bench.bench_metrics(bench.pairs_of(None, None, 6), repeats=3)
    assert result["speedup"] > 1.5
    assert result["mattes_pairs_per_s"] < result["all_pairs_per_s"] < result["same_pairs_per_s"]

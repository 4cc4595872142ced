"""How good a mask is: the measures of salient object detection, of boundaries, and of true mattes.

Conventions, which published figures differ in:

- a prediction is the 8-bit mask that a user gets (`floor(255 · v + 0.5)`); all 256 of its thresholds are counted;
- ground truth is what is above 128 of 255;
- no min-max stretching, because a model's user gets none. `stretch=True` stretches each prediction to [0, 1] first, as
  the authors and PySODMetrics do, for comparing with published tables; it then agrees with PySODMetrics to rounding;
- Fβ has β² = 0.3 (Achanta et al. 2009), weighted Fβ has β² = 1 (Margolin et al. 2014), as is the field's custom;
- "adaptive" thresholds at twice the prediction's mean; "mean" and "max" are over thresholds, of the *set's* mean curve;
- a quadrant of S-measure without pixels counts for nothing (PySODMetrics: NaN), and one that is constant is taken as
  exactly constant (there its rounding decides between 0 and 1);
- an empty prediction for an empty truth has IoU 1 and boundary scores 1 (PySODMetrics says 0: it would punish the right
  answer). The other measures keep their published definition there; E-measure's `size − 1` is at least 1.

The work of one picture is one joint histogram (quadrant × truth × value), from which every threshold of every curve,
MAE and S-measure follow, one distance transform of the truth, and a few shifts of boolean arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from u2net.agreement import mask_iou

from .flaws import flaws
from .measures import FLAWS, MASK, MATTE

__all__ = ["BETA2", "Aggregate", "Scores", "Truth", "score"]

BETA2 = 0.3
RELAXATION_PX = 3  # U²-Net, section 4.3
BOUNDARY_IOU_DIAGONALS = 0.02  # Cheng et al. 2021: distance as a share of the picture's diagonal
MATTE_SHARE = 0.03  # soft pixels of a true matte; hair has 4 % and more, antialiased binary masks at most 2 %
CONSTANT_LEVELS = 2  # of 255: a mask with no more between its darkest and brightest shows nothing
EPS = np.spacing(1)
CONNECTIVITY_STEP, CONNECTIVITY_THETA, GRADIENT_SIGMA = 0.1, 0.15, 1.4  # Rhemann et al. 2009

CURVES = ("iou", "f", "e")

ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class Truth:
    """The ground truth of one picture, with what every prediction for it is compared to worked out once.

    `mask` is bool (H, W). `alpha`, float (H, W) in [0, 1], is the true matte where there is one.
    """

    def __init__(self, mask: BoolArray, alpha: npt.NDArray[np.floating] | None = None) -> None:
        if mask.ndim != 2 or mask.size == 0 or mask.dtype != bool:
            raise ValueError(f"a truth is bool (H, W), not {mask.dtype} {mask.shape}")
        self.mask = mask
        self.alpha = alpha
        self.foreground = int(np.count_nonzero(mask))
        self._surroundings: _Surroundings | None = None

    @classmethod
    def of_bytes(cls, grey: ByteArray, matte: bool | None = None) -> Truth:
        """The truth of an 8-bit mask (H, W); it is a true matte where `matte` says so or enough of it is soft."""
        if matte is None:
            matte = float(np.mean((grey > 12) & (grey < 243))) >= MATTE_SHARE
        return cls(grey > 128, grey / np.float64(255) if matte else None)

    @cached_property
    def centroid(self) -> tuple[int, int]:
        """Rows and columns above and left of the foreground's centre, as S-measure divides the picture."""
        height, width = self.mask.shape
        if self.foreground == 0:
            cy, cx = np.round(height / 2), np.round(width / 2)
        else:
            cy = np.round(self.mask.sum(1) @ np.arange(height) / self.foreground)
            cx = np.round(self.mask.sum(0) @ np.arange(width) / self.foreground)
        return int(cy) + 1, int(cx) + 1

    @cached_property
    def cells(self) -> npt.NDArray[np.intp]:
        """For each pixel the start of its 256 bins: 512 · quadrant + 256 · truth."""
        cy, cx = self.centroid
        cells = self.mask.astype(np.intp) << 8
        cells[:cy, cx:] += 512
        cells[cy:, :cx] += 1024
        cells[cy:, cx:] += 1536
        return cells

    def surroundings(self, prediction: ByteArray) -> _Surroundings:
        """The nearest foreground of every pixel in which `prediction` or the foreground's edge is not zero.

        Kept for the next prediction, which asks for much the same part of the picture. Needs foreground.
        """
        top, bottom, left, right = self._box
        rows, columns = np.flatnonzero(prediction.any(1)), np.flatnonzero(prediction.any(0))
        if rows.size:
            top, bottom = min(top, int(rows[0])), max(bottom, int(rows[-1]) + 1)
            left, right = min(left, int(columns[0])), max(right, int(columns[-1]) + 1)
        known = self._surroundings
        if known is None or not (
            known.box[0] <= top and bottom <= known.box[1] and known.box[2] <= left and right <= known.box[3]
        ):
            known = self._surroundings = _Surroundings.of(self.mask, (top, bottom, left, right), self._box)
        return known

    @cached_property
    def _box(self) -> tuple[int, int, int, int]:
        """Top, bottom, left, right of the foreground and the 3 pixels around it that a 7×7 filter of it sees."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        height, width = self.mask.shape
        return (
            max(int(rows[0]) - 3, 0),
            min(int(rows[-1]) + 4, height),
            max(int(columns[0]) - 3, 0),
            min(int(columns[-1]) + 4, width),
        )

    @cached_property
    def neighbourhood(self) -> tuple[slice, slice]:
        """The part of the picture in which the truth's edge is felt."""
        top, bottom, left, right = self._box
        return slice(top, bottom), slice(left, right)

    @cached_property
    def contour(self) -> BoolArray:
        """One-pixel boundary."""
        return _contour(self.mask)

    @cached_property
    def near_contour(self) -> BoolArray:
        """What lies within 3 pixels of the boundary."""
        return _dilate_disk(self.contour, RELAXATION_PX)

    @cached_property
    def band(self) -> BoolArray:
        """Foreground within 2 % of the diagonal of its contour."""
        return _inner_band(self.mask)


#: 2 − 2^(−d/5) (Margolin et al.) by squared distance; at 256 pixels it is 2 in float64. 0 in the foreground.
_IMPORTANCE = 2 - np.exp2(-np.sqrt(np.arange(256**2 + 1)) / 5)
_IMPORTANCE[0] = 0.0


@dataclass(frozen=True, eq=False)
class _Surroundings:
    """A part of a picture (`box`: top, bottom, left, right) that holds all its foreground, and what is nearest there.

    `importance` is the weight of an error in the background, from 1 at the foreground's edge towards 2 far away.
    `nearest` are the flat indices, in the whole picture, of the foreground pixels nearest to the edge's neighbourhood.
    """

    box: tuple[int, int, int, int]
    importance: FloatArray
    nearest: npt.NDArray[np.intp]

    @classmethod
    def of(cls, mask: BoolArray, box: tuple[int, int, int, int], inner: tuple[int, int, int, int]) -> _Surroundings:
        """Work it out; `inner` is the neighbourhood of the foreground's edge, within `box`."""
        top, bottom, left, right = box
        part = mask[top:bottom, left:right]
        rows, columns = ndimage.distance_transform_edt(~part, return_distances=False, return_indices=True)
        squared = rows - np.arange(part.shape[0], dtype=np.int32)[:, None]
        squared *= squared
        across = columns - np.arange(part.shape[1], dtype=np.int32)
        across *= across
        squared += across
        edge = slice(inner[0] - top, inner[1] - top), slice(inner[2] - left, inner[3] - left)
        nearest = (rows[edge].astype(np.intp) + top) * mask.shape[1] + columns[edge] + left
        return cls(box, np.take(_IMPORTANCE, squared, mode="clip"), nearest)


@dataclass(frozen=True)
class Scores:
    """One picture's figures. `curves` is float64 (3, 256): IoU, Fβ and E at each threshold, from 255 down to 0.

    `matte` holds SAD and connectivity and gradient errors (in thousands, as published) and MSE, over the whole
    picture, where the truth is a matte. `constant` tells a mask that is all one value, or nearly.
    """

    values: dict[str, float]
    matte: dict[str, float] | None
    curves: FloatArray
    constant: bool


def score(prediction: ByteArray, truth: Truth, stretch: bool = False, boundary: bool = True) -> Scores:
    """Judge the 8-bit mask `prediction` (H, W) against `truth`.

    Without `boundary` leave out the measures of boundaries and flaws, which other tools lack.

    Raises `ValueError` on other types and sizes.
    """
    if prediction.dtype != np.uint8 or prediction.shape != truth.mask.shape:
        shapes = f"{prediction.dtype} {prediction.shape} and {truth.mask.shape}"
        raise ValueError(f"prediction and truth must be uint8 and of one size, not {shapes}")
    size, foreground = prediction.size, truth.foreground
    bins = np.bincount((truth.cells + prediction).ravel(), minlength=2048).reshape(4, 2, 256)
    background_bins, foreground_bins = bins.sum(0)
    present = np.flatnonzero(background_bins + foreground_bins)
    level, threshold_of = _levels(int(present[0]), int(present[-1]), stretch)

    # Every threshold at once: how much of the truth, and of the rest, is at or above 255, 254, … 0.
    hits = np.bincount(threshold_of, foreground_bins, 256)[::-1].cumsum()
    alarms = np.bincount(threshold_of, background_bins, 256)[::-1].cumsum()
    curves = np.stack(
        [
            _iou(hits, alarms, foreground),
            _f_measure(hits, alarms, foreground),
            _e_measure(hits, alarms, foreground, size),
        ]
    )
    mean = float(level @ (foreground_bins + background_bins)) / size
    chosen = level >= min(2 * mean, 1.0)
    adaptive = np.array([float(foreground_bins[chosen].sum())]), np.array([float(background_bins[chosen].sum())])
    half = level > 0.5
    at_half = np.array([float(foreground_bins[half].sum())]), np.array([float(background_bins[half].sum())])

    values = {
        "iou": float(_iou(*at_half, foreground)[0]),
        "iou_mean": float(curves[0].mean()),
        "iou_max": float(curves[0].max()),
        "mae": float(level @ background_bins + (1 - level) @ foreground_bins) / size,
        "f_adaptive": float(_f_measure(*adaptive, foreground)[0]),
        "f_mean": float(curves[1].mean()),
        "f_max": float(curves[1].max()),
        "f_weighted": _weighted_f(prediction, level, truth),
        "s_measure": _s_measure(bins, level, truth),
        "e_adaptive": float(_e_measure(*adaptive, foreground, size)[0]),
        "e_mean": float(curves[2].mean()),
        "e_max": float(curves[2].max()),
    }
    if boundary:
        binary = half[prediction]
        values["boundary_f"] = _boundary_f(binary, truth)
        values["boundary_iou"] = mask_iou(_inner_band(binary), truth.band)
        values |= flaws(prediction, binary, truth.mask, truth.band, truth.alpha)
    matte = None if truth.alpha is None else _matte(level[prediction], truth)
    return Scores(values, matte, curves, bool(present[-1] - present[0] <= CONSTANT_LEVELS))


def _levels(low: int, high: int, stretch: bool) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """The value in [0, 1] of each of the 256 levels, and the threshold out of 0 … 255 that it reaches."""
    level = np.arange(256) / 255
    if not stretch:
        return level, np.arange(256)
    if high > low:
        level = np.clip((level - level[low]) / (level[high] - level[low]), 0, 1)
    return level, (level * 255).astype(np.uint8).astype(np.intp)


def _iou(hits: FloatArray, alarms: FloatArray, foreground: int) -> FloatArray:
    union = foreground + alarms
    return np.divide(hits, union, out=np.ones_like(union), where=union > 0)


def _f_measure(hits: FloatArray, alarms: FloatArray, foreground: int) -> FloatArray:
    # (1 + β²) P R / (β² P + R), with P = hits / (hits + alarms) and R = hits / foreground put in.
    denominator = BETA2 * foreground + hits + alarms
    return np.divide((1 + BETA2) * hits, denominator, out=np.zeros_like(denominator), where=hits > 0)


def _e_measure(hits: FloatArray, alarms: FloatArray, foreground: int, size: int) -> FloatArray:
    """Enhanced-alignment measure, Fan et al. 2018, from the sizes of the four parts in which it is constant."""
    predicted = hits + alarms
    if foreground == 0:
        total = size - predicted
    elif foreground == size:
        total = predicted
    else:
        p, g = predicted / size, foreground / size
        total = np.zeros_like(predicted)
        for count, a, b in (
            (hits, 1 - p, 1 - g),
            (alarms, 1 - p, -g),
            (foreground - hits, -p, 1 - g),
            (size - predicted - foreground + hits, -p, -g),
        ):
            total += count * (2 * a * b / (a * a + b * b + EPS) + 1) ** 2 / 4
    return np.asarray(total / max(size - 1, 1))


def _s_measure(bins: npt.NDArray[np.intp], level: FloatArray, truth: Truth) -> float:
    """Structure measure, Fan et al. 2017, with α = 0.5, from sums of values and squares over truth and quadrants."""
    size, foreground = truth.mask.size, truth.foreground
    squares = level * level
    mean = float(bins.sum((0, 1)) @ level) / size
    if foreground == 0:
        return 1 - mean
    if foreground == size:
        return mean
    share = foreground / size
    background_bins, foreground_bins = bins.sum(0)
    objects = share * _s_object(foreground_bins, level) + (1 - share) * _s_object(background_bins, 1 - level)
    height, width = truth.mask.shape
    cy, cx = truth.centroid
    areas = (cy * cx, cy * (width - cx), (height - cy) * cx, (height - cy) * (width - cx))
    regions = 0.0
    for area, (outside, inside) in zip(areas, bins, strict=True):
        if area <= 0:
            continue
        both = outside + inside
        n_inside = float(inside.sum())
        x, y = float(both @ level) / area, n_inside / area
        denominator = area - 1 + EPS
        sigma_x = max(float(both @ squares) - area * x * x, 0.0) / denominator
        sigma_y = max(n_inside - area * y * y, 0.0) / denominator
        sigma_xy = (float(inside @ level) - area * x * y) / denominator
        alpha, beta = 4 * x * y * sigma_xy, (x * x + y * y) * (sigma_x + sigma_y)
        # Sums leave rounding where the pixel-wise definition has an exact zero.
        flat = 1.0 if abs(beta) <= 1e-14 else 0.0
        similarity = alpha / (beta + EPS) if abs(alpha) > 1e-14 else flat
        regions += similarity * area / size
    return max(0.0, 0.5 * objects + 0.5 * regions)


def _s_object(bins: npt.NDArray[np.intp], level: FloatArray) -> float:
    count = int(bins.sum())
    mean = float(bins @ level) / count
    spread = math.sqrt(max(float(bins @ (level - mean) ** 2), 0.0) / (count - 1)) if count > 1 else 0.0
    return 2 * mean / (mean * mean + 1 + spread + EPS)


_SMOOTHING = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5.0**2))
_SMOOTHING /= _SMOOTHING.sum()  # MATLAB's fspecial('gaussian', 7, 5) is the outer product of this with itself


def _weighted_f(prediction: ByteArray, level: FloatArray, truth: Truth) -> float:
    """Weighted Fβ, Margolin et al. 2014, β² = 1."""
    if truth.foreground == 0:
        return 0.0
    around, box, miss = truth.surroundings(prediction), truth.neighbourhood, 1 - level
    top, bottom, left, right = around.box
    # Outside, the error of the nearest foreground pixel; smoothed, it only matters inside.
    smooth = miss[prediction.ravel()[around.nearest]]
    smooth = ndimage.correlate1d(smooth, _SMOOTHING, 0, mode="constant")
    smooth = ndimage.correlate1d(smooth, _SMOOTHING, 1, mode="constant")
    inside = truth.mask[box]
    missed = float(np.minimum(smooth[inside], miss[prediction[box][inside]]).sum())
    hits = truth.foreground - missed
    alarms = float(np.einsum("ij,ij->", level[prediction[top:bottom, left:right]], around.importance))
    recall = 1 - missed / truth.foreground
    precision = hits / (hits + alarms + EPS)
    return float(2 * recall * precision / (recall + precision + EPS))


def _erode_columns(mask: BoolArray, reach: int, outside: bool) -> BoolArray:
    """Erosion with a vertical line of 2 · reach + 1 pixels, in ⌈log₂⌉ steps; beyond the picture lies `outside`."""
    work = np.pad(mask, ((reach, reach), (0, 0)), constant_values=outside)
    done, wanted = 1, 2 * reach + 1
    while done < wanted:
        step = min(done, wanted - done)
        work = work[:-step] & work[step:]
        done += step
    return work


def _erode_square(mask: BoolArray, reach: int, outside: bool) -> BoolArray:
    """Erosion with a square of side 2 · reach + 1."""
    eroded = _erode_columns(mask, reach, outside)
    return _erode_columns(np.ascontiguousarray(eroded.T), reach, outside).T


def _contour(mask: BoolArray) -> BoolArray:
    """mask XOR its 3×3 erosion. The picture's frame is no boundary."""
    return mask & ~_erode_square(mask, 1, outside=True)


def _inner_band(mask: BoolArray) -> BoolArray:
    """Foreground within 2 % of the diagonal of its contour; here the picture's frame is one (Cheng et al.)."""
    reach = max(1, round(BOUNDARY_IOU_DIAGONALS * math.hypot(*mask.shape)))
    return mask & ~_erode_square(mask, reach, outside=False)


def _dilate_disk(mask: BoolArray, radius: int) -> BoolArray:
    """What lies within `radius` pixels (Euclidean) of `mask`."""
    height, width = mask.shape
    padded = np.pad(mask, radius)
    result = np.zeros_like(mask)
    for dx in range(radius + 1):
        columns = padded[:, radius + dx : radius + dx + width]
        if dx:
            columns = columns | padded[:, radius - dx : radius - dx + width]
        for dy in range(-math.isqrt(radius**2 - dx**2), math.isqrt(radius**2 - dx**2) + 1):
            result |= columns[radius + dy : radius + dy + height]
    return result


def _boundary_f(binary: BoolArray, truth: Truth) -> float:
    """Relaxed boundary Fβ, β² = 0.3: precision and recall of boundary pixels within 3 pixels of the other's."""
    contour = _contour(binary)
    predicted, expected = np.count_nonzero(contour), np.count_nonzero(truth.contour)
    if not predicted or not expected:
        return float(predicted == expected)
    precision = np.count_nonzero(contour & truth.near_contour) / predicted
    recall = np.count_nonzero(truth.contour & _dilate_disk(contour, RELAXATION_PX)) / expected
    if precision + recall == 0:
        return 0.0
    return float((1 + BETA2) * precision * recall / (BETA2 * precision + recall))


def _matte(prediction: FloatArray, truth: Truth) -> dict[str, float]:
    """The four errors of Rhemann et al. 2009 over the whole picture."""
    assert truth.alpha is not None
    # Where both are zero, and so far away that no filter sees anything else, nothing adds to any of the four.
    shown = (prediction > 0) | (truth.alpha > 0)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not rows.size:
        return dict.fromkeys(MATTE, 0.0)
    margin = len(_GAUSS)
    part = slice(max(rows[0] - margin, 0), rows[-1] + margin), slice(max(columns[0] - margin, 0), columns[-1] + margin)
    alpha, predicted = truth.alpha[part].astype(np.float64), prediction[part]
    difference = predicted - alpha
    return {
        "sad": float(np.abs(difference).sum()) / 1000,
        "mse": float(np.square(difference).sum()) / prediction.size,
        "gradient": float(((_gradient(predicted) - _gradient(alpha)) ** 2).sum()) / 1000,
        "connectivity": _connectivity(predicted, alpha) / 1000,
    }


_REACH = math.ceil(GRADIENT_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * GRADIENT_SIGMA * 1e-2)))
_GAUSS = np.exp(-(np.arange(-_REACH, _REACH + 1) ** 2) / (2 * GRADIENT_SIGMA**2))
_SLOPE = np.arange(-_REACH, _REACH + 1) * _GAUSS
_GAUSS /= np.linalg.norm(_GAUSS)
_SLOPE /= np.linalg.norm(_SLOPE)


def _gradient(alpha: FloatArray) -> FloatArray:
    """Magnitude of the derivative of a Gaussian (σ = 1.4), kernels of unit length, edges repeated."""

    def along(axis: int) -> FloatArray:
        smooth = ndimage.correlate1d(alpha, _GAUSS, 1 - axis, mode="nearest")
        return np.asarray(ndimage.correlate1d(smooth, _SLOPE, axis, mode="nearest"))

    return np.hypot(along(0), along(1))


def _connectivity(prediction: FloatArray, alpha: FloatArray) -> float:
    """Sum of |φ| differences, with the largest 4-connected component at ten thresholds as the source region."""
    connected_up_to = np.ones_like(alpha)
    open_pixels = np.ones(alpha.shape, bool)
    both = np.minimum(prediction, alpha)
    steps = round(1 / CONNECTIVITY_STEP)
    for i in range(1, steps + 1):
        labels, count = ndimage.label(both >= i / steps)
        kept = labels == np.bincount(labels.ravel())[1:].argmax() + 1 if count else np.zeros_like(open_pixels)
        connected_up_to[open_pixels & ~kept] = (i - 1) / steps
        open_pixels &= kept

    def degree(matte: FloatArray) -> FloatArray:
        distance = matte - connected_up_to
        return np.asarray(1 - distance * (distance >= CONNECTIVITY_THETA))

    return float(np.abs(degree(alpha) - degree(prediction)).sum())


class Aggregate:
    """The running mean over pictures. `add` scores in any order; `results` may be asked for at any time."""

    def __init__(self, scores: Iterable[Scores] = ()) -> None:
        self.count = self.mattes = self.constant = 0
        self._values = dict.fromkeys((*MASK, *FLAWS), 0.0)
        self._matte = dict.fromkeys(MATTE, 0.0)
        self._curves = np.zeros((len(CURVES), 256))
        for one in scores:
            self.add(one)

    def add(self, scores: Scores) -> None:
        """Take one picture in."""
        self.count += 1
        self.constant += scores.constant
        for name, value in scores.values.items():
            self._values[name] += value
        self._curves += scores.curves
        if scores.matte is not None:
            self.mattes += 1
            for name, value in scores.matte.items():
                self._matte[name] += value

    def curves(self) -> dict[str, list[float]]:
        """The mean IoU, Fβ and E curve over thresholds 255 … 0."""
        mean = self._curves / max(self.count, 1)
        return {name: [round(float(v), 5) for v in mean[i]] for i, name in enumerate(CURVES)}

    def results(self) -> dict[str, Any]:
        """Means over the pictures so far; over thresholds, "mean" and "max" of the mean curve; mattes on their own."""
        if not self.count:
            return {"count": 0}
        result: dict[str, Any] = {name: value / self.count for name, value in self._values.items()}
        for i, name in enumerate(CURVES):
            result[f"{name}_mean"] = float(self._curves[i].mean()) / self.count
            result[f"{name}_max"] = float(self._curves[i].max()) / self.count
        result |= {"count": self.count, "constant": self.constant, "mattes": self.mattes}
        if self.mattes:
            result["matte"] = {name: value / self.mattes for name, value in self._matte.items()}
        return result

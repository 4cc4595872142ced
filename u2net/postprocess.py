"""From the network's map to a matte and clean colours at the picture's full resolution.

This is the specification that every runner follows, step by step, in this order (`matte`):

1. `clean` at the network's resolution: keep the largest subject, drop small ones, fill holes.
2. `upsample_bands`: bilinear, half-pixel centres (`preprocess`, the way back).
3. Edges: `refine_guided` (or `matting.refine_matting`), which moves only pixels the network is unsure of.
4. Threshold, then feather.
5. An alpha channel that the picture already had multiplies the matte; 8 bits are floor(255 · v + 0.5).
6. `estimate_foreground`: colours without the background's share.

All arithmetic is float32 unless said otherwise. Runners agree to 1/255.

**Working grid** of steps 3 and 6: k = max(1, floor(max(H, W) / `working_side` + 0.5)); the picture is box-reduced by k
as in step 1 of `preprocess` (h = ceil(H / k), w = ceil(W / k), means rounded half up); working pixel (x, y) covers
picture pixels from (k·x, k·y) on, and what is sampled at picture pixel (X, Y) is taken bilinearly at
((X + 0.5) / k − 0.5, (Y + 0.5) / k − 0.5), clamped.

**Box mean** of radius r: the mean over the (2r + 1)² window around a pixel, over those of its pixels that lie inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import ConfigError
from .preprocess import bilinear_taps, resize_bilinear

__all__ = [
    "BALANCED",
    "BEST",
    "FAST",
    "PRESETS",
    "Fitted",
    "Refinement",
    "Upsampler",
    "WorkingGrid",
    "apply_model",
    "bands_of",
    "box_mean",
    "cell_means",
    "clean",
    "connected_components",
    "estimate_foreground",
    "feather",
    "fill_holes",
    "fit_guided",
    "guided_bands",
    "guided_coefficients",
    "keep_components",
    "matte",
    "mend_map",
    "to_alpha",
    "unexplained_share",
    "unsure",
    "upsample_bands",
    "upsample_map",
]

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int32]

SUPPORT = 0.1  # a subject's connected component is where the map is at least this: soft skirts belong to it
COLOUR_SIDE = 320  # of step 6: about the longest side of its working grid
COLOUR_RADII = (48, 16, 6, 2)
# Chosen on procedural scenes, with exact maps and with those of `small` and `lite`; see docs/runner.md.
_TRUST_RADIUS = 2  # of the windows in which a map is compared with the picture
_TRUST_EPSILON = 1e-6
_LEFT_OVER = 0.04  # ρ₀: exact maps have κ² · ρ of 1e-5 to 0.04, networks' mostly 0.02 to 0.3
_EDGE_VARIANCE = 0.004  # v₀: a soft step from 0 to 1 has some 0.1, the inside of translucent things less than 0.001
_BAND_PIXELS = 1 << 17  # bands and, where little is to do, tiles of them: small enough for the processor's cache
_TILE_ROWS, _TILE_COLUMNS = 32, 128


@dataclass(frozen=True)
class Refinement:
    """Which steps are taken, and how. The presets are `FAST`, `BALANCED` and `BEST`."""

    keep_largest: bool = False  # several subjects are common: only on request
    min_area: float = 0.0  # fraction of the picture under which a subject is dropped; 0 keeps all
    fill_holes: float = 0.0  # fraction of the picture up to which a hole is filled; 0 fills none: mugs have handles
    edges: Literal["none", "guided", "matting"] = "guided"  # refinement at full resolution
    working_side: int = 640  # about the longest side of the working grid: twice the network's, and 0.1 s of work
    radius: int = 3  # of the guided filter, in working pixels: small windows hold two colours, as matting assumes
    reach: int = 8  # in the map's pixels: how far edges move to where the picture has them; 0 leaves the map alone
    epsilon: float = 1e-5  # of the guided filter: variance of colour (of 1) below which a region counts as flat
    confidence: float = 1.0  # power of |2p − 1| that weighs a pixel in the fit: sure pixels decide; 0 weighs all alike
    threshold: float | None = None  # makes the matte hard
    feather: float = 0.0  # pixels by which the matte is softened
    colours: Literal["keep", "estimate"] = "estimate"  # `keep` leaves the background's colour in soft edges

    def __post_init__(self) -> None:
        for name, low, high in (("min_area", 0, 1), ("fill_holes", 0, 1), ("feather", 0, 200), ("confidence", 0, 64)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be {low} to {high}, got {getattr(self, name)}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold must be above 0 and at most 1, got {self.threshold}")
        if not 1 <= self.radius <= 100 or not 32 <= self.working_side <= 8192:
            raise ConfigError(
                f"radius must be 1 to 100 and working_side 32 to 8192, got {self.radius} and {self.working_side}"
            )
        if not 0 <= self.reach <= 100:
            raise ConfigError(f"reach must be 0 to 100, got {self.reach}")
        if not 0 < self.epsilon <= 1:
            raise ConfigError(f"epsilon must be above 0 and at most 1, got {self.epsilon}")


FAST = Refinement(edges="none", colours="keep")
BALANCED = Refinement()
BEST = Refinement(edges="matting")
PRESETS: dict[str, Refinement] = {"fast": FAST, "balanced": BALANCED, "best": BEST}


# 1. At the network's resolution


def connected_components(mask: npt.NDArray[np.bool_], diagonal: bool) -> tuple[IntArray, int]:
    """Labels, int32 (H, W), of the connected components of `mask`: 0 outside, else 1… in order of their first pixel.

    Row by row from the top, left to right. `diagonal` joins the eight neighbours, otherwise four. Union-find over
    horizontal runs (Wu, Otoo & Suzuki, 2009).
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    start_row, start = np.nonzero(steps == 1)
    _, stop = np.nonzero(steps == -1)  # one past the run's last pixel; runs come in the same order
    count = len(start)
    parent = list(range(count))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first = np.searchsorted(start_row, np.arange(height + 1)).tolist()
    starts, stops = start.tolist(), stop.tolist()
    reach = 1 if diagonal else 0
    for row in range(1, height):
        above, above_end = first[row - 1], first[row]
        run, run_end = first[row], first[row + 1]
        while above < above_end and run < run_end:
            if starts[run] < stops[above] + reach and starts[above] < stops[run] + reach:
                a, b = root(above), root(run)
                if a != b:
                    parent[max(a, b)] = min(a, b)
            if stops[above] < stops[run]:
                above += 1
            else:
                run += 1
    labels = np.zeros((height, width), np.int32)
    roots = np.array([root(run) for run in range(count)], np.int64)
    unique, label_of = np.unique(roots, return_inverse=True)
    flat = labels.reshape(-1)
    change = np.zeros(height * width + 1, np.int32)
    change[start_row * width + start] += (label_of + 1).astype(np.int32)
    np.subtract.at(change, start_row * width + stop, (label_of + 1).astype(np.int32))
    flat[:] = np.cumsum(change[:-1])
    return labels, len(unique)


def keep_components(saliency: FloatArray, *, largest: bool, min_area: float) -> FloatArray:
    """`saliency` with the subjects that are too small set to 0.

    Subjects are the 8-connected components of saliency ≥ `SUPPORT`; a subject's area counts its pixels ≥ 0.5. Kept
    are those whose area is at least min_area · (H · W) and, with `largest`, of these only the one with the largest area
    (the first in case of a tie). Everything outside the kept components becomes 0; where all are kept, nothing changes.
    """
    labels, count = connected_components(saliency >= np.float32(SUPPORT), diagonal=True)
    if count == 0:
        return saliency
    areas = np.bincount(labels.reshape(-1), (saliency >= np.float32(0.5)).reshape(-1), count + 1)[1:]
    kept = areas >= min_area * saliency.size
    if largest:
        only = np.zeros_like(kept)
        only[int(np.argmax(areas))] = True
        kept &= only
    if bool(kept.all()):
        return saliency
    table = np.concatenate((np.zeros(1, bool), kept))
    return np.where(table[labels], saliency, np.float32(0))


def fill_holes(saliency: FloatArray, fraction: float) -> FloatArray:
    """`saliency` with small holes set to 1.

    Holes are the 4-connected components of saliency < 0.5 that touch no border of the map and have at most
    fraction · (H · W) pixels.
    """
    labels, count = connected_components(saliency < np.float32(0.5), diagonal=False)
    if count == 0:
        return saliency
    areas = np.bincount(labels.reshape(-1), minlength=count + 1)
    hole = areas <= fraction * saliency.size
    hole[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        hole[edge] = False
    return np.where(hole[labels], np.float32(1), saliency)


def clean(saliency: FloatArray, settings: Refinement) -> FloatArray:
    """Step 1: `keep_components`, then `fill_holes`, where the settings ask. float32 (size, size) to the same."""
    if settings.keep_largest or settings.min_area > 0:
        saliency = keep_components(saliency, largest=settings.keep_largest, min_area=settings.min_area)
    if settings.fill_holes > 0:
        saliency = fill_holes(saliency, settings.fill_holes)
    return saliency


# 2. To full resolution


class Upsampler:
    """Bilinear resize of planes (C, h, w) to rows of (C, H, W), as they are asked for."""

    def __init__(self, planes: FloatArray, height: int, width: int, steps: tuple[float, float] | None = None) -> None:
        _, source_height, source_width = planes.shape
        step_y, step_x = steps if steps is not None else (source_height / height, source_width / width)
        self.planes = planes
        self.left, self.right, self.wx = bilinear_taps(source_width, width, step_x)
        self.top, self.bottom, self.wy = bilinear_taps(source_height, height, step_y)

    def rows(self, band: slice, columns: slice = slice(None), planes: slice = slice(None)) -> FloatArray:
        """float32 (planes, rows of `band`, columns)."""
        top, bottom = self.top[band], self.bottom[band]
        first, last = int(top[0]), int(bottom[-1]) + 1
        source = self.planes[planes, first:last]
        lines = source[:, :, self.left[columns]]
        lines += (source[:, :, self.right[columns]] - lines) * self.wx[columns]
        upper = lines[:, top - first]
        lower = lines[:, bottom - first]
        lower -= upper
        lower *= self.wy[band, None]
        upper += lower
        return upper


def bands_of(height: int, width: int) -> Iterator[slice]:
    """Bands of rows of a picture, from top to bottom, small enough for a dozen float32 copies."""
    rows = max(1, _BAND_PIXELS // width)
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def _tiles(wanted: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """Columns of a band, in tiles, of those tiles where anything is wanted."""
    width = wanted.shape[1]
    for tile in np.unique(np.flatnonzero(wanted.any(axis=0)) // _TILE_COLUMNS).tolist():
        yield slice(tile * _TILE_COLUMNS, min((tile + 1) * _TILE_COLUMNS, width))


def upsample_bands(saliency: FloatArray, height: int, width: int) -> Iterator[tuple[slice, FloatArray]]:
    """Step 2 in bands of rows, in bounded memory: (rows, float32 (rows, width)) from top to bottom.

    Identical to `preprocess.resize_bilinear(saliency, height, width)`.
    """
    upsampler = Upsampler(saliency[None], height, width)
    for band in bands_of(height, width):
        yield band, upsampler.rows(band)[0]


def upsample_map(saliency: FloatArray, height: int, width: int) -> FloatArray:
    """Step 2: float32 (h, w) to float32 (height, width), bilinear with half-pixel centres."""
    out = np.empty((height, width), np.float32)
    for band, values in upsample_bands(saliency, height, width):
        out[band] = values
    return out


def to_alpha(values: FloatArray) -> ByteArray:
    """[0, 1] to 8 bits: floor(255 · v + 0.5), clipped."""
    return np.clip(values * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)


# 3. Edges


def box_mean(planes: FloatArray, radius: int) -> FloatArray:
    """Box mean of (C, h, w), float32 or float64 as the input, windows cut at the borders. O(log radius) a pixel."""
    _, height, width = planes.shape
    share = 1 / (_window_counts(height, radius)[:, None] * _window_counts(width, radius))
    share = share.astype(planes.dtype)
    padded = np.zeros((height + 2 * radius, width + 2 * radius), planes.dtype)
    out = np.empty_like(planes)
    for plane, mean in zip(planes, out, strict=True):  # one plane at a time stays in the processor's cache
        padded[radius : radius + height, radius : radius + width] = plane
        rows = _window_sums(padded, radius, height)
        np.multiply(_window_sums(rows.T, radius, width).T, share, out=mean)
    return out


def _window_counts(length: int, radius: int) -> npt.NDArray[np.int64]:
    at = np.arange(length)
    return np.minimum(at + radius + 1, length) - np.maximum(at - radius, 0)


def _window_sums(lines: FloatArray, radius: int, count: int) -> FloatArray:
    """Sums of 2 · radius + 1 lines from each of the first `count` on, of sums of 1, 2, 4, … lines."""
    window, size, start = 2 * radius + 1, 1, 0
    total: FloatArray | None = None
    while True:
        if window & size:
            part = lines[start : start + count]
            total = part if total is None else total + part
            start += size
        if 2 * size > window:
            assert total is not None
            return total
        lines = lines[:-size] + lines[size:]
        size *= 2


def working_factor(height: int, width: int, working_side: int) -> int:
    """k of the working grid."""
    return max(1, int(max(height, width) / working_side + 0.5))


def _reduced(pixels: ByteArray, k: int) -> ByteArray:
    return pixels if k == 1 else np.asarray(Image.fromarray(pixels).reduce(k))


def cell_means(planes: FloatArray, rows: int, columns: int, steps: tuple[float, float]) -> FloatArray:
    """float32 (C, rows, columns): means of (C, h, w) over cells of `steps` (height, width), the first from (0, 0) on.

    Pixels that a cell covers in part count with that part; what a cell has beyond the planes' edge does not count.
    """
    down = _cell_means_columns(planes.transpose(1, 0, 2), rows, steps[0])
    return _cell_means_columns(down.transpose(2, 1, 0), columns, steps[1]).transpose(1, 2, 0).astype(np.float32)


def _cell_means_columns(lines: npt.NDArray[np.floating], count: int, step: float) -> DoubleArray:
    length = lines.shape[0]
    sums = np.zeros((length + 1, *lines.shape[1:]))
    np.cumsum(lines, axis=0, out=sums[1:], dtype=np.float64)
    edges = np.minimum(np.arange(count + 1) * step, length)
    left = np.minimum(np.floor(edges).astype(np.intp), length - 1)
    at = sums[left] + (sums[left + 1] - sums[left]) * (edges - left).reshape(-1, *(1,) * (lines.ndim - 1))
    return np.asarray(np.diff(at, axis=0) / np.diff(edges).reshape(-1, *(1,) * (lines.ndim - 1)))


@dataclass(frozen=True)
class _Fit:
    """Of each window: the local linear model (4, h, w), the target's variance and what of it the model leaves over.

    All float32, and 0 where there is nothing to find out.
    """

    coefficients: FloatArray
    variance: FloatArray
    residual: FloatArray


def _fit(
    guide: FloatArray,
    target: FloatArray,
    radius: int,
    epsilon: float,
    confidence: float,
    wanted: npt.NDArray[np.bool_],
) -> _Fit:
    height, width = target.shape
    weight = np.ones_like(target)
    if confidence > 0:
        sure = np.abs(2 * target - 1)
        weight = (sure if confidence == 1 else sure ** np.float32(confidence)) + np.float32(1e-3)
    weighted = weight * guide
    planes = np.empty((15, height, width), np.float32)
    planes[0] = weight
    np.multiply(weight, target, out=planes[1])
    planes[2:5] = weighted
    np.multiply(weighted, target, out=planes[5:8])
    np.multiply(weighted[0], guide, out=planes[8:11])
    np.multiply(weighted[1], guide[1:], out=planes[11:13])
    np.multiply(weighted[2], guide[2], out=planes[13])
    np.multiply(planes[1], target, out=planes[14])
    means = box_mean(planes, radius)
    out = np.zeros((6, height, width), np.float32)
    for top in range(0, height, _TILE_ROWS):
        rows = slice(top, top + _TILE_ROWS)
        for tile in _tiles(wanted[rows]):
            out[:, rows, tile] = _solve(means[:, rows, tile].astype(np.float64), epsilon)  # nearly singular
    return _Fit(out[:4], out[4], out[5])


def _solve(mean: DoubleArray, epsilon: float) -> DoubleArray:
    """Slopes, offset, variance and residual (6, h, w) from weighted means (15, h, w) of the products in `_fit`."""
    mean[1:] /= mean[0]
    p, (mr, mg, mb) = mean[1], mean[2:5]
    cr, cg, cb = mean[5] - mr * p, mean[6] - mg * p, mean[7] - mb * p
    rr, rg, rb = mean[8] - mr * mr + epsilon, mean[9] - mr * mg, mean[10] - mr * mb
    gg, gb, bb = mean[11] - mg * mg + epsilon, mean[12] - mg * mb, mean[13] - mb * mb + epsilon
    # The adjugate of the symmetric matrix.
    irr, irg, irb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    igg, igb, ibb = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    determinant = rr * irr + rg * irg + rb * irb
    out = np.empty((6, *p.shape))
    out[0] = (irr * cr + irg * cg + irb * cb) / determinant
    out[1] = (irg * cr + igg * cg + igb * cb) / determinant
    out[2] = (irb * cr + igb * cg + ibb * cb) / determinant
    out[3] = p - out[0] * mr - out[1] * mg - out[2] * mb
    out[4] = np.maximum(mean[14] - p * p, 0)
    out[5] = np.maximum(out[4] - out[0] * cr - out[1] * cg - out[2] * cb, 0)
    return out


def guided_coefficients(
    guide: FloatArray,
    target: FloatArray,
    radius: int,
    epsilon: float,
    confidence: float,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Local linear model of the matte in the colours: float32 (4, h, w), three slopes and the offset.

    The guided filter (He, Sun & Tang, 2010; fast form: He & Sun, arXiv 1505.00996) for a colour guide, float32
    (3, h, w) in [0, 1], and `target` p, float32 (h, w), with weights w = |2p − 1|^confidence + 0.001 (1 where
    confidence is 0): in each window, with E(x) = box(w · x) / box(w),

        cov = E(I · p) − E(I) · E(p)          var = E(I · Iᵀ) − E(I) · E(I)ᵀ + epsilon · identity
        a = var⁻¹ · cov                       b = E(p) − a · E(I)

    and a, b are box means of these over the same radius. The 3×3 system is solved by its adjugate, in float64. With
    `wanted`, bool (h, w), that is done for those pixels and their neighbours; elsewhere is anything.
    """
    if wanted is None:
        wanted = np.ones(target.shape, bool)
    coefficients = np.zeros((4, *target.shape), np.float32)
    rows, columns = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
    if rows.size == 0:
        return coefficients
    margin = 2 * radius + 2  # both windows, and the neighbour that bilinear sampling takes
    part = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )
    needed = _dilated(wanted[part], radius + 1)
    fit = _fit(guide[:, *part], target[part], radius, epsilon, confidence, needed)
    coefficients[:, *part] = box_mean(fit.coefficients, radius)
    return coefficients


def _dilated(mask: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Where any pixel within `radius` both ways is set."""
    return np.asarray(box_mean(mask[None].astype(np.float32), radius)[0] > 0)


def apply_model(coefficients: FloatArray, guide: FloatArray) -> FloatArray:
    """clip(a · I + b, 0, 1), float32 (h, w)."""
    q = coefficients[3] + coefficients[0] * guide[0]
    q += coefficients[1] * guide[1]
    q += coefficients[2] * guide[2]
    return np.clip(q, 0, 1, out=q)


def unsure(p: FloatArray) -> FloatArray:
    """u = min(1, 4 · (1 − |2p − 1|)): how far a pixel may move; 0, where it would be under 1/64, the map is sure."""
    u = np.minimum(np.float32(1), 4 * (1 - np.abs(2 * p - 1)))
    u[u < np.float32(1 / 64)] = 0
    return u


def mend_map(guide: FloatArray, cells: FloatArray, settings: Refinement) -> tuple[FloatArray, FloatArray]:
    """The map with its edges where the picture has them, and how far it was to be trusted, 0 to 1: float32 (h, w) each.

    `guide` is the picture, float32 (3, h, w) in [0, 1], and `cells` the map, both on the map's own pixels.

    A matte that was averaged down is, in small windows, still nearly linear in the colours averaged down alike, and no
    longer so when it is blurred; a map whose edges are blurred already, or beside the picture's, fits the colours no
    better than its blurred self. So, with ρ(x) = (Σ variance that the linear model leaves over) / (Σ variance of x)
    over all windows of radius 2, unweighted, with an epsilon of 1e-6,

        κ = ρ(p) / ρ(box mean of p, radius 1)        doubt = 1 − 1 / (1 + (κ² · ρ(p) / ρ₀)³)

    Doubt helps only where the picture knows better, that is where colours tell subject and background apart: with E the
    share of the variance that the guided filter of p in windows of radius `reach` explains,

        trust = 1 − doubt · E⁴

    Then twice t = p + u · (q − p), with q that guided filter of t and

        u = (1 − trust) · v / (v + v₀) · unsure(p)

    where v is the map's variance in the windows above: what is in between over an area is translucent and stays so.
    """
    trust = np.ones_like(cells)
    moves = unsure(cells)
    if settings.reach == 0 or not bool(moves.any()):
        return cells, trust
    around = _dilated(moves > 0, _TRUST_RADIUS + 1)
    sharp = _fit(guide, cells, _TRUST_RADIUS, _TRUST_EPSILON, 0.0, around)
    blurred = _fit(guide, box_mean(cells[None], 1)[0], _TRUST_RADIUS, _TRUST_EPSILON, 0.0, around)
    left_over, when_blurred = _left_over(sharp), _left_over(blurred)
    doubt = 1 - 1 / (1 + (left_over * (left_over / when_blurred) ** 2 / _LEFT_OVER) ** 3)
    around = _dilated(moves > 0, settings.reach + 1)
    wide = _fit(guide, cells, settings.reach, settings.epsilon, settings.confidence, around)
    trust -= np.float32(doubt) * (1 - wide.residual / (wide.variance + np.float32(1e-6))) ** 4
    amount = (1 - trust) * sharp.variance / (sharp.variance + _EDGE_VARIANCE) * moves
    mended = cells + amount * (apply_model(box_mean(wide.coefficients, settings.reach), guide) - cells)
    fitted = guided_coefficients(guide, mended, settings.reach, settings.epsilon, settings.confidence, moves > 0)
    return cells + amount * (apply_model(fitted, guide) - cells), trust


class WorkingGrid:
    """The working grid of a picture, uint8 (H, W, 3), beside a map of `map_shape`: `refine_guided` says what is what.

    `pixels` uint8 (h, w, 3) and `guide` float32 (3, h, w) in [0, 1] are the picture on it, `k` its factor.
    """

    def __init__(self, rgb: ByteArray, map_shape: tuple[int, int], working_side: int) -> None:
        height, width = rgb.shape[:2]
        self.k = k = working_factor(height, width, working_side)
        self.pixels = _reduced(rgb, k)
        self.guide = np.ascontiguousarray(self.pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
        self._shape = h, w = self.pixels.shape[:2]
        self._map_shape = size_y, size_x = map_shape
        self._map_steps = (size_y * k / height, size_x * k / width)
        self._cells = rows, columns = min(size_y, h), min(size_x, w)
        self._cell_steps = (height / (k * rows), width / (k * columns))

    def sample(self, map_: FloatArray) -> FloatArray:
        """A map, float32 (size, size), on the grid, float32 (h, w)."""
        return resize_bilinear(map_, self._shape[0], self._shape[1], self._map_steps)

    def cells_of_map(self, map_: FloatArray) -> FloatArray:
        """A map brought to the cells."""
        if self._cells == self._map_shape:
            return map_
        steps = (self._map_shape[0] / self._cells[0], self._map_shape[1] / self._cells[1])
        return cell_means(map_[None], *self._cells, steps)[0]

    def cells_of_planes(self, planes: FloatArray) -> FloatArray:
        """float32 (C, h, w) on the grid brought to the cells."""
        return cell_means(planes, *self._cells, self._cell_steps)

    def cell_averages(self) -> tuple[DoubleArray, DoubleArray]:
        """`cells_of_planes` as matrices: the cells of a plane X are A · X · Bᵀ, with A (rows, h) and B (columns, w)."""
        (h, w), (rows, columns), (step_y, step_x) = self._shape, self._cells, self._cell_steps
        return _cell_means_columns(np.eye(h), rows, step_y), _cell_means_columns(np.eye(w), columns, step_x)

    def map_of_cells(self, cells: FloatArray) -> FloatArray:
        """Differences on the cells brought to the map's pixels."""
        return resize_bilinear(cells, *self._map_shape)

    def correction(
        self, q: FloatArray, moves: npt.NDArray[np.bool_], mended: FloatArray, trust: FloatArray
    ) -> FloatArray:
        """c of back-projection, float32 of the map's shape, for a matte q, float32 (h, w), that may be moved there."""
        correction = np.zeros(self._map_shape, np.float32)
        for _ in range(2):
            lifted = np.where(moves, np.clip(q + self.sample(correction), 0, 1), q)
            missing = trust * (mended - self.cells_of_planes(lifted[None])[0])
            correction += self.map_of_cells(missing)
        return correction


def unexplained_share(guide: FloatArray, target: FloatArray, radius: int) -> FloatArray:
    """How much of the variance of `target`, float32 (h, w), the colours (3, h, w) leave over nearby: 0 to 1.

    In windows of radius 2 as in `mend_map`, variance and what is left of it averaged over windows of `radius`.
    """
    fit = _fit(guide, target, _TRUST_RADIUS, _TRUST_EPSILON, 0.0, np.ones(target.shape, bool))
    left, variance = box_mean(np.stack((fit.residual, fit.variance)), radius) + np.float32(1e-6)
    return np.asarray(left / variance)


def _left_over(fit: _Fit) -> float:
    return (float(fit.residual.sum()) + 1e-9) / (float(fit.variance.sum()) + 1e-9)


@dataclass(frozen=True)
class Fitted:
    """What `fit_guided` finds: all that `refine_guided` needs at full size, and the matte q + c on the working grid."""

    grid: WorkingGrid
    mended: FloatArray  # m on the cells
    trust: FloatArray  # of the map, 0 to 1, on the cells
    maps: FloatArray  # (2, size, size): m and c on the map's pixels
    coefficients: FloatArray  # (4, h, w)
    matte: FloatArray  # (h, w)


def fit_guided(rgb: ByteArray, saliency: FloatArray, settings: Refinement) -> Fitted:
    """Parts 1 to 3 of `refine_guided`, of uint8 (H, W, 3) pictures and maps, float32 (size, size)."""
    grid = WorkingGrid(rgb, (saliency.shape[0], saliency.shape[1]), settings.working_side)
    cells = grid.cells_of_map(saliency)
    mended, trust = mend_map(grid.cells_of_planes(grid.guide), cells, settings)
    map_ = saliency + grid.map_of_cells(mended - cells)
    p = grid.sample(map_)
    moves = unsure(p)
    coefficients = guided_coefficients(grid.guide, p, settings.radius, settings.epsilon, settings.confidence, moves > 0)
    q = p + moves * (apply_model(coefficients, grid.guide) - p)
    correction = grid.correction(q, moves > 0, mended, trust)
    matte = np.clip(q + np.where(moves > 0, grid.sample(correction), np.float32(0)), 0, 1)
    return Fitted(grid, mended, trust, np.stack((map_, correction)), coefficients, matte)


def refine_guided(rgb: ByteArray, saliency: FloatArray, settings: Refinement) -> Iterator[tuple[slice, FloatArray]]:
    """Steps 2 and 3 in bands: (rows, float32 (rows, W)) of the refined matte of uint8 (H, W, 3) pictures.

    **Cells** are the map's pixels, or the working grid's along an axis where that has fewer; the map, the picture and
    mattes are brought to them by `cell_means`, and differences go back to the map's pixels bilinearly.

    1. On the cells `mend_map` gives the mended map m, and the map's trust.
    2. On the working grid, p is m sampled there, a and b are its `guided_coefficients` with `radius`, and
       q = p + u · (clip(a · I + b, 0, 1) − p) with u = `unsure`(p): where the map is sure its word stands, so nothing
       leaks into flat regions.
    3. Back-projection (Irani & Peleg, 1991): averaged down again, a matte must give the map that it came from. With a
       correction c on the map's pixels, 0 at first, twice c += trust · (m − means over the cells of clip(q + c, 0, 1)),
       where u = 0 without c.
    4. At full size the same with the picture / 255, p and c sampled from the map's pixels and a and b from the working
       grid, all bilinearly: clip(q + c, 0, 1), and p where u = 0.
    """
    return guided_bands(rgb, fit_guided(rgb, saliency, settings))


def guided_bands(rgb: ByteArray, fitted: Fitted) -> Iterator[tuple[slice, FloatArray]]:
    """Part 4 of `refine_guided`."""
    height, width = rgb.shape[:2]
    k = fitted.grid.k
    coefficients = Upsampler(fitted.coefficients, height, width, (1 / k, 1 / k))
    maps = Upsampler(fitted.maps, height, width)
    for band in bands_of(height, width):
        p = maps.rows(band, planes=slice(0, 1))[0]
        moves = unsure(p)
        for tile in _tiles(moves > 0):
            a = coefficients.rows(band, tile)
            q = a[3]
            for channel in range(3):
                q += a[channel] * (rgb[band, tile, channel] * np.float32(1 / 255))
            np.clip(q, 0, 1, out=q)
            q -= p[:, tile]
            q *= moves[:, tile]
            q += maps.rows(band, tile, slice(1, 2))[0] * (moves[:, tile] > 0)
            p[:, tile] += q
            np.clip(p[:, tile], 0, 1, out=p[:, tile])
        yield band, p


# 4. and 5. The matte


def feather(values: FloatArray, pixels: float) -> FloatArray:
    """float32 (H, W), softened: two box means of radius max(1, floor(pixels + 0.5)), in bands."""
    radius = max(1, int(np.floor(pixels + 0.5)))
    height, width = values.shape
    out = np.empty_like(values)
    for band in bands_of(height, width):
        first, last = max(0, band.start - 2 * radius), min(height, band.stop + 2 * radius)
        soft = box_mean(box_mean(values[None, first:last], radius), radius)[0]
        out[band] = soft[band.start - first : band.stop - first]
    return out


def matte(
    rgb: ByteArray, saliency: FloatArray, settings: Refinement = BALANCED, alpha: ByteArray | None = None
) -> ByteArray:
    """Steps 1 to 5: the matte, uint8 (H, W), of a picture, uint8 (H, W, 3), from its map, float32 (size, size).

    `alpha`, uint8 (H, W), is the picture's own. Raises `ConfigError` where `edges` is `matting` and pymatting is not
    installed.
    """
    height, width = rgb.shape[:2]
    saliency = clean(saliency, settings)
    bands: Iterator[tuple[slice, FloatArray]]
    if settings.edges == "guided":
        bands = refine_guided(rgb, saliency, settings)
    elif settings.edges == "matting":
        from .matting import refine_matting

        bands = refine_matting(rgb, saliency, settings)
    else:
        bands = upsample_bands(saliency, height, width)
    if settings.feather > 0:
        soft = np.empty((height, width), np.float32)
        for band, values in bands:
            soft[band] = _hard(values, settings.threshold)
        soft = feather(soft, settings.feather)
        bands = ((band, soft[band]) for band in bands_of(height, width))
    out = np.empty((height, width), np.uint8)
    for band, values in bands:
        if settings.feather <= 0:
            values = _hard(values, settings.threshold)
        if alpha is not None:
            values = values * (alpha[band] * np.float32(1 / 255))
        out[band] = to_alpha(values)
    return out


def _hard(values: FloatArray, threshold: float | None) -> FloatArray:
    return values if threshold is None else (values >= np.float32(threshold)).astype(np.float32)


# 6. Colours


def estimate_foreground(rgb: ByteArray, alpha: ByteArray, working_side: int = COLOUR_SIDE) -> ByteArray:
    """Colours of the subject alone, uint8 (H, W, 3): black where alpha is 0, unchanged where it is 255.

    Blur fusion (Forte & Pitié, "Approximate fast foreground colour estimation", 2021) in four levels, with changes: the
    background is taken from where there is little else, and the subject's colours are what is left of the picture
    without it, so that translucent subjects, which are nowhere unmixed, find their colours, too. On the working grid,
    with I and α in [0, 1], B = I at first; for r in (48, 16, 6, 2):

        B̂ = box((1 − α)⁴ · B) / (box((1 − α)⁴) + 1e-5)
        F̂ = box(α² · F) / (box(α²) + 1e-5)                  with F = clip((I − (1 − α) · B̂) / max(α, 0.1), 0, 1)
        B = clip(B̂ + (1 − α) · e, 0, 1)                     with e = (I − α · F̂ − (1 − α) · B̂) / (α² + (1 − α)²)

    At full size, with F̂ and B̂ of the last level sampled bilinearly, F = clip(F̂ + α · e, 0, 1): F and B are the nearest
    colours that give I. 8 bits are floor(255 · F + 0.5).
    """
    height, width = alpha.shape
    out = rgb * (alpha > 0)[:, :, None]
    soft = (alpha - np.uint8(1)) < 254  # 0 wraps to 255
    if not soft.any():
        return out
    k = working_factor(height, width, working_side)
    colours = np.ascontiguousarray(_reduced(rgb, k).transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    opacity = _reduced(alpha, k).astype(np.float32)[None] / np.float32(255)
    estimates = Upsampler(_fuse(colours, opacity), height, width, (1 / k, 1 / k))
    for band in bands_of(height, width):
        for tile in _tiles(soft[band]):
            both = estimates.rows(band, tile)
            a = alpha[band, tile] * np.float32(1 / 255)
            clear = 1 - a
            share = a / (a * a + clear * clear)
            for channel in range(3):
                front = both[channel]
                rest = rgb[band, tile, channel] * np.float32(1 / 255) - a * front - clear * both[3 + channel]
                np.copyto(out[band, tile, channel], to_alpha(front + share * rest), where=soft[band, tile])
    return out


def _fuse(colours: FloatArray, opacity: FloatArray) -> FloatArray:
    """F̂ and B̂ of the last level, float32 (6, h, w), for colours (3, h, w) and a matte (1, h, w)."""
    clear = 1 - opacity
    share = clear / (opacity * opacity + clear * clear)
    back = colours
    for radius in COLOUR_RADII:
        behind = _average(back, clear**4, radius)
        front = np.clip((colours - clear * behind) / np.maximum(opacity, np.float32(0.1)), 0, 1)
        before = _average(front, opacity**2, radius)
        back = np.clip(behind + share * (colours - opacity * before - clear * behind), 0, 1)
    return np.concatenate((before, behind))


def _average(planes: FloatArray, weight: FloatArray, radius: int) -> FloatArray:
    means = box_mean(np.concatenate((weight * planes, weight)), radius)
    return means[:3] / (means[3] + np.float32(1e-5))

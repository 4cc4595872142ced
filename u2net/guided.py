"""Step 3 of `postprocess`: a map checked against the picture, and brought to full size by a guided filter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .preprocess import resize_bilinear
from .sampling import (
    Upsampler,
    bands_of,
    box_mean,
    box_reduce,
    cell_means,
    cell_means_columns,
    tiles_of,
    working_factor,
)

if TYPE_CHECKING:
    from .postprocess import Refinement

__all__ = [
    "Fitted",
    "WorkingGrid",
    "apply_model",
    "fit_guided",
    "guided_bands",
    "guided_coefficients",
    "mend_map",
    "refine_guided",
    "unexplained_share",
    "unsure",
]

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]

# Chosen on procedural scenes, with exact maps and with those of `small` and `lite`; see docs/runner.md.
_TRUST_RADIUS = 2  # of the windows in which a map is compared with the picture
_TRUST_EPSILON = 1e-6
_LEFT_OVER = 0.04  # ρ₀: exact maps have κ² · ρ of 1e-5 to 0.04, networks' mostly 0.02 to 0.3
_EDGE_VARIANCE = 0.004  # v₀: a soft step from 0 to 1 has some 0.1, the inside of translucent things less than 0.001
_TILE_ROWS = 32


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
        for tile in tiles_of(wanted[rows]):
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


def mend_map(guide: FloatArray, cells: FloatArray, settings: Refinement) -> tuple[FloatArray, FloatArray, float]:
    """The map with its edges where the picture has them, how far it was to be trusted, 0 to 1, float32 (h, w), and κ.

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
        return cells, trust, 0.0
    around = _dilated(moves > 0, _TRUST_RADIUS + 1)
    sharp = _fit(guide, cells, _TRUST_RADIUS, _TRUST_EPSILON, 0.0, around)
    blurred = _fit(guide, box_mean(cells[None], 1)[0], _TRUST_RADIUS, _TRUST_EPSILON, 0.0, around)
    left_over = _left_over(sharp)
    kappa = left_over / _left_over(blurred)
    doubt = 1 - 1 / (1 + (left_over * kappa**2 / _LEFT_OVER) ** 3)
    around = _dilated(moves > 0, settings.reach + 1)
    wide = _fit(guide, cells, settings.reach, settings.epsilon, settings.confidence, around)
    trust -= np.float32(doubt) * (1 - wide.residual / (wide.variance + np.float32(1e-6))) ** 4
    amount = (1 - trust) * sharp.variance / (sharp.variance + _EDGE_VARIANCE) * moves
    mended = cells + amount * (apply_model(box_mean(wide.coefficients, settings.reach), guide) - cells)
    fitted = guided_coefficients(guide, mended, settings.reach, settings.epsilon, settings.confidence, moves > 0)
    return cells + amount * (apply_model(fitted, guide) - cells), trust, kappa


class WorkingGrid:
    """The working grid of a picture, uint8 (H, W, 3), beside a map of `map_shape`: `refine_guided` says what is what.

    `pixels` uint8 (h, w, 3) and `guide` float32 (3, h, w) in [0, 1] are the picture on it, `k` its factor.
    """

    def __init__(self, rgb: ByteArray, map_shape: tuple[int, int], working_side: int) -> None:
        height, width = rgb.shape[:2]
        self.k = k = working_factor(height, width, working_side)
        self.pixels = box_reduce(rgb, k)
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
        return cell_means_columns(np.eye(h), rows, step_y), cell_means_columns(np.eye(w), columns, step_x)

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
    kappa: float  # κ of `mend_map`: under 1 the colours fit the map better than its blurred self; 0 where all is sure
    maps: FloatArray  # (2, size, size): m and c on the map's pixels
    coefficients: FloatArray  # (4, h, w)
    matte: FloatArray  # (h, w)


def fit_guided(rgb: ByteArray, saliency: FloatArray, settings: Refinement) -> Fitted:
    """Parts 1 to 3 of `refine_guided`, of uint8 (H, W, 3) pictures and maps, float32 (size, size)."""
    grid = WorkingGrid(rgb, (saliency.shape[0], saliency.shape[1]), settings.working_side)
    cells = grid.cells_of_map(saliency)
    mended, trust, kappa = mend_map(grid.cells_of_planes(grid.guide), cells, settings)
    map_ = saliency + grid.map_of_cells(mended - cells)
    p = grid.sample(map_)
    moves = unsure(p)
    coefficients = guided_coefficients(grid.guide, p, settings.radius, settings.epsilon, settings.confidence, moves > 0)
    q = p + moves * (apply_model(coefficients, grid.guide) - p)
    correction = grid.correction(q, moves > 0, mended, trust)
    matte = np.clip(q + np.where(moves > 0, grid.sample(correction), np.float32(0)), 0, 1)
    return Fitted(grid, mended, trust, kappa, np.stack((map_, correction)), coefficients, matte)


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
        for tile in tiles_of(moves > 0):
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

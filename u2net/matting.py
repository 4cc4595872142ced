"""Edges of the highest quality: closed-form matting, which needs the `matting` extra (pymatting).

Levin, Lischinski & Weiss, "A Closed Form Solution to Natural Image Matting" (2008): of all mattes, the one whose local
colour model fits best. Notable choices:

- The trimap is the mended map of `postprocess`, eroded: a pixel is known where everything within `MARGIN` of the
  map's pixels is surely subject or surely background. Elsewhere the matte of the guided filter is a prior, weak or,
  where the map is trusted, stronger than the colours, so that translucent subjects, which no trimap can know, keep
  their opacity.
- The system is solved on the working grid of `postprocess` (here with `MATTING_SIDE`), only around unknown pixels. As
  there, back-projection takes care that the matte, averaged down again, gives a trusted map. The solution is brought
  to full size by one pass of the guided filter, whose coefficients are the same local colour model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .postprocess import (
    Fitted,
    Refinement,
    Upsampler,
    apply_model,
    bands_of,
    box_mean,
    fit_guided,
    guided_coefficients,
)

__all__ = ["MATTING_SIDE", "refine_matting", "solve_matte"]

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

MATTING_SIDE = 800  # about the longest side of the working grid: a few seconds and 300 MB of work
SURE = 0.05  # a pixel is surely background under this, surely subject over 1 − this
MARGIN = 1  # pixels of the map by which sure regions shrink: networks are surest where hair begins
KNOWN_WEIGHT = 100.0  # of known pixels, as is usual for closed-form matting
PRIOR_WEIGHT = (0.1, 30.0)  # of the prior elsewhere, for trust 0 and 1; the Laplacian's own weights are near 1


def refine_matting(rgb: ByteArray, saliency: FloatArray, settings: Refinement) -> Iterator[tuple[slice, FloatArray]]:
    """Steps 2 and 3 of `postprocess` in bands: (rows, float32 (rows, W)) for a picture, uint8 (H, W, 3).

    Raises `ConfigError` where pymatting is not installed.
    """
    height, width = rgb.shape[:2]
    fitted = fit_guided(rgb, saliency, replace(settings, working_side=MATTING_SIDE))
    grid, k = fitted.grid, fitted.grid.k
    solved = solve_matte(fitted)
    q = solved
    local = np.empty((0, *solved.shape), np.float32)
    if k > 1:
        local = guided_coefficients(grid.guide, solved, 2, settings.epsilon, 0.0, _unsure(solved) > 0)
        q = solved + _unsure(solved) * (apply_model(local, grid.guide) - solved)
    correction = grid.correction(q, _unsure(solved) > 0, fitted.mended, fitted.trust)
    mattes = Upsampler(np.concatenate((solved[None], local)), height, width, (1 / k, 1 / k))
    corrections = Upsampler(correction[None], height, width)
    for band in bands_of(height, width):
        p = mattes.rows(band, planes=slice(0, 1))[0]
        moves = _unsure(p)
        if k > 1:
            guide = rgb[band].transpose(2, 0, 1) * np.float32(1 / 255)
            p += moves * (apply_model(mattes.rows(band, planes=slice(1, 5)), guide) - p)
        p += np.where(moves > 0, corrections.rows(band)[0], np.float32(0))
        yield band, np.clip(p, 0, 1, out=p)


def _unsure(p: FloatArray) -> FloatArray:
    """As `postprocess.unsure`, for a matte that is already what it should be: flat regions stay exactly 0 and 1."""
    return np.minimum(np.float32(1), 8 * (1 - np.abs(2 * p - 1)))


def solve_matte(fitted: Fitted) -> FloatArray:
    """The closed-form matte, float32 (h, w) in [0, 1], on the working grid of a fit of the guided filter."""
    try:
        import pymatting  # noqa: F401
    except ImportError:
        raise ConfigError("the preset 'best' needs pymatting: pip install 'u2net-remover[matting]'") from None
    p = fitted.grid.sample(fitted.maps[0])
    flags = np.stack((p > 1 - SURE, p < SURE)).astype(np.float32)
    margin = max(1, round(MARGIN * float(np.sqrt(p.size / fitted.maps[0].size))))
    known: npt.NDArray[np.bool_] = np.any(box_mean(flags, margin) > 0.999, axis=0)
    solved = np.array(fitted.matte)
    rows, columns = np.flatnonzero((~known).any(axis=1)), np.flatnonzero((~known).any(axis=0))
    if rows.size == 0:  # nothing to find out
        return solved
    part = (
        slice(max(0, int(rows[0]) - 2), int(rows[-1]) + 3),
        slice(max(0, int(columns[0]) - 2), int(columns[-1]) + 3),
    )
    if min(solved[part].shape) < 3:  # no room for the 3×3 windows
        return solved
    trust = fitted.grid.sample(fitted.grid.map_of_cells(fitted.trust))[part].astype(np.float64)
    free = PRIOR_WEIGHT[0] * (PRIOR_WEIGHT[1] / PRIOR_WEIGHT[0]) ** trust
    weights = np.where(known[part], KNOWN_WEIGHT, free)
    with redirect_stdout(sys.stderr):  # pymatting prints advice, and standard output may carry a picture
        refined = _solve(fitted.grid.pixels[part] / 255.0, solved[part].astype(np.float64), weights)
    solved[part] = np.where(known[part], solved[part], refined)
    return solved


def _solve(
    picture: npt.NDArray[np.float64], prior: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> FloatArray:
    import scipy.sparse
    import scipy.sparse.linalg
    from pymatting import cf_laplacian, cg, ichol

    laplacian = cf_laplacian(picture, epsilon=1e-7, radius=1)
    system = (laplacian + scipy.sparse.diags(weights.ravel())).tocsc()
    right = (weights * prior).ravel()
    try:
        preconditioner = ichol(system, discard_threshold=1e-3)
        matte = cg(system, right, M=preconditioner, rtol=1e-5, maxiter=1000)
    except ValueError:  # a picture of flat colours defeats the incomplete factorisation, a plain solver copes
        matte = scipy.sparse.linalg.spsolve(system, right)
    return np.clip(np.nan_to_num(matte), 0, 1).reshape(prior.shape).astype(np.float32)

"""Edges of the highest quality: closed-form matting, which needs the `matting` extra (pymatting).

Levin, Lischinski & Weiss, "A Closed Form Solution to Natural Image Matting" (2008): of all mattes, the one whose local
colour model fits best. Notable choices:

- The trimap is the network's map, eroded: a pixel is known where everything within `MARGIN` pixels is surely subject or
  surely background. Elsewhere the matte of the guided filter is a weak prior, so that translucent subjects, which no
  trimap can know, keep their opacity.
- The system is solved on the working grid of `postprocess` (here with `MATTING_SIDE`), only around unknown pixels; its
  solution is brought to full size by one pass of the guided filter, whose coefficients are the same local colour model.
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
    Refinement,
    _bands,
    _reduced,
    _Upsampler,
    box_mean,
    guided_coefficients,
    refine_guided,
    working_factor,
)
from .preprocess import resize_bilinear

__all__ = ["MATTING_SIDE", "refine_matting", "solve_matte"]

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

MATTING_SIDE = 800  # longest side of the working grid: a few seconds and 300 MB of work
SURE = 0.05  # a pixel is surely background under this, surely subject over 1 − this
MARGIN = 2  # pixels of the working grid by which sure regions shrink: networks are surest where hair begins
KNOWN_WEIGHT = 100.0  # of known pixels, as is usual for closed-form matting
PRIOR_WEIGHT = 0.1  # of that prior, p, elsewhere; the Laplacian's own weights are near 1


def refine_matting(rgb: ByteArray, saliency: FloatArray, settings: Refinement) -> Iterator[tuple[slice, FloatArray]]:
    """Steps 2 and 3 of `postprocess` in bands: (rows, float32 (rows, W)) for a picture, uint8 (H, W, 3).

    Raises `ConfigError` where pymatting is not installed.
    """
    height, width = rgb.shape[:2]
    size_y, size_x = saliency.shape
    k = working_factor(height, width, MATTING_SIDE)
    reduced = _reduced(rgb, k)
    h, w = reduced.shape[:2]
    prior = resize_bilinear(saliency, h, w, (size_y * k / height, size_x * k / width))
    solved = solve_matte(reduced, prior, settings)
    if k == 1:
        for band in _bands(height, width):
            yield band, solved[band]
        return
    guide = np.ascontiguousarray(reduced.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    local = replace(settings, radius=2, confidence=0.0)
    coefficients = _Upsampler(guided_coefficients(guide, solved, local), height, width, (1 / k, 1 / k))
    mattes = _Upsampler(solved[None], height, width, (1 / k, 1 / k))
    for band in _bands(height, width):
        a = coefficients.rows(band)
        p = mattes.rows(band)[0]
        q = a[3]
        for channel in range(3):
            q += a[channel] * (rgb[band, :, channel] * np.float32(1 / 255))
        np.clip(q, 0, 1, out=q)
        unsure = np.minimum(np.float32(1), 8 * (1 - np.abs(2 * p - 1)))  # flat regions stay exactly 0 and 1
        yield band, p + unsure * (q - p)


def solve_matte(rgb: ByteArray, prior: FloatArray, settings: Refinement) -> FloatArray:
    """The closed-form matte, float32 (h, w) in [0, 1], of uint8 (h, w, 3) given the map at the same size."""
    try:
        import pymatting  # noqa: F401
    except ImportError:
        raise ConfigError("the preset 'best' needs pymatting: pip install 'u2net-remover[matting]'") from None
    flags = np.stack((prior > 1 - SURE, prior < SURE)).astype(np.float32)
    start = np.concatenate([values for _, values in refine_guided(rgb, prior, settings)])
    known: npt.NDArray[np.bool_] = np.any(box_mean(flags, MARGIN) > 0.999, axis=0)
    solved = np.array(prior)
    rows, columns = np.flatnonzero((~known).any(axis=1)), np.flatnonzero((~known).any(axis=0))
    if rows.size == 0 or min(prior.shape) < 3:  # nothing to find out, or no room for the 3×3 windows
        return solved
    part = (
        slice(max(0, int(rows[0]) - 2), int(rows[-1]) + 3),
        slice(max(0, int(columns[0]) - 2), int(columns[-1]) + 3),
    )
    p, sure = start[part].astype(np.float64), known[part]
    if min(p.shape) < 3:
        return solved
    with redirect_stdout(sys.stderr):  # pymatting prints advice, and standard output may carry a picture
        refined = _solve(rgb[part] / 255.0, p, sure)
    solved[part] = np.where(sure, solved[part], refined)
    return solved


def _solve(picture: npt.NDArray[np.float64], p: npt.NDArray[np.float64], sure: npt.NDArray[np.bool_]) -> FloatArray:
    import scipy.sparse.linalg
    from pymatting import cf_laplacian, cg, ichol

    laplacian = cf_laplacian(picture, epsilon=1e-7, radius=1)
    weights = np.where(sure, KNOWN_WEIGHT, PRIOR_WEIGHT).ravel()
    system = (laplacian + scipy.sparse.diags(weights)).tocsc()
    try:
        preconditioner = ichol(system, discard_threshold=1e-3)
        matte = cg(system, weights * p.ravel(), M=preconditioner, rtol=1e-5, maxiter=1000)
    except ValueError:  # a picture of flat colours defeats the incomplete factorisation, a plain solver copes
        matte = scipy.sparse.linalg.spsolve(system, weights * p.ravel())
    return np.clip(np.nan_to_num(matte), 0, 1).reshape(p.shape).astype(np.float32)

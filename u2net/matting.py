"""Edges of the highest quality: closed-form matting, which needs the `matting` extra (pymatting).

Levin, Lischinski & Weiss, "A Closed Form Solution to Natural Image Matting" (2008): of all mattes, the one whose local
colour model fits best. Notable choices:

- The trimap is the mended map of `postprocess`, eroded: a pixel is known where everything within `MARGIN` of the
  map's pixels, `DOUBTED_MARGIN` where the map is doubted, is surely subject or surely background. Only the others
  are solved for.
- What the network says is asked for at the resolution at which it says it: the matte's means over the map's pixels are
  to be the map, as far as that is not doubted. So translucent subjects, which no trimap can know, keep their opacity.
- The matte of the guided filter is a prior, the stronger the less of the map its colours explain nearby: where subject
  and background are textured alike no local model of colour is right, and the large windows of the guided filter are.
- Where the map is doubted (blurred, and colours tell more than it does) it only serves as a trimap: the prior and the
  means hardly count, and the haze that closed-form matting leaves around what it found is taken off.
- The system is solved on the working grid of `sampling` (here with `MATTING_SIDE`, coarser where much is unknown). What
  the solution changes there is added to the guided filter's matte at full size.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .guided import Fitted, fit_guided, guided_bands, unexplained_share, unsure
from .sampling import Upsampler, box_mean, working_factor

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix, csr_matrix

    from .postprocess import Refinement

__all__ = ["MATTING_SIDE", "MOST_UNKNOWN", "matting_side", "prepare_matting", "refine_matting", "solve_matte"]

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

MATTING_SIDE = 1280  # about the longest side of the working grid: a few seconds of work
MOST_UNKNOWN = 200_000  # about as many pixels are solved for, at 2 kB each: where more are unknown the grid is coarser
SURE = 0.05  # a pixel is surely background under this, surely subject over 1 − this
MARGIN = 1  # pixels of the map by which sure regions shrink: networks are surest where hair begins
DOUBTED_MARGIN = 3  # the same where doubt is over a half: as far as networks' edges are off, fur and all
BLURRED = 0.85  # κ of `mend_map` over which a map is doubted: exact ones have up to 0.82, networks' mostly 0.9 to 1.3
# How these and those above were chosen is in docs/runner.md. The Laplacian's own weights are near 1.
MAP_WEIGHT = 30.0  # of the matte's means over a trusted map's pixels
PRIOR_WEIGHT = (0.05, 100.0)  # of the prior: least and most
DOUBTED_WEIGHT = 1e-4  # the same where all is doubted
HAZE = 0.05  # where all is doubted this becomes 0, and 1 − this becomes 1
UNEXPLAINED = 0.005  # where colours leave this share of the map's variance unexplained the prior's weight is 1
EPSILON = 1e-5  # of the Laplacian: variance of colour (of 1) below which a window counts as flat, as grain is
_NEAR_RADIUS = 3  # in the map's pixels: over what "nearby" is averaged
_PATIENCE_S = 5.0  # loading without compiling takes two, on a busy machine more: nobody needs to hear of that
_STRIP_ROWS = 128  # of the Laplacian, which takes 400 bytes a pixel while it is built


def refine_matting(rgb: ByteArray, saliency: FloatArray, settings: Refinement) -> Iterator[tuple[slice, FloatArray]]:
    """Steps 2 and 3 of `postprocess` in bands: (rows, float32 (rows, W)) for a picture, uint8 (H, W, 3).

    Raises `ConfigError` where pymatting is not installed.
    """
    height, width = rgb.shape[:2]
    fitted = fit_guided(rgb, saliency, replace(settings, working_side=matting_side(saliency, height, width)))
    k = fitted.grid.k
    change = Upsampler((solve_matte(fitted) - fitted.matte)[None], height, width, (1 / k, 1 / k))
    for band, guided in guided_bands(rgb, fitted):
        guided += change.rows(band)[0]
        yield band, np.clip(guided, 0, 1, out=guided)


def matting_side(saliency: FloatArray, height: int, width: int) -> int:
    """The `working_side` for a map, float32 (size, size), of a picture of `height` × `width` pixels."""
    unknown = float(_unknown(saliency, DOUBTED_MARGIN).mean()) * height * width
    k = working_factor(height, width, MATTING_SIDE)
    if unknown <= MOST_UNKNOWN * k**2:
        return MATTING_SIDE
    while unknown > MOST_UNKNOWN * k**2:
        k += 1
    return max(height, width) // k


def _unknown(p: FloatArray, margin: int) -> npt.NDArray[np.bool_]:
    """Where anything within `margin` pixels both ways is neither surely subject nor surely background."""
    flags = np.stack((p > 1 - SURE, p < SURE)).astype(np.float32)
    return ~np.any(box_mean(flags, margin) > 0.999, axis=0)


def solve_matte(fitted: Fitted) -> FloatArray:
    """The closed-form matte, float32 (h, w) in [0, 1], on the working grid of a fit of the guided filter.

    Of the unknown pixels, with α₀ the guided filter's matte, L the matting Laplacian, D the means over the map's pixels
    (cells), m the mended map, n the pixels of the grid to one of the map, and trust and κ those of `mend_map`: the
    minimum of

        αᵀ L α + w · |α − α₀|² + λ · n · (1 − d)⁸ · |D α − m|²

        w = clip((ρ / ρ₀)², 0.05, 100)^(1 − d) · 0.0001^d        d = (1 − trust) / (1 + (0.85 / κ)³²)

    where ρ is the share of m's variance that the linear models of windows of radius 2 on the cells leave over, both
    averaged over windows of radius 3. Back-projection as in `postprocess`, with (1 − d)⁸ as trust, does the rest. Then,
    with h = 0.05 · d, what is under h becomes 0 and what is over 1 − h becomes 1, linear between.
    """
    _pymatting()
    from scipy import sparse

    grid = fitted.grid
    solved = np.array(fitted.matte, order="C")
    p = grid.sample(fitted.maps[0])
    blurred = 1 / (1 + (BLURRED / max(fitted.kappa, 0.1)) ** 32)
    doubt_of_cells = (1 - fitted.trust) * blurred
    doubt = grid.sample(grid.map_of_cells(doubt_of_cells))
    scale = float(np.sqrt(p.size / fitted.maps[0].size))
    margin, doubted_margin = (max(1, round(margin * scale)) for margin in (MARGIN, DOUBTED_MARGIN))
    unknown = _unknown(p, margin) | (_unknown(p, doubted_margin) & (doubt > 0.5))
    free = np.flatnonzero(unknown)
    if free.size == 0 or min(p.shape) < 3:  # nothing to find out, or no room for the 3×3 windows
        return solved
    before = solved.reshape(-1).astype(np.float64)
    unexplained = unexplained_share(grid.cells_of_planes(grid.guide), fitted.mended, _NEAR_RADIUS)
    weight = np.clip((unexplained / np.float32(UNEXPLAINED)) ** 2, *PRIOR_WEIGHT)
    weight = weight ** (1 - doubt_of_cells) * np.float32(DOUBTED_WEIGHT) ** doubt_of_cells
    prior_weight = grid.sample(grid.map_of_cells(weight)).reshape(-1)[free].astype(np.float64)
    means = sparse.csr_matrix(sparse.kron(*grid.cell_averages(), format="csr"))
    trust = (1 - doubt_of_cells) ** 8  # nearly nothing where most is doubt
    map_weight = (MAP_WEIGHT * p.size / trust.size) * trust.reshape(-1).astype(np.float64)
    missing = map_weight * (fitted.mended.reshape(-1) - means @ before)
    means = means[:, free]
    with redirect_stdout(sys.stderr):  # pymatting prints advice, and standard output may carry a picture
        laplacian = _laplacian_rows(grid.pixels, unknown)
        right = means.T @ missing - laplacian @ before
        system = laplacian[:, free] + sparse.diags(prior_weight) + means.T @ sparse.diags(map_weight) @ means
        del laplacian, means  # the system has what is needed of them
        change = _solve(system.tocsc(), right)
    solved.reshape(-1)[free] = np.clip(before[free] + np.nan_to_num(change), 0, 1)
    moves = unknown & (unsure(solved) > 0)
    correction = grid.sample(grid.correction(solved, moves, fitted.mended, trust))
    solved = np.where(moves, solved + correction, solved)
    return np.clip((solved - HAZE * doubt) / (1 - 2 * HAZE * doubt), 0, 1)


@dataclass(frozen=True)
class _Pymatting:
    """The three of pymatting's functions that are used."""

    cf_laplacian: Callable[..., csr_matrix]
    ichol: Callable[..., Any]
    cg: Callable[..., npt.NDArray[np.float64]]


@cache
def _pymatting() -> _Pymatting:
    """pymatting's functions, compiled by numba where they are not in its cache (about 10 s of processor time).

    Their modules are loaded one by one: importing the package would compile all of its functions, seven times as long.
    numba keeps what it compiles beside the source, or in the user's cache, or in NUMBA_CACHE_DIR. Where it can write
    to none it refuses to compile at all; then it is kept for this process alone, in a folder that nobody else can
    write: what lies in a cache is run. Raises `ConfigError` where pymatting is not installed.
    """
    package = find_spec("pymatting")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("the preset 'best' needs pymatting: pip install 'u2net-remover[matting]'")
    try:
        return _load(Path(package.submodule_search_locations[0]))
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        import numba

        folder = tempfile.mkdtemp(prefix="u2net-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
        return _load(Path(package.submodule_search_locations[0]))


def _load(package: Path) -> _Pymatting:
    functions = {}
    for name in ("laplacian.cf_laplacian", "preconditioner.ichol", "solver.cg"):
        full = f"pymatting.{name}"
        if full not in sys.modules:
            spec = spec_from_file_location(full, package.joinpath(*name.split(".")).with_suffix(".py"))
            assert spec is not None and spec.loader is not None
            sys.modules[full] = module_from_spec(spec)  # numba looks for it there
            try:
                spec.loader.exec_module(sys.modules[full])
            except BaseException:
                del sys.modules[full]
                raise
        function = name.rpartition(".")[2]
        functions[function] = getattr(sys.modules[full], function)
    return _Pymatting(**functions)


def prepare_matting(tell: Callable[[str], object]) -> None:
    """Load what the preset `best` needs, before there is a picture. `tell` hears of it where it takes a while.

    Raises `ConfigError` where it is not installed.
    """
    what = "compiling what the preset 'best' needs, some ten seconds; it is kept where there is a place to write"
    timer = threading.Timer(_PATIENCE_S, tell, [what])
    timer.daemon = True
    timer.start()
    try:
        _pymatting()
    finally:
        timer.cancel()


def _laplacian_rows(pixels: ByteArray, unknown: npt.NDArray[np.bool_]) -> csr_matrix:
    """The rows of the matting Laplacian, sparse (n, h · w), for the n unknown pixels, in strips."""
    from scipy import sparse

    height, width = unknown.shape
    row_of = np.cumsum(unknown.reshape(-1)) - 1
    count = int(row_of[-1]) + 1
    total = sparse.csr_matrix((count, height * width))
    for top in range(1, height - 1, _STRIP_ROWS):  # of the windows' centres
        strip = slice(top - 1, min(top + _STRIP_ROWS, height - 1) + 1)
        if not unknown[strip].any():
            continue
        known = ~unknown[strip]
        part = _pymatting().cf_laplacian(pixels[strip] / 255.0, 9 * EPSILON, radius=1, is_known=known).tocoo()
        kept = (part.data != 0) & unknown[strip].reshape(-1)[part.row]
        first = (top - 1) * width
        entries = part.data[kept], (row_of[part.row[kept] + first], part.col[kept] + first)
        total = total + sparse.csr_matrix(entries, total.shape)
    return total


def _solve(system: csc_matrix, right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy.sparse import linalg

    try:
        factor = _pymatting().ichol(system, discard_threshold=1e-3)
        solution = _pymatting().cg(system, right, M=factor, rtol=1e-4, maxiter=1000)
    except ValueError:  # a picture of flat colours may defeat the incomplete factorisation, a plain solver copes
        solution = linalg.spsolve(system, right)
    return np.asarray(solution)

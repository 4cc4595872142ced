"""From the network's map to a matte and clean colours at the picture's full resolution.

This is the specification that every runner follows, step by step, in this order (`matte`). Before it come one look of
the network, or those of `second_look`, whose map may be finer than the network's and not square.

1. `clean` (`components`) at the map's resolution: keep the largest subject, drop small ones, fill holes.
2. `upsample_bands`: bilinear, half-pixel centres (`preprocess`, the way back).
3. Edges: `guided.refine_guided` (or `matting.refine_matting`), which moves only pixels the network is unsure of.
4. Threshold, then feather.
5. An alpha channel that the picture already had multiplies the matte; 8 bits are floor(255 · v + 0.5).
6. `foreground.estimate_foreground`: colours without the background's share.

Grids and box means are those of `sampling`. All arithmetic is float32 unless said otherwise. Runners agree to 1/255.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_doc import Doc

from .components import fill_holes, keep_components
from .errors import ConfigError
from .guided import refine_guided
from .sampling import Upsampler, bands_of, box_mean, to_alpha

__all__ = [
    "BALANCED",
    "BEST",
    "FAST",
    "PRESETS",
    "Refinement",
    "clean",
    "feather",
    "matte",
    "upsample_bands",
    "upsample_map",
]

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Refinement:
    """Which steps are taken, and how. The presets are `FAST`, `BALANCED` and `BEST`."""

    second_look: Annotated[bool, Doc("look again, closer, at what was found")] = True  # the most that time buys
    keep_largest: Annotated[bool, Doc("only the largest connected subject")] = (
        False  # several subjects are common: only on request
    )
    min_area: Annotated[float, Doc("drop subjects under this fraction of the picture")] = 0.0  # 0 keeps all
    fill_holes: Annotated[float, Doc("fill holes up to this fraction of the picture")] = 0.0  # 0: mugs have handles
    edges: Annotated[Literal["none", "guided", "matting"], Doc("how edges are refined at full size")] = (
        "guided"  # follows the picture at full resolution
    )
    working_side: int = 640  # about the longest side of the working grid: twice the network's, and 0.1 s of work
    radius: Annotated[int, Doc("of the guided filter, in its working pixels")] = 3  # small ones hold two colours
    reach: Annotated[int, Doc("how far edges may move, in pixels of the network's map")] = 8  # 0 leaves the map alone
    epsilon: Annotated[float, Doc("of the guided filter: smaller follows colours closer")] = 1e-5  # variance
    confidence: float = 1.0  # power of |2p − 1| that weighs a pixel in the fit: sure pixels decide; 0 weighs all alike
    threshold: Annotated[float | None, Doc("make the matte hard at this value, 0 to 1")] = None  # soft
    feather: Annotated[float, Doc("soften the matte by this many pixels")] = 0.0  # the edge as it was found
    colours: Annotated[Literal["keep", "estimate"], Doc("estimate removes the background's colour from soft edges")] = (
        "estimate"  # the old background shows in hair otherwise
    )

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


FAST = Refinement(second_look=False, edges="none", colours="keep")
BALANCED = Refinement()
BEST = Refinement(edges="matting")
PRESETS: dict[str, Refinement] = {"fast": FAST, "balanced": BALANCED, "best": BEST}


def clean(saliency: FloatArray, settings: Refinement) -> FloatArray:
    """Step 1: `keep_components`, then `fill_holes`, where the settings ask. float32 (h, w) to the same."""
    if settings.keep_largest or settings.min_area > 0:
        saliency = keep_components(saliency, largest=settings.keep_largest, min_area=settings.min_area)
    if settings.fill_holes > 0:
        saliency = fill_holes(saliency, settings.fill_holes)
    return saliency


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
    """Steps 1 to 5: the matte, uint8 (H, W), of a picture, uint8 (H, W, 3), from its map, float32 (h, w).

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

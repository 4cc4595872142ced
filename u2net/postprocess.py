"""From the network's map to a matte and clean colours at the picture's full resolution.

This is the specification that every runner follows, step by step, in this order (`matte`):

1. `clean` at the network's resolution: keep the largest subject, drop small ones, fill holes.
2. `upsample_bands`: bilinear, half-pixel centres (`preprocess`, the way back).
3. Edges: `refine_guided` (or `matting.refine_matting`), which moves only pixels the network is unsure of.
4. Threshold, then feather.
5. An alpha channel that the picture already had multiplies the matte; 8 bits are floor(255 · v + 0.5).
6. `estimate_foreground`: colours without the background's share.

All arithmetic is float32 unless said otherwise; box means and the fit of step 3 are float64 and are rounded to float32
where they are done. Runners agree to 1/255.

**Working grid** of steps 3 and 6: k = ceil(max(H, W) / `working_side`); the picture is box-reduced by k as in step 1 of
`preprocess` (h = ceil(H / k), w = ceil(W / k), means rounded half up); working pixel (x, y) covers picture pixels from
(k·x, k·y) on, and what is sampled at picture pixel (X, Y) is taken bilinearly at ((X + 0.5) / k − 0.5,
(Y + 0.5) / k − 0.5), clamped.

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
from .preprocess import _taps, resize_bilinear

__all__ = [
    "BALANCED",
    "BEST",
    "FAST",
    "PRESETS",
    "Refinement",
    "box_mean",
    "clean",
    "connected_components",
    "estimate_foreground",
    "feather",
    "fill_holes",
    "guided_coefficients",
    "keep_components",
    "matte",
    "to_alpha",
    "upsample_bands",
    "upsample_map",
]

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int32]

SUPPORT = 0.1  # a subject's connected component is where the map is at least this: soft skirts belong to it
_BAND_PIXELS = 1 << 19  # working memory of one band: a dozen float32 copies of it


@dataclass(frozen=True)
class Refinement:
    """Which steps are taken, and how. The presets are `FAST`, `BALANCED` and `BEST`."""

    keep_largest: bool = False  # several subjects are common: only on request
    min_area: float = 0.0  # fraction of the picture under which a subject is dropped; 0 keeps all
    fill_holes: float = 0.0  # fraction of the picture up to which a hole is filled; 0 fills none: mugs have handles
    edges: Literal["none", "guided", "matting"] = "guided"  # refinement at full resolution
    working_side: int = 640  # longest side of the working grid: twice the network's, and 0.1 s of work
    radius: int = 3  # of the guided filter, in working pixels: small windows hold two colours, as matting assumes
    passes: int = 2  # of the guided filter: the second reaches further without larger windows
    epsilon: float = 1e-6  # of the guided filter: variance of colour (of 1) below which a region counts as flat
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
        if not 1 <= self.passes <= 8:
            raise ConfigError(f"passes must be 1 to 8, got {self.passes}")
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


class _Upsampler:
    """Bilinear resize of planes (C, h, w) to rows of (C, H, W), as they are asked for."""

    def __init__(self, planes: FloatArray, height: int, width: int, steps: tuple[float, float] | None = None) -> None:
        _, source_height, source_width = planes.shape
        step_y, step_x = steps if steps is not None else (source_height / height, source_width / width)
        self.planes = planes
        self.left, self.right, self.wx = _taps(source_width, width, step_x)
        self.top, self.bottom, self.wy = _taps(source_height, height, step_y)

    def rows(self, band: slice, columns: slice = slice(None)) -> FloatArray:
        """float32 (C, rows of `band`, columns)."""
        top, bottom = self.top[band], self.bottom[band]
        first, last = int(top[0]), int(bottom[-1]) + 1
        source = self.planes[:, first:last]
        lines = source[:, :, self.left[columns]]
        lines += (source[:, :, self.right[columns]] - lines) * self.wx[columns]
        upper = lines[:, top - first]
        lower = lines[:, bottom - first]
        lower -= upper
        lower *= self.wy[band, None]
        upper += lower
        return upper


def _bands(height: int, width: int) -> Iterator[slice]:
    rows = max(1, _BAND_PIXELS // width)
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def upsample_bands(saliency: FloatArray, height: int, width: int) -> Iterator[tuple[slice, FloatArray]]:
    """Step 2 in bands of rows, in bounded memory: (rows, float32 (rows, width)) from top to bottom.

    Identical to `preprocess.resize_bilinear(saliency, height, width)`.
    """
    upsampler = _Upsampler(saliency[None], height, width)
    for band in _bands(height, width):
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


def box_mean(planes: FloatArray | DoubleArray, radius: int) -> DoubleArray:
    """Box mean of (C, h, w), float64, windows cut at the borders. O(1) a pixel, by running sums along either axis."""
    out = np.empty(planes.shape)
    for index, plane in enumerate(planes):  # one plane at a time stays in the processor's cache
        out[index] = _box_mean_columns(_box_mean_columns(plane, radius).T, radius).T
    return out


def _box_mean_columns(plane: npt.NDArray[np.floating], radius: int) -> DoubleArray:
    length = plane.shape[0]
    sums = np.zeros((length + 1, plane.shape[1]))
    np.cumsum(plane, axis=0, out=sums[1:], dtype=np.float64)
    at = np.arange(length)
    high, low = np.minimum(at + radius + 1, length), np.maximum(at - radius, 0)
    means = sums[high]
    means -= sums[low]
    means /= (high - low)[:, None]
    return means


def working_factor(height: int, width: int, working_side: int) -> int:
    """k of the working grid."""
    return -(-max(height, width) // working_side)


def _reduced(pixels: ByteArray, k: int) -> ByteArray:
    return pixels if k == 1 else np.asarray(Image.fromarray(pixels).reduce(k))


def guided_coefficients(guide: FloatArray, target: FloatArray, settings: Refinement) -> FloatArray:
    """Local linear model of the matte in the colours: float32 (4, h, w), three slopes and the offset.

    The guided filter (He, Sun & Tang, 2010; fast form: He & Sun, arXiv 1505.00996) for a colour guide, float32
    (3, h, w) in [0, 1], and `target` p, float32 (h, w), with weights w = |2p − 1|^confidence + 0.001: in each window,
    with E(x) = box(w · x) / box(w),

        cov = E(I · p) − E(I) · E(p)          var = E(I · Iᵀ) − E(I) · E(I)ᵀ + epsilon · identity
        a = var⁻¹ · cov                       b = E(p) − a · E(I)

    and a, b are box means of these over the same radius. The 3×3 system is solved by its adjugate.
    """
    r = settings.radius
    target = target.astype(np.float64)
    weight = np.abs(2 * target - 1) ** settings.confidence + 1e-3
    red, green, blue = guide.astype(np.float64)
    planes = np.stack(
        (
            np.ones_like(target),
            target,
            red,
            green,
            blue,
            red * target,
            green * target,
            blue * target,
            red * red,
            red * green,
            red * blue,
            green * green,
            green * blue,
            blue * blue,
        )
    )
    planes *= weight
    mean = box_mean(planes, r)
    mean[1:] /= mean[0]
    p, (mr, mg, mb) = mean[1], mean[2:5]
    cr, cg, cb = mean[5] - mr * p, mean[6] - mg * p, mean[7] - mb * p
    epsilon = settings.epsilon
    rr, rg, rb = mean[8] - mr * mr + epsilon, mean[9] - mr * mg, mean[10] - mr * mb
    gg, gb, bb = mean[11] - mg * mg + epsilon, mean[12] - mg * mb, mean[13] - mb * mb + epsilon
    # The adjugate of the symmetric matrix.
    irr, irg, irb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    igg, igb, ibb = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    determinant = rr * irr + rg * irg + rb * irb
    coefficients = np.empty((4, *target.shape))
    coefficients[0] = (irr * cr + irg * cg + irb * cb) / determinant
    coefficients[1] = (irg * cr + igg * cg + igb * cb) / determinant
    coefficients[2] = (irb * cr + igb * cg + ibb * cb) / determinant
    coefficients[3] = p - coefficients[0] * mr - coefficients[1] * mg - coefficients[2] * mb
    return box_mean(coefficients, r).astype(np.float32)


def refine_guided(rgb: ByteArray, saliency: FloatArray, settings: Refinement) -> Iterator[tuple[slice, FloatArray]]:
    """Steps 2 and 3 in bands: (rows, float32 (rows, W)) of the refined matte of uint8 (H, W, 3) pictures.

    On the working grid, p is the map sampled there and t = p at first; each pass fits `guided_coefficients` to t.
    Between passes t = p + u · (q − p) with q = clip(a · I + b, 0, 1) and u = min(1, 2 · (1 − |2p − 1|)): where the
    network is sure its word stands, so nothing leaks into flat regions. After the last pass the same formula gives the
    matte at full size, with p the upsampled map, the coefficients sampled bilinearly from the working grid and I the
    picture / 255.
    """
    height, width = rgb.shape[:2]
    size_y, size_x = saliency.shape
    k = working_factor(height, width, settings.working_side)
    reduced = _reduced(rgb, k)
    h, w = reduced.shape[:2]
    target = resize_bilinear(saliency, h, w, (size_y * k / height, size_x * k / width))
    guide = np.ascontiguousarray(reduced.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    coefficients = _Upsampler(_crop_coefficients(guide, target, settings), height, width, (1 / k, 1 / k))
    maps = _Upsampler(saliency[None], height, width)
    for band in _bands(height, width):
        p = maps.rows(band)[0]
        unsure = _unsure(p)
        columns = np.flatnonzero(unsure.max(axis=0))
        if columns.size:
            part = slice(int(columns[0]), int(columns[-1]) + 1)
            a = coefficients.rows(band, part)
            q = a[3]
            for channel in range(3):
                q += a[channel] * (rgb[band, part, channel] * np.float32(1 / 255))
            np.clip(q, 0, 1, out=q)
            q -= p[:, part]
            q *= unsure[:, part]
            p[:, part] += q
        yield band, p


def _unsure(p: FloatArray) -> FloatArray:
    return np.minimum(np.float32(1), 2 * (1 - np.abs(2 * p - 1)))


def _crop_coefficients(guide: FloatArray, target: FloatArray, settings: Refinement) -> FloatArray:
    """All passes of `guided_coefficients`, computed only around the pixels that are not sure."""
    unsure = (target > 0) & (target < 1)
    rows, columns = np.flatnonzero(unsure.any(axis=1)), np.flatnonzero(unsure.any(axis=0))
    coefficients = np.zeros((4, *target.shape), np.float32)
    if rows.size == 0:
        return coefficients
    # Two windows a pass, and the neighbour that bilinear sampling takes.
    margin = 2 * settings.radius * settings.passes + 2
    part = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )
    colours, p = guide[:, *part], target[part]
    fitted = guided_coefficients(colours, p, settings)
    for _ in range(settings.passes - 1):
        q = np.clip(fitted[0] * colours[0] + fitted[1] * colours[1] + fitted[2] * colours[2] + fitted[3], 0, 1)
        fitted = guided_coefficients(colours, p + _unsure(p) * (q - p), settings)
    coefficients[:, *part] = fitted
    return coefficients


# 4. and 5. The matte


def feather(values: FloatArray, pixels: float) -> FloatArray:
    """float32 (H, W), softened: two box means of radius max(1, floor(pixels + 0.5)), in bands."""
    radius = max(1, int(np.floor(pixels + 0.5)))
    height, width = values.shape
    out = np.empty_like(values)
    for band in _bands(height, width):
        first, last = max(0, band.start - 2 * radius), min(height, band.stop + 2 * radius)
        soft = box_mean(box_mean(values[None, first:last], radius), radius)[0].astype(np.float32)
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
        bands = ((band, soft[band]) for band in _bands(height, width))
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


def estimate_foreground(rgb: ByteArray, alpha: ByteArray, working_side: int = 640) -> ByteArray:
    """Colours of the subject alone, uint8 (H, W, 3): black where alpha is 0, unchanged where it is 255.

    Blur fusion (Forte & Pitié, "Approximate fast foreground colour estimation", 2021) in two levels. On the working
    grid, with I and α in [0, 1], F = B = I at first, for r in (32, 4):

        F̂ = box(α · F) / (box(α) + 1e-5)        B̂ = box((1 − α) · B) / (box(1 − α) + 1e-5)
        F = clip(F̂ + α · (I − α · F̂ − (1 − α) · B̂), 0, 1)        B = B̂

    and then the last line once more at full size with F̂ and B̂ of the second level sampled bilinearly;
    8 bits are floor(255 · F + 0.5).
    """
    height, width = alpha.shape
    out = rgb.copy()
    soft = (alpha > 0) & (alpha < 255)
    out[alpha == 0] = 0
    if not soft.any():
        return out
    k = working_factor(height, width, working_side)
    colours = np.ascontiguousarray(_reduced(rgb, k).transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    opacity = _reduced(alpha, k).astype(np.float32)[None] / np.float32(255)
    front, back = _fuse(colours, opacity, colours, colours, 32)
    front = np.clip(front + opacity * (colours - opacity * front - (1 - opacity) * back), 0, 1)
    front, back = _fuse(colours, opacity, front, back, 4)
    estimates = _Upsampler(np.concatenate((front, back)), height, width, (1 / k, 1 / k))
    for band in _bands(height, width):
        inside = np.flatnonzero(soft[band].any(axis=0))
        if not inside.size:
            continue
        part = slice(int(inside[0]), int(inside[-1]) + 1)
        both = estimates.rows(band, part)
        here = soft[band, part]
        a = alpha[band, part][here] * np.float32(1 / 255)
        target = out[band, part]
        for channel in range(3):
            f, b = both[channel][here], both[3 + channel][here]
            i = rgb[band, part, channel][here] * np.float32(1 / 255)
            target[:, :, channel][here] = to_alpha(f + a * (i - a * f - (1 - a) * b))
    return out


def _fuse(
    colours: FloatArray, opacity: FloatArray, front: FloatArray, back: FloatArray, radius: int
) -> tuple[FloatArray, FloatArray]:
    """F̂ and B̂, float32 (3, h, w) each."""
    clear = 1 - opacity
    means = box_mean(np.concatenate((opacity * front, clear * back, opacity, clear)), radius).astype(np.float32)
    tiny = np.float32(1e-5)
    return means[0:3] / (means[6] + tiny), means[3:6] / (means[7] + tiny)

"""Step 6 of `postprocess`: the subject's colours without the background's share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .sampling import Upsampler, bands_of, box_mean, box_reduce, tiles_of, to_alpha, working_factor

__all__ = ["estimate_foreground"]

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

COLOUR_SIDE = 320  # about the longest side of the working grid
COLOUR_RADII = (48, 16, 6, 2)


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
    out = np.empty_like(rgb)
    bands = list(bands_of(height, width))
    for band in bands:
        np.multiply(rgb[band], (alpha[band] > 0)[:, :, None], out=out[band])
    if not any(_soft(alpha[band]).any() for band in bands):
        return out
    k = working_factor(height, width, working_side)
    colours = np.ascontiguousarray(box_reduce(rgb, k).transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    opacity = box_reduce(alpha, k).astype(np.float32)[None] / np.float32(255)
    estimates = Upsampler(_fuse(colours, opacity), height, width, (1 / k, 1 / k))
    for band in bands:
        soft = _soft(alpha[band])
        for tile in tiles_of(soft):
            both = estimates.rows(band, tile)
            a = alpha[band, tile] * np.float32(1 / 255)
            clear = 1 - a
            share = a / (a * a + clear * clear)
            for channel in range(3):
                front = both[channel]
                rest = rgb[band, tile, channel] * np.float32(1 / 255) - a * front - clear * both[3 + channel]
                np.copyto(out[band, tile, channel], to_alpha(front + share * rest), where=soft[:, tile])
    return out


def _soft(alpha: ByteArray) -> npt.NDArray[np.bool_]:
    """Neither 0 nor 255."""
    return (alpha - np.uint8(1)) < 254  # 0 wraps to 255


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

"""Random fields with the statistics of natural pictures, and the blurs that go with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

__all__ = ["ByteArray", "FloatArray", "Size", "blur_bytes", "colour_noise", "curve", "fractal", "stretch_noise"]

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Size = tuple[int, int]  # width, height


def fractal(rng: np.random.Generator, size: Size, power: float = 1.0, stretch: float = 1.0) -> FloatArray:
    """Gaussian noise with a 1/f^power amplitude spectrum, (H, W), mean 0, standard deviation 1.

    Natural photographs have a power near 1 (Field, "Relations between the statistics of natural images and the response
    properties of cortical cells", 1987). `stretch` > 1 draws the texture out horizontally, < 1 vertically.
    """
    width, height = size
    fx = np.fft.rfftfreq(width)[None, :] * stretch
    fy = np.fft.fftfreq(height)[:, None]
    square = fx * fx + fy * fy
    square[0, 0] = 1.0
    amplitude = (square ** (-power / 2)).astype(np.float32)
    amplitude[0, 0] = 0.0
    shape = (2, *amplitude.shape)
    real, imaginary = rng.standard_normal(shape, np.float32)
    spectrum = amplitude * (real + 1j * imaginary)
    field = np.fft.irfft2(spectrum, (height, width)).astype(np.float32)
    field -= field.mean()
    return field / np.float32(field.std() + 1e-9)


def stretch_noise(rng: np.random.Generator, size: Size, cells: Size) -> FloatArray:
    """Smooth noise with about `cells` bumps across and down, (H, W), roughly standard normal."""
    grid = rng.standard_normal((max(2, cells[1]), max(2, cells[0])), np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))


def colour_noise(rng: np.random.Generator, size: Size, chroma: float, power: float = 1.0) -> FloatArray:
    """`fractal` brightness with `chroma` times as much colour, (H, W, 3): channels of photographs are correlated."""
    brightness = fractal(rng, size, power)[..., None]
    direction = rng.normal(0, 1, 3).astype(np.float32)
    direction -= direction.mean()
    return brightness + np.float32(chroma) * fractal(rng, size, power + 0.2)[..., None] * direction


def curve(rng: np.random.Generator, length: int, power: float = 1.5) -> FloatArray:
    """A 1/f^power random curve of `length` samples, mean 0, standard deviation 1: skylines, hills, folds."""
    frequency = np.fft.rfftfreq(length)
    frequency[0] = 1.0
    spectrum = frequency**-power * (rng.standard_normal(frequency.size) + 1j * rng.standard_normal(frequency.size))
    spectrum[0] = 0.0
    values = np.fft.irfft(spectrum, length)
    return ((values - values.mean()) / (values.std() + 1e-9)).astype(np.float32)


def blur_bytes(picture: FloatArray, radius: float) -> FloatArray:
    """Gaussian blur of (H, W, 3) or (H, W) in [0, 255] with standard deviation `radius` pixels, in 8 bits."""
    if radius < 0.3:
        return picture
    image = Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius))).astype(np.float32)

"""Small pictures for the report: a photograph, its truth, every model's mask, what differs from the first model's."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net.sampling import to_alpha

from .models import Candidate
from .quality import Predictor, Sample

__all__ = ["ADDED", "LOST", "Thumbnails", "thumbnails_of"]

ByteArray = npt.NDArray[np.uint8]

HEIGHT_PX = 192  # twice what is shown, so that it is sharp on dense screens
LOST, ADDED = (255, 122, 66), (92, 160, 255)  # what this model's mask lacks, and has, beside the first model's


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of one stem, as WebP; `masks` and `differences` are by model."""

    input: bytes
    truth: bytes
    masks: dict[str, bytes]
    differences: dict[str, bytes]  # of every model but the first


def thumbnails_of(
    models: Sequence[Candidate], samples: Sequence[Sample], stems: Sequence[str]
) -> Iterator[tuple[str, Thumbnails]]:
    """The small pictures of each of `stems`. Raises as `Predictor` does."""
    by_stem = {sample.stem: sample for sample in samples}
    predictors = [Predictor(model) for model in models] if stems else []
    for stem in stems:
        rgb, truth = by_stem[stem].load()
        grey = (truth.mask * np.uint8(255)) if truth.alpha is None else to_alpha(truth.alpha.astype(np.float32))
        masks = {predictor.name: predictor.mask(rgb) for predictor in predictors}
        first = masks[predictors[0].name]
        yield (
            stem,
            Thumbnails(
                input=_encoded(_shrunk(rgb)),
                truth=_encoded(_shrunk(grey)),
                masks={name: _encoded(_shrunk(mask)) for name, mask in masks.items()},
                differences={
                    name: _encoded(_difference(_shrunk(first), _shrunk(mask)))
                    for name, mask in masks.items()
                    if name != predictors[0].name
                },
            ),
        )


def _shrunk(array: ByteArray) -> Image.Image:
    image = Image.fromarray(array)
    width = max(1, round(image.width * HEIGHT_PX / image.height))
    return image.resize((width, HEIGHT_PX), Image.Resampling.BOX)


def _difference(first: Image.Image, other: Image.Image) -> Image.Image:
    """The first mask, dark, with what the other lacks and adds in two colours, as strong as the difference is."""
    before, after = np.asarray(first, np.float32) / 255, np.asarray(other, np.float32) / 255
    base = 24 + 90 * np.repeat(before[:, :, None], 3, axis=2)
    for amount, colour in ((before - after, LOST), (after - before, ADDED)):
        share = np.clip(amount, 0, 1)[:, :, None] ** 0.5  # a tenth is to be seen
        base = base * (1 - share) + np.array(colour, np.float32) * share
    return Image.fromarray(base.astype(np.uint8))


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()

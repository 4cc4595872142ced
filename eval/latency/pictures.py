"""The pictures that latency is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net.errors import ImageError

__all__ = ["Picture", "load_pictures"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A test picture: uint8 (H, W, 3) sRGB, and its ground truth bool (H, W) where there is one."""

    name: str
    rgb: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.bool_] | None = None


def load_pictures(image: Path | None, data: Path | None, count: int = 3) -> list[Picture]:
    """The test pictures: the one at `image`, else `count` pairs spread over the folder `data`, else procedural ones."""
    if image is not None:
        try:
            with Image.open(image) as opened:
                return [Picture(Path(image).stem, np.asarray(opened.convert("RGB")))]
        except Exception as error:
            raise ImageError(
                f"{image} cannot be read as a picture ({error}); take it out of the folder, or save it again"
            ) from error
    if data is not None:
        from datasets.folder import PairFolder

        pairs = PairFolder(data)
        chosen = [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(min(count, len(pairs)))]
        return [Picture(pair.stem, pair.image(), pair.mask()) for pair in chosen]
    from datasets.synthetic import SyntheticSet

    return [Picture(f"procedural-{s.index}", s.rgb, s.alpha > 0.5) for s in SyntheticSet(count)]

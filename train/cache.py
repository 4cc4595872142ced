"""Pictures decoded once and the teachers' map for each, in memory-mapped files that training reads.

Notable choices:

- everything is uint8: a picture with its map is 0.4 MB at 320 pixels, so 5,000 of them fit the page cache of a small
  machine and the memory of any GPU, and a training step waits neither for JPEG nor for a teacher;
- one map is stored, the fused one; the six side maps are asked for its averages, which is what they come to;
- the cache is filled in a fixed shuffled order and every record is marked when it is complete, so an interrupted run
  continues and training may start on the part that is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from u2net.errors import ConfigError, DataError
from u2net.files import read_regular, write_json
from u2net.preprocess import resize_bilinear, resize_for_network

from .teachers import Teacher, mean_map

if TYPE_CHECKING:
    from datasets.folder import ImageFolder, PairFolder, PairRecord

__all__ = ["Cache", "build_cache"]

FILES = ("images", "maps", "done")

ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cache:
    """An opened cache: `images` uint8 (N, S, S, 3), `maps` uint8 (N, S, S) of 255 · probability, `done` bool (N)."""

    folder: Path
    stems: tuple[str, ...]
    size: int
    settings: dict[str, object]  # how the maps were made
    images: ByteArray
    maps: ByteArray
    done: npt.NDArray[np.bool_]

    @classmethod
    def open(cls, folder: str | Path, mode: str = "c") -> Cache:
        """Open the cache in `folder`, to read ("c": writes would stay in memory) or to fill ("r+").

        Raises `DataError` where there is none or it is damaged.
        """
        folder = Path(folder)
        try:
            about = json.loads(read_regular(folder / "cache.json", DataError))
            stems, size = tuple(str(stem) for stem in about["stems"]), int(about["size"])
            settings = dict(about.get("settings", {}))
            images, maps, done = (np.load(folder / f"{name}.npy", mmap_mode=mode) for name in FILES)  # type: ignore[arg-type]
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            raise DataError(f"{folder} is not a teacher cache: {error}; make one with 'u2net train cache'") from error
        count = len(stems)
        if (images.shape, maps.shape, done.shape) != ((count, size, size, 3), (count, size, size), (count,)):
            raise DataError(
                f"{folder} is a damaged cache: its arrays are not of {count} pictures of {size}×{size}; make it "
                "again with 'u2net train cache'"
            )
        return cls(folder, stems, size, settings, images, maps, done)

    def __len__(self) -> int:
        return len(self.stems)

    @property
    def against(self) -> str:
        """What a figure of a network on these pictures is."""
        return "agreement with the truth" if self.settings.get("truth") == 1 else "agreement with the teachers"


def _create(folder: Path, stems: Sequence[str], size: int, settings: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    count = len(stems)
    shapes: tuple[tuple[int, ...], ...] = ((count, size, size, 3), (count, size, size), (count,))
    for name, shape, kind in zip(FILES, shapes, (np.uint8, np.uint8, np.bool_), strict=True):
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape).flush()
    write_json(folder / "cache.json", {"size": size, "stems": list(stems), "settings": settings})


def build_cache(
    pictures: ImageFolder | PairFolder,
    teachers: Sequence[Teacher],
    folder: str | Path,
    *,
    size: int,
    truth: float = 0.5,
    batch: int = 4,
    seed: int = 0,
) -> Iterator[tuple[int, int]]:
    """Fill the cache in `folder` and yield (records complete, records in all) after each batch.

    The map of a picture is the sigmoid of the mean of the teachers' logits. Where the picture has a mask
    (`PairFolder`), it is `truth` parts of the mask and 1 − `truth` parts of that; without a teacher all of it is the
    mask. Continues an interrupted fill. Raises `DataError` where the folder holds a cache of other pictures or of
    other settings.
    """
    from datasets.folder import PairFolder, PairRecord  # not above: `train.run` must do without what reads pictures

    if not teachers and not isinstance(pictures, PairFolder):
        raise ConfigError("without a teacher the pictures need masks: a folder with images/ and masks/")
    folder = Path(folder)
    stems = [record.stem for record in pictures]
    settings: dict[str, object] = {
        "truth": (truth if teachers else 1.0) if isinstance(pictures, PairFolder) else 0.0,
        "teachers": [teacher.fingerprint for teacher in teachers],
    }
    if isinstance(pictures, PairFolder) and pictures[0].mask_values is not None:
        settings["mask_values"] = pictures[0].mask_values
    if not (folder / "cache.json").exists():
        _create(folder, stems, size, settings)
    cache = Cache.open(folder, "r+")
    if (cache.size, list(cache.stems), cache.settings) != (size, stems, settings):
        raise DataError(f"{folder} holds a cache of other pictures or settings; give another folder")
    order = np.random.default_rng(seed).permutation(len(stems))
    order = order[~cache.done[order]]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        records = [pictures[int(row)] for row in rows]
        decoded = [record.image() for record in records]
        for row, picture in zip(rows, decoded, strict=True):
            cache.images[row] = np.floor(resize_for_network(picture, size) + 0.5).clip(0, 255).astype(np.uint8)
        maps = mean_map(teachers, [r.stem for r in records], decoded, size)[:, 0].numpy() if teachers else None
        masks = [_mask(record, size) for record in records if isinstance(record, PairRecord)]
        if masks:
            maps = truth * np.stack(masks) + (1 - truth) * maps if maps is not None else np.stack(masks)
        assert maps is not None
        cache.maps[rows] = (maps * 255.0 + 0.5).astype(np.uint8)
        cache.done[rows] = True
        yield int(cache.done.sum()), len(cache)


def _mask(record: PairRecord, size: int) -> npt.NDArray[np.float32]:
    """The record's mask as float32 (size, size) in [0, 1]: soft mattes stay soft."""
    return resize_bilinear(record.alpha(), size, size)

"""Which pictures a model is calibrated on: a deterministic sample of a folder, or the procedural set.

A picture's place in the order is the SHA-256 of the seed and its name, so the sample does not depend on the file
system, and adding or removing one file changes at most one picture of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from u2net.errors import ConfigError, DataError

from .folder import ImageFolder
from .synthetic import SyntheticSet

__all__ = ["CalibrationImages", "calibration_images"]

ByteArray = npt.NDArray[np.uint8]


class CalibrationImages(Sequence[ByteArray]):
    """Pictures as uint8 (H, W, 3) sRGB, decoded anew each time they are asked for, so any number fits in memory.

    `names` says which they are, `source` where they come from ("procedural" or the folder's name).
    """

    def __init__(
        self, source: str, names: tuple[str, ...], load: Callable[[int], ByteArray], files: tuple[Path, ...] = ()
    ) -> None:
        self.source = source
        self.names = names
        self._load = load
        self._files = files

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> ByteArray: ...
    @overload
    def __getitem__(self, index: slice) -> CalibrationImages: ...
    def __getitem__(self, index: int | slice) -> ByteArray | CalibrationImages:
        chosen = range(len(self))[index]
        if isinstance(chosen, range):
            names, files = tuple(self.names[i] for i in chosen), tuple(self._files[i] for i in chosen if self._files)
            return CalibrationImages(self.source, names, lambda i: self._load(chosen[i]), files)
        return self._load(chosen)

    def __iter__(self) -> Iterator[ByteArray]:
        return (self._load(index) for index in range(len(self)))

    def identity(self) -> str:
        """What tells this sample from another without decoding it: SHA-256 over its names and its files' bytes."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        for path in self._files:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def sha256(self) -> str:
        """Hexadecimal SHA-256 over every picture's name, shape and pixels: what an artifact was calibrated on."""
        digest = hashlib.sha256()
        for name, picture in zip(self.names, self, strict=True):
            digest.update(f"{name}\0{picture.shape}\0".encode())
            digest.update(np.ascontiguousarray(picture).data)
        return digest.hexdigest()


def calibration_images(
    folder: str | os.PathLike[str] | None, count: int, seed: int = 0, skip: int = 0
) -> CalibrationImages:
    """A deterministic sample of `count` pictures of `folder`, or of the procedural set where `folder` is None.

    A folder that holds fewer gives all it has. `skip` passes over that many pictures of the same order first:
    `skip=count` gives pictures that the calibration has not seen. Raises `DataError` where the folder is missing or
    empty or `skip` leaves nothing of it, `ConfigError` where `count` or `skip` make no sense.
    """
    if count < 1 or skip < 0:
        raise ConfigError(f"a calibration sample needs count ≥ 1 and skip ≥ 0, got {count} and {skip}")
    if folder is None:
        scenes = SyntheticSet(skip + count, seed)
        names = tuple(f"procedural-{seed}-{index}" for index in range(skip, skip + count))
        return CalibrationImages("procedural", names, lambda index: scenes[skip + index].rgb)
    files = ImageFolder(folder)

    def rank(stem: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{stem}".encode()).digest()

    chosen = sorted(files, key=lambda record: (rank(record.stem), record.image_path))[skip : skip + count]
    if not chosen:
        raise DataError(f"{files.path} holds only {len(files)} pictures, which leaves none after skipping {skip}")
    return CalibrationImages(
        files.path.name,
        tuple(record.image_path.name for record in chosen),
        lambda index: chosen[index].image(),
        tuple(record.image_path for record in chosen),
    )

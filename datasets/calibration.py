"""Which pictures a model is calibrated on, and which others it is measured on: of a folder, or the procedural set.

A picture's place in the order is the SHA-256 of the seed and its name, so the sample does not depend on the file
system, and adding or removing one file changes at most one picture of it. What is measured on comes from the same
folder as what is calibrated on, and is never calibrated on. Pictures of one colour and copies of another picture say
nothing of a model; they are passed over, and named.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net.errors import ConfigError, DataError

from .folder import ImageFolder, ImageRecord, some
from .synthetic import SyntheticSet

__all__ = ["CalibrationImages", "CalibrationSplit", "calibration_images", "calibration_split", "joined"]

ByteArray = npt.NDArray[np.uint8]

RENDERED = 128  # scenes kept of a procedural sample, 0.5 MB each: one takes 0.2 s to draw, and each is asked for thrice
LEAST_PICTURES = 4  # that differ and show something; below it, what is measured means nothing
HELD_OUT = 4  # of a folder with too few pictures for both, one in so many is measured on
CHECK_SEED = 1  # added to the seed where scenes of the procedural set are measured on, so that none is met twice
THUMBNAIL_SIDE = 16  # pictures are compared at this size
CONSTANT_LEVELS = 2.0  # standard deviation, of 255, below which a thumbnail is of one colour
COPY_LEVELS = 12  # largest difference of two thumbnails that are copies: compression and scaling make up to 8


class CalibrationImages(Sequence[ByteArray]):
    """Pictures as uint8 (H, W, 3) sRGB; files are decoded each time they are asked for, so any number fits in memory.

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


def joined(first: CalibrationImages, second: CalibrationImages) -> CalibrationImages:
    """The pictures of both, one after the other."""
    count = len(first)
    return CalibrationImages(
        f"{first.source} and {second.source}",
        (*first.names, *second.names),
        lambda index: first[index] if index < count else second[index - count],
    )


def calibration_images(
    folder: str | os.PathLike[str] | None, count: int, seed: int = 0, skip: int = 0
) -> CalibrationImages:
    """A deterministic sample of `count` pictures of `folder`, or of the procedural set where `folder` is None.

    A folder that holds fewer gives all it has. `skip` passes over that many pictures of the same order first:
    `skip=count` gives pictures that the calibration has not seen. Raises `DataError` where the folder is missing or
    empty or `skip` leaves nothing of it, `ConfigError` where `count` or `skip` make no sense.
    """
    if count < 1 or skip < 0:
        raise ConfigError(
            f"a calibration sample needs --count of at least 1 and skips at least 0, got {count} and {skip}"
        )
    if folder is None:
        scenes = SyntheticSet(skip + count, seed)
        names = tuple(f"procedural-{seed}-{index}" for index in range(skip, skip + count))
        rendered = functools.lru_cache(RENDERED)(lambda index: scenes[skip + index].rgb)
        return CalibrationImages("procedural", names, rendered)
    files = ImageFolder(folder)
    chosen = _in_order(files, seed)[skip : skip + count]
    if not chosen:
        raise DataError(
            f"{files.path} holds only {len(files)} pictures, which leaves none after skipping {skip}; give more "
            "pictures, or a smaller --count"
        )
    return _images(files, chosen)


@dataclass(frozen=True)
class CalibrationSplit:
    """Pictures to calibrate on, others to measure on, and the names of those that serve for neither."""

    calibration: CalibrationImages
    check: CalibrationImages
    constant: tuple[str, ...] = ()  # of one colour
    copies: tuple[str, ...] = ()  # of another picture: `b.png (of a.png)`

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was passed over, as sentences."""
        found = ((self.constant, "of one colour"), (self.copies, "copies of others"))
        return tuple(f"{len(names)} pictures are {what}: {some(list(names), ', ')}" for names, what in found if names)


def calibration_split(
    folder: str | os.PathLike[str] | None, count: int, check_count: int, seed: int = 0
) -> CalibrationSplit:
    """`count` pictures of `folder` to calibrate on and `check_count` others of it to measure on.

    Where the folder has fewer than both together, at least one picture in `HELD_OUT` is measured on, and the rest is
    calibrated on. Without a folder both are scenes of the procedural set. Raises `DataError` where the folder is
    missing or fewer than `LEAST_PICTURES` of its pictures differ and show something.
    """
    if check_count < 1:
        raise ConfigError(f"there must be at least 1 picture to measure on: --check is {check_count}")
    if folder is None:
        return CalibrationSplit(
            calibration_images(None, count, seed), calibration_images(None, check_count, seed + CHECK_SEED)
        )
    calibration_images(folder, count, seed)  # refuses counts and folders that make no sense
    files = ImageFolder(folder)
    kept: list[ImageRecord] = []
    thumbnails: list[npt.NDArray[np.int16]] = []
    constant, copies = [], []
    for record in _in_order(files, seed):
        if len(kept) == count + check_count:
            break
        name, thumbnail = record.image_path.name, _thumbnail(record.image())
        if thumbnail.std((0, 1)).max() < CONSTANT_LEVELS:
            constant.append(name)
            continue
        alike = (index for index, other in enumerate(thumbnails) if np.abs(thumbnail - other).max() <= COPY_LEVELS)
        original = next(alike, None)
        if original is not None:
            copies.append(f"{name} (of {kept[original].image_path.name})")
            continue
        kept.append(record)
        thumbnails.append(thumbnail)
    held = min(check_count, max(len(kept) - count, len(kept) // HELD_OUT))
    split = CalibrationSplit(
        _images(files, kept[: len(kept) - held]),
        _images(files, kept[len(kept) - held :]),
        tuple(sorted(constant)),
        tuple(sorted(copies)),
    )
    if len(kept) < LEAST_PICTURES:
        reasons = "".join(f"; {reason}" for reason in split.left_out)
        raise DataError(
            f"{files.path} has {len(kept)} usable pictures, fewer than {LEAST_PICTURES}{reasons}; give pictures of the "
            "kind that the model will see, or leave --calib out to use the procedural set"
        )
    return split


def _in_order(files: ImageFolder, seed: int) -> list[ImageRecord]:
    def rank(stem: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{stem}".encode()).digest()

    return sorted(files, key=lambda record: (rank(record.stem), record.image_path))


def _images(files: ImageFolder, chosen: Sequence[ImageRecord]) -> CalibrationImages:
    return CalibrationImages(
        files.path.name,
        tuple(record.image_path.name for record in chosen),
        lambda index: chosen[index].image(),
        tuple(record.image_path for record in chosen),
    )


def _thumbnail(picture: ByteArray) -> npt.NDArray[np.int16]:
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.BOX), np.int16)

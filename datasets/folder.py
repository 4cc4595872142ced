"""Folders of pictures, and of pictures with masks.

Files are taken in the order of their names (code points), hidden files and files of other kinds are passed over, and
everything that can be checked without decoding pixels is checked when the folder is opened, so that a long run does not
stop half-way at a missing mask.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net.decode import load_image
from u2net.errors import DataError, ImageError
from u2net.files import check_path

from .masks import MASK_THRESHOLD, check_mask_values, read_mask

__all__ = ["IMAGE_SUFFIXES", "MASK_THRESHOLD", "ImageFolder", "ImageRecord", "PairFolder", "PairRecord", "some"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
#: Faults that one error message names before it says "and N more".
NAMED_FAULTS = 3

ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageRecord:
    """One picture of a folder."""

    stem: str
    image_path: Path

    @property
    def set_name(self) -> str:
        """What stands before the first underscore of the stem: `ecssd` of `ecssd_0001`."""
        return self.stem.split("_", 1)[0]

    def image(self) -> ByteArray:
        """The picture as 8-bit sRGB (H, W, 3), orientation applied. Raises `ImageError`."""
        return _load_rgb(self.image_path)


@dataclass(frozen=True)
class PairRecord(ImageRecord):
    """One picture and its mask."""

    mask_path: Path
    mask_values: str | None = None  # what the mask holds, see `datasets.masks`; None: grey, beyond doubt

    def alpha(self) -> npt.NDArray[np.float32]:
        """The mask as float32 (H, W) in [0, 1], not binarised.

        Raises `ImageError`, and `DataError` on a wrong size or a mask that can be read in two ways.
        """
        return self._grey().astype(np.float32) / np.float32(255)

    def mask(self) -> npt.NDArray[np.bool_]:
        """Ground truth (H, W): where the mask is above 128 of 255. Raises as `alpha` does."""
        return self._grey() > MASK_THRESHOLD

    def _grey(self) -> ByteArray:
        grey = read_mask(self.mask_path, self.mask_values)
        width, height = _oriented_size(self.image_path)
        if grey.shape != (height, width):
            raise DataError(_mismatch(self.mask_path, (grey.shape[1], grey.shape[0]), (width, height)))
        return grey


class ImageFolder(Sequence[ImageRecord]):
    """The pictures of the folder `path`, or of its `images/` when it has one.

    Raises `DataError` where the folder does not exist, cannot be read or holds no pictures. With `recursive` the
    folders below are searched too, and a stem is the path below the root with `/` in it.
    """

    def __init__(self, path: str | os.PathLike[str], recursive: bool = False) -> None:
        self.path = _images_root(check_path(path))
        self.records = tuple(
            ImageRecord(file.relative_to(self.path).with_suffix("").as_posix(), file)
            for file in _image_files(self.path, recursive)
        )
        if not self.records:
            raise DataError(f"{self.path} holds no pictures ({', '.join(IMAGE_SUFFIXES)}); give a folder that does")

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ImageRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | tuple[ImageRecord, ...]:
        return self.records[index]

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self.records)


class PairFolder(Sequence[PairRecord]):
    """Pictures and masks paired by stem: `path/images/a.jpg` with `path/masks/a.png`.

    `images` and `masks` name the two folders below `path`. Every picture must have exactly one mask of its size; masks
    without a picture are faults too, unless `extra_masks` says that they may be passed over. `mask_values` says what
    masks hold that can be read in two ways (`datasets.masks`). Raises `DataError` naming the first few faults.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        images: str = "images",
        masks: str = "masks",
        extra_masks: bool = False,
        mask_values: str | None = None,
    ) -> None:
        check_mask_values(mask_values)
        self.path = check_path(path)
        for name in (images, masks):
            if not (self.path / name).is_dir():
                raise DataError(
                    f"{self.path} has no folder {name}/; a set of pairs has {images}/ and {masks}/, with the same "
                    "names in both"
                )
        by_stem = _by_stem(self.path / images)
        mask_by_stem = _by_stem(self.path / masks)
        if not by_stem:
            raise DataError(
                f"{self.path / images} holds no pictures ({', '.join(IMAGE_SUFFIXES)}); give a folder that does"
            )
        _refuse("pictures without a mask", self.path, [s for s in by_stem if s not in mask_by_stem])
        if not extra_masks:
            _refuse("masks without a picture", self.path, [s for s in mask_by_stem if s not in by_stem])
        self.records = tuple(PairRecord(stem, file, mask_by_stem[stem], mask_values) for stem, file in by_stem.items())
        faults = []
        for record in self.records:
            image_size, mask_size = _oriented_size(record.image_path), _oriented_size(record.mask_path)
            if image_size != mask_size:
                faults.append(_mismatch(record.mask_path, mask_size, image_size))
        if faults:
            raise DataError(f"{some(faults)}; `u2net datasets check` lists all")

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> PairRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[PairRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> PairRecord | tuple[PairRecord, ...]:
        return self.records[index]

    def __iter__(self) -> Iterator[PairRecord]:
        return iter(self.records)

    def check_masks(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Decode every mask, so that a long run does not stop half-way at one. Raises `DataError` naming a few."""
        faults = []
        for done, record in enumerate(self.records, 1):
            try:
                record.mask()
            except DataError as error:
                faults.append(str(error))
            progress(done)
        if faults:
            more = f" ({len(faults)} masks are like that)" if len(faults) > 1 else ""
            raise DataError(f"{faults[0]}{more}; `u2net datasets check` lists all")

    def sets(self) -> dict[str, tuple[PairRecord, ...]]:
        """The records by `set_name`, in order of name."""
        names = sorted({record.set_name for record in self.records})
        return {name: tuple(r for r in self.records if r.set_name == name) for name in names}


def _images_root(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} does not exist; give a folder of pictures")
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; give the folder that the pictures lie in")
    inner = path / "images"
    return inner if inner.is_dir() else path


def _image_files(folder: Path, recursive: bool = False) -> list[Path]:
    try:
        found = folder.rglob("*") if recursive else folder.iterdir()
        files = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from error
    return sorted((check_path(p) for p in files), key=lambda p: p.relative_to(folder).as_posix())


def _by_stem(folder: Path) -> dict[str, Path]:
    """Files of `folder` by stem; raises `DataError` where two files share one."""
    result: dict[str, Path] = {}
    for file in _image_files(folder):
        if file.stem in result:
            raise DataError(f"{folder} holds both {result[file.stem].name} and {file.name}; which one is meant?")
        result[file.stem] = file
    return result


def _refuse(what: str, path: Path, stems: list[str]) -> None:
    if stems:
        raise DataError(f"{path} has {what}: {some(stems, ', ')}; every picture needs the mask of its own name")


def some(items: list[str], separator: str = "; ") -> str:
    """The first few of `items` and how many more there are."""
    text = separator.join(items[:NAMED_FAULTS])
    return text if len(items) <= NAMED_FAULTS else f"{text} and {len(items) - NAMED_FAULTS} more"


def _mismatch(mask: Path, size: tuple[int, int], image_size: tuple[int, int]) -> str:
    return f"the mask {mask} is {size[0]}×{size[1]}, its picture {image_size[0]}×{image_size[1]}; give both one size"


def _oriented_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header, after EXIF orientation. Raises `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception as error:
        raise ImageError(
            f"{path} cannot be read as a picture ({error}); take it out of the folder, or save it again"
        ) from error
    return (height, width) if turned else (width, height)


def _load_rgb(path: Path) -> ByteArray:
    return load_image(path).flattened()

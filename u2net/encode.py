"""Pictures out: PNG, WebP or JPEG, written whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import typer
from annotated_doc import Doc
from PIL import Image

from .errors import ConfigError, OutputError
from .files import check_path, write_bytes

__all__ = [
    "OUTPUT_SUFFIXES",
    "EncodeSettings",
    "Metadata",
    "OutputFormat",
    "encode",
    "encoded",
    "format_of",
    "place",
    "write_picture",
]

ByteArray = npt.NDArray[np.uint8]
OutputFormat = Literal["png", "webp", "jpeg"]

OUTPUT_SUFFIXES: dict[str, OutputFormat] = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
_MAX_SIDE: dict[OutputFormat, int] = {"png": 2**31 - 1, "webp": 16383, "jpeg": 65500}


@dataclass(frozen=True)
class EncodeSettings:
    """How pictures are compressed."""

    png_level: Annotated[int, Doc("zlib level of PNG, 0 to 9")] = 1  # 6 takes three times as long to save a tenth
    quality: Annotated[int, Doc("of WebP and JPEG, 1 to 100")] = 90  # no artefact that a person sees
    webp_lossless: Annotated[bool, Doc("WebP without loss"), typer.Option("--lossless")] = (
        False  # alpha is exact anyway
    )
    webp_method: int = 2  # effort 0 to 6; 4, its default, takes twice as long for a twentieth of the bytes

    def __post_init__(self) -> None:
        if not 0 <= self.png_level <= 9:
            raise ConfigError(f"the PNG level must be 0 to 9, got {self.png_level}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"the quality must be 1 to 100, got {self.quality}")
        if not 0 <= self.webp_method <= 6:
            raise ConfigError(f"the WebP method must be 0 to 6, got {self.webp_method}")


def format_of(path: str | os.PathLike[str]) -> OutputFormat:
    """The format that a file name asks for. Raises `ConfigError` where it asks for none."""
    suffix = Path(path).suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise ConfigError(f"the output {os.fspath(path)!r} must end in {', '.join(OUTPUT_SUFFIXES)}")
    return OUTPUT_SUFFIXES[suffix]


@dataclass(frozen=True)
class Metadata:
    """What a file says besides its pixels."""

    exif: bytes | None = None  # an EXIF block
    dpi: tuple[float, float] | None = None  # pixels an inch, across and down; PNG and JPEG have room for it


def encode(
    pixels: ByteArray,
    file: BinaryIO,
    form: OutputFormat,
    settings: EncodeSettings | None = None,
    metadata: Metadata | None = None,
) -> None:
    """Write `pixels`, uint8 (H, W), (H, W, 3) or (H, W, 4), to the binary `file`."""
    settings = settings or EncodeSettings()
    height, width = pixels.shape[:2]
    if max(height, width) > _MAX_SIDE[form]:
        raise OutputError(f"{width}×{height} is too large for {form.upper()}, whose sides end at {_MAX_SIDE[form]}")
    if form == "jpeg" and pixels.ndim == 3 and pixels.shape[2] == 4:
        raise ConfigError("JPEG has no transparency: choose a background, PNG or WebP")
    image = Image.fromarray(pixels)
    options: dict[str, object] = {}
    if metadata is not None and metadata.exif:
        options["exif"] = metadata.exif
    if metadata is not None and metadata.dpi and form != "webp":
        options["dpi"] = metadata.dpi
    if form == "png":
        options.update(compress_level=settings.png_level)
        if settings.png_level == 1:
            options.update(compress_type=3)  # run lengths only (Z_RLE): faster and, at this level, smaller
    elif form == "webp":
        lossless = settings.webp_lossless or pixels.ndim == 2
        options.update(quality=settings.quality, lossless=lossless, method=settings.webp_method)
    else:
        options.update(quality=settings.quality)
    try:
        image.save(file, form.upper(), **options)
    except (ValueError, MemoryError) as error:  # an EXIF block too large for the format, for one
        raise OutputError(f"cannot encode {width}×{height} as {form.upper()}: {error}") from error


def encoded(
    pixels: ByteArray, form: OutputFormat, settings: EncodeSettings | None = None, metadata: Metadata | None = None
) -> memoryview:
    """The bytes of the picture file. Raises `OutputError` and `ConfigError` as `encode` does."""
    file = io.BytesIO()
    encode(pixels, file, form, settings, metadata)
    return file.getbuffer()


def write_picture(
    path: str | os.PathLike[str],
    pixels: ByteArray,
    settings: EncodeSettings | None = None,
    metadata: Metadata | None = None,
) -> None:
    """Write `pixels` to `path` in the format of its suffix, atomically.

    A symbolic link at `path` is replaced, never written through. Raises `OutputError` where it cannot be written.
    """
    form = format_of(check_path(path))
    place(path, encoded(pixels, form, settings, metadata))


def place(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically: at every moment the path holds the old file or the whole new one.

    On Linux the bytes go to a file without a name, which vanishes should the process be killed; elsewhere to a
    temporary name beside the target. Raises `OutputError` where it cannot be written.
    """
    target = check_path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except (AttributeError, OSError):  # no such files on this system or file system, or no folder to write in
        write_bytes(target, data)
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            nameless = f"/proc/self/fd/{descriptor}"
            try:
                os.link(nameless, target, src_dir_fd=descriptor)  # with a descriptor Python follows the link
            except FileExistsError:  # a link cannot replace: give it another name and rename that
                spare = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(4)}{target.suffix}")
                os.link(nameless, spare, src_dir_fd=descriptor)
                try:
                    spare.replace(target)
                finally:
                    spare.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error

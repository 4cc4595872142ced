"""Pictures out: PNG, WebP, JPEG or GIF, and animations as animated PNG, WebP or GIF; written whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Sequence
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
    "MOVING_FORMATS",
    "OUTPUT_SUFFIXES",
    "EncodeSettings",
    "Metadata",
    "OutputFormat",
    "Timing",
    "encode",
    "encoded",
    "format_of",
    "place",
    "suffix_of",
    "write_picture",
]

ByteArray = npt.NDArray[np.uint8]
OutputFormat = Literal["png", "webp", "jpeg", "gif", "apng"]

OUTPUT_SUFFIXES: dict[str, OutputFormat] = {
    ".png": "png",
    ".webp": "webp",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".gif": "gif",
    ".apng": "apng",
}
MOVING_FORMATS: frozenset[OutputFormat] = frozenset({"webp", "gif", "apng"})  # those that keep all frames
_PILLOW_NAMES: dict[OutputFormat, str] = {"apng": "PNG"}  # of the others the name is the format's
_MAX_SIDE: dict[OutputFormat, int] = {"png": 2**31 - 1, "apng": 2**31 - 1, "webp": 16383, "jpeg": 65500, "gif": 65535}


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


def suffix_of(form: OutputFormat) -> str:
    """The suffix of files of a format."""
    return next(suffix for suffix, each in OUTPUT_SUFFIXES.items() if each == form)


@dataclass(frozen=True)
class Timing:
    """How an animation runs: how long each frame is shown, and how often all are; 0: for ever."""

    durations_ms: tuple[float, ...]
    plays: int = 0


@dataclass(frozen=True)
class Metadata:
    """What a file says besides its pixels."""

    exif: bytes | None = None  # an EXIF block
    dpi: tuple[float, float] | None = None  # pixels an inch, across and down; PNG and JPEG have room for it


def encode(
    pixels: ByteArray | Sequence[ByteArray],
    file: BinaryIO,
    form: OutputFormat,
    settings: EncodeSettings | None = None,
    metadata: Metadata | None = None,
    timing: Timing | None = None,
) -> None:
    """Write `pixels`, uint8 (H, W), (H, W, 3) or (H, W, 4), to the binary `file`.

    With `timing` they are the frames of an animation, all of one shape, and `form` is one of `MOVING_FORMATS`. Each
    frame takes the place of the one before (what is transparent does not show it). GIF has no half-transparent pixels:
    those of alpha ≥ 128 become opaque, the others transparent.
    """
    settings = settings or EncodeSettings()
    frames = [pixels] if isinstance(pixels, np.ndarray) else pixels
    height, width = frames[0].shape[:2]
    if max(height, width) > _MAX_SIDE[form]:
        raise OutputError(f"{width}×{height} is too large for {form.upper()}, whose sides end at {_MAX_SIDE[form]}")
    if form == "jpeg" and frames[0].ndim == 3 and frames[0].shape[2] == 4:
        raise ConfigError("JPEG has no transparency: choose a background, PNG or WebP")
    options: dict[str, object] = {}
    if metadata is not None and metadata.exif and form != "gif":
        options["exif"] = metadata.exif
    if metadata is not None and metadata.dpi and form not in ("webp", "gif"):
        options["dpi"] = metadata.dpi
    if form in ("png", "apng"):
        options.update(compress_level=settings.png_level)
        if settings.png_level == 1:
            options.update(compress_type=3)  # run lengths only (Z_RLE): faster and, at this level, smaller
    elif form == "webp":
        lossless = settings.webp_lossless or frames[0].ndim == 2
        options.update(quality=settings.quality, lossless=lossless, method=settings.webp_method)
    elif form == "jpeg":
        options.update(quality=settings.quality)
    images = [_palette(frame) if form == "gif" else Image.fromarray(frame) for frame in frames]
    if form == "gif" and frames[0].ndim == 3 and frames[0].shape[2] == 4:
        options.update(transparency=_CLEAR, disposal=2)  # 2: each frame is cleared before the next
    if timing is not None:
        durations = [max(0, round(value)) for value in timing.durations_ms]
        options.update(save_all=True, append_images=images[1:], duration=durations)
        if form == "apng":
            options.update(disposal=1, blend=0)  # cleared before the next, which replaces what is there
        if form != "gif":
            options.update(loop=timing.plays)
        elif timing.plays != 1:  # GIF says how often it is repeated, and nothing where it is not
            options.update(loop=max(0, timing.plays - 1))
    try:
        images[0].save(file, _PILLOW_NAMES.get(form, form.upper()), **options)
    except (ValueError, MemoryError) as error:  # an EXIF block too large for the format, for one
        raise OutputError(f"cannot encode {width}×{height} as {form.upper()}: {error}") from error


_CLEAR = 255  # the palette's entry for what is transparent


def _palette(pixels: ByteArray) -> Image.Image:
    """`pixels` as GIF has them: a palette of 256 colours, or of 255 and one that is transparent."""
    if pixels.ndim == 2:
        return Image.fromarray(pixels)
    if pixels.shape[2] == 3:
        return Image.fromarray(pixels).quantize(256)
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])).quantize(_CLEAR)
    image.paste(_CLEAR, mask=Image.fromarray((pixels[:, :, 3] < 128) * np.uint8(255)))
    return image


def encoded(
    pixels: ByteArray | Sequence[ByteArray],
    form: OutputFormat,
    settings: EncodeSettings | None = None,
    metadata: Metadata | None = None,
    timing: Timing | None = None,
) -> memoryview:
    """The bytes of the picture file. Raises `OutputError` and `ConfigError` as `encode` does."""
    file = io.BytesIO()
    encode(pixels, file, form, settings, metadata, timing)
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

"""Pictures in: any file that people have, decoded to 8-bit sRGB with its orientation applied.

What is done, in this order, and what the caller is told of it (`Decoded.notes`):

1. Only the formats in `FORMATS` are tried, so that no exotic parser (and no external program, as for EPS) sees the
   bytes, and HEIC and JPEG XL where the package that reads them is installed. The picture's size is checked before a
   pixel is decoded.
2. The first frame or page is taken; that there were more is noted. `load_frames` gives all frames of an animation.
3. Colour: an embedded ICC profile of at most `MAX_PROFILE_BYTES` is converted to sRGB (perceptual intent, through
   LittleCMS); a larger, damaged or mismatched one is ignored with a note. CMYK without a profile uses Pillow's plain
   conversion. 16-bit samples become floor((v + 128) / 257), which is v · 255 / 65535 rounded; floating-point samples
   are taken as [0, 1] where their maximum is at most 1 and as [0, 255] otherwise.
4. Transparency (an alpha channel, a transparent palette entry or a transparent colour) is kept apart from the colours.
5. EXIF orientation 1 to 8 is applied; other values are ignored.

**Own transparency.** The network sees a picture with an alpha channel laid on a colour that its visible pixels stand
out from (`Decoded.flattened`): white, or black where Σ a · (77 R + 150 G + 29 B) over all pixels is more than
`LIGHT` · 256 · Σ a. A picture that **is a cut-out already** (`Decoded.is_cutout`) is not shown to the network at all:
its own alpha is the matte. That is one where at least `CUT_AWAY` of the pixels have a = 0, and where the pixels of
a ≥ 128 fill less than `FILLED` of the smallest box around them. A photograph in a transparent frame fills its box, and
so does a product that is a box, which the network is shown all the same.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from .encode import Metadata
from .errors import ImageError, U2NetError
from .files import check_path

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "UNREAD_SUFFIXES",
    "Decoded",
    "DecodeLimits",
    "load_frames",
    "load_image",
    "read_source",
]

ByteArray = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | ByteArray

#: Pillow's names of the formats that are read, the commonest first. JPEG includes MPO, which many cameras write.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
#: Those of which several pictures in a file are an animation; elsewhere they are pages.
ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
#: File suffixes that a folder is searched for.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "avif", "tif", "tiff", "gif", "bmp", "dib"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "heic", "heif", "hif", "jxl"),
    )
)
#: File suffixes of pictures that a folder may hold and that are not read: each is said, none is passed over in silence.
UNREAD_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("svg", "svgz", "eps", "ai", "psd", "psb", "xcf", "ico", "tga", "exr", "hdr", "dds"),
        *("dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "pef", "srw"),  # cameras' raw files
    )
)
MAX_PIXELS = 150_000_000  # cameras and telephones give 102 and 108 megapixels
LIGHT = 170.0  # mean luma of the visible pixels from which white hides them
CUT_AWAY = 0.1  # of the picture's pixels
FILLED = 0.75  # of its box: a disc fills 0.785, and may be a portrait in a round frame
MAX_PROFILE_BYTES = 4 << 20  # the largest printing profiles in use are under 3 MB

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_PILLOW_LOCK = threading.Lock()  # Pillow's pixel limit and Python's warning filters are global


@dataclass(frozen=True)
class _Plugin:
    """A format that Pillow reads with the help of another package."""

    format: str  # Pillow's name
    package: str
    module: str
    register: str | None = None  # the function of the module that tells Pillow; None: importing it does


_HEIF = _Plugin("HEIF", "pillow-heif", "pillow_heif", "register_heif_opener")
_JPEG_XL = _Plugin("JXL", "pillow-jxl-plugin", "pillow_jxl")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused before it can do harm."""

    max_pixels: int = MAX_PIXELS  # over any telephone's or medium-format camera's, and 450 MB decoded
    max_bytes: int = 1 << 30  # 1 GiB: a 150-megapixel 16-bit TIFF has 900 MB uncompressed, photographs far less
    max_scans: int = 100  # progressive JPEGs in use have about ten; each one more costs a pass over all pixels
    max_frames: int = 2000  # of an animation: over a minute at 25 a second, and each costs the time of a picture


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded picture: `rgb` uint8 (H, W, 3) in sRGB, not premultiplied; `alpha` uint8 (H, W), None if opaque."""

    rgb: ByteArray
    alpha: ByteArray | None = None
    format: str | None = None  # Pillow's name of the file format; None for pixels that came from memory
    frames: int = 1  # frames or pages in the file; `load_image` gives the first
    duration_ms: float = 0.0  # how long the frame of an animation is shown
    plays: int = 1  # how often an animation runs; 0: for ever
    notes: tuple[str, ...] = ()  # one readable phrase for each thing that a person may want to know
    metadata: Metadata = field(default_factory=Metadata)  # the file's, with the orientation reset

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])

    @property
    def animated(self) -> bool:
        """Whether the file holds an animation."""
        return self.frames > 1 and self.format in ANIMATED_FORMATS

    def flattened(self, ground: int | None = None) -> ByteArray:
        """uint8 (H, W, 3): `rgb` on a ground g, floor((c · a + g · (255 − a) + 127) / 255); `rgb` itself if opaque.

        `ground` is 0 to 255; by default what the module says.
        """
        if self.alpha is None:
            return self.rgb
        ground = self._ground() if ground is None else ground
        out = np.empty_like(self.rgb)
        rows = max(1, (1 << 20) // max(1, self.width))  # bands bound the memory
        for top in range(0, self.height, rows):
            a = self.alpha[top : top + rows, :, None].astype(np.uint32)
            c = self.rgb[top : top + rows].astype(np.uint32)
            out[top : top + rows] = ((c * a + ground * (255 - a) + 127) // 255).astype(np.uint8)
        return out

    def _ground(self) -> int:
        """255 or 0: what the visible pixels stand out from."""
        assert self.alpha is not None
        luma = weight = 0.0
        rows = max(1, (1 << 20) // max(1, self.width))
        for top in range(0, self.height, rows):
            a = self.alpha[top : top + rows].astype(np.float64)
            luma += float((self.rgb[top : top + rows] @ np.array([77.0, 150.0, 29.0]) * a).sum())
            weight += float(a.sum())
        return 0 if luma > LIGHT * 256 * weight else 255

    @property
    def is_cutout(self) -> bool:
        """Whether the picture's own alpha channel cuts a subject out."""
        if self.alpha is None or np.count_nonzero(self.alpha == 0) < CUT_AWAY * self.alpha.size:
            return False
        visible = self.alpha >= 128
        rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
        if not rows.size:
            return False
        box = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
        return int(np.count_nonzero(visible)) < FILLED * box


def load_image(source: Source, limits: DecodeLimits | None = None, name: str | None = None) -> Decoded:
    """Decode `source`: a path, the bytes of a file, a binary file, a Pillow image, or uint8 (H, W[, 3 or 4]) pixels.

    Raises `ImageError`, with one readable line, for whatever cannot be decoded or exceeds `limits`; never anything else
    that a picture's bytes can cause. `name` is what the error calls the picture; by default its path.
    """
    limits = limits or DecodeLimits()
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    with _readable_errors(name or _name(source)):
        if isinstance(source, Image.Image):
            _check_size(source.size, limits)
            decoded = _convert(source)
        else:
            with _opened(read_source(source, limits), limits) as image:
                _load(image, limits)
                decoded = _convert(image)
    if decoded.frames == 1:
        return decoded
    what = "pages" if decoded.format == "TIFF" else "frames"
    return replace(decoded, notes=(f"first of {decoded.frames} {what}", *decoded.notes))


def load_frames(data: bytes, limits: DecodeLimits | None = None, name: str = "picture") -> Iterator[Decoded]:
    """All frames of an animation's file, each as it is to be seen, one after the other: few are in memory at a time.

    Frames that build on the one before are put together with it. The picture that some animated PNGs have for programs
    that know no animation is none of them. Raises `ImageError` as `load_image` does, also where the frames are over
    `max_frames` or have more than `max_pixels` together.
    """
    limits = limits or DecodeLimits()
    with _readable_errors(name), _opened(data, limits) as image:
        numbers = range(1 if getattr(image, "default_image", False) else 0, _frame_count(image))
        if len(numbers) > limits.max_frames:
            raise ImageError(f"an animation of {len(numbers)} frames, over the limit of {limits.max_frames}")
        size = image.size
        together = len(numbers) * size[0] * size[1]
        if together > limits.max_pixels:
            raise ImageError(
                f"{len(numbers)} frames of {size[0]}×{size[1]} have {together / 1e6:.0f} megapixels, over the limit of "
                f"{limits.max_pixels / 1e6:g} (raise it with --max-pixels)"
            )
        for number in numbers:
            image.seek(number)
            _load(image, limits)
            if image.size != size:
                raise ImageError("its frames differ in size")
            yield _convert(image)


@contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    """Whatever a picture's bytes can cause within becomes an error of ours, one line that begins with `name`."""
    try:
        yield
    except U2NetError as error:
        raise type(error)(f"{name}: {error}") from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode it") from error
    except RecursionError as error:
        raise ImageError(f"{name}: damaged") from error
    except OSError as error:
        raise ImageError(f"{name}: {_reason(error)}") from error
    except Exception as error:  # Pillow's parsers raise a dozen types on damaged files (struct.error, KeyError, …)
        raise ImageError(f"{name}: damaged ({_reason(error)})") from error


def _name(source: object) -> str:
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))[1:-1]
    return "picture"


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:200] + "…"


def read_source(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, limits: DecodeLimits
) -> bytes:
    """All bytes of `source`. Raises `ImageError` and `OSError`."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        data = _read_file(Path(source), limits)
    else:
        data = source.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise ImageError(f"larger than {limits.max_bytes:,} bytes")
    if not data:
        raise ImageError("empty file")
    return data


def _read_file(path: Path, limits: DecodeLimits) -> bytes:
    try:
        check_path(path)
    except U2NetError as error:
        raise ImageError("control characters in the path") from error
    if "\0" in str(path):
        raise ImageError("control characters in the path")
    # Non-blocking, so that a named pipe without a writer is refused instead of waited for.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImageError("not a regular file")
        return file.read(limits.max_bytes + 1)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Within, Pillow neither warns of large pictures nor refuses them: this module's own limits decide."""
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _quiet_libtiff(needed: bool) -> Iterator[None]:
    """Within, where `needed`, nothing reaches the process's standard error.

    libtiff prints there by itself, a line for each fault and some with text that the file decides, and offers no way
    to stop it through Pillow. The error itself comes back as an exception all the same.
    """
    saved = None
    if needed:
        with suppress(OSError):  # no standard error, nothing to silence
            saved = os.dup(2)
    if saved is None:
        yield
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("it has no pixels")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{width}×{height} is {width * height / 1e6:.0f} megapixels, over the limit of "
            f"{limits.max_pixels / 1e6:g} (raise it with --max-pixels)"
        )


def _opened(data: bytes, limits: DecodeLimits) -> Image.Image:
    """The picture of a file's bytes, its size checked and no pixel decoded; to be closed."""
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > limits.max_scans:
        raise ImageError(f"a JPEG of more than {limits.max_scans} scans")
    with _quiet_pillow():
        try:
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            image = _open_with_plugin(data)
    try:
        _check_size(image.size, limits)
    except ImageError:
        image.close()
        raise
    return image


def _load(image: Image.Image, limits: DecodeLimits) -> None:
    with _quiet_pillow(), _quiet_libtiff(image.format == "TIFF"):
        image.load()
    _check_size(image.size, limits)


def _open_with_plugin(data: bytes) -> Image.Image:
    """An image of a format that needs another package. Raises `ImageError`, naming the package where there is one."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        plugin = _HEIF
    elif data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        plugin = _JPEG_XL
    else:
        raise ImageError("not a picture of a known format")
    try:
        module = import_module(plugin.module)
    except ImportError:
        raise ImageError(f"{plugin.format} needs a package: pip install {plugin.package}") from None
    if plugin.register is not None:
        getattr(module, plugin.register)()
    try:
        return Image.open(io.BytesIO(data), formats=(plugin.format,))
    except UnidentifiedImageError:
        raise ImageError(f"damaged ({plugin.package} cannot read it)") from None


def _convert(image: Image.Image) -> Decoded:
    """The pixels of an open and loaded Pillow image by the rules of the module."""
    notes: list[str] = []
    orientation, exif = _exif(image)
    form = image.format
    colour, alpha = _split(image, notes)
    if orientation in _TRANSPOSE:
        colour = colour.transpose(_TRANSPOSE[orientation])
        alpha = alpha.transpose(_TRANSPOSE[orientation]) if alpha is not None else None
    rgb = _pixels(colour)
    matte = None
    if alpha is not None and alpha.getextrema()[0] != 255:
        matte = _pixels(alpha)
    metadata = Metadata(exif, _dpi(image, orientation))
    return Decoded(
        *(rgb, matte, form, _frame_count(image), _duration_ms(image), _plays(image), tuple(notes)), metadata=metadata
    )


def _pixels(image: Image.Image) -> ByteArray:
    """`np.asarray(image)` of 8-bit samples in bands: at once it takes twice the memory of the result besides."""
    width, height = image.size
    out = np.empty((height, width, *((len(image.getbands()),) if image.mode != "L" else ())), np.uint8)
    rows = max(1, (1 << 22) // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        out[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return out


def _duration_ms(image: Image.Image) -> float:
    try:
        return min(max(0.0, float(image.info.get("duration", 0))), 655_350.0)  # the most that GIF can say
    except (TypeError, ValueError):
        return 0.0


def _plays(image: Image.Image) -> int:
    """How often an animation runs. GIF says how often it is repeated, and nothing where it is not; others say this."""
    loop = image.info.get("loop")
    if not isinstance(loop, int) or loop < 0:
        return 1
    return loop + 1 if loop and image.format == "GIF" else loop


def _frame_count(image: Image.Image) -> int:
    if image.format == "MPO":  # a second view or a preview, not an animation
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # counting frames parses the rest of the file, which may be damaged; the first is decoded already
        return 1


def _exif(image: Image.Image) -> tuple[int, bytes | None]:
    """The orientation (1 if absent or nonsense) and the EXIF block without it."""
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION_TAG, 1)
        if not len(exif):
            return 1, None
        exif.pop(_ORIENTATION_TAG, None)
        return (orientation if isinstance(orientation, int) else 1), exif.tobytes()
    except Exception:  # metadata must never cost the picture
        return 1, None


def _dpi(image: Image.Image, orientation: int) -> tuple[float, float] | None:
    """Pixels an inch across and down, as the picture stands upright; None where the file says nothing sensible."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (1 <= across <= 65535 and 1 <= down <= 65535):
        return None
    return (down, across) if orientation >= 5 else (across, down)


def _split(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """Colours as an RGB image in sRGB, and alpha as an L image or None."""
    mode = image.mode
    profile = image.info.get("icc_profile")
    if mode.startswith("I") or mode == "F":
        image = _to_grey8(image)
    elif mode in ("P", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA") if _has_transparency(image) else image.convert("RGB")
    elif mode == "1":
        image = image.convert("L")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    if alpha is not None:
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    if image.mode == "LAB":
        image = _lab_to_srgb(image)
    elif profile:
        image = _to_srgb(image, bytes(profile), notes)
    return (image if image.mode == "RGB" else image.convert("RGB")), alpha


def _has_transparency(image: Image.Image) -> bool:
    return bool(image.has_transparency_data)


def _to_grey8(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey to 8-bit grey."""
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        scale = 255.0 if values.size and float(values.max()) <= 1.0 else 1.0
        return Image.fromarray((np.clip(values * scale, 0, 255) + 0.5).astype(np.uint8))
    samples = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return Image.fromarray(((samples + 128) // 257).astype(np.uint8))


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """`image` (RGB, L or CMYK) through its ICC profile to sRGB; as it is, with a note, where the profile is no good."""
    if len(profile) > MAX_PROFILE_BYTES:
        notes.append(f"colour profile of {len(profile):,} bytes ignored")
        return image
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    # The profile header names its colour space (ICC.1:2022, 7.2.6); Pillow itself checks that only for some modes.
    space = profile[16:20]
    if space != {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}[image.mode]:
        if not (image.mode == "L" and space == b"RGB "):
            notes.append("colour profile of another colour space ignored")
            return image
        image = image.convert("RGB")
    if image.mode == "RGB" and b"sRGB IEC61966-2" in profile[:4096]:
        return image  # the standard profile of nearly every photograph; its conversion changes nothing
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        assert converted is not None
        return converted
    except Exception as error:  # a damaged profile must not cost the picture
        notes.append(f"colour profile ignored ({_reason(error)})")
        return image


def _from_array(pixels: npt.NDArray[np.generic], limits: DecodeLimits) -> Decoded:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"pixels must be uint8 (H, W), (H, W, 3) or (H, W, 4), got {pixels.dtype} {tuple(pixels.shape)}"
        )
    if pixels.size == 0:
        raise ImageError("the picture has no pixels")
    _check_size((int(pixels.shape[1]), int(pixels.shape[0])), limits)
    array = pixels.astype(np.uint8, copy=False)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    decoded = Decoded(np.ascontiguousarray(array[:, :, :3]))
    if array.shape[2] == 4 and int(array[:, :, 3].min()) != 255:
        decoded = replace(decoded, alpha=np.ascontiguousarray(array[:, :, 3]))
    return decoded

"""What the values of a mask file mean.

A mask of this project is grey: black is background, white is foreground, between them lies a share. Masks of other
projects hold 0 and 1, the classes of a palette, or lie in the alpha channel; read as grey they are empty, or full, or
nonsense, and nothing says so. So a mask that can be read in two ways is refused until `mask_values` says what it is:

    grey      what is stored, as a share of 255
    alpha     the alpha channel
    nonzero   whatever is not 0 is foreground
    1  2,15   these values (of a palette: classes) are foreground

A mask of one value all over is refused as well: it may be a picture without a subject, or a mask that went wrong.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from u2net.decode import MAX_PIXELS
from u2net.errors import ConfigError, DataError, ImageError, U2NetError

__all__ = ["MASK_THRESHOLD", "MASK_VALUES_HELP", "check_mask_values", "read_mask"]

#: Ground truth is what is brighter than this, in 8 bits.
MASK_THRESHOLD = 128
MASK_VALUES_HELP = (
    "what masks hold, where they can be read in two ways: grey, alpha, nonzero, or the values 1 or 2,15 …"
)

CLASS_LIMIT = 32  # classes have small numbers: …
CLASS_KINDS = 16  # … few of them
TINT = 12  # levels between the channels of a grey picture that JPEG has stored in colour

ByteArray = npt.NDArray[np.uint8]


def check_mask_values(mask_values: str | None) -> str | None:
    """`mask_values` as it was given. Raises `ConfigError` where it says nothing."""
    if mask_values not in (None, "grey", "alpha", "nonzero") and not re.fullmatch(r"\d+(,\d+)*", str(mask_values)):
        raise ConfigError(f"--mask-values is grey, alpha, nonzero, or values as in 1 or 2,15, not {mask_values!r}")
    return mask_values


def read_mask(path: Path, mask_values: str | None = None) -> ByteArray:
    """The mask in `path` as uint8 (H, W), 0 background to 255 foreground, EXIF orientation applied.

    Raises `ImageError` where it cannot be decoded, and `DataError`, naming the file, where `mask_values` is None and
    the mask can be read in two ways, or is not what `mask_values` says.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ImageError(
                        f"the mask {path} is {opened.width}×{opened.height}, over {MAX_PIXELS:,} pixels; make it "
                        "smaller, with its picture"
                    )
                image = ImageOps.exif_transpose(opened)
                if mask_values is None:
                    return _plain(path, image)
                return _as_told(path, image, mask_values)
    except U2NetError:
        raise
    except Exception as error:  # Pillow's parsers raise a dozen types on damaged files
        raise ImageError(
            f"{path} cannot be read as a mask ({error}); save it as a grey PNG, or take it and its picture out of "
            "the folder"
        ) from error


def _as_told(path: Path, image: Image.Image, mask_values: str) -> ByteArray:
    if mask_values == "grey":
        return _grey(image)
    if mask_values == "alpha":
        alpha = _alpha(image)
        if alpha is None:
            raise DataError(f"the mask {path} has no alpha channel; leave --mask-values out, or say grey")
        return alpha
    stored = np.asarray(image)
    if stored.ndim == 3:  # colours: the same value in each channel, or no values at all
        if np.ptp(stored[..., :3].astype(np.int16), axis=2).max() > 0:
            raise DataError(
                f"the mask {path} is in colour, which --mask-values {mask_values} does not speak of; say "
                "--mask-values grey, or save it as an indexed or grey picture"
            )
        stored = stored[..., 0]
    wanted = stored != 0 if mask_values == "nonzero" else np.isin(stored, [int(v) for v in mask_values.split(",")])
    return np.where(wanted, 255, 0).astype(np.uint8)


def _plain(path: Path, image: Image.Image) -> ByteArray:
    """The grey values of a mask that cannot be meant otherwise."""
    alpha = _alpha(image)
    if alpha is not None and np.ptp(alpha) > 0:
        raise _doubt(path, "has an alpha channel that may be the mask, or not", "alpha, or grey to pass over it")
    if image.mode == "P":
        classes = sorted(set(np.asarray(image).ravel().tolist()))
        colours = np.asarray(image.convert("RGB"))
        if _is_coloured(colours):
            found = ", ".join(map(str, classes[:6])) + (", …" if len(classes) > 6 else "")
            raise _doubt(path, f"holds classes of a palette ({found})", f"{classes[-1]}, or whichever are foreground")
    elif image.mode in ("RGB", "RGBA", "CMYK", "YCbCr") and _is_coloured(np.asarray(image.convert("RGB"))):
        raise _doubt(path, "is in colour", "grey, or save it in grey")
    grey = _grey(image)
    counts = np.bincount(grey.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    if len(values) == 1:
        raise _doubt(path, f"has the value {values[0]} all over", "grey if that is right")
    if values[-1] <= MASK_THRESHOLD:
        hint = ",".join(map(str, values[values > 0])) if len(values) <= 3 else "nonzero"
        raise _doubt(path, f"holds values up to {values[-1]} of 255 and would be read as empty", hint)
    if len(values) <= CLASS_KINDS and counts[1:CLASS_LIMIT].sum() > counts[CLASS_LIMIT:].sum():
        found = ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")
        raise _doubt(path, f"holds what look like classes ({found})", f"{values[1]}, or whichever are foreground")
    return grey


def _doubt(path: Path, what: str, cure: str) -> DataError:
    return DataError(f"the mask {path} {what}; say what is foreground with --mask-values {cure}")


def _grey(image: Image.Image) -> ByteArray:
    """Grey values as they are stored, without colour management; 16 bits are brought down to 8."""
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        return (np.rint(deep / 257) if deep.max() > 255 else deep).astype(np.uint8)
    return np.asarray(image.convert("L"))


def _alpha(image: Image.Image) -> ByteArray | None:
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        return np.asarray(image.getchannel("A" if "A" in image.getbands() else "a"))
    if "transparency" in image.info:
        return np.asarray(image.convert("RGBA").getchannel("A"))
    return None


def _is_coloured(rgb: ByteArray) -> bool:
    """Whether more than a thousandth of the pixels is not grey."""
    tinted = np.ptp(rgb.astype(np.int16), axis=2) > TINT
    return float(tinted.mean()) > 1e-3

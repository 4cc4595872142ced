"""Cutting out: a picture in, its subject with alpha out.

from u2net import Remover
Remover("small-fast.onnx").cutout("photo.jpg").save("cutout.png")
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from .composite import Background, composite
from .contours import contours, svg_path
from .decode import Decoded, DecodeLimits, Source, load_image
from .encode import EncodeSettings, Metadata, write_picture
from .errors import ModelError
from .files import check_path
from .foreground import estimate_foreground
from .infer import Session
from .postprocess import BALANCED, Refinement, matte
from .preprocess import min_max
from .second_look import Seen, look_twice, windows
from .shadow import ShadowSettings, cast_shadow
from .subject import CropSettings, Subject, crop_box, crop_pixels, find_subject
from .zoo import ALIASES, DEFAULT_MODEL, PUBLIC_WEIGHTS, WEIGHTS, default_path, embedded_weights

__all__ = ["NOTHING_FOUND", "Cutout", "Remover", "default_model", "resolve_model"]

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

NOTHING_FOUND = "nothing was found in the picture"

#: Where a model is looked for when none is named, in this order: the one that the wheel carries, then what the
#: pipeline has built under the working folder.
_PACKAGED = Path(__file__).parent / "models"  # in a wheel of a bundle: the one model that it brings
_BUILT = tuple(
    Path("build") / model / f"{form}.onnx" for model in (DEFAULT_MODEL, "small", "lite") for form in ("int8", "fp32")
)


def default_model() -> Path:
    """The model used when none is named. Raises `ModelError`, saying how to make one, where there is none."""
    for path in (*sorted(_PACKAGED.glob("*.onnx")), *_BUILT):
        if path.is_file():
            return path
    raise ModelError("no model found: name one with --model, or make one with 'make export quantize'")


def resolve_model(name: str) -> Path:
    """The ONNX file that `name` means: a path, or a model's name, ours or the authors' (`small`, `u2netp`, …).

    A named model is the wheel's, else what the pipeline has built under the working folder, else what `u2net weights
    fetch` has brought. Raises `ModelError`, saying what to do, where there is none or it is a checkpoint.
    """
    path = check_path(name)
    if path.suffix.lower() in (".safetensors", ".pth", ".pt", ".ckpt"):
        raise ModelError(f"{name} is a checkpoint; make a model of it: u2net export --weights {name} --out model.onnx")
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    known = ALIASES.get(name, name)
    places = [_PACKAGED / f"{known}.onnx", *(Path("build") / known / f"{form}.onnx" for form in ("int8", "fp32"))]
    public = PUBLIC_WEIGHTS.get(known)
    if public is not None:
        places.append(default_path(public))
    for place in places:
        if place.is_file():
            return place
    if public is not None:
        raise ModelError(f"the model {name} is not here; get it by: u2net weights fetch {known}")
    if embedded_weights(known) is not None:
        raise ModelError(f"the model {name} is not built here; make it by: make export quantize MODEL={known}")
    raise ModelError(f"{name} is neither a file nor a model that is known ({', '.join(sorted(_names()))})")


def _names() -> set[str]:
    own = (path.stem for path in (*WEIGHTS.glob("*.safetensors"), *_PACKAGED.glob("*.onnx")))
    return {*own, *ALIASES, *PUBLIC_WEIGHTS}


@dataclass(frozen=True, eq=False)
class Cutout:
    """A subject. `rgb` uint8 (H, W, 3) and `alpha` uint8 (H, W), not premultiplied; `saliency` is the map of it.

    `rgb` is black where `alpha` is 0: nothing of the background is carried along unseen.
    """

    rgb: ByteArray
    alpha: ByteArray
    saliency: FloatArray  # float32 (h, w) in [0, 1]: the network's, (size, size), or what `second_look` made of several
    source: Decoded
    looks: int = 1  # passes of the network; 0 where the picture was a cut-out already
    timings: dict[str, float] = field(default_factory=dict)  # milliseconds of each step
    notes: tuple[str, ...] = ()  # one readable phrase for each thing that a person may want to know

    @cached_property
    def subject(self) -> Subject:
        """Whether something was found, and where."""
        return find_subject(self.alpha)

    def cropped(self, settings: CropSettings, subject: Subject | None = None) -> Cutout:
        """The cut-out cut to its subject, or as it is where nothing was found or no crop is asked for.

        `subject` is another one to cut to: that of all frames of an animation.
        """
        subject = subject or self.subject
        if subject.box is None or not subject.found or not (settings.crop or settings.square):
            return self
        height, width = self.alpha.shape
        part = crop_box(subject.box, height, width, settings.margin, settings.square)
        return replace(self, rgb=crop_pixels(self.rgb, part), alpha=crop_pixels(self.alpha, part))

    def with_shadow(self, settings: ShadowSettings, subject: Subject | None = None) -> Cutout:
        """The cut-out with a shadow under it, or as it is where none is asked for or nothing was found."""
        subject = subject or self.subject
        if subject.box is None or not settings.shadow:
            return self
        rgb, alpha = cast_shadow(self.rgb, self.alpha, max(subject.box.width, subject.box.height), settings)
        return replace(self, rgb=rgb, alpha=alpha)

    def rgba(self) -> ByteArray:
        """uint8 (H, W, 4)."""
        return np.dstack((self.rgb, self.alpha))

    def image(self) -> Image.Image:
        """The cut-out as a Pillow image of mode RGBA."""
        return Image.fromarray(self.rgba())

    def over(self, background: Background) -> ByteArray:
        """uint8 (H, W, 3): the cut-out in front of `background`; (H, W, 4) where that is partly transparent."""
        return composite(self.rgb, self.alpha, background)

    def pixels(self, background: Background | None = None) -> ByteArray:
        """What is written: `rgba()`, or `over(background)` where there is one."""
        return self.rgba() if background is None else self.over(background)

    def save(
        self,
        path: str | os.PathLike[str],
        background: Background | None = None,
        settings: EncodeSettings | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Write a PNG, WebP or (with a background) JPEG, atomically. Raises `OutputError` and `ConfigError`."""
        write_picture(path, self.pixels(background), settings, metadata)

    def svg(self, tolerance: float = 1.0) -> str:
        """An SVG document with the outline of alpha ≥ 128 as one path, simplified to within `tolerance` pixels."""
        height, width = self.alpha.shape
        path = svg_path(contours(self.alpha >= 128, tolerance))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
            f'<path fill-rule="evenodd" d="{path}"/></svg>\n'
        )

    def save_mask(self, path: str | os.PathLike[str], settings: EncodeSettings | None = None) -> None:
        """Write `alpha` as an 8-bit grey picture, atomically. Raises `OutputError` and `ConfigError`."""
        write_picture(path, self.alpha, settings)


class Remover:
    """A model with its settings. Raises `ModelError` where the model cannot be used.

    `model` is the path of an ONNX file (by default `default_model()`) or a `Session`; `refinement` says
    how the map becomes a matte; `stretch` spreads each map over
    the full range of [0, 1], which finds faint subjects and makes subjects up where there are none.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Session | None = None,
        *,
        threads: int | None = None,
        refinement: Refinement = BALANCED,
        stretch: bool = False,
        limits: DecodeLimits | None = None,
    ) -> None:
        self.session = model if isinstance(model, Session) else Session(model or default_model(), threads)
        self.refinement = refinement
        self.stretch = stretch
        self.limits = limits or DecodeLimits()

    def cutout(self, image: Source | Decoded, keep: bool | None = None) -> Cutout:
        """Cut the subject out of a path, file bytes, a binary file, a Pillow image, uint8 pixels or a `Decoded`.

        `keep` says whether the picture's own transparency is the matte, by default `Decoded.is_cutout`. Raises
        `ImageError` where it cannot be decoded.
        """
        clock = _Clock()
        decoded = image if isinstance(image, Decoded) else load_image(image, self.limits)
        if decoded.is_cutout if keep is None else keep:
            own = np.full(decoded.rgb.shape[:2], 255, np.uint8) if decoded.alpha is None else decoded.alpha
            clock.note("decode_ms")
            return self._finished(decoded, _kept(own), own, clock, ("already a cut-out: kept as it is",))
        flat = decoded.flattened()
        clock.note("decode_ms")
        height, width = self.session.input_size
        twice = self.refinement.second_look and height == width  # a second look's boxes are seen as squares
        waiting = len(windows(decoded.width, decoded.height)) if twice else 1

        def look(part: ByteArray, mirrored: bool) -> FloatArray:
            nonlocal waiting
            saliency = self.session.saliency(part, mirrored)
            waiting -= 1
            clock.note("first_look_ms" if waiting >= 0 else "second_look_ms")
            return min_max(saliency) if self.stretch else saliency

        seen = look_twice(flat, look, height) if twice else Seen(look(flat, False), 1, None)
        alpha = matte(decoded.rgb, seen.saliency, self.refinement, decoded.alpha)
        clock.note("matte_ms")
        return self._finished(decoded, seen, alpha, clock)

    def _finished(
        self, decoded: Decoded, seen: Seen, alpha: ByteArray, clock: _Clock, notes: tuple[str, ...] = ()
    ) -> Cutout:
        if self.refinement.colours == "estimate" and seen.looks:
            rgb = estimate_foreground(decoded.rgb, alpha)
        else:
            rgb = decoded.rgb.copy()
            np.copyto(rgb, 0, where=(alpha == 0)[:, :, None])  # an index of these pixels would take 16 bytes each
        clock.note("colours_ms")
        cutout = Cutout(rgb, alpha, seen.saliency, decoded, seen.looks, clock.timings, decoded.notes + notes)
        if cutout.subject.found:
            return cutout
        return replace(cutout, notes=(*cutout.notes, NOTHING_FOUND))


def _kept(alpha: ByteArray) -> Seen:
    return Seen(alpha.astype(np.float32) / np.float32(255), 0, None)


class _Clock:
    """Adds up what each step takes."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, step: str) -> None:
        now = time.perf_counter()
        self.timings[step] = self.timings.get(step, 0.0) + (now - self._last) * 1e3
        self._last = now

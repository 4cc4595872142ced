"""One picture: from the bytes of its file to the bytes of the files that are asked for.

The command for one picture, the batch and the HTTP service all do it through `Producer`. An animation becomes one
where a file of a format that can hold it is asked for; its frames are cut out each on its own, and cropped and shaded
by the subject of all of them together, so that nothing jumps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Literal

import numpy as np

from .commandline import say
from .composite import Background, parse_background
from .decode import Decoded, DecodeLimits, load_frames, load_image
from .encode import MOVING_FORMATS, EncodeSettings, OutputFormat, Timing, encoded
from .errors import ConfigError
from .infer import Session
from .postprocess import BALANCED, Refinement
from .remover import NOTHING_FOUND, Cutout, Remover
from .shadow import ShadowSettings
from .subject import CropSettings, Subject, find_subject

__all__ = ["Part", "Producer", "Product", "ProductSettings", "check_format"]

Part = Literal["cutout", "mask"]


@dataclass(frozen=True)
class ProductSettings:
    """All that decides the bytes of what is made of a picture. Picklable: workers are built from it."""

    model: str  # path of the ONNX file
    refinement: Refinement = BALANCED  # the preset that most people want
    stretch: bool = False  # min-max stretching of the map: makes subjects up on empty scenes
    background: str = "transparent"  # or a colour, or the path of a picture
    encoding: EncodeSettings = field(default_factory=EncodeSettings)  # fast rather than small
    limits: DecodeLimits = field(default_factory=DecodeLimits)  # what is refused
    crop: CropSettings = field(default_factory=CropSettings)  # the cut-out lies where it lay in the picture
    shadow: ShadowSettings = field(default_factory=ShadowSettings)  # nothing that was not in the picture
    fail_if_empty: bool = False  # a picture where nothing is found is done, with a note
    keep_metadata: bool = False  # EXIF holds places and serial numbers: only on request
    threads: int | None = None  # of one inference


@dataclass(frozen=True, eq=False)
class Product:
    """What was made of a picture. `error` says why nothing was, and `files` and `svg` are empty then."""

    width: int
    height: int
    subject: Subject
    notes: tuple[str, ...]
    timings: dict[str, float]  # milliseconds of each step, of all frames together
    files: dict[Part, memoryview] = field(default_factory=dict)
    svg: str = ""
    error: str | None = None


class Producer:
    """A model with all settings of what is made with it. Raises `ModelError`, `ConfigError` and `ImageError`.

    `session` is the settings' model where it is loaded already.
    """

    def __init__(self, settings: ProductSettings, session: Session | None = None) -> None:
        self.settings = settings
        self.background: Background | None = parse_background(settings.background, settings.limits)
        if settings.refinement.edges == "matting":
            from .matting import prepare_matting

            prepare_matting(say)
        self.remover = Remover(
            session or settings.model,
            threads=settings.threads,
            refinement=settings.refinement,
            stretch=settings.stretch,
            limits=settings.limits,
        )

    def __call__(self, data: bytes, name: str, forms: Mapping[Part, OutputFormat], outline: bool = False) -> Product:
        """Make the parts that `forms` names, each in its format, and the SVG `outline` where asked for.

        Raises `ImageError` for what a picture can cause, `ConfigError` and `OutputError` where a format cannot hold it.
        """
        settings = self.settings
        if "cutout" in forms:
            check_format(forms["cutout"], self.background)
        first = load_image(data, settings.limits, name=name)
        moving = bool(MOVING_FORMATS & set(forms.values()))
        cutouts, durations, subject = self._cutouts(data, name, first, moving)
        first = cutouts[0].source
        timings: dict[str, float] = {}
        for cutout in cutouts:
            for step, value in cutout.timings.items():
                timings[step] = timings.get(step, 0.0) + value
        notes = _notes(cutouts, first, subject, forms, self.background)
        height, width = cutouts[0].alpha.shape
        product = Product(width, height, subject, notes, timings)
        if settings.fail_if_empty and not subject.found:
            return replace(product, error=f"{name}: {NOTHING_FOUND}")
        cropped = [cutout.cropped(settings.crop, subject) for cutout in cutouts]
        timing = Timing(durations, first.plays) if len(cutouts) > 1 else None
        files: dict[Part, memoryview] = {}
        for part, form in forms.items():
            kept = cropped if form in MOVING_FORMATS else cropped[:1]
            if part == "mask":
                frames = [cutout.alpha for cutout in kept]
            else:
                frames = [cutout.with_shadow(settings.shadow, subject).pixels(self.background) for cutout in kept]
            metadata = first.metadata if settings.keep_metadata and part == "cutout" else None
            files[part] = encoded(frames, form, settings.encoding, metadata, timing if len(kept) > 1 else None)
        return replace(product, files=files, svg=cropped[0].svg() if outline else "")

    def _cutouts(
        self, data: bytes, name: str, first: Decoded, moving: bool
    ) -> tuple[list[Cutout], tuple[float, ...], Subject]:
        """The cut-outs of all frames, or of the one picture, how long each is shown, and the subject of all."""
        shown = replace(first, rgb=first.rgb[:0].copy(), alpha=None)  # once cut out its pixels are needed no longer
        if not (moving and first.animated):
            made = self.remover.cutout(first)
            return [replace(made, source=shown)], (0.0,), made.subject
        cutouts: list[Cutout] = []
        durations = []
        keep = None
        for frame in load_frames(data, self.settings.limits, name):
            keep = frame.is_cutout if keep is None else keep  # a sticker is one in all its frames
            cutout = self.remover.cutout(frame, keep)
            durations.append(frame.duration_ms)
            cutouts.append(replace(cutout, source=shown, saliency=cutout.saliency[:0].copy()))
        return cutouts, tuple(durations), find_subject(reduce(np.maximum, (cutout.alpha for cutout in cutouts)))


def check_format(form: OutputFormat, background: Background | None) -> None:
    """Raises `ConfigError` where pictures of `form` cannot show what is in front of `background`."""
    if form == "jpeg" and (background is None or background.opacity < 255):
        raise ConfigError("JPEG has no transparency: choose an opaque --background, PNG or WebP")


def _notes(
    cutouts: list[Cutout],
    first: Decoded,
    subject: Subject,
    forms: Mapping[Part, OutputFormat],
    background: Background | None,
) -> tuple[str, ...]:
    """What a person may want to know, each once."""
    if len(cutouts) == 1:
        notes = list(cutouts[0].notes)
        if first.animated and not MOVING_FORMATS & set(forms.values()):
            notes.append("outputs named .webp, .apng or .gif keep them all")
    else:
        notes = [f"{len(cutouts)} frames"]
        notes += [note for cutout in cutouts for note in cutout.notes if note != NOTHING_FOUND]
        if not subject.found:
            notes.append(NOTHING_FOUND)
    if forms.get("cutout") == "gif" and (background is None or background.opacity < 255):
        notes.append("GIF has no half-transparent pixels, so edges are hard")
    return tuple(dict.fromkeys(notes))

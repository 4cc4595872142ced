"""Panoramas: is a subject in a wide picture found as well as in a square crop around it?

For each of `CASES` a subject of the procedural set stands in a picture so many times as wide as high.
Its mask after one look of the network and after those of `u2net.second_look` is held against the truth, and so is the
mask of one look at the square around the subject. Subjects that the model does not know even there (IoU under `KNOWN`)
are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from datasets.procedural.backgrounds import landscape, studio, water
from datasets.synthetic import SyntheticSet
from u2net.agreement import mask_iou
from u2net.infer import Session
from u2net.preprocess import resize_bilinear
from u2net.second_look import look_twice

from .text import Column, text_table

__all__ = ["ASPECTS", "BACKDROPS", "CASES", "Row", "measure_panoramas", "panoramas_text"]

ByteArray = npt.NDArray[np.uint8]

ASPECTS = (3, 6, 12)
BACKDROPS = {"landscape": landscape, "studio": studio, "water": water}
CASES = tuple((aspect, backdrop) for aspect in ASPECTS for backdrop in BACKDROPS)
HEIGHT = 360  # pixels
PLACE = 0.62  # of the width: neither the middle nor where windows meet
KNOWN = 0.8
SEED = 4100  # of scenes that nothing was chosen on
_MOST_TRIED = 50


@dataclass(frozen=True)
class Row:
    """One panorama: IoU with the truth of one look, of the runner's, and of one look at a square crop."""

    aspect: int
    backdrop: str
    scene: str
    one_look: float
    second_look: float
    crop: float
    looks: int

    @property
    def ious(self) -> tuple[float, float, float]:
        """All three."""
        return self.one_look, self.second_look, self.crop

    @property
    def share(self) -> float:
        """The runner's IoU, of the crop's."""
        return self.second_look / self.crop


def measure_panoramas(session: Session, cases: Sequence[tuple[int, str]] = CASES) -> list[Row]:
    """A row for each case, an aspect and the name of a backdrop, each with a subject of its own."""
    scenes = count()
    return [_row(session, aspect, backdrop, scenes) for aspect, backdrop in cases]


def _row(session: Session, aspect: int, backdrop: str, scenes: count[int]) -> Row:
    for index in scenes:
        scene = SyntheticSet(index + 1, SEED, (HEIGHT, HEIGHT), "hard")[index]
        rng = np.random.default_rng((SEED, index))
        width = aspect * HEIGHT
        painted = BACKDROPS[backdrop](rng, (width, HEIGHT)).rgb
        rgb = np.floor(np.clip(painted, 0, 255) + 0.5).astype(np.uint8)
        part = slice(round(PLACE * (width - HEIGHT)), round(PLACE * (width - HEIGHT)) + HEIGHT)
        a = scene.alpha[:, :, None]
        rgb[:, part] = np.floor(scene.foreground * a + rgb[:, part] * (1 - a) + 0.5).astype(np.uint8)
        truth = np.zeros((HEIGHT, width), bool)
        truth[:, part] = scene.alpha > 0.5
        crop = _iou(session.saliency(np.ascontiguousarray(rgb[:, part])), truth[:, part])
        if crop < KNOWN and index < _MOST_TRIED:
            continue
        seen = look_twice(rgb, session.saliency, session.size)
        one = _iou(session.saliency(rgb), truth)
        return Row(aspect, backdrop, scene.name, one, _iou(seen.saliency, truth), crop, seen.looks)
    raise AssertionError("scenes never end")


def _iou(saliency: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> float:
    return mask_iou(resize_bilinear(saliency, *truth.shape) >= 0.5, truth)


def panoramas_text(rows: list[Row]) -> str:
    """The table, for a terminal."""
    columns = [Column(name, left=True) for name in ("width", "backdrop")]
    columns += [Column(name) for name in ("one look", "second look", "square crop", "looks")]
    cells = [[f"{row.aspect} : 1", row.backdrop, *(f"{iou:.3f}" for iou in row.ious), str(row.looks)] for row in rows]
    return text_table("IoU of a subject in a panorama", columns, cells)

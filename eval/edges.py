"""How good edges are: the work of `u2net eval edges`.

Three questions, answered for every preset against plain bilinear upsampling (`fast`):

- **Mattes.** The map is the exact matte itself, brought to the network's size in two ways (`perfect_maps`): what is
  left is the work of refinement alone. SAD on procedural hair, translucent and hard-edged scenes and on true mattes.
- **Colours.** Error of the subject's colours on soft pixels of the procedural scenes, kept against estimated.
- **Masks.** With a model: boundary F (and SAD on true mattes) of its own maps on photographs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datasets.folder import PairFolder
from datasets.synthetic import SyntheticSet
from eval.metrics import Truth, score
from u2net.foreground import estimate_foreground
from u2net.infer import Session
from u2net.postprocess import PRESETS, matte
from u2net.preprocess import resize_for_network
from u2net.sampling import cell_means, to_alpha

__all__ = ["measure_masks", "measure_scenes", "perfect_maps", "table"]

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

NETWORK_SIZE = 320
SCENE_SIZE = (1280, 960)  # four network pixels to one: a small photograph
SCENE_KINDS = ("hair", "translucent", "hard")
SOFT = (12, 243)  # of 255: where colours are mixed and judged


@dataclass(frozen=True)
class Row:
    """One figure: of what, for which preset, over how many pictures."""

    what: str
    preset: str
    values: tuple[float, ...]  # of the single pictures, in the order of the data

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))


def perfect_maps(alpha: FloatArray) -> dict[str, FloatArray]:
    """What a perfect network could say of an exact matte, float32 (H, W) in [0, 1]: two maps, float32 (size, size).

    `means` are the matte's means over the areas of the map's pixels (Pillow's box filter is no such thing where sides
    are no multiples: it takes or leaves whole pixels). `seen` is the matte resized as the network sees the picture,
    which knows nothing of the areas that refinement reckons with.
    """
    height, width = alpha.shape
    size = NETWORK_SIZE
    grey = np.repeat(to_alpha(alpha)[:, :, None], 3, axis=2)
    return {
        "means": cell_means(alpha[None], size, size, (height / size, width / size))[0],
        "seen": resize_for_network(grey, size)[:, :, 0] / np.float32(255),
    }


def sad(alpha: ByteArray, truth: FloatArray) -> float:
    """Sum of absolute differences in thousands, over the whole picture."""
    return float(np.abs(alpha.astype(np.float32) / 255 - truth).sum(dtype=np.float64)) / 1000


def measure_scenes(count: int, seed: int, presets: Sequence[str], kinds: Sequence[str] = SCENE_KINDS) -> list[Row]:
    """SAD and colour errors on `count` procedural scenes of each kind."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kind in kinds:
        for scene in SyntheticSet(count, seed, SCENE_SIZE, kind=kind):
            for name, saliency in perfect_maps(scene.alpha).items():
                for preset in presets:
                    alpha = matte(scene.rgb, saliency, PRESETS[preset])
                    sums[f"SAD, {kind} scenes, {name}", preset].append(sad(alpha, scene.alpha))
            exact = to_alpha(scene.alpha)
            soft = (exact > SOFT[0]) & (exact < SOFT[1])
            if kind != "hard" and soft.any():
                for name, colours in (("kept", scene.rgb), ("estimated", estimate_foreground(scene.rgb, exact))):
                    difference = np.abs(colours[soft].astype(np.float32) - scene.foreground[soft])
                    sums[f"colour error of 255, {kind} scenes", name].append(float(difference.mean()))
    return [Row(what, preset, tuple(values)) for (what, preset), values in sums.items()]


def measure_masks(model: Path | None, data: Path, sets: Sequence[str], presets: Sequence[str]) -> Iterator[Row]:
    """Boundary F of the model's masks on the records of `sets`, and SAD on true mattes with and without the model."""
    session = Session(model) if model is not None else None
    sums: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in PairFolder(data):
        alpha = record.alpha()
        truth = Truth.of_bytes(to_alpha(alpha))
        is_matte = truth.alpha is not None and record.set_name not in sets
        if not is_matte and (record.set_name not in sets or session is None):
            continue
        rgb = record.image()
        saliency = session.saliency(rgb) if session is not None else None
        maps = perfect_maps(alpha) if is_matte else {}
        if saliency is not None:
            maps["the model's map"] = saliency
        for name, map_ in maps.items():
            for preset in presets:
                result = matte(rgb, map_, PRESETS[preset])
                if is_matte:
                    sums[f"SAD, true mattes, {name}", preset].append(sad(result, alpha))
                    continue
                values = score(result, truth).values
                for metric in ("boundary_f", "boundary_iou", "mae"):
                    sums[f"{metric}, {record.set_name}", preset].append(values[metric])
    for (what, preset), values_of in sums.items():
        yield Row(what, preset, tuple(values_of))


def table(rows: Sequence[Row]) -> str:
    """Rows as text, a line for each figure, with changes against the first column: of means, and of single pictures."""
    lines = []
    for what in dict.fromkeys(row.what for row in rows):
        here = [row for row in rows if row.what == what]
        base = here[0].mean
        cells = [f"{here[0].preset} {base:.4f}"]
        for row in here[1:]:
            change = f"{100 * (row.mean / base - 1):+.1f} %" if base else "–"
            pairs = zip(row.values, here[0].values, strict=True)
            single = [100 * (value / plain - 1) for value, plain in pairs if plain]
            if len(single) > 1:
                change += f"; {min(single):+.1f} to {max(single):+.1f}"
            cells.append(f"{row.preset} {row.mean:.4f} ({change})")
        lines.append(f"{what:42} n={len(here[0].values):<4} " + "   ".join(cells))
    return "\n".join(lines)

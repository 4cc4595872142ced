"""How good edges are: `python -m eval.edges`.

Three questions, answered for every preset against plain bilinear upsampling (`fast`):

- **Mattes.** The map is the exact matte itself, averaged down to the network's size: what is left is the work of
  refinement alone. SAD on procedural hair, translucent and hard-edged scenes and on true mattes of the data.
- **Colours.** Error of the subject's colours on soft pixels of the procedural scenes, kept against estimated.
- **Masks.** With a model: boundary F (and SAD on true mattes) of its own maps on photographs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from datasets.folder import PairFolder
from datasets.synthetic import SyntheticSet
from eval.metrics import Truth, score
from u2net.artifact import write_json
from u2net.errors import ConfigError, U2NetError
from u2net.foreground import estimate_foreground
from u2net.infer import Session
from u2net.postprocess import PRESETS, matte
from u2net.sampling import to_alpha

__all__ = ["main", "measure_masks", "measure_scenes"]

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
    value: float  # the mean
    count: int
    values: tuple[float, ...]  # of the single pictures, in the order of the data


def ideal_map(alpha: FloatArray) -> FloatArray:
    """The exact matte, float32 (H, W), as a perfect network would give it: its means over the network's pixels."""
    size = (NETWORK_SIZE, NETWORK_SIZE)
    return np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BOX), np.float32)


def sad(alpha: ByteArray, truth: FloatArray) -> float:
    """Sum of absolute differences in thousands, over the whole picture."""
    return float(np.abs(alpha.astype(np.float32) / 255 - truth).sum(dtype=np.float64)) / 1000


def measure_scenes(count: int, seed: int, presets: Sequence[str], kinds: Sequence[str] = SCENE_KINDS) -> list[Row]:
    """SAD and colour errors on `count` procedural scenes of each kind."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(list)
    for kind in kinds:
        for scene in SyntheticSet(count, seed, SCENE_SIZE, kind=kind):
            saliency = ideal_map(scene.alpha)
            for preset in presets:
                alpha = matte(scene.rgb, saliency, PRESETS[preset])
                sums[f"SAD, {kind} scenes", preset].append(sad(alpha, scene.alpha))
            exact = to_alpha(scene.alpha)
            soft = (exact > SOFT[0]) & (exact < SOFT[1])
            if kind != "hard" and soft.any():
                for name, colours in (("kept", scene.rgb), ("estimated", estimate_foreground(scene.rgb, exact))):
                    difference = np.abs(colours[soft].astype(np.float32) - scene.foreground[soft])
                    sums[f"colour error of 255, {kind} scenes", name].append(float(difference.mean()))
    return [_row(what, preset, values) for (what, preset), values in sums.items()]


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
        for preset in presets:
            if is_matte:
                ideal = matte(rgb, ideal_map(alpha), PRESETS[preset])
                sums["SAD, true mattes, ideal map", preset].append(sad(ideal, alpha))
            if saliency is None:
                continue
            result = matte(rgb, saliency, PRESETS[preset])
            if is_matte:
                sums["SAD, true mattes, the model's map", preset].append(sad(result, alpha))
            else:
                values = score(result, truth).values
                for name in ("boundary_f", "boundary_iou", "mae"):
                    sums[f"{name}, {record.set_name}", preset].append(values[name])
    for (what, preset), values_of in sums.items():
        yield _row(what, preset, values_of)


def _row(what: str, preset: str, values: Sequence[float]) -> Row:
    return Row(what, preset, float(np.mean(values)), len(values), tuple(values))


def table(rows: Sequence[Row]) -> str:
    """Rows as text, a line for each figure, with changes against the first column: of means, and of single pictures."""
    lines = []
    for what in dict.fromkeys(row.what for row in rows):
        here = [row for row in rows if row.what == what]
        base = here[0].value
        cells = [f"{here[0].preset} {base:.4f}"]
        for row in here[1:]:
            change = f"{100 * (row.value / base - 1):+.1f} %" if base else "–"
            pairs = zip(row.values, here[0].values, strict=True)
            single = [100 * (value / plain - 1) for value, plain in pairs if plain]
            if len(single) > 1:
                change += f"; {min(single):+.1f} to {max(single):+.1f}"
            cells.append(f"{row.preset} {row.value:.4f} ({change})")
        lines.append(f"{what:42} n={here[0].count:<4} " + "   ".join(cells))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m eval.edges", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, metavar="X.onnx", help="judge this model's own maps too")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder with images/ and masks/")
    parser.add_argument("--sets", default="ecssd", help="sets of it whose boundaries are judged (default ecssd)")
    parser.add_argument("--count", type=int, default=6, help="procedural scenes of each kind (default 6)")
    parser.add_argument("--seed", type=int, default=100, help="of the procedural scenes (default 100)")
    parser.add_argument("--presets", default="fast,balanced,best", help="which presets (default all three)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the figures")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(argv)
    try:
        presets = options.presets.split(",")
        unknown = [name for name in presets if name not in PRESETS]
        if unknown:
            raise ConfigError(f"no preset is called {unknown[0]!r}; there are {', '.join(PRESETS)}")
        rows = measure_scenes(options.count, options.seed, presets) if options.count > 0 else []
        if options.data is not None:
            rows += measure_masks(options.model, options.data, options.sets.split(","), presets)
        figures: list[dict[str, Any]] = [vars(row) for row in rows]
        if options.out is not None:
            write_json(options.out, {"rows": figures})
        print(json.dumps(figures, indent=2) if options.json else table(rows))
    except U2NetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Whether the verdict can be believed: what quantize says of good and bad calibration folders beside what is true.

Good folders of two sizes, black pictures, screenshots, one picture many times, and a folder of another domain; what is
true is measured on pictures of a further folder. A refusal is as good as a true figure.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from datasets.calibration import calibration_images
from u2net.errors import U2NetError
from u2net.files import write_json
from u2net.network.onnx_file import onnx_sha256

from .agreement import agreement, maps_of
from .graph import load_graph
from .inputs import network_inputs
from .plan import Progress
from .settings import QuantizeSettings
from .stage import quantize_file

__all__ = ["screenshot", "trust"]

BAD = 20  # pictures of each folder that is made here
ALLOWED = 0.02  # between what is said and what is true


def screenshot(seed: int) -> Image.Image:
    """A window of panels, lines of text and buttons: what lies in a folder of pictures and shows no subject."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (640, 400), tuple(int(v) for v in rng.integers(225, 256, 3)))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 640, 30), fill=tuple(int(v) for v in rng.integers(20, 120, 3)))
    for _ in range(int(rng.integers(2, 6))):
        x, y = (int(v) for v in rng.integers((0, 40), (420, 280)))
        width, height = (int(v) for v in rng.integers((120, 60), (220, 120)))
        draw.rectangle((x, y, x + width, y + height), outline=(160, 160, 160), fill=(250, 250, 250))
        for line in range(8, height - 12, 14):
            words = "".join(rng.choice(list("abcdefghijklmnop    "), int(rng.integers(5, width // 7))))
            draw.text((x + 8, y + line), words, fill=(40, 40, 40))
    for _ in range(int(rng.integers(1, 4))):
        x, y = (int(v) for v in rng.integers((10, 300), (500, 370)))
        draw.rounded_rectangle((x, y, x + 90, y + 24), 6, fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def _made(folder: Path, good: Path) -> Iterator[tuple[str, Path]]:
    """The bad folders by name."""
    first = calibration_images(good, 1)[0]
    for name, picture in (
        ("black", lambda index: Image.new("RGB", (320, 240))),
        ("screenshots", screenshot),
        ("one picture many times", lambda index: Image.fromarray(first)),
    ):
        made = folder / name
        made.mkdir()
        for index in range(BAD):
            picture(index).save(made / f"{index:02}.png")
        yield name, made


def trust(
    source: str | os.PathLike[str],
    good: str | os.PathLike[str],
    others: str | os.PathLike[str],
    domain: str | os.PathLike[str] | None,
    settings: QuantizeSettings,
    progress: Progress,
    journal: Path | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """A row for each folder, and a Markdown table. What is true is measured on `settings.check_count` of `others`.

    A killed run is continued: rows that the file `journal` has are not measured again.
    """
    graph = load_graph(source)
    pictures = calibration_images(others, settings.check_count, seed=5)
    inputs = network_inputs(graph, pictures)
    reference = maps_of(graph.to_model(), graph.input, inputs, settings.threads, progress, "measuring float")
    asked = f"{onnx_sha256(source)} {settings} {good} {others} {domain}"
    rows = _known(journal, asked)
    usual = replace(settings, check_count=QuantizeSettings().check_count, floor=0.0, max_mae=1.0)
    with tempfile.TemporaryDirectory(prefix="trust-") as name:
        folder = Path(name)
        cases = [("good, 16 pictures", Path(good), 16), ("good, 64 pictures", Path(good), 64)]
        cases += [(case, made, BAD) for case, made in _made(folder, Path(good))]
        if domain is not None:
            cases.append((f"another domain, {Path(domain).name}", Path(domain), 64))
        for case, calib, count in cases[len(rows) :]:
            out = folder / "int8.onnx"
            row: dict[str, Any] = {"calibrated_on": case, "said": None, "true": None, "refusal": "", "warnings": []}
            try:
                made = quantize_file(source, out, calib, replace(usual, count=count), progress, force=True)
            except U2NetError as error:
                row["refusal"] = str(error).replace(f"{folder}{os.sep}", "")
            else:
                maps = maps_of(str(out), graph.input, inputs, settings.threads, progress, f"measuring {case}")
                row["said"] = made["figures"]["agreement"]["iou_mean"]
                row["true"] = round(agreement(reference, maps).iou_mean, 6)
                row["warnings"] = made["figures"]["warnings"]
            rows.append(row)
            if journal is not None:
                write_json(journal, {"asked": asked, "rows": rows})
    return rows, _table(rows, len(pictures))


def _known(journal: Path | None, asked: str) -> list[dict[str, Any]]:
    if journal is None or not journal.is_file():
        return []
    try:
        found = json.loads(journal.read_bytes())
        return list(found["rows"]) if found["asked"] == asked else []
    except (ValueError, KeyError, TypeError):
        return []


def _table(rows: list[dict[str, Any]], pictures: int) -> str:
    lines = ["| calibrated on | says | true | apart | |", "|---|---:|---:|---:|---|"]
    for row in rows:
        if row["refusal"]:
            lines.append(f"| {row['calibrated_on']} | – | – | – | refused: {row['refusal']} |")
            continue
        apart = abs(row["said"] - row["true"])
        note = "; ".join(row["warnings"])
        lines.append(
            f"| {row['calibrated_on']} | {row['said']:.4f} | {row['true']:.4f} | {apart:.4f}"
            f"{'' if apart <= ALLOWED else ' (!)'} | {note} |"
        )
    return "\n".join([*lines, "", f"Mean mask IoU against float; what is true on {pictures} other pictures."])

"""Contact sheets: many pictures and their mattes on one page, to be looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .procedural.noise import ByteArray

__all__ = ["Cell", "contact_sheet"]

GAP = 6  # pixels between cells
CAPTION = 14  # pixels of height


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture uint8 (H, W, 3), its matte uint8 (H, W), and one line about it."""

    rgb: ByteArray
    matte: ByteArray
    caption: str


def contact_sheet(cells: Iterable[Cell], columns: int = 4, width: int = 240) -> Image.Image:
    """A page of `cells`: each picture beside its matte, `width` pixels each, with the caption below."""
    boxes = [_cell(cell, width) for cell in cells]
    rows = [boxes[start : start + columns] for start in range(0, len(boxes), columns)]
    heights = [max(box.height for box in row) for row in rows]
    page_width = columns * (2 * width + GAP) + GAP
    page = Image.new("RGB", (page_width, sum(heights) + GAP * (len(rows) + 1)), (24, 24, 26))
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, box in enumerate(row):
            page.paste(box, (GAP + column * (2 * width + GAP), y))
        y += height + GAP
    return page


def _cell(cell: Cell, width: int) -> Image.Image:
    height = max(1, round(width * cell.rgb.shape[0] / cell.rgb.shape[1]))
    box = Image.new("RGB", (2 * width, height + CAPTION), (24, 24, 26))
    for column, pixels in enumerate((cell.rgb, cell.matte)):
        small = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        box.paste(small.convert("RGB"), (column * width, 0))
    ImageDraw.Draw(box).text((2, height + 1), cell.caption[: width // 3], fill=(210, 210, 210))
    return box

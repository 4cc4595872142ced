"""A contact sheet to look at: the work of `u2net eval gallery`.

One row for each of 24 pictures: the picture, its matte, and its cut-out on grey and on a checkerboard. Without `--data`
the pictures are procedural. Writes `gallery-1.png`, … and `index.html`, which shows them all.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from datasets.folder import ImageFolder
from datasets.synthetic import SyntheticSet
from u2net.composite import Background
from u2net.decode import load_image
from u2net.encode import write_picture
from u2net.files import write_bytes
from u2net.postprocess import PRESETS
from u2net.remover import Cutout, Remover

__all__ = ["checkerboard", "sheet", "write_gallery"]

ByteArray = npt.NDArray[np.uint8]

CELL = 300  # pixels a cell is wide and high at most
GAP = 8
COLUMNS = ("picture", "matte", "on grey", "on checkerboard")
ROWS_PER_PAGE = 6
GREY = (128, 128, 128)
STYLE = "body{font:15px system-ui;margin:1rem}img{max-width:100%;display:block;margin:1rem 0}"
PAGE = (236, 236, 236)  # neither a checkerboard nor a white picture vanishes in it


def checkerboard(height: int, width: int, side: int = 12) -> ByteArray:
    """uint8 (height, width, 3): light and lighter squares."""
    y, x = np.mgrid[0:height, 0:width] // side
    return np.repeat(np.where((x + y) % 2, 204, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _fitted(pixels: ByteArray) -> Image.Image:
    image = Image.fromarray(pixels).convert("RGB")
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    return image


def _cells(cutout: Cutout) -> list[Image.Image]:
    height, width = cutout.alpha.shape
    side = max(4, round(max(height, width) / 25))
    return [
        _fitted(cutout.source.flattened()),
        _fitted(cutout.alpha),
        _fitted(cutout.over(Background(GREY))),
        _fitted(cutout.over(Background(picture=checkerboard(height, width, side)))),
    ]


def sheet(cutouts: Sequence[tuple[str, Cutout]]) -> Image.Image:
    """One page: a row for each named cut-out."""
    rows = [(name, _cells(cutout)) for name, cutout in cutouts]
    heights = [max(cell.height for cell in cells) + 22 for _, cells in rows]
    width = len(COLUMNS) * (CELL + GAP) + GAP
    page = Image.new("RGB", (width, sum(heights) + 26 + GAP * len(rows)), PAGE)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(14)
    for index, title in enumerate(COLUMNS):
        draw.text((GAP + index * (CELL + GAP), 5), title, "black", font)
    top = 26
    for (name, cells), height in zip(rows, heights, strict=True):
        draw.text((GAP, top), name[:60], "#555", font)
        for index, cell in enumerate(cells):
            page.paste(cell, (GAP + index * (CELL + GAP) + (CELL - cell.width) // 2, top + 20))
        top += height + GAP
    return page


def _pictures(data: Path | None, count: int) -> Iterator[tuple[str, ByteArray]]:
    """Evenly spread over the folder in order of name, so that every set of it is seen."""
    if data is None:
        for scene in SyntheticSet(count, seed=1, size=(960, 720)):
            yield f"scene {scene.index}: {', '.join(scene.tags)}", scene.rgb
        return
    records = ImageFolder(data / "images" if (data / "images").is_dir() else data)
    for index in np.unique(np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)):
        record = records[int(index)]
        yield record.stem, load_image(record.image_path).flattened()


def write_gallery(
    out: Path, model: Path | None, data: Path | None, count: int, preset: str, tell: Callable[[str], None]
) -> list[Path]:
    """Write the pages and `index.html` into `out`; the pages' paths. `tell` is called with each picture's name."""
    remover = Remover(model, refinement=PRESETS[preset])
    pages: list[Path] = []
    row: list[tuple[str, Cutout]] = []

    def turn() -> None:
        path = out / f"gallery-{len(pages) + 1}.png"
        write_picture(path, np.asarray(sheet(row)))
        pages.append(path)
        row.clear()

    for name, rgb in _pictures(data, count):
        row.append((name, remover.cutout(rgb)))
        tell(name)
        if len(row) == ROWS_PER_PAGE:
            turn()
    if row:
        turn()
    images = "\n".join(f'<img src="{html.escape(page.name)}" alt="page {page.stem}">' for page in pages)
    title = html.escape(f"Cut-outs: {remover.session.model_path}, {preset}")
    page_html = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    write_bytes(out / "index.html", f"{page_html}<h1>{title}</h1>\n{images}\n</html>\n".encode())
    return pages

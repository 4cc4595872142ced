"""The command line of the data sets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net.commandline import Application, progress, result
from u2net.errors import ConfigError, OutputError
from u2net.files import atomic_path, canonical_json, check_path

from .masks import MASK_VALUES_HELP
from .public import PUBLIC_SETS

__all__ = ["application", "main"]

application = Application(
    "datasets", "Sets of pictures: public ones, folders, and a procedural one with exact alpha mattes."
)

Count = Annotated[int, typer.Option(metavar="N", help="how many")]
Seed = Annotated[int, typer.Option(metavar="S", help="another seed, other scenes")]
Size = Annotated[str, typer.Option(metavar="WxH", help="pixels of a scene")]
Kind = Annotated[
    str | None, typer.Option(metavar="KIND", help="only scenes that show this: hair, translucent, hard, …")
]
MaskValues = Annotated[str | None, typer.Option(metavar="VALUES", help=MASK_VALUES_HELP)]
DEFAULT_SIZE = "480x360"


@application.command("list", examples="u2net datasets list --json")
def list_() -> None:
    """List the public sets (pictures, terms, where to get them) and the kinds of procedural scenes."""
    from .synthetic import KINDS

    lines = []
    for each in PUBLIC_SETS.values():
        images, masks = each.layouts[0]
        lines += [
            f"{each.name}: {each.title}, {each.count:,} pairs in {images}/ and {masks}/",
            f"    {each.source}",
            f"    terms: {each.terms}",
            *([f"    {each.note}"] if each.note else []),
        ]
    lines.append(f"procedural: any number of scenes; kinds {', '.join(KINDS)}")
    public = [each.describe() for each in PUBLIC_SETS.values()]
    result({"public": public, "procedural": {"kinds": list(KINDS)}}, "\n".join(lines))


@application.command(
    examples="""
u2net datasets preview --out sheet.png
u2net datasets preview --kind hair --out hair.png
u2net datasets preview --data photos --out sheet.png
"""
)
def preview(
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="the page")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a folder with images/ and masks/ to show instead")
    ] = None,
    columns: Annotated[int, typer.Option(metavar="N", help="cells in a row")] = 4,
    count: Count = 48,
    seed: Seed = 0,
    size: Size = DEFAULT_SIZE,
    kind: Kind = None,
) -> None:
    """Make a contact sheet of procedural scenes with their mattes, or of the pairs of a folder."""
    from .contact_sheet import Cell, contact_sheet
    from .folder import PairFolder
    from .synthetic import SyntheticSet

    if columns < 1 or count < 1:
        raise ConfigError(
            "a contact sheet needs at least one column and one picture; leave --columns and --count out for the "
            "usual ones"
        )
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"{out}: a contact sheet is written as .png, .jpg or .webp; say --out {out.stem}.png")

    def cells() -> Iterator[Cell]:
        if data is not None:
            records = PairFolder(data)[:count]
            for record in _progress(records, len(records)):
                yield Cell(record.image(), (record.alpha() * 255).astype("uint8"), record.stem)
        else:
            scenes = SyntheticSet(count, seed, _pixels(size), kind)
            for scene in _progress(scenes, len(scenes)):
                yield Cell(scene.rgb, scene.mask(), f"{scene.index}: {', '.join(scene.tags)}")

    page = contact_sheet(cells(), columns)
    with atomic_path(out) as temporary:
        page.save(temporary)
    result({"file": str(out)}, f"{out}: {page.width}×{page.height}")


@application.command(examples="u2net datasets make --count 200 --out build/procedural")
def make(
    out: Annotated[Path, typer.Option(metavar="DIR", help="a new folder")],
    layers: Annotated[bool, typer.Option("--layers", help="write foregrounds/ and backgrounds/ too")] = False,
    count: Count = 200,
    seed: Seed = 0,
    size: Size = DEFAULT_SIZE,
    kind: Kind = None,
) -> None:
    """Write procedural scenes as images/ and masks/, to evaluate or calibrate on."""
    from .synthetic import SyntheticSet

    scenes = SyntheticSet(count, seed, _pixels(size), kind)
    described: list[dict[str, Any]] = []
    with _new_folder(out) as folder:
        for scene in _progress(scenes, len(scenes)):
            _write_scene(folder, scene, layers)
            described.append({"name": scene.name, "tags": list(scene.tags)})
        settings = {"count": len(scenes), "seed": scenes.seed, "size": list(scenes.size), "kind": scenes.kind}
        (folder / "procedural.json").write_bytes(canonical_json({"settings": settings, "scenes": described}))
    result({"folder": str(out), "settings": settings}, f"{out}: {len(scenes)} scenes")


def _write_scene(folder: Path, scene: Any, layers: bool) -> None:
    from PIL import Image

    planes = {"images": scene.rgb, "masks": scene.mask()}
    if layers:
        planes |= {"foregrounds": scene.foreground, "backgrounds": scene.background}
    for name, pixels in planes.items():
        (folder / name).mkdir(exist_ok=True)
        # Level 1: noise hardly compresses further, and writing is three times as quick.
        Image.fromarray(pixels).save(folder / name / f"{scene.name}.png", compress_level=1)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that takes its name on success and is deleted on failure."""
    check_path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists already; give a new folder")
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}."))
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@application.command(
    examples="""
u2net datasets check photos
u2net datasets check DUTS-TE --as duts-te
"""
)
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder with images/ and masks/, or a public set")],
    public: Annotated[
        str | None,
        typer.Option("--as", metavar="SET", help=f"the public set that it should be: {', '.join(PUBLIC_SETS)}"),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="do not mind a number of pairs other than the set's")
    ] = False,
    mask_values: MaskValues = None,
) -> None:
    """Check that every picture has a mask of its size that can be read in one way, and that a public set is whole."""
    from .folder import PairFolder
    from .public import open_public

    if public is not None:
        if public not in PUBLIC_SETS:
            raise ConfigError(f"no public set is called {public!r}; there are {', '.join(PUBLIC_SETS)}")
        pairs: Sequence[Any] = open_public(public, folder, complete=not partial)
        sets = {public: len(pairs)}
    else:
        pairs = found = PairFolder(folder, mask_values=mask_values)
        with progress() as report:
            found.check_masks(lambda done: report("reading masks", done, len(found)))
        sets = {name: len(records) for name, records in found.sets().items()}
    parts = ", ".join(f"{name} {count:,}" for name, count in sets.items())
    text = f"{folder}: {len(pairs):,} pairs" + (f" ({parts})" if len(sets) <= 12 else "")
    result({"pairs": len(pairs), "sets": sets}, text)


def _pixels(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise ConfigError(f"--size takes WIDTHxHEIGHT, as 480x360, not {text!r}") from None
    return width, height


def _progress(items: Any, total: int) -> Iterator[Any]:
    """`items`, with a bar on standard error where that is a terminal."""
    with progress() as report:
        for done, item in enumerate(items):
            report("scenes", done, total)
            yield item


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return application.run(argv)

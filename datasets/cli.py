"""The command line of the data sets."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from u2net.errors import ConfigError, OutputError, U2NetError
from u2net.files import atomic_path, canonical_json, check_path

from .folder import PairFolder
from .public import PUBLIC_SETS, open_public
from .synthetic import DEFAULT_SIZE, KINDS, Scene, SyntheticSet

__all__ = ["main"]

EPILOG = """examples:
  python -m datasets list                                    the public sets: size, terms, where to get them
  python -m datasets preview --out sheet.png                 48 procedural scenes with their mattes on one page
  python -m datasets preview --kind hair --out hair.png
  python -m datasets preview --data photos --out sheet.png   pictures and masks of a folder
  python -m datasets make --count 200 --out build/procedural images/ and masks/ to evaluate or calibrate on
  python -m datasets check photos                            does every picture have a mask of its size?
  python -m datasets check DUTS-TE --as duts-te              is the public set complete and laid out as it should be?
"""
PREVIEW_COUNT = 48


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets",
        description="Sets of pictures: public ones, folders, and a procedural one with exact alpha mattes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser(
        "list",
        help="the public sets and the kinds of procedural scenes",
        description="List the public sets (pictures, terms, where to get them) and the kinds of procedural scenes.",
    )
    command.set_defaults(run=_list)

    command = commands.add_parser("preview", help="a contact sheet of procedural scenes, or of a folder's pairs")
    command.add_argument("--out", required=True, type=Path, metavar="FILE.png", help="the page")
    command.add_argument("--data", type=Path, metavar="DIR", help="a folder with images/ and masks/ to show instead")
    command.add_argument("--columns", type=int, default=4, metavar="N", help="cells in a row (default 4)")
    _add_scene_options(command, PREVIEW_COUNT)
    command.set_defaults(run=_preview)

    command = commands.add_parser("make", help="write procedural scenes as images/ and masks/")
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    command.add_argument("--layers", action="store_true", help="write foregrounds/ and backgrounds/ too")
    _add_scene_options(command, 200)
    command.set_defaults(run=_make)

    command = commands.add_parser("check", help="check a folder of pictures and masks")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--as", dest="public", choices=tuple(PUBLIC_SETS), help="the public set that it should be")
    command.add_argument("--partial", action="store_true", help="do not mind a number of pairs other than the set's")
    command.set_defaults(run=_check)

    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_scene_options(command: argparse.ArgumentParser, count: int) -> None:
    command.add_argument("--count", type=int, default=count, metavar="N", help=f"how many (default {count})")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other scenes (default 0)")
    command.add_argument(
        "--size",
        type=_size,
        default=DEFAULT_SIZE,
        metavar="WxH",
        help=f"pixels of a scene (default {DEFAULT_SIZE[0]}x{DEFAULT_SIZE[1]})",
    )
    command.add_argument("--kind", choices=KINDS, help="only scenes that show this")


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT") from None
    return width, height


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for what `U2NetError` reports, 2 for wrong usage."""
    arguments = build_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], dict[str, Any]] = arguments.run
    try:
        result = run(arguments)
    except U2NetError as error:
        print(f"datasets: {_one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("datasets: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(result, indent=2, ensure_ascii=False) if arguments.json else result["text"])
    return 0


def _one_line(text: str) -> str:
    """`text` with control characters escaped: a file's name must not forge lines of a log."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _list(arguments: argparse.Namespace) -> dict[str, Any]:
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
    return {"text": "\n".join(lines), "public": public, "procedural": {"kinds": list(KINDS)}}


def _preview(arguments: argparse.Namespace) -> dict[str, Any]:
    from .contact_sheet import Cell, contact_sheet

    if arguments.columns < 1 or arguments.count < 1:
        raise ConfigError("a contact sheet needs at least one column and one picture")
    if arguments.out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"{arguments.out}: a contact sheet is written as .png, .jpg or .webp")

    def cells() -> Iterator[Cell]:
        if arguments.data is not None:
            records = PairFolder(arguments.data)[: arguments.count]
            for record in _progress(records, len(records)):
                yield Cell(record.image(), (record.alpha() * 255).astype("uint8"), record.stem)
        else:
            scenes = SyntheticSet(arguments.count, arguments.seed, arguments.size, arguments.kind)
            for scene in _progress(scenes, len(scenes)):
                yield Cell(scene.rgb, scene.mask(), f"{scene.index}: {', '.join(scene.tags)}")

    page = contact_sheet(cells(), arguments.columns)
    with atomic_path(arguments.out) as temporary:
        page.save(temporary)
    return {"text": f"{arguments.out}: {page.width}×{page.height}", "file": str(arguments.out)}


def _make(arguments: argparse.Namespace) -> dict[str, Any]:
    scenes = SyntheticSet(arguments.count, arguments.seed, arguments.size, arguments.kind)
    described: list[dict[str, Any]] = []
    with _new_folder(arguments.out) as folder:
        for scene in _progress(scenes, len(scenes)):
            _write_scene(folder, scene, arguments.layers)
            described.append({"name": scene.name, "tags": list(scene.tags)})
        settings = {"count": len(scenes), "seed": scenes.seed, "size": list(scenes.size), "kind": scenes.kind}
        (folder / "procedural.json").write_bytes(canonical_json({"settings": settings, "scenes": described}))
    return {"text": f"{arguments.out}: {len(scenes)} scenes", "folder": str(arguments.out), "settings": settings}


def _write_scene(folder: Path, scene: Scene, layers: bool) -> None:
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


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.public:
        pairs: Sequence[Any] = open_public(arguments.public, arguments.folder, complete=not arguments.partial)
        sets = {arguments.public: len(pairs)}
    else:
        folder = PairFolder(arguments.folder)
        sets = {name: len(records) for name, records in folder.sets().items()}
        pairs = folder
    parts = ", ".join(f"{name} {count:,}" for name, count in sets.items())
    text = f"{arguments.folder}: {len(pairs):,} pairs" + (f" ({parts})" if len(sets) <= 12 else "")
    return {"text": text, "pairs": len(pairs), "sets": sets}


def _progress(items: Any, total: int) -> Iterator[Any]:
    """`items` with a progress bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, "scenes", total, console=Console(stderr=True), transient=True)

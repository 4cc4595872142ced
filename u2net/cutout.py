"""`u2net PICTURE…`: cut subjects out of pictures. One picture or many, files, folders or a pipe."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import typer

from .commandline import Application, Changes, one_line, say, wants_json
from .encode import EncodeSettings, OutputFormat, suffix_of
from .errors import ConfigError, ImageError
from .postprocess import PRESETS, Refinement
from .shadow import ShadowSettings
from .subject import CropSettings

__all__ = ["application"]

application = Application("u2net", "Cut subjects out of pictures with a U²-Net.", default="cutout")

where = partial(typer.Option, rich_help_panel="Where to")
how = partial(typer.Option, rich_help_panel="How")
many = partial(typer.Option, rich_help_panel="Many pictures")


@dataclass(frozen=True)
class Options:
    """What the command line asked for; the names are the options'."""

    inputs: list[str]
    output: str | None
    mask: str | None
    svg: str | None
    format: OutputFormat | None
    keep_structure: bool
    keep_suffix: bool
    keep_metadata: bool
    model: str | None
    preset: str
    background: str
    stretch: bool
    refinement: dict[str, Any]
    encoding: dict[str, Any]
    crop: dict[str, Any]
    shadow: dict[str, Any]
    fail_if_empty: bool
    recursive: bool
    jobs: int | None
    threads: int | None
    force: bool
    watch: bool
    interval: float
    ray: bool
    log: str | None
    max_pixels: float | None


@application.command(
    examples="""
u2net photo.jpg                                photo-cutout.png beside it
u2net photo.jpg -o cutout.webp --mask matte.png
u2net photo.jpg -o shop.jpg --background white
u2net photos/ -o out/ --recursive --keep-structure --jobs 2 --log out/log.jsonl
u2net incoming/ -o out/ --watch
cat photo.jpg | u2net - > cutout.png
"""
)
def cutout(
    inputs: Annotated[
        list[str], typer.Argument(metavar="PICTURE", help="pictures, folders, patterns, or - for standard input")
    ],
    output: Annotated[
        str | None,
        where("-o", "--output", metavar="OUT", help="file, folder for several, or - for standard output"),
    ] = None,
    mask: Annotated[
        str | None,
        where(metavar="OUT", help="write the matte too (or alone, without -o): file or folder"),
    ] = None,
    svg: Annotated[
        str | None,
        where(metavar="OUT", help="write the outline too, as SVG (one picture only)"),
    ] = None,
    format: Annotated[
        OutputFormat | None,
        where(help="of cut-outs in a folder or on standard output; webp, gif and apng keep all frames"),
    ] = None,
    keep_structure: Annotated[bool, where("--keep-structure", help="keep the folders under each input folder")] = False,
    keep_suffix: Annotated[bool, where("--keep-suffix", help="name outputs photo.jpg.png, not photo.png")] = False,
    keep_metadata: Annotated[
        bool, where("--keep-metadata", help="carry EXIF over (orientation applied and removed)")
    ] = False,
    model: Annotated[
        str | None,
        how(metavar="MODEL", help="an ONNX file or a name as small; the packaged one, else one under build/"),
    ] = None,
    preset: Annotated[Literal["fast", "balanced", "best"], how(help="how much care edges get")] = "balanced",
    background: Annotated[
        str, how(metavar="WHAT", help="transparent, a colour as in CSS, or a picture")
    ] = "transparent",
    stretch: Annotated[
        bool,
        how("--stretch", help="stretch each map to [0, 1]: shows faint subjects, invents some"),
    ] = False,
    encoding: Annotated[dict[str, Any], Changes(EncodeSettings, "How")] = {},  # noqa: B006  # never changed
    refinement: Annotated[dict[str, Any], Changes(Refinement, "Steps of the preset, each on its own")] = {},  # noqa: B006
    crop: Annotated[dict[str, Any], Changes(CropSettings, "Where to")] = {},  # noqa: B006
    shadow: Annotated[dict[str, Any], Changes(ShadowSettings, "How")] = {},  # noqa: B006
    fail_if_empty: Annotated[
        bool, how("--fail-if-empty", help="a picture where nothing is found fails, and nothing is written")
    ] = False,
    recursive: Annotated[bool, many("-r", "--recursive", help="folders inside folders too")] = False,
    jobs: Annotated[
        int | None,
        many("-j", "--jobs", metavar="N", help="processes, each on a core of its own (as many as there are cores)"),
    ] = None,
    threads: Annotated[
        int | None,
        how(metavar="N", min=1, help="threads of one inference (OMP_NUM_THREADS, else all cores that may be used)"),
    ] = None,
    force: Annotated[bool, many("--force", help="do again what an earlier run has done")] = False,
    watch: Annotated[bool, many("--watch", help="go on with pictures as they turn up, until interrupted")] = False,
    interval: Annotated[float, many(metavar="S", help="seconds between looks of --watch")] = 1.0,
    ray: Annotated[bool, many("--ray", help="run on a Ray cluster (pip install 'u2net-remover[ray]')")] = False,
    log: Annotated[str | None, many(metavar="FILE", help="append one JSON line a picture to FILE")] = None,
    max_pixels: Annotated[float | None, many(metavar="MP", help="largest picture in megapixels (150)")] = None,
) -> int:
    """Cut subjects out of pictures.

    With --json one object a picture is printed, and a summary as the last line.
    """
    return _run(Options(**locals()))


def _run(options: Options) -> int:
    from .files import check_path

    for path in (options.output, options.mask, options.svg, options.log, options.model):
        if path is not None:
            check_path(path)
    if len(options.inputs) == 1:  # of several, the bad ones fail alone
        check_path(options.inputs[0])
    if "-" in options.inputs:
        return _run_stdin(options)
    if options.output == "-":
        return _run_stdout(options)
    return _run_files(options)


def _settings(options: Options) -> Any:
    from .batch import BatchSettings
    from .decode import DecodeLimits
    from .remover import default_model, resolve_model

    refinement = replace(PRESETS[options.preset], **options.refinement)
    limits = DecodeLimits()
    if options.max_pixels is not None:
        if not 0 < options.max_pixels <= 1e5:
            raise ConfigError(f"--max-pixels must be a number of megapixels, got {options.max_pixels:g}")
        limits = replace(limits, max_pixels=int(options.max_pixels * 1e6))
    return BatchSettings(
        model=str(resolve_model(options.model) if options.model else default_model()),
        refinement=refinement,
        stretch=options.stretch,
        background=options.background,
        encoding=EncodeSettings(**options.encoding),
        limits=limits,
        crop=CropSettings(**options.crop),
        shadow=ShadowSettings(**options.shadow),
        fail_if_empty=options.fail_if_empty,
        keep_metadata=options.keep_metadata,
        force=options.force,
        threads=options.threads,
    )


# Standard input and output


def _run_stdin(options: Options) -> int:
    if options.inputs != ["-"]:
        raise ConfigError("standard input (-) cannot be mixed with other inputs")
    if sys.stdin.isatty():
        raise ConfigError("standard input is a terminal; pipe a picture in")
    output = options.output if options.output is not None or options.mask or options.svg else "-"
    return _one(options, sys.stdin.buffer, "standard input", output)


def _run_stdout(options: Options) -> int:
    if len(options.inputs) != 1 or Path(options.inputs[0]).is_dir():
        raise ConfigError("standard output (-) takes the cut-out of one picture")
    return _one(options, options.inputs[0], options.inputs[0], "-")


def _one(options: Options, source: Any, name: str, output: str | None) -> int:
    """One picture from a file or standard input to a file or standard output."""
    from .batch import Result
    from .decode import read_source
    from .encode import format_of, place
    from .produce import Part, Producer

    to_stdout = [
        what
        for what, path in (("--json", wants_json()), ("-o", output), ("--mask", options.mask))
        if path in (True, "-")
    ]
    if len(to_stdout) > 1:
        raise ConfigError(f"{' and '.join(to_stdout)} cannot both go to standard output")
    if "-" in (output, options.mask) and sys.stdout.isatty():
        raise ConfigError("standard output is a terminal; pipe it on or give -o FILE")
    targets: dict[Part, str] = {}
    if output is not None:
        targets["cutout"] = output
    if options.mask:
        targets["mask"] = options.mask
    forms = {part: options.format or "png" if path == "-" else format_of(path) for part, path in targets.items()}
    settings = _settings(options)
    start = time.perf_counter()
    try:
        data = read_source(source, settings.limits)
    except (ImageError, OSError) as error:
        raise ImageError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    producer = Producer(settings)
    product = producer(data, name, forms, outline=bool(options.svg))
    if product.error is not None:
        raise ImageError(product.error)
    for part, content in product.files.items():
        if targets[part] == "-":
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            place(targets[part], content)
    if options.svg:
        place(options.svg, product.svg.encode())
    result = Result(name, output, options.mask, "done").of(product)
    with _Reporter(options, 1) as reporter:
        reporter.report(replace(result, seconds=time.perf_counter() - start))
    return 0


# Files


def _run_files(options: Options) -> int:
    from .batch import JOURNAL_NAME, find_pictures, plan, run, run_ray, watch
    from .composite import parse_background
    from .produce import check_format

    settings = _settings(options)
    several = options.watch or len(options.inputs) > 1 or Path(options.inputs[0]).is_dir() or not _exists(options)
    suffix = suffix_of(options.format or "png")
    if not several:
        return _single(options)
    if options.svg:
        raise ConfigError("--svg takes one picture")
    if options.mask == "-":
        raise ConfigError("standard output (-) takes the mask of one picture")
    if options.output is not None:
        check_format(options.format or "png", parse_background(settings.background, settings.limits))
    if options.output is None and options.mask is None:
        raise ConfigError("several pictures need a folder to go to: -o FOLDER")
    for folder in (options.output, options.mask):
        if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
            raise ConfigError(f"{folder} is a file; several pictures need a folder to go to")
    target = options.output or options.mask
    assert target is not None
    settings = replace(settings, journal=str(Path(target) / JOURNAL_NAME))

    def make_tasks() -> tuple[list[Any], list[Any]]:
        pictures, failed = find_pictures(options.inputs, recursive=options.recursive, exclude=target)
        tasks = plan(
            pictures,
            output=options.output,
            mask=options.mask,
            suffix=suffix,
            keep_structure=options.keep_structure,
            keep_suffix=options.keep_suffix,
            journal=settings.journal,
        )
        return tasks, failed

    if options.watch:
        with _Reporter(options, None) as reporter, suppress(KeyboardInterrupt):
            for result in watch(lambda: make_tasks()[0], settings, options.jobs, options.interval):
                reporter.report(result)
        return reporter.status()
    tasks, failed = make_tasks()
    with _Reporter(options, len(tasks) + len(failed)) as reporter:
        for result in failed:
            reporter.report(result)
        results: Iterator[Any] = iter(())
        if tasks:
            results = (run_ray if options.ray else run)(tasks, settings, options.jobs)
        for result in results:
            reporter.report(result)
    return reporter.status()


def _exists(options: Options) -> bool:
    """Whether the only input is a path, be it one that is missing, and no pattern."""
    text = options.inputs[0]
    return os.path.lexists(text) or not any(c in text for c in "*?[")


def _single(options: Options) -> int:
    source = options.inputs[0]
    output = options.output
    if output is None and not options.mask and not options.svg:
        path = Path(source)
        output = str(path.with_name(f"{path.stem}-cutout{suffix_of(options.format or 'png')}"))
    if output is not None and (Path(output).is_dir() or output.endswith(os.sep)):
        output = str(Path(output) / (Path(source).stem + suffix_of(options.format or "png")))
    for target in (output, options.mask, options.svg):
        if target not in (None, "-") and os.path.realpath(target) == os.path.realpath(source):
            raise ConfigError(f"{target} is the input; choose another output")
    return _one(options, source, source, output)


# What is said


class _Reporter:
    """Says what became of each picture: lines on standard error, JSON on standard output and in the log."""

    def __init__(self, options: Options, total: int | None) -> None:
        self.total = total
        self.counts = {"done": 0, "skipped": 0, "failed": 0}
        self.start = time.perf_counter()
        self._log: IO[str] | None = None
        if options.log:
            try:
                Path(options.log).parent.mkdir(parents=True, exist_ok=True)
                self._log = Path(options.log).open("a", encoding="utf-8")  # noqa: SIM115  # closed by __exit__
            except (OSError, ValueError) as error:
                raise ConfigError(f"cannot write the log {options.log}: {error}") from error

    def __enter__(self) -> _Reporter:
        return self

    def report(self, result: Any) -> None:
        self.counts[result.status] += 1
        self._line(result.as_json())
        if result.status == "failed":
            print(f"error: {one_line(result.error)}", file=sys.stderr, flush=True)
        elif not wants_json():
            number = sum(self.counts.values())
            place = f"[{number}/{self.total}] " if self.total not in (1, None) else ""
            targets = " and ".join(target for target in (result.output, result.mask) if target)
            took = "already there" if result.status == "skipped" else f"{result.seconds:.2f} s"
            notes = f" ({'; '.join(result.notes)})" if result.notes else ""
            say(f"{place}{result.input} → {targets}, {took}{notes}")

    def _line(self, value: dict[str, Any]) -> None:
        text = json.dumps(value, ensure_ascii=True)
        if wants_json():
            print(text, flush=True)
        if self._log is not None:
            try:
                self._log.write(text + "\n")
                self._log.flush()
            except OSError as error:
                raise ConfigError(f"cannot write the log: {error.strerror or error}") from error

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        seconds = time.perf_counter() - self.start
        if kind is None:
            self._line({"summary": self.counts | {"seconds": round(seconds, 3)}})
            if self.total != 1 and not wants_json():
                counts = ", ".join(f"{n} {what}" for what, n in self.counts.items() if n)
                say(f"{counts or 'nothing to do'} in {seconds:.1f} s")
        if self._log is not None:
            with suppress(OSError):
                self._log.close()

    def status(self) -> int:
        """0 where all went well, 1 where something failed."""
        return 1 if self.counts["failed"] else 0

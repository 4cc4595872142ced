"""The command line: `python -m u2net photo.jpg -o cutout.png`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NoReturn

from .errors import ConfigError, U2NetError

__all__ = ["main"]

_EPILOG = """\
examples:
  python -m u2net photo.jpg                             photo-cutout.png beside it
  python -m u2net photo.jpg -o cutout.webp --mask matte.png
  python -m u2net photo.jpg -o shop.jpg --background white
  python -m u2net photos/ -o out/ --recursive --keep-structure --jobs 2 --log out/log.jsonl
  python -m u2net incoming/ -o out/ --watch
  cat photo.jpg | python -m u2net - > cutout.png
  python -m u2net weights fetch small                   the authors' weights, from public mirrors

exit status: 0 all went well, 1 some pictures (or all) failed, 2 the command itself was wrong
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m u2net",
        description="Cut subjects out of pictures with a U²-Net in ONNX form.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="pictures, folders, patterns, or - for standard input"
    )

    where = parser.add_argument_group("where to")
    where.add_argument("-o", "--output", metavar="OUT", help="file, folder for several, or - for standard output")
    where.add_argument("--mask", metavar="OUT", help="write the matte too (or alone, without -o): file or folder")
    where.add_argument("--svg", metavar="OUT", help="write the outline too, as SVG (one picture only)")
    where.add_argument(
        "--format", choices=("png", "webp", "jpeg"), help="of cut-outs in a folder or on standard output"
    )
    where.add_argument("--keep-structure", action="store_true", help="keep the folders under each input folder")
    where.add_argument("--keep-suffix", action="store_true", help="name outputs photo.jpg.png, not photo.png")
    where.add_argument("--keep-metadata", action="store_true", help="carry EXIF over (orientation applied and removed)")

    how = parser.add_argument_group("how")
    how.add_argument("--model", metavar="X.onnx", help="default: the packaged one, else the newest stage under build/")
    how.add_argument("--preset", choices=("fast", "balanced", "best"), default="balanced", help="of the steps below")
    how.add_argument("--background", default="transparent", help="transparent (default), #rrggbb, white, or a picture")
    how.add_argument(
        "--stretch", action="store_true", help="stretch each map to [0, 1]: faint subjects, false subjects"
    )
    how.add_argument("--quality", type=int, metavar="N", help="of WebP and JPEG, 1 to 100 (default 90)")
    how.add_argument("--png-level", type=int, metavar="N", help="zlib level of PNG, 0 to 9 (default 1: fast)")
    how.add_argument("--lossless", action="store_true", help="WebP without loss")

    steps = parser.add_argument_group("steps of the preset, each on its own")
    steps.add_argument("--threshold", type=float, metavar="T", help="make the matte hard at T, 0 to 1")
    steps.add_argument("--keep-largest", action="store_true", help="only the largest connected subject")
    steps.add_argument("--min-area", type=float, metavar="F", help="drop subjects under this fraction of the picture")
    steps.add_argument("--fill-holes", type=float, metavar="F", help="fill holes up to this fraction of the picture")
    steps.add_argument("--edges", choices=("none", "guided", "matting"), help="how edges are refined at full size")
    steps.add_argument("--radius", type=int, metavar="PX", help="of the guided filter, in its working pixels")
    steps.add_argument(
        "--epsilon", type=float, metavar="E", help="of the guided filter: smaller follows colours closer"
    )
    steps.add_argument("--reach", type=int, metavar="PX", help="how far edges may move, in pixels of the network's map")
    steps.add_argument("--feather", type=float, metavar="PX", help="soften the matte by this many pixels")
    steps.add_argument("--colours", choices=("keep", "estimate"), help="estimate removes the background's colour spill")

    many = parser.add_argument_group("many pictures")
    many.add_argument("-r", "--recursive", action="store_true", help="folders inside folders too")
    many.add_argument("-j", "--jobs", type=int, metavar="N", help="processes that share the cores (default: all cores)")
    many.add_argument("--force", action="store_true", help="do again what an earlier run has done")
    many.add_argument("--watch", action="store_true", help="go on with pictures as they turn up, until interrupted")
    many.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between looks (default 1)")
    many.add_argument("--ray", action="store_true", help="run on a Ray cluster (extra: u2net-remover[ray])")

    said = parser.add_argument_group("what is said")
    said.add_argument(
        "--json", action="store_true", help="one JSON object a line on standard output, the last a summary"
    )
    said.add_argument("--log", metavar="FILE", help="append the same lines to FILE")
    said.add_argument("-q", "--quiet", action="store_true", help="only errors")
    said.add_argument("--max-pixels", type=float, metavar="MP", help="largest picture in megapixels (default 100)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if arguments[:1] == ["weights"]:
        from .fetch import main as fetch

        return int(fetch(arguments[1:]))
    options = _parser().parse_args(arguments)
    try:
        with _termination_interrupts():
            return _run(options)
    except U2NetError as error:
        _say_error(str(error))
        return 1
    except BrokenPipeError:
        with suppress(OSError):  # keep the interpreter from flushing into the closed pipe once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk behind standard output, a name longer than the file system allows, …
        with suppress(OSError):  # what is left in the buffer cannot be written either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _say_error(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        return 1
    except KeyboardInterrupt:
        _say_error("interrupted")
        return 130


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Within the block SIGTERM ends the work as Ctrl-C does, with nothing half-written."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, where signals are the caller's affair
        yield
        return
    try:
        yield
    finally:
        if before is not None:  # None is a handler that is not of Python
            signal.signal(signal.SIGTERM, before)


def _one_line(text: str) -> str:
    """`text` with control characters escaped: a file's name must not forge lines of a log or move the cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _say_error(text: str) -> None:
    print(f"error: {_one_line(text)}", file=sys.stderr, flush=True)


def _run(options: argparse.Namespace) -> int:
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


def _settings(options: argparse.Namespace) -> Any:
    from .batch import BatchSettings
    from .decode import DecodeLimits
    from .encode import EncodeSettings
    from .postprocess import PRESETS
    from .remover import default_model

    chosen = {
        "threshold": options.threshold,
        "keep_largest": options.keep_largest or None,
        "min_area": options.min_area,
        "fill_holes": options.fill_holes,
        "edges": options.edges,
        "radius": options.radius,
        "epsilon": options.epsilon,
        "reach": options.reach,
        "feather": options.feather,
        "colours": options.colours,
    }
    refinement = replace(PRESETS[options.preset], **{k: v for k, v in chosen.items() if v is not None})
    encoding = {"png_level": options.png_level, "quality": options.quality, "webp_lossless": options.lossless or None}
    limits = DecodeLimits()
    if options.max_pixels is not None:
        if not 0 < options.max_pixels <= 1e5:
            raise ConfigError(f"--max-pixels must be a number of megapixels, got {options.max_pixels:g}")
        limits = replace(limits, max_pixels=int(options.max_pixels * 1e6))
    return BatchSettings(
        model=str(options.model or default_model()),
        refinement=refinement,
        stretch=options.stretch,
        background=options.background,
        encoding=EncodeSettings(**{k: v for k, v in encoding.items() if v is not None}),
        limits=limits,
        keep_metadata=options.keep_metadata,
        force=options.force,
    )


# Standard input and output


def _run_stdin(options: argparse.Namespace) -> int:
    if options.inputs != ["-"]:
        raise ConfigError("standard input (-) cannot be mixed with other inputs")
    if sys.stdin.isatty():
        raise ConfigError("standard input is a terminal; pipe a picture in")
    output = options.output if options.output is not None or options.mask or options.svg else "-"
    return _one(options, sys.stdin.buffer, "standard input", output)


def _run_stdout(options: argparse.Namespace) -> int:
    if len(options.inputs) != 1 or Path(options.inputs[0]).is_dir():
        raise ConfigError("standard output (-) takes the cut-out of one picture")
    return _one(options, options.inputs[0], options.inputs[0], "-")


def _one(options: argparse.Namespace, source: Any, name: str, output: str | None) -> int:
    """One picture from a file or standard input to a file or standard output."""
    from .composite import parse_background
    from .decode import load_image
    from .encode import OUTPUT_SUFFIXES, encoded, format_of, place
    from .infer import available_cores
    from .remover import Remover

    if options.json and output == "-":
        raise ConfigError("--json and the picture cannot both go to standard output")
    if output == "-" and sys.stdout.isatty():
        raise ConfigError("standard output is a terminal; pipe it on or give -o FILE")
    settings = _settings(options)
    background = parse_background(settings.background, settings.limits)
    form = options.format or "png" if output == "-" else format_of(output) if output is not None else "png"
    if options.mask and options.mask != "-":
        format_of(options.mask)
    elif options.mask:
        raise ConfigError("the mask must go to a file, with a suffix of " + ", ".join(OUTPUT_SUFFIXES))
    start = time.perf_counter()
    decoded = load_image(source, settings.limits, name=name)
    remover = Remover(
        settings.model,
        threads=available_cores(),
        refinement=settings.refinement,
        stretch=settings.stretch,
        limits=settings.limits,
    )
    cutout = remover.cutout(decoded)
    exif = decoded.exif if settings.keep_metadata else None
    if output is not None:
        data = encoded(cutout.pixels(background), form, settings.encoding, exif)
        if output == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            place(output, data)
    if options.svg:
        place(options.svg, cutout.svg().encode())
    if options.mask:
        place(options.mask, encoded(cutout.alpha, format_of(options.mask), settings.encoding))
    from .batch import Result

    seconds = time.perf_counter() - start
    result = Result(
        name, output, options.mask, "done", None, decoded.width, decoded.height, decoded.notes, seconds=seconds
    )
    with _Reporter(options, 1) as reporter:
        reporter.report(result)
    return 0


# Files


def _run_files(options: argparse.Namespace) -> int:
    from .batch import JOURNAL_NAME, find_pictures, plan, run, run_ray, watch

    settings = _settings(options)
    several = options.watch or len(options.inputs) > 1 or Path(options.inputs[0]).is_dir() or not _exists(options)
    suffix = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}[options.format or "png"]
    if not several:
        return _single(options)
    if options.svg:
        raise ConfigError("--svg takes one picture")
    if options.output is None and options.mask is None:
        raise ConfigError("several pictures need a folder to go to: -o FOLDER")
    for folder in (options.output, options.mask):
        if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
            raise ConfigError(f"{folder} is a file; several pictures need a folder to go to")
    settings = replace(settings, journal=str(Path(options.output or options.mask) / JOURNAL_NAME))

    def make_tasks() -> tuple[list[Any], list[Any]]:
        pictures, failed = find_pictures(
            options.inputs, recursive=options.recursive, exclude=options.output or options.mask
        )
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


def _exists(options: argparse.Namespace) -> bool:
    """Whether the only input is a path, be it one that is missing, and no pattern."""
    text = options.inputs[0]
    return os.path.lexists(text) or not any(c in text for c in "*?[")


def _single(options: argparse.Namespace) -> int:
    source = options.inputs[0]
    output = options.output
    if output is None and not options.mask and not options.svg:
        path = Path(source)
        ending = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}[options.format or "png"]
        output = str(path.with_name(f"{path.stem}-cutout{ending}"))
    if output is not None and (Path(output).is_dir() or output.endswith(os.sep)):
        ending = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}[options.format or "png"]
        output = str(Path(output) / (Path(source).stem + ending))
    for target in (output, options.mask, options.svg):
        if target is not None and os.path.realpath(target) == os.path.realpath(source):
            raise ConfigError(f"{target} is the input; choose another output")
    return _one(options, source, source, output)


# What is said


class _Reporter:
    """Says what became of each picture: lines on standard error, JSON on standard output and in the log."""

    def __init__(self, options: argparse.Namespace, total: int | None) -> None:
        self.json, self.quiet, self.total = options.json, options.quiet, total
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
            _say_error(result.error)
        elif not self.quiet and not self.json:
            number = sum(self.counts.values())
            place = f"[{number}/{self.total}] " if self.total not in (1, None) else ""
            targets = " and ".join(target for target in (result.output, result.mask) if target)
            took = "already there" if result.status == "skipped" else f"{result.seconds:.2f} s"
            notes = f" ({'; '.join(result.notes)})" if result.notes else ""
            print(_one_line(f"{place}{result.input} → {targets}, {took}{notes}"), file=sys.stderr, flush=True)

    def _line(self, value: dict[str, Any]) -> None:
        text = json.dumps(value, ensure_ascii=True)
        if self.json:
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
            if self.total != 1 and not self.quiet and not self.json:
                counts = ", ".join(f"{n} {what}" for what, n in self.counts.items() if n)
                print(f"{counts or 'nothing to do'} in {seconds:.1f} s", file=sys.stderr)
        if self._log is not None:
            with suppress(OSError):
                self._log.close()

    def status(self) -> int:
        """0 where all went well, 1 where something failed."""
        return 1 if self.counts["failed"] else 0

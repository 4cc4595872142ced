"""`python -m tests.attacks.fuzz`: spoiled files by the thousand, each within five seconds and without a crash.

Two ways: random mutation of the kept seeds (the default; case n is the same on every machine), and, with `--coverage`,
libFuzzer through atheris (`pip install u2net-remover[fuzz]`), which grows its corpus towards code not seen before. Both
run the targets in processes of their own, so that a crash or a hang of native code is a finding and not the end.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

from .mutate import case
from .seeds import SEEDS, seeds_of

__all__ = ["TARGETS", "Finding", "fuzz", "main"]

LIMIT_S = 5.0  # for one case
START_S = 120.0  # for a process to import what it tests
MEMORY_BYTES = 6 << 30  # address space of a fuzzed process: what a case makes it ask for beyond that is refused
#: Of every hundred cases, how many go to each target: pictures come from strangers, checkpoints seldom do.
SHARES = {"picture": 60, "model": 20, "checkpoint": 10, "text": 10}


def picture(data: bytes) -> None:
    """The decoder, to pixels."""
    from u2net.decode import DecodeLimits, load_image
    from u2net.errors import ImageError

    try:
        decoded = load_image(data, DecodeLimits(max_pixels=4_000_000))
    except ImageError as error:
        _check_line(error)
        return
    height, width = decoded.rgb.shape[:2]
    assert decoded.rgb.shape == (height, width, 3) and decoded.rgb.dtype == "uint8" and min(height, width) >= 1
    assert decoded.alpha is None or decoded.alpha.shape == (height, width)
    assert decoded.flattened().shape == decoded.rgb.shape
    assert all(note.isprintable() for note in decoded.notes)


def model(data: bytes) -> None:
    """The look at a model before the engine sees it, and the engine's own reading of it."""
    from u2net.errors import ModelError
    from u2net.infer import Session
    from u2net.onnx_scan import scan

    try:
        scan(data)
    except ModelError as error:
        _check_line(error)
        return
    try:
        Session(_file("model.onnx", data), threads=1)
    except ModelError as error:
        _check_line(error)


def checkpoint(data: bytes) -> None:
    """The three loaders of checkpoints, chosen by the bytes as always."""
    from u2net.errors import CheckpointError
    from u2net.network.checkpoint import load_checkpoint

    for suffix in (".pth", ".onnx"):
        try:
            load_checkpoint(_file(f"weights{suffix}", data))
        except CheckpointError as error:
            _check_line(error)


def text(data: bytes) -> None:
    """Sidecars, journals and manifests."""
    from u2net.artifact import read_sidecar
    from u2net.batch import read_journal
    from u2net.errors import ArtifactError

    path = _file("m.json", data)
    read_journal(path)
    with contextlib.suppress(ArtifactError):
        read_sidecar(path.with_suffix(".onnx"))
    from publish.manifest import MANIFEST_NAME, read_manifest

    _file(MANIFEST_NAME, data)
    try:
        manifest = read_manifest(path.parent)
    except ArtifactError as error:
        _check_line(error)
        return
    for file in manifest.files:
        inside = (path.parent / file.path).resolve()
        assert inside.is_relative_to(path.parent.resolve()), file.path


TARGETS: dict[str, Callable[[bytes], None]] = {
    "picture": picture,
    "model": model,
    "checkpoint": checkpoint,
    "text": text,
}

_folder: Path | None = None


def _file(name: str, data: bytes) -> Path:
    """A file of this process with these bytes."""
    global _folder
    if _folder is None:
        _folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{os.getpid()}-", dir=os.environ.get("FUZZ_FOLDER")))
    path = _folder / name
    path.write_bytes(data)
    return path


def _check_line(error: Exception) -> None:
    line = str(error)
    assert line and "\n" not in line and len(line) < 1500, f"not one readable line: {line[:200]!r}"


@dataclass(frozen=True)
class Finding:
    """A case that broke the rule."""

    target: str
    index: int
    what: str
    file: str | None = None


def _work(target: str, indices: Sequence[int], pipe: Connection) -> None:
    """Run cases and tell the parent before each which one it is, after each what went wrong, if anything."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seeds, run = seeds_of(target), TARGETS[target]
    sink = io.StringIO()
    with contextlib.suppress(Exception):
        run(seeds[0])  # pays for the imports, so that they are not taken for a hang
    pipe.send((-1, "ready", None))
    for index in indices:
        pipe.send((index, "start", None))
        start = time.perf_counter()
        try:
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                run(case(seeds, index))
        except BaseException as error:
            pipe.send((index, "bad", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
        seconds = time.perf_counter() - start
        pipe.send((index, "end", seconds))
    pipe.send((-1, "done", None))


def fuzz(
    target: str,
    indices: Sequence[int],
    findings: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
    limit_s: float = LIMIT_S,
) -> tuple[list[Finding], float]:
    """Run the cases `indices` of `target`; returns what was found, and the seconds of the slowest case.

    Each finding's bytes are written to `findings`. The child process is replaced when a case kills or hangs it.
    """
    found: list[Finding] = []
    slowest = 0.0
    rest = list(indices)
    context = multiprocessing.get_context("fork")
    seeds = seeds_of(target)

    def keep(index: int, what: str) -> None:
        file = None
        if findings is not None:
            findings.mkdir(parents=True, exist_ok=True)
            file = findings / f"found-{target}-{index}"
            file.write_bytes(case(seeds, index))
        found.append(Finding(target, index, what, str(file) if file else None))

    while rest:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(target, rest, theirs), daemon=True)
        child.start()
        theirs.close()
        current, done, wait_s = rest[0], 0, START_S
        try:
            while True:
                if not ours.poll(wait_s):
                    child.kill()
                    keep(current, f"hung: no end within {limit_s:g} s")
                    done += 1
                    break
                index, kind, value = ours.recv()
                wait_s = limit_s
                if kind == "done":
                    done = len(rest)
                    break
                if kind == "ready":
                    continue
                current = index
                if kind == "bad":
                    keep(index, value)
                elif kind == "end":
                    done += 1
                    slowest = max(slowest, value)
                    progress(1)
        except EOFError:
            child.join()
            number = -(child.exitcode or 0)
            name = signal.Signals(number).name if number > 0 else f"exit status {-number}"
            keep(current, f"crashed: {name}")
            done += 1
        child.join()
        rest = rest[done:]
    return found, slowest


def _plan(cases: int, first: int, only: str | None) -> dict[str, range]:
    """How many cases each target gets."""
    if only is not None:
        return {only: range(first, first + cases)}
    total = sum(SHARES.values())
    return {target: range(first, first + round(cases * share / total)) for target, share in SHARES.items()}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks.fuzz",
        description="Feed spoiled pictures, models, checkpoints and manifests to what reads them.",
        epilog="Exit status: 0 nothing found, 1 something found (its bytes lie under --findings), 2 wrong usage.",
    )
    parser.add_argument("--cases", type=int, default=10_000, metavar="N", help="how many in all (default 10000)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default 0)")
    parser.add_argument("--target", choices=tuple(TARGETS), help="only this one; by default all, pictures most")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), metavar="DIR", help="where findings go")
    parser.add_argument("--coverage", action="store_true", help="coverage-guided, through atheris")
    parser.add_argument("--seconds", type=int, default=60, metavar="S", help="with --coverage, how long (default 60)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one file through --target and show what comes")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.replay is not None:
        TARGETS[arguments.target or "picture"](arguments.replay.read_bytes())
        print(f"{arguments.replay}: nothing wrong")
        return 0
    if arguments.coverage:
        return _guided(arguments.target or "picture", arguments.seconds, arguments.findings)
    start = time.perf_counter()
    found: list[Finding] = []
    result: dict[str, Any] = {"cases": 0, "targets": {}}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FUZZ_FOLDER"] = scratch
        for target, indices in _plan(arguments.cases, arguments.first, arguments.target).items():
            bar = _Bar(target, len(indices))
            some, slowest = fuzz(target, indices, arguments.findings, bar)
            bar.end()
            found += some
            result["cases"] += len(indices)
            result["targets"][target] = {"cases": len(indices), "found": len(some), "slowest_s": round(slowest, 3)}
    result |= {"found": [asdict(each) for each in found], "seconds": round(time.perf_counter() - start, 1)}
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for each in found:
            print(f"{each.target} {each.index}: {each.what} ({each.file})")
        rows = ", ".join(f"{n} {t['cases']} (slowest {t['slowest_s']} s)" for n, t in result["targets"].items())
        print(f"{result['cases']} cases in {result['seconds']} s: {len(found)} found; {rows}")
    return 1 if found else 0


class _Bar:
    """A count on a terminal; nothing elsewhere."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        self.shown = sys.stderr.isatty()

    def __call__(self, count: int) -> None:
        self.done += count
        if self.shown and self.done % 20 == 0:
            print(f"\r{self.name} {self.done}/{self.total}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# Runs in a process of its own: libFuzzer takes the process over and ends it.
_GUIDED = """
import sys, atheris
target, sys.argv = sys.argv[1], sys.argv[:1] + sys.argv[2:]
with atheris.instrument_imports(include=["PIL", "u2net", "publish", "json", "zipfile"]):
    from tests.attacks import fuzz
    fuzz.TARGETS[target](b"")
atheris.Setup(sys.argv, lambda data: fuzz.TARGETS[target](data))
atheris.Fuzz()
"""


def _guided(target: str, seconds: int, findings: Path) -> int:
    """libFuzzer on one target for some seconds, starting from the kept seeds. Its corpus stays in `findings`."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("fuzz: atheris is not installed (the extra 'fuzz')", file=sys.stderr)
        return 2
    corpus = findings / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [
                sys.executable, "-c", _GUIDED, target,
                f"-max_total_time={seconds}", f"-timeout={LIMIT_S:.0f}", f"-max_len={1 << 16}", "-rss_limit_mb=4096",
                f"-artifact_prefix={findings}/found-{target}-", "-print_final_stats=1",
                str(corpus), str(SEEDS / target),
            ],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "FUZZ_FOLDER": scratch}, check=False,
        )  # fmt: skip
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())

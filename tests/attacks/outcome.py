"""Running a command under attack, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.paths import ROOT

__all__ = ["HANG_CPU_S", "ROOT", "Outcome", "attack", "attack_process", "tree", "within_time"]

HANG_CPU_S = 5.0  # processor seconds after which a case counts as hung
HANG_WALL_S = 60.0  # for those that wait instead of work; generous, for machines that are shared


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit status, what it said, and the files that it left (relative path → size)."""

    status: int
    out: str
    err: str
    added: dict[str, int]
    seconds: float

    def refused(self, *words: str) -> None:
        """Assert a clean refusal: non-zero exit, one line that says `words`, nothing left behind."""
        self.clean()
        assert self.status in (1, 2), f"exit status {self.status}: {self.err}"
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, f"expected one line, got {self.err!r}"
        assert len(lines[0]) < 1200, "the line is too long to read"
        for word in words:
            assert word.lower() in lines[0].lower(), f"{word!r} is not in {lines[0]!r}"
        assert not self.added, f"left behind: {self.added}"

    def clean(self) -> None:
        """Assert what always holds: no traceback, no death by signal, no terminal control codes."""
        assert "Traceback" not in self.err and "Traceback" not in self.out, self.err
        assert self.status >= 0, f"killed by signal {-self.status}: {self.err}"
        assert not any(ord(c) < 32 and c not in "\n\t\r" for c in self.err), f"control characters in {self.err!r}"


def tree(folder: Path) -> dict[str, int]:
    """Every file below `folder` (hidden ones and links too) with its size."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            found[str(path.relative_to(folder))] = path.lstat().st_size
    return found


class Hang(AssertionError):
    """A case took longer than it may."""


@contextlib.contextmanager
def within_time(cpu_s: float = HANG_CPU_S, wall_s: float = HANG_WALL_S) -> Iterator[None]:
    """Raise `Hang` inside where the body uses more than `cpu_s` of the processor or `wall_s` in all."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"hung: more than {cpu_s:g} s of processor time or {wall_s:g} s in all")

    before = [signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


def attack(main: Callable[[Sequence[str]], int], arguments: Sequence[str | Path], folder: Path) -> Outcome:
    """Call a command's `main` in this process; `folder` is watched for files that it leaves."""
    before = tree(folder)
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), within_time():
            status = main([str(a) for a in arguments])
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    seconds = time.perf_counter() - start
    return Outcome(int(status or 0), out.getvalue(), err.getvalue(), _added(before, folder), seconds)


def attack_process(
    arguments: Sequence[str | Path], folder: Path, *, code: str | None = None, **options: Any
) -> Outcome:
    """Run `python ARGUMENTS`, or `python -c code ARGUMENTS`, as a process of its own and wait for it."""
    before = tree(folder)
    command = [sys.executable, *(["-c", code] if code else []), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=options.pop("cwd", ROOT),
        env=environment,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        timeout=2 * HANG_WALL_S,
        check=False,
        **options,
    )
    seconds = time.perf_counter() - start
    out = (done.stdout or b"").decode("utf-8", "replace")
    return Outcome(done.returncode, out, done.stderr.decode("utf-8", "replace"), _added(before, folder), seconds)


def _added(before: dict[str, int], folder: Path) -> dict[str, int]:
    return {name: size for name, size in tree(folder).items() if before.get(name) != size}

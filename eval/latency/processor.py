"""Processor time of browsers and other programs that this process started, thread by thread (Linux).

On a machine that others use too, the clock on the wall counts their work as well; the time for which the one thread
that does the work had the processor does not.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["ProcessorClock"]

PROC = Path("/proc")


class ProcessorClock:
    """What each thread of this process's descendants has had of the processor since the clock was started."""

    def __init__(self) -> None:
        self._before = _thread_times(_descendants())

    def busiest_ms(self) -> float | None:
        """Milliseconds of the thread that had most since; None where the system does not tell."""
        now = _thread_times({process for process, _ in self._before})
        spent = [ns - self._before[thread] for thread, ns in now.items() if thread in self._before]
        return max(spent) / 1e6 if spent else None


def _descendants() -> set[int]:
    """Processes that this one started, and those that they started."""
    parents: dict[int, int] = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # the fourth field, behind a name in parentheses that may hold anything
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    try:
        found = {int((PROC / "self").readlink().name)}
    except OSError:
        return set()
    own = set(found)
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - own


def _thread_times(processes: set[int]) -> dict[tuple[int, int], int]:
    """Nanoseconds on the processor, by process and thread."""
    times = {}
    for process in processes:
        for task in (PROC / str(process) / "task").glob("*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                times[process, int(task.name)] = int((task / "schedstat").read_text().split()[0])
    return times

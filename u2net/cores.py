"""How many processor cores there are to use, and how many threads an inference takes of them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_cores", "inference_threads"]


def available_cores() -> int:
    """Processor cores that this process may use: those of its affinity mask, and no more than its container's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(_quota())))


def inference_threads() -> int:
    """Threads of one inference where nobody says otherwise: OMP_NUM_THREADS, and no more than there are cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list is for nested regions
    return min(available_cores(), int(asked)) if asked.isdecimal() and int(asked) > 0 else available_cores()


def _quota(group: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores' worth of time that the control groups above this process allow (cgroup v2, `cpu.max`); at least 1."""
    least = float("inf")
    try:
        lines = group.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        lines = []
    folder = root / next((line[4:] for line in lines if line.startswith("0::/")), "")
    while folder.is_relative_to(root):
        try:
            limit, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            if limit != "max":
                least = min(least, int(limit) / int(period))
        except (OSError, ValueError, ZeroDivisionError):  # no quota here, or not v2
            pass
        if folder == root:
            break
        folder = folder.parent
    return min(max(1.0, least), 1e6)

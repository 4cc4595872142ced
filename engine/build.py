"""Building engine.wasm with the C compiler that the registry's `ziglang` brings along: same source, same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from u2net.errors import ConfigError
from u2net.files import atomic_path, check_path

__all__ = ["build_wasm"]

SOURCES = Path(__file__).parent / "src"
FLAGS = (
    "--target=wasm32-freestanding",
    "-std=c17",
    "-O3",
    "-msimd128",
    "-mbulk-memory",
    "-ffp-contract=off",  # float results are specified operation by operation
    "-nostdlib",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-s",
    "-Wl,--no-entry",
    "-Wl,--export=__heap_base",
    "-Wl,-z,stack-size=65536",
    "-Wl,--max-memory=1073741824",  # bytes: no file can make the engine take more
)


#: For several threads over one memory, which the host makes and imports as `env.memory`.
THREAD_FLAGS = (
    "-DU2E_THREADS",
    "-matomics",
    "-Wl,--import-memory",
    "-Wl,--shared-memory",
    "-Wl,--export=__stack_pointer",
)


def build_wasm(out: str | os.PathLike[str], threads: bool = False) -> int:
    """Compile the engine to `out`, with `threads` for several; returns its size in bytes.

    Raises `ConfigError` where the compiler is missing.
    """
    target = check_path(out)
    sources = sorted(path.name for path in SOURCES.glob("*.c"))
    with atomic_path(target) as temporary:
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            *FLAGS,
            *(THREAD_FLAGS if threads else ()),
            "-o",
            str(temporary.resolve()),
            *sources,
        ]
        result = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)
        if result.returncode:
            message = " ".join(result.stderr.split())[-400:]
            raise ConfigError(f"the engine cannot be compiled: {message}")
    return target.stat().st_size

"""Brotli and gzip copies beside each file, for static hosts that send them as they lie.

Both are reproducible: no time, no file name inside.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

import brotli

from u2net.artifact import write_bytes

__all__ = ["COMPRESSIBLE_SUFFIXES", "compressed_sizes", "write_siblings"]

#: What static hosts serve to browsers and what is not compressed already.
COMPRESSIBLE_SUFFIXES = frozenset(
    {".css", ".html", ".js", ".json", ".map", ".md", ".mjs", ".onnx", ".ort", ".svg", ".ts", ".wasm", ".webmanifest"}
)


@lru_cache(maxsize=32)  # the card speaks of sizes before the files are written, and the engine takes a minute
def _brotli(data: bytes) -> bytes:
    return brotli.compress(data, quality=11, lgwin=24)


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=9, mtime=0)


def compressed_sizes(data: bytes) -> dict[str, int]:
    """Bytes of `data` as it is (`raw`) and as a static host sends it (`gzip`, `brotli`)."""
    return {"raw": len(data), "gzip": len(_gzip(data)), "brotli": len(_brotli(data))}


def write_siblings(folder: Path, minimum_bytes: int = 1024) -> list[Path]:
    """Write `X.br` and `X.gz` beside every compressible file X under `folder`; returns what was written, sorted.

    Files under `minimum_bytes` are left alone, and so is a sibling that would be no smaller than its file.
    """
    written: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix not in COMPRESSIBLE_SUFFIXES or path.stat().st_size < minimum_bytes:
            continue
        data = path.read_bytes()
        for suffix, compressed in ((".br", _brotli(data)), (".gz", _gzip(data))):
            if len(compressed) < len(data):
                sibling = path.with_name(path.name + suffix)
                write_bytes(sibling, compressed)
                written.append(sibling)
    return sorted(written)

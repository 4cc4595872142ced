"""Brotli and gzip copies beside files, for static hosts that send them as they lie.

Both are reproducible: no time, no file name inside.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import brotli

from u2net.files import sha256_bytes, write_bytes

__all__ = ["COMPRESSIBLE_SUFFIXES", "Compressor"]

#: What static hosts serve to browsers and what is not compressed already.
COMPRESSIBLE_SUFFIXES = frozenset(
    {".css", ".html", ".js", ".json", ".map", ".mjs", ".onnx", ".svg", ".u2e", ".wasm", ".webmanifest"}
)
#: Weights. gzip takes a seventh from them, which is not worth a second copy in the bundle; brotli, which every browser
#: takes, does better.
BROTLI_ALONE = frozenset({".onnx", ".u2e"})


@dataclass
class Compressor:
    """Compresses each content once. `quality` is brotli's, 0 to 11."""

    quality: int = 11
    _done: dict[str, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)

    def compress(self, paths: Sequence[Path]) -> list[tuple[bytes, bytes]]:
        """(brotli, gzip) of each file, on all cores: both libraries let go of the interpreter while they work."""
        datas = [path.read_bytes() for path in paths]
        digests = [sha256_bytes(data) for data in datas]
        fresh = {digest: data for digest, data in zip(digests, datas, strict=True) if digest not in self._done}
        todo = sorted(fresh, key=lambda digest: -len(fresh[digest]))  # the longest first, beside all the others
        with ThreadPoolExecutor() as pool:
            results = list(pool.map(lambda digest: (self._brotli(fresh[digest]), _gzip(fresh[digest])), todo))
        self._done.update(zip(todo, results, strict=True))
        return [self._done[digest] for digest in digests]

    def sizes(self, paths: Sequence[Path]) -> list[dict[str, int]]:
        """Bytes of each file as it is (`raw`) and as a static host sends it (`gzip`, `brotli`)."""
        return [
            {"raw": path.stat().st_size, "gzip": len(zipped), "brotli": len(brotlied)}
            for path, (brotlied, zipped) in zip(paths, self.compress(paths), strict=True)
        ]

    def write_siblings(self, files: Iterable[Path], minimum_bytes: int = 1024) -> list[Path]:
        """Write `X.br` and `X.gz` beside every compressible file X of `files`; returns what was written, sorted.

        Weights get `X.br` alone. Files under `minimum_bytes` get none, and so does a file that would get no smaller.
        """
        paths = [
            path
            for path in sorted(files)
            if path.suffix in COMPRESSIBLE_SUFFIXES and path.stat().st_size >= minimum_bytes
        ]
        written: list[Path] = []
        for path, results in zip(paths, self.compress(paths), strict=True):
            for suffix, compressed in zip((".br", ".gz"), results, strict=True):
                if suffix == ".gz" and path.suffix in BROTLI_ALONE:
                    continue
                if len(compressed) < path.stat().st_size:
                    sibling = path.with_name(path.name + suffix)
                    write_bytes(sibling, compressed)
                    written.append(sibling)
        return sorted(written)

    def _brotli(self, data: bytes) -> bytes:
        compressed: bytes = brotli.compress(data, quality=self.quality, lgwin=24)
        return compressed


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=9, mtime=0)

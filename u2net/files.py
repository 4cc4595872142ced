"""Safe files: atomic writes, bounded reads of regular files, hashes, checked paths, and one process at a time.

Everything of this project that reads or writes a file on somebody's behalf does it through here, so that a power cut
leaves the old file or the new one, a named pipe or a device as input is refused and not waited for, and a file of any
size cannot fill the memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ArtifactError, OutputError, U2NetError

__all__ = [
    "atomic_path",
    "canonical_json",
    "check_path",
    "read_regular",
    "sha256_bytes",
    "sha256_file",
    "write_bytes",
    "write_json",
]

DOCUMENT_LIMIT_BYTES = 64 << 20  # of a JSON or TOML document: the largest report of ours has 2 MB


def check_path(path: str | os.PathLike[str]) -> Path:
    """`path` as a `Path`; raises `ArtifactError` where it holds control characters (they forge log lines)."""
    text = os.fspath(path)
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        raise ArtifactError(f"the path {text!r} holds control characters")
    return Path(text)


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of the file at `path`."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it into place, else delete it.

    The temporary name starts with a dot and ends with the real file's suffix. Raises `OutputError` where the folder
    cannot be made, the disk is full or the rename fails.
    """
    target = check_path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(6)}{target.suffix}")
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def canonical_json(value: object) -> bytes:
    """`value` as UTF-8 JSON with sorted keys, two spaces, a final newline and no NaN: equal values, equal bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` to `path` atomically as `canonical_json`."""
    write_bytes(path, canonical_json(value))


def read_regular(
    path: str | os.PathLike[str], error: type[U2NetError] = ArtifactError, limit_bytes: int = DOCUMENT_LIMIT_BYTES
) -> bytes:
    """The bytes of the regular file at `path`. Raises `error` where it is missing, none, or over `limit_bytes`.

    A named pipe or a device is refused and never waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise error(f"{path} is not a regular file")
            data = file.read(limit_bytes + 1)
    except (OSError, ValueError) as failure:
        raise error(f"{path} cannot be read: {getattr(failure, 'strerror', None) or failure}") from failure
    if len(data) > limit_bytes:
        raise error(f"{path} is larger than {limit_bytes >> 20} MiB, too large for what it should be")
    return data

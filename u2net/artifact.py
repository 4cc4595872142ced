"""Files that stages hand to each other: atomic writes, checksums and sidecars.

Every artifact `X.onnx` has a sidecar `X.json` that says which stage made it, from what, with which settings and
library versions, and what the stage measured. A stage refuses an input whose bytes are not the ones that its sidecar
speaks of. Nothing here holds a time or a host name, so the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import ArtifactError, OutputError

__all__ = [
    "SIDECAR_SCHEMA_VERSION",
    "atomic_path",
    "canonical_json",
    "check_path",
    "read_sidecar",
    "sha256_bytes",
    "sha256_file",
    "sidecar_path",
    "verify_artifact",
    "write_bytes",
    "write_json",
    "write_sidecar",
]

SIDECAR_SCHEMA_VERSION = 1


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


def sidecar_path(artifact: str | os.PathLike[str]) -> Path:
    """Where the sidecar of `artifact` lies: `fp32.onnx` → `fp32.json`, but `fp32.ort` → `fp32.ort.json` beside it."""
    path = Path(artifact)
    return path.with_suffix(".json") if path.suffix == ".onnx" else path.with_name(path.name + ".json")


def write_sidecar(
    artifact: str | os.PathLike[str],
    *,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    figures: Mapping[str, Any],
    libraries: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write and return the sidecar of `artifact`, which must exist.

    `inputs` maps a role ("weights", "model") to the sha256 of what went in; `libraries` are the distributions whose
    versions shaped the result; `figures` is what the stage measured. Timings do not belong here: they are not
    reproducible.
    """
    path = Path(artifact)
    value = {
        "schema_version": SIDECAR_SCHEMA_VERSION,
        "stage": stage,
        "file": path.name,
        "sha256": sha256_file(path),
        "size_bytes": path.stat().st_size,
        "settings": dict(settings),
        "inputs": dict(inputs),
        "figures": dict(figures),
        "libraries": {name: metadata.version(name) for name in libraries},
    }
    write_json(sidecar_path(path), value)
    return value


def read_sidecar(artifact: str | os.PathLike[str]) -> dict[str, Any]:
    """The sidecar of `artifact`. Raises `ArtifactError` where it is missing, damaged or of another schema."""
    path = sidecar_path(artifact)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ArtifactError(f"the sidecar {path} is not a regular file")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{artifact} has no sidecar {path.name}; make it with the stage before") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"the sidecar {path} cannot be read: {error}") from error
    if not isinstance(value, dict) or value.get("schema_version") != SIDECAR_SCHEMA_VERSION:
        raise ArtifactError(f"the sidecar {path} is not of schema version {SIDECAR_SCHEMA_VERSION}")
    return value


def verify_artifact(artifact: str | os.PathLike[str]) -> dict[str, Any]:
    """The sidecar of `artifact` after checking that it speaks of these very bytes; raises `ArtifactError` if not."""
    value = read_sidecar(artifact)
    try:
        digest = sha256_file(artifact)
    except OSError as error:
        raise ArtifactError(f"{artifact} cannot be read: {error.strerror or error}") from error
    if digest != value.get("sha256"):
        raise ArtifactError(f"{artifact} is not the file that its sidecar speaks of (sha256 {digest[:12]}…)")
    return value

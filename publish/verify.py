"""Whether a bundle is what its manifest says: every byte, nothing missing, nothing added, models that run."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli

from u2net.errors import ArtifactError, U2NetError

from .manifest import MANIFEST_NAME, describe_file, read_manifest
from .selftest import answer_difference
from .signature import SIGNATURE_NAME

__all__ = ["verify_bundle"]

_UNLISTED = frozenset({MANIFEST_NAME, SIGNATURE_NAME})
_DECODERS = {".br": brotli.decompress, ".gz": gzip.decompress}
_MAX_RATIO = 1200  # gzip cannot do better; more is a bomb


def verify_bundle(folder: Path) -> dict[str, Any]:
    """Check the bundle in `folder`; returns counts of what was checked. Raises `ArtifactError` naming every fault."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder")
    manifest = read_manifest(folder)
    faults = [
        *_listed_files(folder, manifest),
        *_other_files(folder, {entry["path"] for entry in manifest["files"]}),
    ]
    if not faults:  # bytes that are not the promised ones are not handed to an engine
        faults = list(_models(folder, manifest))
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise ArtifactError(f"{folder}: " + "; ".join(faults[:5]) + more)
    return {
        "name": manifest.get("name"),
        "version": manifest.get("version"),
        "files": len(manifest["files"]),
        "size_bytes": sum(entry["bytes"] for entry in manifest["files"]),
        "models": sum(entry["role"] == "model" for entry in manifest["files"]),
    }


def _listed_files(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    for entry in manifest["files"]:
        path = folder / entry["path"]
        if not path.is_file() or path.is_symlink():
            yield f"{entry['path']} is missing"
            continue
        found = describe_file(folder, entry["path"], str(entry.get("role")))
        for field in ("bytes", "sha256", "sri"):
            if entry.get(field) != found[field]:
                yield f"{entry['path']} is not the file that the manifest lists ({field} differs)"
                break


def _other_files(folder: Path, listed: set[str]) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield f"{name} is a link"
        elif path.is_dir() or name in listed or name in _UNLISTED:
            continue
        elif path.suffix in _DECODERS and (name[: -len(path.suffix)] in listed | {MANIFEST_NAME}):
            original = path.with_suffix("")
            if not original.is_file() or not _decodes_to(path, original.read_bytes()):
                yield f"{name} does not hold what {path.stem} holds"
        else:
            yield f"{name} is not in the manifest"


def _decodes_to(path: Path, original: bytes) -> bool:
    if len(original) > path.stat().st_size * _MAX_RATIO:
        return False
    try:
        return _DECODERS[path.suffix](path.read_bytes()) == original
    except (OSError, EOFError, zlib.error, brotli.error):
        return False


def _models(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    test = manifest.get("self_test")
    for entry in manifest["files"]:
        if entry["role"] != "model" or entry.get("format") != "onnx":
            continue
        try:
            difference = answer_difference(folder / entry["path"], test) if test else 0.0
        except U2NetError as error:
            yield str(error)
            continue
        if test and difference > test["tolerance"]:
            yield f"{entry['path']} answers the self-test picture {difference:.3f} away from what is promised"

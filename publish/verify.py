"""Whether a bundle is what its manifest says: every byte, nothing missing, nothing added, models that run."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
from msgspec import UNSET

from u2net.errors import ArtifactError, U2NetError

from .manifest import MANIFEST_NAME, Manifest, ModelFile, describe_file, read_manifest
from .selftest import answer_difference
from .signature import SIGNATURE_NAME

__all__ = ["verify_bundle"]

_UNLISTED = frozenset({MANIFEST_NAME, SIGNATURE_NAME})
_DECODERS = {".br": brotli.decompress, ".gz": gzip.decompress}
_MAX_RATIO = 1200  # gzip cannot do better; more is a bomb


def verify_bundle(folder: Path) -> dict[str, Any]:
    """Check the bundle in `folder`; returns counts of what was checked. Raises `ArtifactError` naming the faults."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder; make a bundle with `make publish`")
    manifest = read_manifest(folder)
    faults = [*_listed_files(folder, manifest), *_other_files(folder, {file.path for file in manifest.files})]
    if not faults:  # bytes that are not the promised ones are not handed to an engine
        faults = list(_models(folder, manifest))
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise ArtifactError(f"{folder}: " + "; ".join(faults[:5]) + more + "; take the bundle from its publisher again")
    return {
        "name": manifest.name,
        "version": manifest.version,
        "files": len(manifest.files),
        "size_bytes": sum(file.bytes for file in manifest.files),
        "models": sum(isinstance(file, ModelFile) for file in manifest.files),
    }


def _listed_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or path.is_symlink():
            yield f"{file.path} is missing"
        elif path.stat().st_size != file.bytes:
            yield f"{file.path} is not the file that the manifest lists (bytes differs)"
        else:
            found = describe_file(folder, file.path, type(file), **_own_fields(file))
            for field in ("sha256", "sri"):
                if getattr(file, field) not in (UNSET, getattr(found, field)):
                    yield f"{file.path} is not the file that the manifest lists ({field} differs)"
                    break


def _own_fields(file: Any) -> dict[str, str]:
    shared = ("path", "bytes", "sha256", "sri")
    return {name: getattr(file, name) for name in file.__struct_fields__ if name not in shared}


def _other_files(folder: Path, listed: set[str]) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        said = name if name.isprintable() else repr(name)
        if path.is_symlink():
            yield f"{said} is a link"
        elif path.is_dir() or name in listed or name in _UNLISTED:
            continue
        elif path.suffix in _DECODERS and (name[: -len(path.suffix)] in listed | {MANIFEST_NAME}):
            original = path.with_suffix("")
            if not original.is_file() or not _decodes_to(path, original.read_bytes()):
                yield f"{said} does not hold what {path.stem} holds"
        else:
            yield f"{said} is not in the manifest"


def _decodes_to(path: Path, original: bytes) -> bool:
    if not path.is_file() or len(original) > path.stat().st_size * _MAX_RATIO:
        return False
    try:
        return _DECODERS[path.suffix](path.read_bytes()) == original
    except (OSError, EOFError, zlib.error, brotli.error):
        return False


def _models(folder: Path, manifest: Manifest) -> Iterator[str]:
    test = manifest.self_test
    for file in manifest.files:
        if test is UNSET or not isinstance(file, ModelFile) or file.format == "ort":
            continue
        try:
            difference = answer_difference(folder / file.path, test)
        except U2NetError as error:
            yield str(error)
            continue
        if difference > test.tolerance:
            yield f"{file.path} answers the self-test picture {difference:.3f} away from what is promised"

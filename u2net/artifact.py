"""Sidecars of the files that stages hand to each other.

Every artifact `X.onnx` has a sidecar `X.json` that says which stage made it, from what, with which settings and
library versions, and what the stage measured. A stage refuses an input whose bytes are not the ones that its sidecar
speaks of. Nothing here holds a time or a host name, so the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import msgspec

from .documents import Document, read_json, write_document
from .errors import ArtifactError
from .files import canonical_json, sha256_file

__all__ = ["Sidecar", "asked", "changed", "read_sidecar", "sidecar_path", "verify_artifact", "write_sidecar"]


class Sidecar(Document, frozen=True, kw_only=True, omit_defaults=False):
    """What a stage says of a file that it made."""

    KIND: ClassVar[str] = "sidecar"
    CURE: ClassVar[str] = "make its file again with the stage that made it"

    stage: str
    file: str  # name, in the sidecar's own folder
    sha256: str  # of the file
    size_bytes: int
    settings: dict[str, Any]
    inputs: dict[str, str]  # role ("weights", "model") → sha256
    figures: dict[str, Any]  # what the stage measured
    libraries: dict[str, str]  # distribution → version
    request: dict[str, Any] = {}  # what the stage was asked for, for `changed`


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
    request: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write and return the sidecar of `artifact`, which must exist.

    `request` is what `asked` made of what the stage was asked for: `changed` compares it the next time.
    `inputs` maps a role ("weights", "model") to the sha256 of what went in; `libraries` are the distributions whose
    versions shaped the result; `figures` is what the stage measured. Timings do not belong here: they are not
    reproducible.
    """
    path = Path(artifact)
    sidecar = Sidecar(
        schema_version=Sidecar.VERSION,
        stage=stage,
        file=path.name,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        settings=dict(settings),
        inputs=dict(inputs),
        figures=dict(figures),
        libraries={name: metadata.version(name) for name in libraries},
        request=dict(request or {}),
    )
    write_document(sidecar_path(path), sidecar)
    return _plain(sidecar)


def _plain(sidecar: Sidecar) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(sidecar)
    return value


def asked(
    settings: Mapping[str, Any], inputs: Mapping[str, str], libraries: tuple[str, ...], code: tuple[ModuleType, ...]
) -> dict[str, Any]:
    """Everything that decides what a stage makes, as flat JSON: settings, inputs, library versions, its own source."""
    digest = hashlib.sha256()
    for module in code:
        folder = Path(str(module.__file__)).parent
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".c", ".h")):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    request: dict[str, Any] = {f"settings.{name}": value for name, value in settings.items()}
    request |= {f"inputs.{name}": value for name, value in inputs.items()}
    request |= {f"libraries.{name}": metadata.version(name) for name in libraries}
    return json.loads(canonical_json(request | {"code": digest.hexdigest()}))


def changed(artifact: str | os.PathLike[str], request: Mapping[str, Any]) -> list[str]:
    """Why `artifact` must be made again: the names in `request` that differ from its sidecar's. Empty: up to date.

    A file that is missing, or is not the one that its sidecar speaks of, is named as such.
    """
    path = Path(artifact)
    if not path.exists():
        return [f"{path.name} is missing"]
    try:
        before = verify_artifact(path).get("request")
    except ArtifactError:
        return [f"{path.name} is not what its sidecar says"]
    if not before:
        return [f"{path.name} does not say how it was made"]
    return sorted(name for name in {*before, *request} if before.get(name) != request.get(name))


def read_sidecar(artifact: str | os.PathLike[str]) -> dict[str, Any]:
    """The sidecar of `artifact`. Raises `ArtifactError` where it is missing, damaged or of another schema."""
    path = sidecar_path(artifact)
    if not path.exists():
        raise ArtifactError(f"{artifact} has no sidecar {path.name}; make it with the stage before")
    return _plain(read_json(path, Sidecar))


def verify_artifact(artifact: str | os.PathLike[str]) -> dict[str, Any]:
    """The sidecar of `artifact` after checking that it speaks of these very bytes; raises `ArtifactError` if not."""
    sidecar = read_sidecar(artifact)
    try:
        digest = sha256_file(artifact)
    except OSError as error:
        raise ArtifactError(f"{artifact} cannot be read: {error.strerror or error}") from error
    if digest != sidecar["sha256"]:
        raise ArtifactError(f"{artifact} is not the file that its sidecar speaks of (sha256 {digest[:12]}…)")
    return sidecar

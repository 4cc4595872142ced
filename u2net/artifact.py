"""Sidecars of the files that stages hand to each other.

Every artifact `X.onnx` has a sidecar `X.json` that says which stage made it, from what, with which settings and
library versions, and what the stage measured. A stage refuses an input whose bytes are not the ones that its sidecar
speaks of. Nothing here holds a time or a host name, so the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import ArtifactError
from .files import read_regular, sha256_file, write_json

__all__ = ["SIDECAR_SCHEMA_VERSION", "read_sidecar", "sidecar_path", "verify_artifact", "write_sidecar"]

SIDECAR_SCHEMA_VERSION = 1


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
    if not path.exists():
        raise ArtifactError(f"{artifact} has no sidecar {path.name}; make it with the stage before")
    try:
        value = json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
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

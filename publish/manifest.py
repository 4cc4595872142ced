"""`manifest.json`: what a bundle says of itself, for the browser package and for `publish verify`.

Schema version 1. Every file of the bundle but the manifest itself, its signature and compressed siblings is listed with
its role, bytes, sha256 and Subresource Integrity hash. `docs/web.md` lists the fields that the browser package reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from u2net.errors import ArtifactError
from u2net.infer import Session
from u2net.preprocess import MEAN, SPECIFICATION_VERSION, STD

from .selftest import expected_answer

__all__ = [
    "ENGINE_FILES",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "describe_file",
    "describe_model",
    "is_safe_path",
    "read_manifest",
]

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
#: Builds of the engine that a page may need: with WebAssembly alone, and with WebGPU.
ENGINE_FILES = {"wasm": "ort-wasm-simd-threaded.wasm", "webgpu": "ort-wasm-simd-threaded.asyncify.wasm"}
_SAFE_PART = re.compile(r"[A-Za-z0-9._-]+")
_MAX_MANIFEST_BYTES = 4 << 20  # a bundle lists hundreds of files, not millions


def is_safe_path(path: str) -> bool:
    """Whether `path` stays below the bundle whatever reads it: plain names and forward slashes, no parents, no root."""
    parts = path.split("/")
    return all(_SAFE_PART.fullmatch(part) and part.strip(".") for part in parts)


def describe_file(folder: Path, path: str, role: str, **fields: str) -> dict[str, Any]:
    """One entry of the manifest's `files`: the file at `path`, relative to `folder`, with its hashes."""
    if not is_safe_path(path):
        raise ArtifactError(f"{path!r} cannot be a file of a bundle: only letters, digits, '.', '_' and '-' are safe")
    data = (folder / path).read_bytes()
    return {
        "path": path,
        "role": role,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "sri": "sha384-" + base64.b64encode(hashlib.sha384(data).digest()).decode(),
        **fields,
    }


def describe_model(reference: Path, name: str, version: str) -> dict[str, Any]:
    """The manifest without its files: what goes in and out of the model, and its answer to the self-test picture.

    `reference` is the float32 ONNX file, which the answer is computed with.
    """
    session = Session(reference, threads=1)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": f"u2net-{name}",
        "version": version,
        "model": {"name": name},
        "input": {
            "interface": session.interface,
            "name": "input",
            "size": session.size,
            "specification": SPECIFICATION_VERSION,
            "mean": list(MEAN),
            "std": list(STD),
        },
        "output": {"name": "alpha", "range": [0.0, 1.0]},
        "self_test": expected_answer(reference),
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the bundle in `folder`. Raises `ArtifactError` where it is missing, damaged or unsafe."""
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ArtifactError(f"{path} is larger than a manifest can be")
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{folder} holds no {MANIFEST_NAME}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(f"{path} is not of schema version {SCHEMA_VERSION}")
    files = manifest.get("files")
    if not isinstance(files, list) or not files:
        raise ArtifactError(f"{path} lists no files")
    seen: set[str] = set()
    for entry in files:
        name = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not is_safe_path(name):
            raise ArtifactError(f"{path} lists the unsafe path {name!r}")
        if str(PurePosixPath(name)) in seen:
            raise ArtifactError(f"{path} lists {name} twice")
        seen.add(name)
    return manifest

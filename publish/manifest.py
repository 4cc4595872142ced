"""`manifest.json`: what a bundle says of itself, for the browser package and for `publish verify`.

Schema version 1. The types below are the document: they write it, read it, and give its JSON Schema
(`python -m publish schema`), which lies beside the TypeScript reader as `web/src/manifest.schema.json`. Every file of
the bundle but the manifest itself, its signature and compressed copies is listed with its role, bytes, sha256 and
Subresource Integrity hash. `docs/web.md` says which fields the browser package reads.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from u2net.documents import Document, document_json, read_json
from u2net.errors import ArtifactError
from u2net.files import write_bytes
from u2net.infer import Session
from u2net.preprocess import MEAN, SPECIFICATION_VERSION, STD

from .selftest import SelfTest, expected_answer

__all__ = [
    "ENGINE_FILES",
    "MANIFEST_NAME",
    "BundleFile",
    "DemoFile",
    "DocumentFile",
    "EngineFile",
    "File",
    "HuggingFaceFile",
    "Input",
    "Licence",
    "LicenceFile",
    "Manifest",
    "ModelFile",
    "ModelInfo",
    "Output",
    "PackageFile",
    "RecipeFile",
    "ReportFile",
    "TransferSize",
    "WheelFile",
    "describe_file",
    "describe_model",
    "manifest_schema",
    "read_manifest",
    "role_of",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20  # the browser package reads no more
#: Builds of ONNX Runtime Web that a page may need: with WebAssembly alone, and with WebGPU.
ENGINE_FILES = {"wasm": "ort-wasm-simd-threaded.wasm", "webgpu": "ort-wasm-simd-threaded.asyncify.wasm"}

# `$` alone would allow a line feed at the end in Python; the look-ahead after it means nothing elsewhere.
_SAFE_PATH = r"^(?:(?!\.+(?:/|$))[A-Za-z0-9._-]+(?:/(?=[^/])|$))+$(?!\n)"
SafePath = Annotated[
    str,
    Meta(
        pattern=_SAFE_PATH,
        max_length=255,
        description="Below the manifest: letters, digits, '.', '_', '-' and '/', and no part of dots alone.",
    ),
]
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._+-]+$(?!\n)", max_length=100)]
Text = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)", max_length=1000)]


class File(Struct, tag_field="role", frozen=True, kw_only=True):
    """A file of the bundle. Its role says what it is for."""

    path: SafePath
    bytes: Annotated[int, Meta(ge=1, le=512 << 20)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    sri: Annotated[str, Meta(pattern=r"^sha384-[A-Za-z0-9+/]{64}$(?!\n)")] | UnsetType = UNSET


class ModelFile(File, tag="model", frozen=True):
    """A model: `u2e` for the browser package's own engine, `onnx` for ONNX Runtime."""

    precision: Literal["int8", "fp16", "fp32"]
    format: Literal["u2e", "onnx", "ort"] = "onnx"


class EngineFile(File, tag="engine", frozen=True):
    """A WebAssembly file of ONNX Runtime Web, and the version of onnxruntime-web that it belongs to."""

    provider: Literal["wasm", "webgpu"]
    version: Word


class BundleFile(File, tag="manifest", frozen=True):
    """The manifest of another bundle below this one, which the browser package takes for this `quality`."""

    quality: Literal["video", "standard", "best"]


class PackageFile(File, tag="package", frozen=True):
    """The browser package, as npm packs it."""


class WheelFile(File, tag="wheel", frozen=True):
    """The runner for Python."""


class DemoFile(File, tag="demo", frozen=True):
    """Of the demo page."""


class ReportFile(File, tag="report", frozen=True):
    """Of the evaluation's report."""


class HuggingFaceFile(File, tag="huggingface", frozen=True):
    """Of the folder that transformers.js loads."""


class RecipeFile(File, tag="recipe", frozen=True):
    """How another tool uses the models."""


class LicenceFile(File, tag="licence", frozen=True):
    """A licence of what others wrote."""


class DocumentFile(File, tag="document", frozen=True):
    """Something to read."""


AnyFile = (
    ModelFile
    | EngineFile
    | BundleFile
    | PackageFile
    | WheelFile
    | DemoFile
    | ReportFile
    | HuggingFaceFile
    | RecipeFile
    | LicenceFile
    | DocumentFile
)


class ModelInfo(Struct, frozen=True):
    """Which network."""

    name: Word


class Input(Struct, frozen=True):
    """What goes in. "tensor": float32 (1, 3, size, size), normalised; "image": uint8 (1, size, size, 4) RGBA."""

    interface: Literal["tensor", "image"]
    name: Text
    size: Annotated[int, Meta(ge=32, le=2048)]
    specification: Literal[1]
    mean: Annotated[list[float], Meta(min_length=3, max_length=3)]
    std: Annotated[list[float], Meta(min_length=3, max_length=3)]


class Output(Struct, frozen=True):
    """What comes out: float32 (1, 1, size, size) in `range`."""

    name: Text
    range: Annotated[list[float], Meta(min_length=2, max_length=2)]


class TransferSize(Struct, frozen=True):
    """Bytes of a file as it is, and as a host sends it that compresses."""

    raw: Annotated[int, Meta(ge=1)]
    gzip: Annotated[int, Meta(ge=1)]
    brotli: Annotated[int, Meta(ge=1)]


class Licence(Struct, frozen=True):
    """A licence's text in the bundle, and what it covers."""

    file: SafePath
    covers: Text
    spdx: Text | UnsetType = UNSET


class Manifest(Document, frozen=True, kw_only=True):
    """The document. `provenance` are the sidecars of the models, `figures` what those measured."""

    KIND: ClassVar[str] = "manifest"
    CURE: ClassVar[str] = "publish the bundle again"

    schema_version: Literal[1]
    name: Word
    version: Word
    model: ModelInfo
    input: Input
    output: Output
    files: Annotated[list[AnyFile], Meta(min_length=1)]
    self_test: SelfTest | UnsetType = UNSET
    sizes: dict[str, TransferSize] = {}
    licences: list[Licence] = []
    figures: dict[str, dict[str, Any]] = {}
    provenance: dict[str, dict[str, Any]] = {}


_File = TypeVar("_File", bound=File)


def role_of(file: File) -> str:
    """The role of `file`, as the manifest names it."""
    return str(file.__struct_config__.tag)


def describe_file(folder: Path, path: str, kind: type[_File], **fields: str) -> _File:
    """The manifest's entry of the file at `path`, relative to `folder`. Raises `ArtifactError` where it can be none."""
    data = (folder / path).read_bytes()
    entry = {
        "role": kind.__struct_config__.tag,
        "path": path,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "sri": "sha384-" + base64.b64encode(hashlib.sha384(data).digest()).decode(),
        **fields,
    }
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        raise ArtifactError(f"{path!r} cannot be a file of a bundle: {error}") from error


def describe_model(reference: Path, name: str, version: str) -> Manifest:
    """The manifest without its files: what goes in and out of the model, and its answer to the self-test picture.

    `reference` is the float32 ONNX file, which the answer is computed with.
    """
    session = Session(reference, threads=1)
    interface: Any = session.interface
    specification: Any = SPECIFICATION_VERSION
    return Manifest(
        schema_version=1,
        name=f"u2net-{name}",
        version=version,
        model=ModelInfo(name),
        input=Input(interface, "input", session.size, specification, list(map(float, MEAN)), list(map(float, STD))),
        output=Output("alpha", [0.0, 1.0]),
        files=[],
        self_test=expected_answer(reference),
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`. Raises `ArtifactError` where it is missing, damaged or unsafe."""
    path = folder / MANIFEST_NAME
    if not path.exists():
        raise ArtifactError(f"{folder} holds no {MANIFEST_NAME}; make a bundle with `make publish`")
    manifest = read_json(path, Manifest)
    _check_files(path, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest` into `folder`. Raises `ArtifactError` where it is not one that readers accept."""
    path = folder / MANIFEST_NAME
    data = document_json(manifest)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArtifactError(
            f"{path} would be larger than {MAX_MANIFEST_BYTES >> 20} MiB, which no browser reads; leave extras out"
        )
    try:
        _check_files(path, msgspec.json.decode(data, type=Manifest))
    except msgspec.ValidationError as error:
        raise ArtifactError(f"{path} would not be a manifest: {error}") from error
    write_bytes(path, data)


def _check_files(path: Path, manifest: Manifest) -> None:
    """What a type cannot say."""
    seen: set[str] = set()
    for file in manifest.files:
        if file.path in seen:
            raise ArtifactError(f"{path} lists {file.path} twice; publish again with `make publish`")
        seen.add(file.path)
    if not any(isinstance(file, ModelFile) for file in manifest.files):
        raise ArtifactError(f"{path} lists no model; publish again with `make publish`")


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the manifest."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Manifest)}

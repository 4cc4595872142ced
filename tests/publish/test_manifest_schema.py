"""The manifest's JSON Schema, the Python types and the TypeScript reader agree on what a manifest is."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from publish.manifest import Manifest, manifest_schema
from tests.support.paths import ROOT
from u2net.files import canonical_json

SCHEMA = ROOT / "web" / "src" / "manifest.schema.json"
DIGEST = "0123456789abcdef" * 4
MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "name": "u2net-lite",
    "version": "1.2.0",
    "model": {"name": "lite"},
    "input": {
        "interface": "tensor",
        "name": "input",
        "size": 320,
        "specification": 1,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "output": {"name": "alpha", "range": [0.0, 1.0]},
    "files": [
        {"role": "model", "path": "int8.u2e", "precision": "int8", "format": "u2e", "bytes": 9, "sha256": DIGEST},
        {"role": "model", "path": "fp32.onnx", "precision": "fp32", "format": "onnx", "bytes": 9, "sha256": DIGEST},
        {"role": "engine", "path": "a.wasm", "provider": "wasm", "version": "1.30.0", "bytes": 9, "sha256": DIGEST},
        {"role": "manifest", "path": "best/manifest.json", "quality": "best", "bytes": 9, "sha256": DIGEST},
        {"role": "document", "path": "README.md", "bytes": 9, "sha256": DIGEST, "sri": "sha384-" + "A" * 64},
    ],
    "self_test": {"picture": 1, "grid": 2, "alpha": "AAAAAA==", "tolerance": 0.02},
    "sizes": {"int8.u2e": {"raw": 9, "gzip": 8, "brotli": 7}},
    "licences": [{"file": "LICENSE", "covers": "code", "spdx": "Apache-2.0"}],
}
#: What the browser package does not look at: it takes whatever stands there.
UNREAD = ("sizes", "licences", "mean", "std", "range", "sri")
#: Texts may be any text to it: names, versions, roles that are not known yet.
TEXTS = ("name", "version", "role", "alpha")
WRONG: list[Any] = [None, "", "a\nb", "../x", -1, 0, 31, 2049, 1.5, 2**40, True, [], {}]


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if place:
        yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield from _places(child, (*place, key))


def _changed(place: tuple[str | int, ...], *new: Any) -> Any:
    document: Any = copy.deepcopy(MANIFEST)
    holder = document
    for key in place[:-1]:
        holder = holder[key]
    if new:
        holder[place[-1]] = new[0]
    else:
        del holder[place[-1]]
    return document


def _documents() -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield ("as it is",), MANIFEST
    for place in _places(MANIFEST):
        yield place, _changed(place)
        for wrong in WRONG:
            if wrong is None and place[-1] == "format":
                continue  # to JavaScript null is as good as left out
            yield place, _changed(place, wrong)


def test_the_committed_schema_is_the_types() -> None:
    """Write it anew by `python -m publish schema > web/src/manifest.schema.json`."""
    assert SCHEMA.read_bytes() == canonical_json(manifest_schema())


@pytest.fixture(scope="module")
def judged() -> list[tuple[tuple[str | int, ...], Any, bool]]:
    """Changed manifests, where they were changed, and whether the schema allows them, says jsonschema."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_bytes()))
    validator.check_schema(validator.schema)
    return [(place, document, validator.is_valid(document)) for place, document in _documents()]


def test_schema_and_types_agree(judged: list[tuple[tuple[str | int, ...], Any, bool]]) -> None:
    for place, document, valid in judged:
        try:
            msgspec.json.decode(json.dumps(document), type=Manifest)
            taken = True
        except msgspec.ValidationError:
            taken = False
        assert taken == valid, (place, document)


@pytest.fixture(scope="module")
def parse_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The browser package's reader as a program: a list of documents in, a list of reasons or null out."""
    node, esbuild = shutil.which("node"), ROOT / "web" / "node_modules" / ".bin" / "esbuild"
    if node is None or not esbuild.exists():
        pytest.skip("needs Node and `npm ci` in web/")
    folder = tmp_path_factory.mktemp("reader")
    entry = folder / "entry.ts"
    entry.write_text(
        f"import {{ parseManifest }} from {json.dumps(str(ROOT / 'web' / 'src' / 'manifest.ts'))};\n"
        "import { readFileSync } from 'node:fs';\n"
        "const reason = (document: unknown) => { try { parseManifest(JSON.stringify(document)); return null }"
        " catch (error) { return `${(error as Error).name}: ${(error as Error).message}` } };\n"
        "console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(reason)));\n"
    )
    program = folder / "reader.mjs"
    command = [
        esbuild,
        entry,
        "--bundle",
        "--format=esm",
        "--platform=node",
        f"--outfile={program}",
        "--log-level=error",
    ]
    subprocess.run(list(map(str, command)), check=True)
    return program


def test_the_browser_package_reads_what_the_schema_allows(
    parse_manifest: Path, judged: list[tuple[tuple[str | int, ...], Any, bool]]
) -> None:
    """And nothing else, in the fields that it reads; refused in a line that is a ManifestError."""
    given = json.dumps([document for _, document, _ in judged])
    result = subprocess.run(["node", parse_manifest], input=given, capture_output=True, text=True, check=True)
    refused_by_both = 0
    for (place, document, valid), reason in zip(judged, json.loads(result.stdout), strict=True):
        if valid:
            assert reason is None, (place, document, reason)
        elif not any(part in UNREAD for part in place) and not (place[-1] in TEXTS and _is_text(place, document)):
            assert reason is not None and reason.startswith("ManifestError: manifest.json"), (place, document)
            refused_by_both += 1
    assert refused_by_both > 200


def _is_text(place: tuple[str | int, ...], document: Any) -> bool:
    for key in place[:-1]:
        document = document[key]
    return isinstance(document.get(place[-1]), str)

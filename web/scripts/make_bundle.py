"""Make a bundle folder that the browser package loads, from any exported models. For development and tests.

    python web/scripts/make_bundle.py --int8 build/lite/int8.onnx --fp32 build/lite/fp32.onnx --out /tmp/bundle

The published bundle holds the same `manifest.json` and more; docs/web.md lists the fields.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WEB = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(WEB.parent))

from u2net.errors import ModelError, U2NetError  # noqa: E402
from u2net.infer import Session  # noqa: E402
from u2net.preprocess import SPECIFICATION_VERSION  # noqa: E402

SCHEMA_VERSION = 1
SELF_TEST_PICTURE = 1
SELF_TEST_GRID = 16
SELF_TEST_TOLERANCE = 0.02  # room for a GPU's half precision; a mask of something else differs by 0.1 and more
ENGINE_FILES = {"wasm": "ort-wasm-simd-threaded.wasm", "webgpu": "ort-wasm-simd-threaded.asyncify.wasm"}


def self_test_picture(size: int) -> npt.NDArray[np.uint8]:
    """uint8 (size, size, 3): version 1 of the picture in web/src/selftest.ts, byte for byte."""
    y, x = np.mgrid[0:size, 0:size]
    u, v = 255 * x // (size - 1), 255 * y // (size - 1)
    background = np.stack((60 + (u * 60 >> 8), 90 + (v * 60 >> 8), 140 + ((u + v) * 30 >> 9)), -1)
    disc = np.stack((230 - (v * 60 >> 8), 80 + (u * 50 >> 8), np.full_like(u, 40)), -1)
    inside = 25 * ((2 * x - (size - 1)) ** 2 + (2 * y - (size - 1)) ** 2) <= 9 * size * size
    return np.where(inside[..., None], disc, background).astype(np.uint8)


def self_test(model: Path) -> dict[str, Any]:
    """The manifest's `self_test`: what `model` (float32, for choice) answers, as block means."""
    session = Session(model, threads=1)
    saliency = session.saliency(self_test_picture(session.size))
    edges = [i * session.size // SELF_TEST_GRID for i in range(SELF_TEST_GRID + 1)]
    means = np.array(
        [
            [saliency[a:b, c:d].mean() for c, d in pairwise(edges)]
            for a, b in pairwise(edges)
        ]
    )
    return {
        "picture": SELF_TEST_PICTURE,
        "grid": SELF_TEST_GRID,
        "alpha": base64.b64encode(np.floor(means * 255 + 0.5).astype(np.uint8).tobytes()).decode(),
        "tolerance": SELF_TEST_TOLERANCE,
    }


def describe(folder: Path, path: str, role: str, **fields: str) -> dict[str, Any]:
    """One entry of the manifest's `files`."""
    data = (folder / path).read_bytes()
    return {
        "path": path,
        "role": role,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "sri": "sha384-" + base64.b64encode(hashlib.sha384(data).digest()).decode(),
        **fields,
    }


def make_bundle(
    out: Path, models: dict[str, Path], engine: Path | None, providers: tuple[str, ...] = ("wasm",)
) -> dict[str, Any]:
    """Write `out`; `models` maps int8, fp16 or fp32 to ONNX files, `engine` is onnxruntime-web's package folder."""
    if not models:
        raise ModelError("name at least one model")
    out.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Any]] = []
    for precision, source in models.items():
        shutil.copyfile(source, out / f"{precision}.onnx")
        files.append(describe(out, f"{precision}.onnx", "model", precision=precision, format="onnx"))
    if engine is not None:
        version = json.loads((engine / "package.json").read_text())["version"]
        for provider in providers:
            name = ENGINE_FILES[provider]
            shutil.copyfile(engine / "dist" / name, out / name)
            files.append(describe(out, name, "engine", provider=provider, version=version))
    reference = models.get("fp32") or next(iter(models.values()))
    session = Session(reference, threads=1)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": f"u2net-{session.metadata.get('u2net.model', 'model')}",
        "version": "0.0.0",
        "model": {"name": session.metadata.get("u2net.model", "model")},
        "input": {
            "interface": session.interface,
            "name": "input",
            "size": session.size,
            "specification": SPECIFICATION_VERSION,
        },
        "output": {"name": "alpha"},
        "files": files,
        "self_test": self_test(reference),
        "licences": [],
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    return manifest


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for precision in ("int8", "fp16", "fp32"):
        parser.add_argument(f"--{precision}", type=Path, metavar="ONNX", help=f"the {precision} model")
    parser.add_argument(
        "--engine",
        type=Path,
        default=WEB / "node_modules" / "onnxruntime-web",
        help="package folder of onnxruntime-web",
    )
    parser.add_argument("--no-engine", action="store_true", help="leave the engine to the page's bundler")
    parser.add_argument("--webgpu", action="store_true", help="add the engine's WebGPU build (27 MB)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    settings = parser.parse_args(arguments)
    models = {name: path for name in ("int8", "fp16", "fp32") if (path := getattr(settings, name))}
    try:
        make_bundle(
            settings.out,
            models,
            None if settings.no_engine else settings.engine,
            ("wasm", "webgpu") if settings.webgpu else ("wasm",),
        )
    except (U2NetError, OSError) as error:
        print(f"make_bundle: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

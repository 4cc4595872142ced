"""Make a bundle folder that the browser package loads, from any exported models. For development and tests.

    python web/scripts/make_bundle.py --int8 build/lite/int8.onnx --fp32 build/lite/fp32.onnx --out /tmp/bundle
    python web/scripts/make_bundle.py --u2e build/lite/int8.u2e --reference build/lite/fp32.onnx --out /tmp/bundle

The model that the browser package brings is such a folder, web/model/.

The published bundle holds the same `manifest.json` and more; docs/web.md lists the fields.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

WEB = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(WEB.parent))

from publish.manifest import (  # noqa: E402
    ENGINE_FILES,
    EngineFile,
    ModelFile,
    describe_file,
    describe_model,
    write_manifest,
)
from u2net.errors import ModelError, U2NetError  # noqa: E402
from u2net.infer import Session  # noqa: E402


def make_bundle(
    out: Path,
    models: dict[str, Path],
    runtime: Path | None,
    providers: tuple[str, ...] = ("wasm",),
    packed: Path | None = None,
    reference: Path | None = None,
) -> None:
    """Write `out`; `models` maps int8, fp16 or fp32 to ONNX files, `packed` is an int8 model for the own engine.

    `reference` answers the self-test (by default the best of `models`), `runtime` is the package folder of
    onnxruntime-web.
    """
    reference = reference or models.get("fp32") or next(iter(models.values()), None)
    if reference is None:
        raise ModelError("name at least one model, and with --u2e alone the --reference that it comes from")
    name = Session(reference, threads=1).metadata.get("u2net.model", "model")
    manifest = describe_model(reference, name, "0.0.0")
    out.mkdir(parents=True, exist_ok=True)
    files: list[Any] = []
    if packed is not None:
        shutil.copyfile(packed, out / "int8.u2e")
        files.append(describe_file(out, "int8.u2e", ModelFile, precision="int8", format="u2e"))
    for precision, source in models.items():
        shutil.copyfile(source, out / f"{precision}.onnx")
        files.append(describe_file(out, f"{precision}.onnx", ModelFile, precision=precision, format="onnx"))
    if runtime is not None:
        version = json.loads((runtime / "package.json").read_text())["version"]
        for provider in providers:
            file_name = ENGINE_FILES[provider]
            shutil.copyfile(runtime / "dist" / file_name, out / file_name)
            files.append(describe_file(out, file_name, EngineFile, provider=provider, version=version))
    write_manifest(out, msgspec.structs.replace(manifest, files=files))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for precision in ("int8", "fp16", "fp32"):
        parser.add_argument(f"--{precision}", type=Path, metavar="ONNX", help=f"the {precision} model")
    parser.add_argument("--u2e", type=Path, help="the int8 model, packed for the package's own engine")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="ONNX",
        help="the model that answers the self-test (default: one of the above)",
    )
    parser.add_argument("--runtime", action="store_true", help="add ONNX Runtime Web's WebAssembly (14 MB)")
    parser.add_argument("--webgpu", action="store_true", help="add it and its build with WebGPU (27 MB)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    settings = parser.parse_args(arguments)
    models = {name: path for name in ("int8", "fp16", "fp32") if (path := getattr(settings, name))}
    try:
        make_bundle(
            settings.out,
            models,
            WEB / "node_modules" / "onnxruntime-web" if settings.runtime or settings.webgpu else None,
            ("wasm", "webgpu") if settings.webgpu else ("wasm",),
            settings.u2e,
            settings.reference,
        )
    except (U2NetError, OSError) as error:
        print(f"make_bundle: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

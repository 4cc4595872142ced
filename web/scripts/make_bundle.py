"""Make a bundle folder that the browser package loads, from any exported models. For development and tests.

    python web/scripts/make_bundle.py --int8 build/lite/int8.onnx --fp32 build/lite/fp32.onnx --out /tmp/bundle

The published bundle holds the same `manifest.json` and more; docs/web.md lists the fields.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

WEB = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(WEB.parent))

from publish.manifest import ENGINE_FILES, describe_file, describe_model  # noqa: E402
from u2net.files import write_json  # noqa: E402
from u2net.errors import ModelError, U2NetError  # noqa: E402
from u2net.infer import Session  # noqa: E402


def make_bundle(out: Path, models: dict[str, Path], engine: Path | None, providers: tuple[str, ...] = ("wasm",)) -> None:
    """Write `out`; `models` maps int8, fp16 or fp32 to ONNX files, `engine` is the package folder of onnxruntime-web."""
    if not models:
        raise ModelError("name at least one model")
    reference = models.get("fp32") or next(iter(models.values()))
    name = Session(reference, threads=1).metadata.get("u2net.network.model", "model")
    manifest = describe_model(reference, name, "0.0.0")
    out.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Any]] = []
    for precision, source in models.items():
        shutil.copyfile(source, out / f"{precision}.onnx")
        files.append(describe_file(out, f"{precision}.onnx", "model", precision=precision, format="onnx"))
    if engine is not None:
        version = json.loads((engine / "package.json").read_text())["version"]
        for provider in providers:
            file_name = ENGINE_FILES[provider]
            shutil.copyfile(engine / "dist" / file_name, out / file_name)
            files.append(describe_file(out, file_name, "engine", provider=provider, version=version))
    write_json(out / "manifest.json", {**manifest, "files": files})


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

"""`dist/u2net-<model>-<version>/`: the one folder that a front-end team receives.

    manifest.json  int8.onnx fp16.onnx fp32.onnx  *.ort   what the browser package loads, by its `base` option
    ort-wasm-simd-threaded*.wasm                          the engine, so that nothing comes from elsewhere
    README.md  MODEL_CARD.md  LICENSE  licences/
    npm/        the browser package            python/   the runner as a wheel, default model inside
    demo/       a page that uses all of it     report/   how good and how fast, measured
    huggingface/  for transformers.js          rembg/    for rembg

Everything goes into a temporary folder first and takes its name only when it verifies. Two runs give the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from eval.gate import judge_report
from eval.policy import load_policy
from eval.report import load_report
from export.ort_format import write_ort
from u2net.artifact import verify_artifact
from u2net.errors import ArtifactError, ConfigError, OutputError, QualityError
from u2net.files import write_bytes, write_json

from .card import model_card
from .compress import Compressor
from .huggingface import write_huggingface_folder
from .manifest import ENGINE_FILES, MANIFEST_NAME, describe_file, describe_model
from .verify import verify_bundle
from .wheel import build_wheel

__all__ = ["BundleSettings", "make_bundle"]

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
PRECISIONS = ("int8", "fp16", "fp32")
#: First part of a file's path → its role in the manifest.
FOLDER_ROLES = {
    "npm": "package",
    "python": "wheel",
    "demo": "demo",
    "report": "report",
    "huggingface": "huggingface",
    "rembg": "recipe",
    "licences": "licence",
}
_REMBG_RECIPE = """\
# With rembg

    pip install rembg onnxruntime
    rembg i -m u2net_custom -x '{"model_path": "../fp32.onnx"}' photo.jpg cutout.png

or from Python:

    from rembg import new_session, remove
    session = new_session("u2net_custom", model_path="fp32.onnx")
    cutout = remove(photograph, session=session)

`int8.onnx` works the same way. rembg resizes with Lanczos and stretches every mask to the full range, so its masks
differ a little from the project's own runners', and a picture without a subject gets one.
"""
_README = """\
# {name} {version}

Background removal that runs in the browser. Put this folder on any static host and no picture ever leaves the page.

    npm install ./npm/{package} onnxruntime-web

    import {{ createRemover }} from "u2net-remover";
    const remover = await createRemover({{ base: "/models/{name}/" }});   // where this folder is hosted
    const {{ image }} = await remover.cutout(file);

`demo/` is a page to try: serve this folder, open `demo/`. The first visit downloads {first_visit}, the next ones
nothing. `.br` and `.gz` files are for hosts that send compressed copies. From Python:

    pip install ./python/{wheel}
    u2net photo.jpg -o cutout.png

`MODEL_CARD.md` says what the model can and cannot do, `report/report.html` shows it. To check that every byte is what
was published: `python -m publish verify .`, in the project's repository.
"""


@dataclass(frozen=True)
class BundleSettings:
    """What goes into a bundle. The defaults are the places where the other stages leave their results."""

    model: str
    build: Path = ROOT / "build"  # with <model>/{fp32,fp16,int8}.onnx
    report: Path = ROOT / "build" / "report"  # with report.{json,md,html}
    out: Path = ROOT / "dist"  # gets <name>-<version>/
    policy: Path = ROOT / "eval" / "policy.toml"  # what a report must satisfy
    brotli_quality: int = 11  # of the .br files; 9 is ten times faster and a sixth larger
    keep: Path = ROOT / ".cache" / "brotli"  # compressed copies of large files, by content


def make_bundle(settings: BundleSettings, progress: Callable[[str], None] = lambda what: None) -> Path:
    """Write the bundle and return its folder.

    Raises `ArtifactError` where a model is missing, was changed, or is not the one that the report speaks of;
    `QualityError` where the report breaks the policy; `OutputError` where something cannot be built or written.
    """
    models = {precision: settings.build / settings.model / f"{precision}.onnx" for precision in PRECISIONS}
    progress("checking models and report")
    sidecars = {precision: verify_artifact(path) for precision, path in models.items()}
    _require_chain(sidecars)
    _require_pass(settings, sidecars)

    version = metadata.version("u2net-remover")
    name = f"u2net-{settings.model}"
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.out, prefix=f".{name}.") as temporary:
            stage = Path(temporary) / f"{name}-{version}"
            stage.mkdir()
            _fill(stage, settings, models, sidecars, name, version, progress)
            progress("verifying")
            verify_bundle(stage)
            return _take_place(stage, settings.out / stage.name)
    except OSError as error:
        raise OutputError(f"cannot write the bundle: {error}") from error


def _fill(
    stage: Path,
    settings: BundleSettings,
    models: dict[str, Path],
    sidecars: dict[str, dict[str, Any]],
    name: str,
    version: str,
    progress: Callable[[str], None],
) -> None:
    manifest = describe_model(models["fp32"], settings.model, version)
    files: list[dict[str, Any]] = []
    progress("copying models and engine")
    for precision, path in models.items():
        shutil.copyfile(path, stage / path.name)
        files.append(describe_file(stage, path.name, "model", precision=precision, format="onnx"))
    for precision in ("int8", "fp32"):  # half-precision weights come out of the converter as float32
        converted = _ort_form(models[precision], sidecars[precision]["sha256"])
        shutil.copyfile(converted, stage / converted.name)
        files.append(describe_file(stage, converted.name, "model", precision=precision, format="ort"))
    engine = WEB / "node_modules" / "onnxruntime-web"
    engine_version = json.loads((engine / "package.json").read_bytes())["version"]
    for provider, file_name in ENGINE_FILES.items():
        shutil.copyfile(engine / "dist" / file_name, stage / file_name)
        files.append(describe_file(stage, file_name, "engine", provider=provider, version=engine_version))

    progress("building the packages")
    package = _npm_pack(stage / "npm")
    wheel = build_wheel(stage / "python", models["int8"], settings.model)
    _copy_demo(stage / "demo")
    shutil.copytree(settings.report, stage / "report", ignore=lambda _, names: [n for n in names if not _is_report(n)])

    progress("compressing models and engine")
    compressor = Compressor(settings.brotli_quality, settings.keep)
    listed = [entry["path"] for entry in files]
    compressed = dict(zip(listed, compressor.sizes([stage / path for path in listed]), strict=True))
    progress("writing the card")
    figures = (settings.report / "report.md").read_text(encoding="utf-8")
    card = model_card(settings.model, files, compressed, sidecars, figures.replace("\n#", "\n###"))
    write_bytes(stage / "MODEL_CARD.md", card.encode())
    write_huggingface_folder(stage / "huggingface", models, manifest["input"]["size"], card)
    (stage / "rembg").mkdir()
    write_bytes(stage / "rembg" / "README.md", _REMBG_RECIPE.encode())
    shutil.copyfile(ROOT / "LICENSE", stage / "LICENSE")
    licences = _copy_licences(stage / "licences")
    first_visit = sum(
        compressed[f["path"]]["brotli"] for f in files if f["path"] in ("int8.onnx", ENGINE_FILES["wasm"])
    )
    readme = _README.format(
        name=name,
        version=version,
        package=package.name,
        wheel=wheel.name,
        first_visit=f"{first_visit / 1e6:.1f} MB, nearly all of it the engine",
    )
    write_bytes(stage / "README.md", readme.encode())

    for path in sorted(p for p in stage.rglob("*") if p.is_file()):
        relative = path.relative_to(stage).as_posix()
        if relative not in listed:
            files.append(describe_file(stage, relative, FOLDER_ROLES.get(relative.split("/")[0], "document")))
    manifest["files"] = files
    manifest["sizes"] = compressed
    manifest["provenance"] = sidecars
    manifest["figures"] = {precision: sidecar["figures"] for precision, sidecar in sidecars.items()}
    manifest["licences"] = [{"spdx": "Apache-2.0", "file": "LICENSE", "covers": "code, weights"}, *licences]
    write_json(stage / MANIFEST_NAME, manifest)
    progress("compressing the rest")
    compressor.write_siblings(stage)
    for path in stage.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _require_chain(sidecars: dict[str, dict[str, Any]]) -> None:
    """The int8 model must come from this float model, and both float models from the same weights."""
    if sidecars["int8"]["inputs"].get("model") != sidecars["fp32"]["sha256"]:
        raise ArtifactError("int8.onnx was not made from this fp32.onnx: quantize again")
    if sidecars["fp16"]["inputs"].get("weights") != sidecars["fp32"]["inputs"].get("weights"):
        raise ArtifactError("fp16.onnx and fp32.onnx come from different weights: export again")


def _require_pass(settings: BundleSettings, sidecars: dict[str, dict[str, Any]]) -> None:
    """Nothing is published unmeasured: the report must be about these very files, and keep the policy."""
    report = load_report(settings.report / "report.json")
    judged = {model.sha256 for model in report.models}
    for precision in ("fp32", "int8"):
        if sidecars[precision]["sha256"] not in judged:
            raise ArtifactError(
                f"{settings.report / 'report.json'} is not about this {precision}.onnx: run `make eval`"
            )
    breaches = judge_report(report, load_policy(settings.policy)).breaches
    if breaches:
        more = f" (and {len(breaches) - 3} more)" if len(breaches) > 3 else ""
        raise QualityError("the gate fails: " + "; ".join(map(str, breaches[:3])) + more)


def _is_report(name: str) -> bool:
    return name in ("report.html", "report.md", "report.json")


def _ort_form(model: Path, digest: str) -> Path:
    """`model` in onnxruntime's own format, converted once: the converter does not give the same bytes twice.

    Of several that publish at a time one converts, and the others wait for it.
    """
    existing = model.with_suffix(".ort")
    with _alone(existing):
        try:
            if verify_artifact(existing)["inputs"].get("model") == digest:
                return existing
        except ArtifactError:
            pass
        return write_ort(model)[0]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Within the block no other process is in one for the same folder; on systems without `flock` it may be."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _npm_pack(out: Path) -> Path:
    """The built browser package as npm packs it, which leaves times out, in the folder `out`."""
    if not (WEB / "dist" / "index.js").is_file():
        raise ArtifactError("the browser package is not built: run `make web`")
    out.mkdir(parents=True)
    try:
        result = subprocess.run(
            ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(out)],
            cwd=WEB,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise ConfigError("npm is not installed; the browser package is built with it") from None
    packed = sorted(out.glob("*.tgz"))
    if result.returncode != 0 or len(packed) != 1:
        raise OutputError(f"npm could not pack the browser package: {result.stderr.strip()[-300:]}")
    return packed[0]


def _copy_demo(out: Path) -> None:
    """The built demo, pointed at the bundle that it lies in."""
    built = WEB / "demo-dist"
    if not (built / "index.html").is_file():
        raise ArtifactError("the demo is not built: run `make web`")
    shutil.copytree(built, out)
    index = out / "index.html"
    page = index.read_text(encoding="utf-8")
    marker = '<meta name="bundle" content="model/">'
    if marker not in page:
        raise ArtifactError("the demo's page does not say where its bundle is")
    write_bytes(index, page.replace(marker, '<meta name="bundle" content="../">').encode())


def _copy_licences(out: Path) -> list[dict[str, str]]:
    """Licences of what others wrote and this bundle ships, into the folder `out`; returns the manifest's entries."""
    # One project and one licence with onnxruntime-web, whose npm package lacks the text.
    spec = util.find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None
    runtime = Path(spec.origin).parent
    sources = (
        (runtime / "LICENSE", "onnxruntime.txt", "MIT", "ort-*.wasm and its loader in demo/"),
        (runtime / "ThirdPartyNotices.txt", "onnxruntime-third-party.txt", "", "what ort-*.wasm is built from"),
        (WEB / "node_modules" / "client-zip" / "LICENSE.txt", "client-zip.txt", "MIT", "the ZIP writer in demo/"),
    )
    out.mkdir()
    for source, name, _, _ in sources:
        shutil.copyfile(source, out / name)
    return [
        {"file": f"licences/{name}", "covers": covers, **({"spdx": spdx} if spdx else {})}
        for _, name, spdx, covers in sources
    ]


def _take_place(stage: Path, target: Path) -> Path:
    """Rename `stage` to `target`; a bundle that is there already makes room only when the new one is complete."""
    if target.exists():
        old = stage.with_name(f"{stage.name}.old")
        target.replace(old)
    stage.replace(target)
    return target

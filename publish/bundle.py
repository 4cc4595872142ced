"""`dist/u2net-<model>-<version>/`: the one folder that a front-end team receives.

    manifest.json  int8.u2e       what the browser package loads, by its `base` option
    README.md  MODEL_CARD.md  LICENSE  licences/
    npm/          the browser package          python/   the runner as a wheel, model inside
    demo/         a page that uses all of it   report/   how good and how fast, measured
    huggingface/  for transformers.js, and     rembg/    for rembg
                  the models as ONNX files

On request also models in fp16 and fp32 there, and the WebAssembly of ONNX Runtime Web. Everything goes into a temporary
folder first and takes its name only when it verifies. Two runs give the same bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Any

import msgspec

from eval.gate import judge_report
from eval.policy import load_policy
from eval.report import load_report
from u2net.artifact import verify_artifact
from u2net.errors import ArtifactError, ConfigError, OutputError, QualityError
from u2net.files import read_regular, write_bytes

from .card import model_card
from .compress import Compressor
from .huggingface import ONNX_FILES, write_huggingface_folder
from .manifest import (
    ENGINE_FILES,
    MANIFEST_NAME,
    AnyFile,
    DemoFile,
    DocumentFile,
    EngineFile,
    File,
    HuggingFaceFile,
    Licence,
    LicenceFile,
    ModelFile,
    PackageFile,
    RecipeFile,
    ReportFile,
    TransferSize,
    WheelFile,
    describe_file,
    describe_model,
    write_manifest,
)
from .settings import ROOT, BundleSettings
from .verify import verify_bundle
from .wheel import build_wheel

__all__ = ["make_bundle"]

WEB = ROOT / "web"
LARGEST_FILE_BYTES = 25 << 20  # of several static hosts
#: First part of a file's path → what it is.
FOLDERS: dict[str, type[File]] = {
    "npm": PackageFile,
    "python": WheelFile,
    "demo": DemoFile,
    "report": ReportFile,
    "huggingface": HuggingFaceFile,
    "rembg": RecipeFile,
    "licences": LicenceFile,
}
_REMBG_RECIPE = """\
# With rembg

    pip install rembg onnxruntime
    rembg i -m u2net_custom -x '{{"model_path": "../huggingface/{onnx}"}}' photo.jpg cutout.png

or from Python:

    from rembg import new_session, remove
    session = new_session("u2net_custom", model_path="huggingface/{onnx}")
    cutout = remove(photograph, session=session)

rembg resizes with Lanczos and stretches every mask to the full range, so its masks differ a little from the project's
own runners', and a picture without a subject gets one.
"""
_README = """\
# {name} {version}

Background removal that runs in the browser. Put this folder on any static host and no picture ever leaves the page.

    npm install ./npm/{package}

    import {{ createRemover }} from "u2net-remover";
    const remover = await createRemover({{ base: "/models/{name}/" }});   // where this folder is hosted
    const {{ image }} = await remover.cutout(file);

`demo/` is a page to try: serve this folder, open `demo/`. The model is {first_visit} on the wire, once. `.br` and `.gz`
files are for hosts that send compressed copies. From Python:

    pip install ./python/{wheel}
    u2net photo.jpg -o cutout.png

The same model as an ONNX file, for transformers.js and others, is `huggingface/{onnx}`.

`MODEL_CARD.md` says what the model can and cannot do, `report/report.html` shows it. To check that every byte is what
was published: `npx u2net-remover verify .`
"""

Say = Callable[[str], None]  # one line for people
Sidecars = dict[str, dict[str, Any]]


def make_bundle(settings: BundleSettings, say: Say = lambda what: None) -> Path:
    """Write the bundle and return its folder.

    Raises `ArtifactError` where a model is missing, was changed, or is not the one that the report speaks of;
    `QualityError` where the report breaks the policy; `OutputError` where something cannot be built or written.
    """
    folder = settings.build / settings.model
    names = {"int8": "int8.onnx", "fp32": "fp32.onnx", "u2e": "int8.u2e"}
    if "fp16" in settings.extras:
        names["fp16"] = "fp16.onnx"
    models = {form: folder / name for form, name in names.items()}
    say("checking models and report")
    sidecars = {form: verify_artifact(path) for form, path in models.items()}
    _require_chain(sidecars)
    _require_pass(settings, sidecars)

    version = metadata.version("u2net-remover")
    name = f"u2net-{settings.model}"
    out = settings.out.absolute()  # others are started in folders of their own
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}.") as temporary:
            stage = Path(temporary) / f"{name}-{version}"
            stage.mkdir()
            _fill(stage, settings, models, sidecars, version, say)
            say("verifying")
            verify_bundle(stage)
            return _take_place(stage, out / stage.name)
    except OSError as error:
        raise OutputError(f"cannot write the bundle: {error}") from error


def _fill(
    stage: Path,
    settings: BundleSettings,
    models: dict[str, Path],
    sidecars: Sidecars,
    version: str,
    say: Say,
) -> None:
    say("copying models")
    loaded = list(_copy_models(stage, settings, models))
    manifest = describe_model(models["fp32"], settings.model, version)

    say("building the packages")
    package = _npm_pack(stage / "npm")
    wheel = build_wheel(stage / "python", models["int8"], settings.model)
    _copy_demo(stage / "demo")
    shutil.copytree(settings.report, stage / "report", ignore=lambda _, names: [n for n in names if not _is_report(n)])

    say("compressing")
    compressor = Compressor(settings.brotli_quality)
    sizes = compressor.sizes([stage / file.path for file in loaded])
    travel = {file.path: TransferSize(**size) for file, size in zip(loaded, sizes, strict=True)}
    report = load_report(settings.report / "report.json")
    about = read_regular(settings.about, ConfigError).decode("utf-8", "replace") if settings.about else ""
    card = model_card(settings.model, manifest.input.size, loaded, travel, sidecars, report, about)
    write_bytes(stage / "MODEL_CARD.md", card.encode())
    write_huggingface_folder(stage / "huggingface", manifest.name, manifest.input.size, card)
    (stage / "rembg").mkdir()
    write_bytes(stage / "rembg" / "README.md", _REMBG_RECIPE.format(onnx=ONNX_FILES["int8"]).encode())
    shutil.copyfile(ROOT / "LICENSE", stage / "LICENSE")
    licences = _copy_licences(stage / "licences", "onnxruntime" in settings.extras)
    readme = _README.format(
        name=manifest.name,
        version=version,
        package=package.name,
        wheel=wheel.name,
        onnx=ONNX_FILES["int8"],
        first_visit=f"{travel['int8.u2e'].brotli / 1e6:.1f} MB",
    )
    write_bytes(stage / "README.md", readme.encode())

    files: list[Any] = list(loaded)
    for path in sorted(p for p in stage.rglob("*") if p.is_file()):
        relative = path.relative_to(stage).as_posix()
        if relative not in travel:
            files.append(describe_file(stage, relative, FOLDERS.get(relative.split("/")[0], DocumentFile)))
    write_manifest(
        stage,
        msgspec.structs.replace(
            manifest,
            files=files,
            sizes=travel,
            provenance=sidecars,
            figures={form: sidecar["figures"] for form, sidecar in sidecars.items()},
            licences=[Licence("LICENSE", "code, weights", "Apache-2.0"), *licences],
        ),
    )
    asked_for = [stage / file.path for file in loaded if not _is_for_tools(file, settings)]
    pages = [path for path in (stage / "demo").rglob("*") if path.is_file()]
    compressor.write_siblings([*asked_for, *pages, stage / MANIFEST_NAME])
    for file in files:
        if file.bytes > LARGEST_FILE_BYTES:
            say(f"note: {file.path} has {file.bytes / 1e6:.0f} MB, and some hosts take no file over 25 MiB")
    for path in stage.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _copy_models(stage: Path, settings: BundleSettings, models: dict[str, Path]) -> list[AnyFile]:
    """What a page may load, copied into `stage`: the models, and ONNX Runtime Web where it is wanted."""
    files: list[AnyFile] = []

    def copy(source: Path, path: str, kind: type[File], **fields: str) -> None:
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, stage / path)
        files.append(describe_file(stage, path, kind, **fields))  # type: ignore[arg-type]

    copy(models["u2e"], "int8.u2e", ModelFile, precision="int8", format="u2e")
    for form in ("int8", "fp16", "fp32"):
        if form == "int8" or form in settings.extras:
            copy(models[form], f"huggingface/{ONNX_FILES[form]}", ModelFile, precision=form, format="onnx")
    if "onnxruntime" in settings.extras:
        runtime = WEB / "node_modules" / "onnxruntime-web"
        if not runtime.is_dir():
            raise ArtifactError("onnxruntime-web is not installed: run `make web`")
        version = json.loads((runtime / "package.json").read_bytes())["version"]
        wasm = ENGINE_FILES["wasm"]
        copy(runtime / "dist" / wasm, wasm, EngineFile, provider="wasm", version=version)
    return files


def _is_for_tools(file: AnyFile, settings: BundleSettings) -> bool:
    """Whether no page loads `file`, so that it needs no compressed copies: ONNX files without ONNX Runtime Web."""
    return isinstance(file, ModelFile) and file.format == "onnx" and "onnxruntime" not in settings.extras


def _require_chain(sidecars: Sidecars) -> None:
    """The int8 models must come from this float model, and all float models from the same weights."""
    if sidecars["int8"]["inputs"].get("model") != sidecars["fp32"]["sha256"]:
        raise ArtifactError("int8.onnx was not made from this fp32.onnx: run `u2net quantize` again")
    if sidecars["u2e"]["inputs"].get("model") != sidecars["int8"]["sha256"]:
        raise ArtifactError("int8.u2e was not made from this int8.onnx: run `u2net engine` again")
    weights = sidecars["fp32"]["inputs"].get("weights")
    if "fp16" in sidecars and sidecars["fp16"]["inputs"].get("weights") != weights:
        raise ArtifactError("fp16.onnx and fp32.onnx come from different weights: run `u2net export --fp16` again")


def _require_pass(settings: BundleSettings, sidecars: Sidecars) -> None:
    """Nothing is published unmeasured: the report must be about these very files, and keep the policy."""
    report = load_report(settings.report / "report.json")
    judged = {model.sha256 for model in report.models}
    for precision in ("fp32", "int8"):
        if sidecars[precision]["sha256"] not in judged:
            raise ArtifactError(
                f"{settings.report / 'report.json'} is not about this {precision}.onnx: run `u2net eval` on these "
                "models again"
            )
    breaches = judge_report(report, load_policy(settings.policy or ROOT / "eval" / "policy.toml")).breaches
    if breaches:
        more = f" (and {len(breaches) - 3} more)" if len(breaches) > 3 else ""
        raise QualityError(
            "the gate fails: "
            + "; ".join(map(str, breaches[:3]))
            + more
            + "; `u2net eval gate` lists all, --policy FILE names another policy"
        )


def _is_report(name: str) -> bool:
    return name in ("report.html", "report.md", "report.json")


def _npm_pack(out: Path) -> Path:
    """The built browser package as npm packs it, which leaves times out, in the folder `out`."""
    if not (WEB / "dist" / "index.js").is_file():
        raise ArtifactError("the browser package is not built: run `make web`")
    out.mkdir(parents=True)
    command = ["npm", "pack", "--loglevel=error", "--ignore-scripts", "--pack-destination", str(out.absolute())]
    try:
        result = subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError(
            "npm is not installed, and the browser package is packed with it; install Node.js 20 or later"
        ) from None
    packed = sorted(out.glob("*.tgz"))
    if result.returncode != 0 or len(packed) != 1:
        said = " ".join((result.stderr or result.stdout).split())[:400]
        reason = said or f"it ended with status {result.returncode} and left {len(packed)} packages in {out}"
        raise OutputError(f"npm could not pack the browser package: {reason}; run `make web` first")
    return packed[0]


def _copy_demo(out: Path) -> None:
    """The built demo, pointed at the bundle that it lies in."""
    built = WEB / "demo-dist"
    if not (built / "index.html").is_file():
        raise ArtifactError("the demo is not built: run `make web`")
    shutil.copytree(built, out, ignore=shutil.ignore_patterns("model"))  # left by `make demo`
    index = out / "index.html"
    page = index.read_text(encoding="utf-8")
    marker = '<meta name="bundle" content="model/">'
    if marker not in page:
        raise ArtifactError("the demo's page does not say where its bundle is; run `make web`")
    write_bytes(index, page.replace(marker, '<meta name="bundle" content="../">').encode())


def _copy_licences(out: Path, with_onnxruntime: bool) -> list[Licence]:
    """Licences of what others wrote and this bundle ships, into the folder `out`; returns the manifest's entries."""
    sources = [
        (WEB / "node_modules" / "client-zip" / "LICENSE.txt", "client-zip.txt", "MIT", "the ZIP writer in demo/")
    ]
    if with_onnxruntime:
        # One project and one licence with onnxruntime-web, whose npm package lacks the text.
        spec = util.find_spec("onnxruntime")
        assert spec is not None and spec.origin is not None
        runtime = Path(spec.origin).parent
        covers = ENGINE_FILES["wasm"]
        sources.append((runtime / "LICENSE", "onnxruntime.txt", "MIT", covers))
        notices = runtime / "ThirdPartyNotices.txt"
        sources.append((notices, "onnxruntime-third-party.txt", "", f"what {covers} is built from"))
    out.mkdir()
    for source, name, _, _ in sources:
        shutil.copyfile(source, out / name)
    return [
        Licence(f"licences/{name}", covers, spdx) if spdx else Licence(f"licences/{name}", covers)
        for _, name, spdx, covers in sources
    ]


def _take_place(stage: Path, target: Path) -> Path:
    """Rename `stage` to `target`; a bundle that is there already makes room only when the new one is complete."""
    if target.exists():
        old = stage.with_name(f"{stage.name}.old")
        target.replace(old)
    stage.replace(target)
    return target

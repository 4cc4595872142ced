"""What goes into a bundle, and where from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_doc import Doc

from u2net.errors import ConfigError
from u2net.zoo import DEFAULT_MODEL

__all__ = ["EXTRAS", "ROOT", "BundleSettings"]

#: Where the stages lie: the repository, or the folder of the toolchain in an installed wheel.
ROOT = Path(__file__).resolve().parent.parent
#: What a bundle can hold beside what the browser package's own engine needs.
EXTRAS = ("fp16", "fp32", "onnxruntime")


@dataclass(frozen=True)
class BundleSettings:
    """What goes into a bundle. The defaults are the places where the other stages leave their results."""

    model: Annotated[str, Doc("its name, and that of its folder in --build")] = DEFAULT_MODEL  # what `make` builds
    build: Annotated[Path, Doc("where <model>/{fp32,int8}.onnx and int8.u2e are")] = Path("build")
    report: Annotated[Path, Doc("the folder with report.{json,md,html}")] = Path("build/report")
    out: Annotated[Path, Doc("gets <name>-<version>/")] = Path("dist")
    policy: Annotated[Path | None, Doc("what the report must satisfy")] = None  # eval/policy.toml of the toolchain
    about: Annotated[Path | None, Doc("Markdown: what the weights were trained on, and under which terms")] = None
    extras: Annotated[tuple[str, ...], Doc("add fp16, fp32 or onnxruntime, its WebAssembly; may be repeated")] = ()
    # None of these is needed by the browser package's own engine, and they take up to 20 MB.
    brotli_quality: Annotated[int, Doc("0 to 11, of the .br files; 9 is ten times faster, a sixth larger")] = 11

    def __post_init__(self) -> None:
        unknown = [extra for extra in self.extras if extra not in EXTRAS]
        if unknown:
            raise ConfigError(f"--extras must be of {', '.join(EXTRAS)}, not {unknown[0]!r}")
        if not 0 <= self.brotli_quality <= 11:
            raise ConfigError(f"the quality of brotli must be 0 to 11, not {self.brotli_quality}")

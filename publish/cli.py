"""The command line of the publish stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net.commandline import Application, result, say

from .settings import BundleSettings

__all__ = ["application", "main"]

application = Application(
    "publish",
    "Make, verify and sign the folder that a front-end team hosts: models, manifest, model card, packages, demo.",
    default="publish",
)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="a bundle")]


@application.command(
    examples="""
u2net publish --model lite
u2net publish --model portraits --build build --report build/report --about portraits.md --out dist
u2net publish --model lite --extras onnxruntime --extras fp16
"""
)
def publish(settings: BundleSettings) -> None:
    """Make the bundle that front-end teams host: models, manifest, model card, packages, demo, report.

    Refused unless the report is about these very models and passes the policy.
    """
    from .bundle import make_bundle

    folder = make_bundle(settings, say)
    _tell({"folder": str(folder), **_checked(folder)})


@application.command(
    examples="""
u2net publish verify dist/u2net-lite-0.2.0
u2net publish verify dist/u2net-lite-0.2.0 --public-key team.pub
"""
)
def verify(
    folder: Folder,
    public_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="check the signature against this key as well")
    ] = None,
) -> None:
    """Check that a bundle is what its manifest says: every byte, nothing added, models that answer right."""
    _tell(_checked(folder, public_key))


@application.command(examples="u2net publish sign dist/u2net-lite-0.2.0 --key team.pem")
def sign(folder: Folder, key: Annotated[Path, typer.Option(metavar="PEM", help="the private key")]) -> None:
    """Sign a bundle in the OpenSSF Model Signing format, with an elliptic-curve key."""
    from .signature import sign_bundle
    from .verify import verify_bundle

    verify_bundle(folder)
    _tell({"signature": str(sign_bundle(folder, key))})


@application.command(examples="python -m publish wheel --model build/small-fast/int8.onnx --out dist")
def wheel(
    out: Annotated[Path, typer.Option(metavar="DIR", help="where the wheel goes")] = Path("dist"),
    model: Annotated[
        Path | None, typer.Option(metavar="FILE.onnx", help="the model that comes with it, for the runner")
    ] = None,
) -> None:
    """Build the project's own wheel, runner and toolchain, as a release has it."""
    from u2net.artifact import verify_artifact
    from u2net.zoo import DEFAULT_MODEL

    from .wheel import build_full_wheel

    if model is not None:
        verify_artifact(model)
    path = build_full_wheel(out, model, DEFAULT_MODEL)
    _tell({"wheel": str(path), "size_bytes": path.stat().st_size})


@application.command(examples="u2net publish schema > manifest.schema.json")
def schema() -> None:
    """Print the JSON Schema of a bundle's manifest.json."""
    from u2net.files import canonical_json

    from .manifest import manifest_schema

    found = manifest_schema()
    result(found, canonical_json(found).decode().rstrip())


def _checked(folder: Path, public_key: Path | None = None) -> dict[str, Any]:
    from .verify import verify_bundle

    found = verify_bundle(folder)
    if public_key is not None:
        from .signature import check_signature

        check_signature(folder, public_key)
        found["signature"] = "holds"
    return found


def _tell(found: dict[str, Any]) -> None:
    result(found, "\n".join(f"{key}: {value}" for key, value in found.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return application.run(argv)

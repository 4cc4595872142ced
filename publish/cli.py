"""`python -m publish`: make, verify and sign bundles."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from u2net.errors import U2NetError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for what `U2NetError` reports, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments[:1] in (["verify"], ["sign"]) else "make"
    try:
        return {"make": _make, "verify": _verify, "sign": _sign}[command](arguments)
    except U2NetError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("publish: interrupted", file=sys.stderr)
        return 130


def _make(argv: Sequence[str]) -> int:
    from .bundle import BundleSettings, make_bundle

    defaults = BundleSettings("lite")
    parser = argparse.ArgumentParser(
        prog="python -m publish",
        description="Make the bundle that front-end teams host: models, manifest, model card, packages, demo, report. "
        "Refused unless the report is about these very models and passes the gate.",
        epilog="Also: python -m publish verify DIR · python -m publish sign DIR --key KEY.pem",
    )
    parser.add_argument(
        "--model", default=defaults.model, help="lite, small, small-fast or full (default: %(default)s)"
    )
    parser.add_argument("--build", type=Path, default=defaults.build, help="where models were built (default: build)")
    parser.add_argument("--report", type=Path, default=defaults.report, help="the report (default: build/report)")
    parser.add_argument("--policy", type=Path, default=defaults.policy, help="the gate (default: eval/policy.toml)")
    parser.add_argument("--out", type=Path, default=defaults.out, help="gets <name>-<version>/ (default: dist)")
    parser.add_argument(
        "--brotli",
        type=int,
        choices=range(12),
        default=defaults.brotli_quality,
        metavar="QUALITY",
        help="0 to 11, of the .br files; 9 is ten times faster than 11 and a sixth larger (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    options = parser.parse_args(argv)
    settings = BundleSettings(options.model, options.build, options.report, options.out, options.policy, options.brotli)
    folder = make_bundle(settings, lambda what: print(f"publish: {what}", file=sys.stderr))
    _say({"folder": str(folder), **_checked(folder)}, options.json)
    return 0


def _checked(folder: Path, public_key: Path | None = None) -> dict[str, Any]:
    from .signature import check_signature
    from .verify import verify_bundle

    found = verify_bundle(folder)
    if public_key is not None:
        check_signature(folder, public_key)
        found["signature"] = "holds"
    return found


def _verify(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m publish verify",
        description="Check that a bundle is what its manifest says: every byte, nothing added, models that run.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--public-key", type=Path, metavar="PEM", help="check the signature against this key as well")
    parser.add_argument("--json", action="store_true", help="print what was checked as JSON")
    options = parser.parse_args(argv)
    _say(_checked(options.folder, options.public_key), options.json)
    return 0


def _sign(argv: Sequence[str]) -> int:
    from .signature import sign_bundle
    from .verify import verify_bundle

    parser = argparse.ArgumentParser(
        prog="python -m publish sign",
        description="Sign a bundle in the OpenSSF Model Signing format with an elliptic-curve key.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--key", type=Path, required=True, metavar="PEM", help="the private key")
    parser.add_argument("--json", action="store_true", help="print the signature's path as JSON")
    options = parser.parse_args(argv)
    verify_bundle(options.folder)
    _say({"signature": str(sign_bundle(options.folder, options.key))}, options.json)
    return 0


def _say(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2, sort_keys=True))
    else:
        print("\n".join(f"{key}: {value}" for key, value in found.items()))

"""Signatures of bundles in the OpenSSF Model Signing format, by the `model-signing` package (extra `sign`).

Keys are elliptic-curve PEM files, made for example by `openssl ecparam -name prime256v1 -genkey -noout`.
"""

from __future__ import annotations

from pathlib import Path

from u2net.errors import ArtifactError, ConfigError
from u2net.files import atomic_path

__all__ = ["SIGNATURE_NAME", "check_signature", "sign_bundle"]

SIGNATURE_NAME = "model.sig"


def sign_bundle(folder: Path, private_key: Path) -> Path:
    """Write `model.sig` over every file of the bundle in `folder`. Raises `ConfigError` where the key is unusable."""
    try:
        from model_signing import hashing, signing
    except ImportError as error:
        raise ConfigError(f"signing needs the extra `sign`: pip install '.[sign]' ({error})") from error
    signature = folder / SIGNATURE_NAME
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key)
        with atomic_path(signature) as temporary:
            config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[signature, temporary]))
            config.sign(folder, temporary)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{private_key} cannot sign ({error}); give an unencrypted elliptic-curve key, as `openssl ecparam` "
            "makes it"
        ) from error
    return signature


def check_signature(folder: Path, public_key: Path) -> None:
    """Raise `ArtifactError` unless `model.sig` in `folder` is the key's signature over these very files."""
    try:
        from model_signing import hashing, verifying
    except ImportError as error:
        raise ConfigError(f"checking a signature needs the extra `sign`: pip install '.[sign]' ({error})") from error
    signature = folder / SIGNATURE_NAME
    if not signature.is_file():
        raise ArtifactError(f"{folder} is not signed; `u2net publish sign` signs it")
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(
            hashing.Config().set_ignored_paths(paths=[signature])
        ).verify(folder, signature)
    except Exception as error:  # the package raises ValueError, cryptography's own errors and more
        raise ArtifactError(
            f"{folder}: the signature does not hold ({str(error) or type(error).__name__}); take the bundle from "
            "its publisher again"
        ) from error

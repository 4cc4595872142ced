"""Typed documents: the JSON and TOML files that one command writes and another trusts.

A document is a frozen `Document` with a schema version. `read_json` and `read_toml` take it from a regular file of
bounded size; what does not fit the type is refused in one line that names the file, the key and the cure.

For the stages alone: the runner and the training script do without msgspec.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgspec

from .errors import ArtifactError, U2NetError
from .files import canonical_json, check_path, read_regular, write_bytes

__all__ = ["Document", "document_json", "read_json", "read_toml", "write_document"]

LONGEST_REASON = 300  # characters: a key of a hostile file may have any length


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all documents. A key that is not known is ignored unless the type forbids it."""

    KIND: ClassVar[str] = "document"  # what messages call it
    VERSION: ClassVar[int] = 1
    CURE: ClassVar[str] = ""  # what to do where it cannot be used

    schema_version: int


class _Head(msgspec.Struct):
    schema_version: Any = None


AnyDocument = TypeVar("AnyDocument", bound=Document)


def read_json(
    path: str | os.PathLike[str], kind: type[AnyDocument], error: type[U2NetError] = ArtifactError
) -> AnyDocument:
    """The JSON document at `path`; `error` where it cannot be read, is no such document, or of another schema."""
    return _read(path, kind, error, lambda data, wanted: msgspec.json.decode(data, type=wanted))


def read_toml(
    path: str | os.PathLike[str], kind: type[AnyDocument], error: type[U2NetError] = ArtifactError
) -> AnyDocument:
    """The TOML document at `path`. Raises as `read_json` does."""
    return _read(path, kind, error, lambda data, wanted: msgspec.toml.decode(data, type=wanted))


def _read(
    path: str | os.PathLike[str],
    kind: type[AnyDocument],
    error: type[U2NetError],
    decode: Callable[[bytes, type], Any],
) -> AnyDocument:
    cure = f"; {kind.CURE}" if kind.CURE else ""
    try:
        data = read_regular(check_path(path), error)
    except error as failure:
        raise error(f"the {kind.KIND} {failure}{cure}") from failure
    try:
        version = decode(data, _Head).schema_version
        if version != kind.VERSION:
            raise error(f"the {kind.KIND} {path} is not of schema version {kind.VERSION}{cure}")
        document: AnyDocument = decode(data, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as failure:
        raise error(f"the {kind.KIND} {path} is not valid: {_reason(failure)}{cure}") from failure
    return document


def _reason(failure: Exception) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.a.b`" as "a.b: expected int, got str", on one line."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(failure)).replace("`", "")
    found = re.fullmatch(r"(.*) - at (?:key in )?\$\.?(.*)", text)
    reason, key = (found[1], found[2]) if found else (text, "")
    reason = re.sub(r"^Object missing required field (\S+)$", r"\1 is missing", reason)
    reason = re.sub(r"^Object contains unknown field (\S+)$", r"\1 is not known", reason)
    reason = reason[:1].lower() + reason[1:] if not reason.startswith("JSON") else reason
    return (f"{key}: {reason}" if key else reason)[:LONGEST_REASON]


def document_json(document: Document) -> bytes:
    """`document` as canonical JSON; what has its default value is left out."""
    return canonical_json(msgspec.to_builtins(document))


def write_document(path: str | os.PathLike[str], document: Document) -> None:
    """Write `document` to `path` atomically as canonical JSON."""
    write_bytes(path, document_json(document))

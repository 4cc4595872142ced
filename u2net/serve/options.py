"""The options of a request: from its query to settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args, get_type_hints

from annotated_doc import Doc

from u2net.composite import parse_colour
from u2net.encode import EncodeSettings, OutputFormat
from u2net.errors import ConfigError
from u2net.postprocess import PRESETS
from u2net.produce import Part, ProductSettings
from u2net.shadow import ShadowSettings
from u2net.subject import CropSettings

__all__ = ["Wanted", "read_options"]

#: The settings of a product whose documented fields are options of the same name.
_GROUPS: dict[str, type] = {"crop": CropSettings, "shadow": ShadowSettings, "encoding": EncodeSettings}
_CHOICES: dict[str, tuple[str, ...]] = {
    "format": get_args(OutputFormat),
    "part": get_args(Part),
    "preset": tuple(PRESETS),
}


@dataclass(frozen=True)
class Wanted:
    """What a request asks for."""

    part: Part
    format: OutputFormat
    settings: ProductSettings


def _documented() -> dict[str, tuple[str, type]]:
    """Option → (group, type) for every documented field of the groups."""
    found = {}
    for group, settings in _GROUPS.items():
        hints = get_type_hints(settings, include_extras=True)
        for field in fields(settings):
            kind, *extras = get_args(hints[field.name]) or (hints[field.name],)
            if any(isinstance(extra, Doc) for extra in extras):
                found[field.name] = (group, kind)
    return found


_DOCUMENTED = _documented()
_NAMES = (*_CHOICES, "background", "fail_if_empty", *_DOCUMENTED)


def read_options(query: Sequence[tuple[str, str]], settings: ProductSettings) -> Wanted:
    """What (name, value) pairs ask for, on top of `settings`. Raises `ConfigError`, naming what makes no sense."""
    chosen = {"format": "png", "part": "cutout"}
    groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    seen = set()
    for name, value in query:
        if name in seen:
            raise ConfigError(f"the option {name!r} is given twice")
        seen.add(name)
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                raise ConfigError(f"{name} must be one of {', '.join(_CHOICES[name])}, got {value[:40]!r}")
            chosen[name] = value
        elif name == "background":
            settings = replace(settings, background=_colour(value))
        elif name == "fail_if_empty":
            settings = replace(settings, fail_if_empty=_read(name, value, bool))
        elif name in _DOCUMENTED:
            group, kind = _DOCUMENTED[name]
            groups[group][name] = _read(name, value, kind)
        else:
            raise ConfigError(f"there is no option {name[:40]!r}; there are {', '.join(sorted(_NAMES))}")
    if "preset" in chosen:
        settings = replace(settings, refinement=PRESETS[chosen["preset"]])
    settings = replace(settings, **{group: _GROUPS[group](**values) for group, values in groups.items()})
    return Wanted(chosen["part"], chosen["format"], settings)  # type: ignore[arg-type]  # one of the choices each


def _colour(text: str) -> str:
    """A colour as digits: the command's `--background` takes paths too, and no client may read this machine's files."""
    if text == "transparent":
        return text
    colour = parse_colour(text)
    if colour is None:
        raise ConfigError(f"background must be 'transparent' or a colour like #ff8800, got {text[:40]!r}")
    return "#" + bytes(colour).hex()


def _read(name: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False, "1": True, "0": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{name} must be {what}, got {text[:40]!r}") from None

"""The shape of a network of one's own, as a TOML file of widths:

size = 320                # side in pixels that it is taught at
stem = 2                  # 1 is the paper's network, 2 and 4 work at a half and a quarter of the resolution

[widths]                  # of each stage: channels inside, channels that it gives
stage1 = [16, 32]
stage2 = [16, 32]
# … stage3, stage4, stage5, stage6, stage5d, stage4d, stage3d, stage2d, stage1d
"""

from __future__ import annotations

import os
import re
import tomllib

from u2net.errors import ConfigError
from u2net.files import check_path, read_regular

from .model import CONFIGS, STAGE_NAMES, StageWidths, U2NetConfig

__all__ = ["check_name", "difference_of_shapes", "read_shape", "shape_called"]

DEFAULTS = {"size": 320, "stem": 1, "first_pool": True, "resql": False}


def check_name(name: str) -> str:
    """`name`, fit for a folder and a manifest. Raises `ConfigError`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise ConfigError(f"a model's name is of small letters, digits, '.', '_' and '-', not {name[:80]!r}")
    return name


def shape_called(model: str) -> U2NetConfig:
    """The shape of the model called `model`, or the one in the TOML file of that name. Raises `ConfigError`."""
    if model.endswith(".toml"):
        return read_shape(model)
    for known in CONFIGS.values():
        if model in (known.name, *known.aliases):
            return known
    raise ConfigError(f"no model is called {model!r}; there are {', '.join(CONFIGS)}, or name a TOML file of widths")


def read_shape(path: str | os.PathLike[str]) -> U2NetConfig:
    """The shape in the TOML file at `path`, named after the file. Raises `ConfigError`, naming what is wrong."""
    file = check_path(path)
    try:
        said = tomllib.loads(read_regular(file, ConfigError).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is no TOML: {str(error).splitlines()[0]}") from error
    widths = said.pop("widths", None)
    if unknown := sorted(said.keys() - DEFAULTS.keys()):
        raise ConfigError(f"{file} says {', '.join(unknown)}; a shape has {', '.join(DEFAULTS)} and [widths]")
    if not isinstance(widths, dict) or sorted(widths) != sorted(STAGE_NAMES):
        raise ConfigError(f"{file} must give [widths] of {', '.join(STAGE_NAMES)}, as in stage1 = [16, 64]")
    values = DEFAULTS | said
    for name, pair in widths.items():
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 1 <= n <= 4096 for n in pair)):
            raise ConfigError(f"{file}: {name} is two numbers of channels, as in [16, 64], not {pair!r}")
    for name, value in values.items():
        if type(value) is not type(DEFAULTS[name]):
            raise ConfigError(f"{file}: {name} is {value!r}, not of the kind of {DEFAULTS[name]!r}")
    return U2NetConfig(check_name(file.stem), tuple(StageWidths(*widths[name]) for name in STAGE_NAMES), **values)


def difference_of_shapes(found: U2NetConfig, wanted: U2NetConfig) -> str:
    """What of `found` is not as in `wanted`, in words; empty where a checkpoint of one loads into the other."""
    differ = [
        f"{name} [{a.mid}, {a.out}], not [{b.mid}, {b.out}]"
        for name, a, b in zip(STAGE_NAMES, found.widths, wanted.widths, strict=True)
        if a != b
    ]
    for name in ("stem", "first_pool", "resql"):
        if getattr(found, name) != getattr(wanted, name):
            differ.append(f"{name} {getattr(found, name)}, not {getattr(wanted, name)}")
    return ", ".join(differ[:3]) + (f" and {len(differ) - 3} more" if len(differ) > 3 else "")

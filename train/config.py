"""A run's settings out of a TOML file: `[teacher]`, `[prune]`, `[train]`, `[train.augmentation]`, `[train.loss]`.

Every key has a default; an unknown key or a value of the wrong type is an error that names it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from u2net.errors import ConfigError
from u2net.network.model import CONFIGS

from .loop import TrainSettings

__all__ = ["PruneSettings", "RunSettings", "TeacherSettings", "load_settings"]

T = TypeVar("T")


@dataclass(frozen=True)
class TeacherSettings:
    """How the teacher's maps are made. They are computed once and cached."""

    flip: bool = True  # averaged with the mirrored picture's: a stronger teacher for one more pass
    scales: tuple[int, ...] = ()  # further input sides in pixels to average over
    fast: bool = False  # bfloat16 where it is safe: half the time, mask IoU 0.997 with float32
    truth: float = 0.5  # weight of the ground truth, beside the teacher's, where a picture has a mask

    def __post_init__(self) -> None:
        if not 0 <= self.truth <= 1:
            raise ConfigError("teacher.truth must be between 0 and 1")


@dataclass(frozen=True)
class PruneSettings:
    """How a smaller start is made from a larger network's weights."""

    pictures: int = 320  # for importance and batch-norm statistics: more change the ranking little
    batch: int = 8  # pictures per pass
    absorb: float = 3.0  # deviations; moves almost constant channels into biases, 0 leaves them
    align: int = 0  # steps in which stage 1 alone is taught, for targets without the first pooling

    def __post_init__(self) -> None:
        if self.pictures < 1 or self.batch < 1 or self.absorb < 0 or self.align < 0:
            raise ConfigError(
                "prune.pictures and prune.batch must be positive, prune.absorb and prune.align not negative"
            )


@dataclass(frozen=True)
class RunSettings:
    """Everything that a configuration file says."""

    model: str = "lite"  # of u2net.network.model.CONFIGS
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    prune: PruneSettings = field(default_factory=PruneSettings)
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if self.model not in CONFIGS:
            raise ConfigError(f"no model is called {self.model!r}; there are {', '.join(CONFIGS)}")


def _build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in known:
            raise ConfigError(f"there is no setting {name}; there are {', '.join(sorted(known))}")
        wanted = hints[key]
        if is_dataclass(wanted):
            if not isinstance(value, dict):
                raise ConfigError(f"{name} must be a table")
            arguments[key] = _build(wanted, value, f"{name}.")  # type: ignore[arg-type]
        elif wanted == tuple[int, ...]:
            if not isinstance(value, list) or any(type(v) is not int for v in value):
                raise ConfigError(f"{name} must be a list of whole numbers")
            arguments[key] = tuple(value)
        elif wanted == dict[str, float]:
            if not isinstance(value, dict) or any(type(v) not in (int, float) for v in value.values()):
                raise ConfigError(f"{name} must be a table of numbers")
            arguments[key] = {k: float(v) for k, v in value.items()}
        elif wanted is float and type(value) in (int, float):
            arguments[key] = float(value)
        elif type(value) is not wanted:
            raise ConfigError(f"{name} must be of type {wanted.__name__}, got {value!r}")
        else:
            arguments[key] = value
    return cls(**arguments)


def load_settings(path: str | Path) -> RunSettings:
    """The settings in the TOML file at `path`. Raises `ConfigError`, one line, on anything that cannot work."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not TOML ({error}); train/configs/ has some to begin with, give one like those"
        ) from error
    return _build(RunSettings, values, "")

"""What can be set about a quantization, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from u2net.errors import ConfigError

from .equalize import EqualizeSettings
from .plan import Format
from .ranges import CALIBRATORS, Calibrator
from .reconstruct import Method
from .rounding import RoundingSettings

__all__ = ["QuantizeSettings"]

METHODS = ("nearest", "bias", "refit", "learned")
FORMATS = ("qdq", "qoperator", "weights", "fp16")


@dataclass(frozen=True)
class QuantizeSettings:
    """One quantization from float ONNX to int8 ONNX."""

    method: Method = "learned"  # integers chosen against the float output; `refit` is what --fast uses
    calibrator: Calibrator = "mse"  # least error on U²-Net's long-tailed activations of the four
    format: Literal["qdq", "qoperator", "weights", "fp16"] = "qdq"  # the form that every engine reads
    count: int = 64  # calibration pictures; 128 gain nothing that can be measured
    seed: int = 0  # of the choice of pictures and pixels
    split: bool = True  # exact in float; off only to measure what it brings
    equalize: bool = True  # likewise
    samples: int = 16384  # pixels per layer over all pictures; about 14 per unknown of the widest layer of `small`
    check_count: int = 24  # pictures for the agreement check, never among those calibrated on
    floor: float = 0.9  # mean and pooled mask IoU below which nothing is written; the usual tools make 0.7
    max_mae: float = 0.03  # mean difference of the raw maps above which nothing is written; ruined models have 0.07
    budget: float | None = None  # mean mask IoU that layers are kept in float for
    keep_float: tuple[str, ...] = ()  # convolutions to keep in float in any case
    threads: int = 2  # of onnxruntime while measuring; the result does not depend on it
    equalization: EqualizeSettings = field(default_factory=EqualizeSettings)
    rounding: RoundingSettings = field(default_factory=RoundingSettings)

    @property
    def form(self) -> Format:
        """The form that integers are emitted in. Raises `ConfigError` for float16, which has none."""
        if self.format == "fp16":
            raise ConfigError("float16 has no integers to emit")
        return self.format

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"no method is called {self.method!r}; there are {', '.join(METHODS)}")
        if self.calibrator not in CALIBRATORS:
            raise ConfigError(f"no calibrator is called {self.calibrator!r}; there are {', '.join(CALIBRATORS)}")
        if self.format not in FORMATS:
            raise ConfigError(f"no format is called {self.format!r}; there are {', '.join(FORMATS)}")
        if min(self.count, self.samples, self.check_count, self.threads) < 1:
            raise ConfigError("counts of pictures, samples and threads must be at least 1")
        if self.seed < 0:
            raise ConfigError("the seed must not be negative")
        for name, share in (("floor", self.floor), ("budget", self.budget), ("largest MAE", self.max_mae)):
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"the {name} lies in [0, 1], got {share}")

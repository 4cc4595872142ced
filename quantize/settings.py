"""What can be set about a quantization, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import typer
from annotated_doc import Doc

from u2net.errors import ConfigError

__all__ = ["Calibrator", "EqualizeSettings", "Form", "Method", "QuantizeSettings", "RoundingSettings"]

Method = Literal["nearest", "bias", "refit", "learned"]
Calibrator = Literal["minmax", "percentile", "entropy", "mse"]
Format = Literal["qdq", "qoperator", "weights", "fp16"]
Form = Literal["qdq", "qoperator", "weights", "simulate"]  # that integers are emitted in

PICTURES, GATES = "Pictures", "Gates"


@dataclass(frozen=True)
class EqualizeSettings:
    """How the channel factors are chosen."""

    steps: int = 400  # gradient steps; the objective moves by less than 0.1 % after 300
    learning_rate: float = 0.05  # in the logarithm of a factor
    sharpness: float = 16.0  # of the p-norms that stand for maxima; harder ones make the gradient jump
    exponent: float = 0.5  # errors of layers are summed to this power: 1 lets the worst layer decide alone
    weight_noise: float = 0.25  # what error-compensating rounding leaves of the weights' rounding noise


@dataclass(frozen=True)
class RoundingSettings:
    """How far the integers may move from the rounded float weights."""

    ridge: float = 0.1  # pull of the real-valued solution towards the float weights, as a share of the mean variance
    damping: float = 0.01  # added to the covariance that rounding looks at, same unit: it is estimated from samples
    sweeps: int = 4  # of coordinate descent; the fifth moves under 0.1 % of the integers
    shrinks: tuple[float, ...] = (1.0, 0.9, 0.8)  # weight ranges tried per output channel, as shares of its extreme


@dataclass(frozen=True)
class QuantizeSettings:
    """One quantization from float ONNX to int8 ONNX."""

    method: Annotated[
        Method,
        Doc(
            "nearest: round; bias: and correct biases layer by layer; refit: solve weights and biases against the "
            "float output, then round; learned: solve for the integers themselves"
        ),
    ] = "learned"  # integers chosen against the float output; `refit` is what --fast uses
    calibrator: Annotated[Calibrator, Doc("how activation ranges are chosen")] = "mse"  # least error on long tails
    format: Annotated[
        Format,
        Doc(
            "qdq: QuantizeLinear and DequantizeLinear around float operators; qoperator: QLinearConv nodes, a smaller "
            "file; weights: int8 weights, float arithmetic; fp16: float16 weights, float arithmetic"
        ),
    ] = "qdq"  # the form that every engine reads
    count: Annotated[int, Doc("pictures to calibrate on"), typer.Option(metavar="N", rich_help_panel=PICTURES)] = (
        64  # 128 gain nothing that can be measured
    )
    seed: Annotated[int, Doc("which pictures, and which pixels"), typer.Option(rich_help_panel=PICTURES)] = 0  # any
    split: bool = True  # exact in float; off only to measure what it brings
    equalize: bool = True  # likewise
    samples: int = 16384  # pixels per layer over all pictures; about 14 per unknown of the widest layer of `small`
    check_count: Annotated[
        int,
        Doc("pictures to measure on, held out of the same folder"),
        typer.Option("--check", metavar="N", rich_help_panel=PICTURES),
    ] = 24  # enough for a mean to 0.005; never among those calibrated on
    floor: Annotated[
        float,
        Doc("least mean and pooled mask IoU against float; below it nothing is written"),
        typer.Option(metavar="IOU", rich_help_panel=GATES),
    ] = 0.9  # the usual tools make 0.7
    max_mae: Annotated[
        float, Doc("largest mean difference of the maps from float"), typer.Option(metavar="X", rich_help_panel=GATES)
    ] = 0.03  # ruined models have 0.07
    budget: float | None = None  # mean mask IoU that layers are kept in float for
    keep_float: Annotated[
        tuple[str, ...],
        Doc("a convolution to keep in float; may be repeated"),
        typer.Option(metavar="LAYER"),
    ] = ()  # none: thin ones stay in float by themselves
    threads: Annotated[int, Doc("of onnxruntime; the result does not depend on it")] = 2  # what most runners have
    equalization: EqualizeSettings = field(default_factory=EqualizeSettings)
    rounding: RoundingSettings = field(default_factory=RoundingSettings)

    @property
    def form(self) -> Form:
        """The form that integers are emitted in. Raises `ConfigError` for float16, which has none."""
        if self.format == "fp16":
            raise ConfigError("float16 has no integers to emit; use --format qdq")
        return self.format

    def __post_init__(self) -> None:
        for what, value, known in (
            ("method", self.method, Method),
            ("calibrator", self.calibrator, Calibrator),
            ("format", self.format, Format),
        ):
            if value not in get_args(known):
                raise ConfigError(f"no --{what} is called {value!r}; there are {', '.join(get_args(known))}")
        if min(self.count, self.samples, self.check_count, self.threads) < 1:
            raise ConfigError("--count, --check, --threads and the samples must be at least 1")
        if self.seed < 0:
            raise ConfigError("--seed must not be negative")
        for name, share in (("--floor", self.floor), ("--budget iou", self.budget), ("--max-mae", self.max_mae)):
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"{name} lies in [0, 1], got {share}")

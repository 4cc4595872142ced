"""The report as a typed document: `report.json`, schema version 1.

`models` says what was judged, `quality` what `eval.quality.judge` found and `latency` what
`eval.latency.measure_latency` found; a part that was left out has only `skipped`, the reason.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

import msgspec

from eval.models import GraphFacts, TransferSizes
from u2net.documents import Document, read_json

__all__ = [
    "Agreement",
    "BackendLatency",
    "Judged",
    "Latency",
    "MaskMeans",
    "Means",
    "ModelEntry",
    "ModelLatency",
    "Picture",
    "Quality",
    "Report",
    "SecondLook",
    "load_report",
]


class MaskMeans(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The measures of `eval.measures`, of one picture or as means over several. Those that may be None came later."""

    iou: float
    iou_mean: float
    iou_max: float
    mae: float
    f_adaptive: float
    f_mean: float
    f_max: float
    f_weighted: float
    s_measure: float
    e_adaptive: float
    e_mean: float
    e_max: float
    boundary_f: float
    boundary_iou: float
    holes: float | None = None
    islands: float | None = None
    grey_interior: float | None = None
    matte: dict[str, float] | None = None  # measures against true mattes, where there are any


class Means(MaskMeans, frozen=True, kw_only=True, omit_defaults=True):
    """Means over `count` pictures, of which `mattes` have true mattes and `constant` got a mask of one value."""

    count: int
    constant: int
    mattes: int


class Picture(MaskMeans, frozen=True, kw_only=True, omit_defaults=True):
    """One picture and one model's mask of it."""

    stem: str
    set: str
    constant: bool
    agreement_iou: float = 1.0  # with the first model's mask
    agreement_mae: float = 0.0


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How much a model's masks are the first model's, over all pictures."""

    iou: float
    iou_p5: float
    iou_worst: float
    mae: float


class SecondLook(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the runner uses it: masks after `u2net.second_look`, and how they differ from those of one look."""

    overall: Means
    sets: dict[str, Means]
    gained: int  # pictures whose IoU rises by more than `eval.quality.NOTICED`
    lost: int  # pictures whose IoU falls by as much
    worst: float  # the largest fall of IoU, negative
    used: int  # pictures on which the second look is believed
    looks: float  # passes of the network, mean


class Judged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model's quality. A baseline leaves out `curves` and `pictures`."""

    overall: Means
    sets: dict[str, Means]
    agreement: Agreement
    second_look: SecondLook | None = None
    curves: dict[str, tuple[float, ...]] = {}
    pictures: tuple[Picture, ...] = ()


class Quality(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every model's quality on the same pictures, or the reason why there is none."""

    skipped: str | None = None
    source: str = "none"
    pictures: int = 0
    sets: dict[str, int] = {}
    stretch: bool = False
    reference: str = ""
    models: dict[str, Judged] = {}


class Ratio(msgspec.Struct, frozen=True):
    """A model's time to the first model's: the median of the rounds' ratios and its 95 % confidence interval."""

    median: float
    low: float
    high: float
    pairs: int


class MaskComparison(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An engine's mask of one picture, beside native onnxruntime's."""

    picture: str
    mean_difference: float
    iou_with_native: float
    max_difference: float | None = None
    iou_with_truth: float | None = None
    native_iou_with_truth: float | None = None


class ModelLatency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model on one backend: cold start, rounds, masks. What was not measured is None."""

    status: Literal["measured", "failed"]
    reason: str | None = None
    engine_start_ms: float | None = None
    session_ms: float | None = None
    first_run_ms: float | None = None
    memory_bytes: int | None = None
    median_ms: float | None = None
    min_ms: float | None = None
    spread: float | None = None
    rounds_ms: tuple[float, ...] = ()
    ratio: Ratio | None = None
    processor_ms: float | None = None  # of the one thread that works, where the system tells
    processor_ratio: Ratio | None = None
    masks: tuple[MaskComparison, ...] = ()


class BackendLatency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All models on one backend; `really` is what ran, as the engine says itself."""

    title: str
    status: Literal["measured", "partial", "failed", "skipped"]
    reason: str | None = None
    rounds: int = 0
    really: dict[str, Any] = {}
    adapter: dict[str, Any] | None = None
    models: dict[str, ModelLatency] = {}

    @property
    def has_times(self) -> bool:
        """Whether any model was timed."""
        return any(entry.median_ms is not None for entry in self.models.values())

    @property
    def setting(self) -> str:
        """Browser, engine, threads and rounds, for a caption."""
        parts = [str(self.really[key]) for key in ("browser", "node", "engine") if key in self.really]
        threads = self.really.get("threads", 1)
        parts += [f"{threads} threads"] if threads > 1 else []
        return " · ".join([*parts, f"{self.rounds} rounds"])


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the figures were measured on."""

    cpu: str
    cores: int | None
    system: str = ""
    load_1m_at_start: float | None = None
    load_1m_at_end: float | None = None


class Latency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every backend, or the reason why there is none."""

    skipped: str | None = None
    baseline: str = ""  # the model that ratios are to
    machine: Machine | None = None
    settings: dict[str, Any] = {}
    measured_for_s: float | None = None
    backends: dict[str, BackendLatency] = {}


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was judged; `stage` and `settings` are its sidecar's where that speaks of these bytes."""

    name: str
    file: str
    sha256: str
    size: TransferSizes
    graph: GraphFacts | None = None  # of an ONNX file
    stage: str | None = None
    settings: dict[str, Any] = {}


class Report(Document, frozen=True, kw_only=True, omit_defaults=True):
    """One evaluation. The first model is the one that others are compared with."""

    KIND: ClassVar[str] = "report"
    CURE: ClassVar[str] = "make it with `u2net eval`"

    date: str
    models: tuple[ModelEntry, ...]
    quality: Quality
    latency: Latency
    commit: str | None = None
    libraries: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models is empty")
        absent = {model.name for model in self.models} - self.quality.models.keys()
        if self.quality.models and absent:
            raise ValueError(f"quality.models lacks {', '.join(sorted(absent))}")

    @property
    def names(self) -> list[str]:
        """The models' names, in the order in which they were given."""
        return [model.name for model in self.models]


def load_report(path: str | os.PathLike[str]) -> Report:
    """Read a report's JSON. Raises `ArtifactError` where it is missing, damaged or of another schema."""
    return read_json(path, Report)

"""The baseline: what earlier reports found, for later ones to be compared with. It is committed.

It holds, for each data set and first model, one report without its curves, rounds and rows, and beside it the few
measures of each single picture (`PAIRED`) that a paired comparison needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec

from eval.bootstrap import Interval, paired_difference
from eval.figures import figure
from eval.measures import MEASURES
from eval.report import Latency, Quality, Report
from u2net.documents import Document, read_json

__all__ = ["PAIRED", "Baseline", "Change", "changes", "load_baseline", "trimmed"]

PAIRED = ("iou", "mae", "boundary_iou")


class Pictures(msgspec.Struct, frozen=True, kw_only=True):
    """One model's measures of single pictures, in the order of `stems`."""

    stems: tuple[str, ...]
    values: dict[str, tuple[float, ...]]  # by measure


class Baseline(Document, frozen=True, kw_only=True):
    """Reports, and measures of their pictures by model, both by `Baseline.key`."""

    KIND: ClassVar[str] = "baseline"
    CURE: ClassVar[str] = "make it with `u2net eval baseline`"

    reports: dict[str, Report] = {}
    pictures: dict[str, dict[str, Pictures]] = {}

    @staticmethod
    def key(report: Report) -> str:
        """What a report must share with a baseline to be compared with it: the data, and the first model's name."""
        return f"{report.quality.source} × {report.quality.pictures}: {report.names[0]}"

    def of(self, report: Report) -> Report | None:
        """The report that `report` is to be compared with, if there is one."""
        return self.reports.get(self.key(report))

    def figure(self, report: Report, model: str, what: str) -> float:
        """The baseline's figure. Raises `LookupError` where it has none."""
        old = self.of(report)
        if old is None or model not in old.names:
            raise LookupError(f"the baseline has no {model} on this data")
        try:
            return figure(old, model, what)
        except LookupError as error:
            raise LookupError(f"in the baseline it {error.args[0]}") from None

    def interval(self, report: Report, model: str, metric: str) -> Interval | None:
        """How sure the difference of `metric` is, where the baseline knows the same single pictures."""
        old = self.pictures.get(self.key(report), {}).get(model)
        rows = {row.stem: row for row in report.quality.models[model].pictures} if report.quality.models else {}
        if old is None or metric not in old.values or not rows or rows.keys() != set(old.stems):
            return None
        return paired_difference([getattr(rows[stem], metric) for stem in old.stems], old.values[metric])

    def with_report(self, report: Report) -> Baseline:
        """This baseline with `report` in the place of an earlier one of the same key."""
        pictures = {
            name: Pictures(
                stems=tuple(row.stem for row in judged.pictures),
                values={metric: tuple(round(getattr(row, metric), 6) for row in judged.pictures) for metric in PAIRED},
            )
            for name, judged in report.quality.models.items()
        }
        return msgspec.structs.replace(
            self,
            reports={**self.reports, self.key(report): trimmed(report)},
            pictures={**self.pictures, self.key(report): pictures},
        )


def load_baseline(path: str | os.PathLike[str]) -> Baseline:
    """The baseline at `path`, an empty one where there is no file. Raises `ArtifactError` where it is damaged."""
    return read_json(path, Baseline) if Path(path).exists() else Baseline(schema_version=Baseline.VERSION)


def trimmed(report: Report) -> Report:
    """A report without what a gate never reads: rows of single pictures, curves, rounds, the machine's load."""
    replace = msgspec.structs.replace
    models = {name: replace(judged, curves={}, pictures=()) for name, judged in report.quality.models.items()}
    backends = {
        name: replace(
            record, models={model: replace(entry, rounds_ms=()) for model, entry in record.models.items()}, adapter=None
        )
        for name, record in report.latency.backends.items()
    }
    quality: Quality = replace(report.quality, models=models)
    latency: Latency = replace(report.latency, backends=backends, settings={})
    return replace(report, quality=quality, latency=latency, commit=None)


@dataclass(frozen=True)
class Change:
    """One figure of one model, now and in the baseline. `interval` is of a mean over pictures that both know."""

    model: str
    title: str
    now: float
    then: float
    higher_is_better: bool
    interval: Interval | None = None

    @property
    def is_worse(self) -> bool:
        """Whether it surely got worse: the interval, or the difference itself where there is none."""
        sign = 1 if self.higher_is_better else -1
        if self.interval is not None:
            return self.interval.is_clear and sign * self.interval.mean < 0
        return sign * (self.now - self.then) < 0

    @property
    def is_better(self) -> bool:
        """Whether it surely got better."""
        sign = 1 if self.higher_is_better else -1
        if self.interval is not None:
            return self.interval.is_clear and sign * self.interval.mean > 0
        return sign * (self.now - self.then) > 0


def changes(report: Report, baseline: Baseline) -> list[Change]:
    """What changed since the baseline: `PAIRED`, size as sent and latency ratios, of every model that both have."""
    return list(_changes(report, baseline)) if baseline.of(report) is not None else []


def _changes(report: Report, baseline: Baseline) -> Iterator[Change]:
    paths = [(f"quality.{name}", MEASURES[name].title, MEASURES[name].higher_is_better) for name in PAIRED]
    paths += [("size.brotli_bytes", "bytes as sent (brotli)", False)]
    paths += [(f"latency.{name}.ratio", f"latency ratio, {name}", False) for name in report.latency.backends]
    for model in report.names:
        for path, title, higher_is_better in paths:
            try:
                now, then = figure(report, model, path), baseline.figure(report, model, path)
            except LookupError:
                continue  # the gate says what is missing
            metric = path.rpartition(".")[2]
            interval = baseline.interval(report, model, metric) if metric in PAIRED else None
            if path.startswith("latency.") and model == report.names[0]:
                continue  # 1 by definition
            yield Change(model, title, now, then, higher_is_better, interval)

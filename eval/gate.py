"""Does a report pass? Floors and ceilings of a policy, and what a committed baseline allows; each breach is named.

A policy is TOML. `[require]` says what must be there, each `[[check]]` what must hold; `because` is printed with a
breach. A check names models by a pattern and one figure by a path:

    dead_convolutions · integer_share · constant_share · size.raw_bytes · size.gzip_bytes · size.brotli_bytes
    quality.<metric> (over all pictures) · quality.<set>.<metric> · agreement.<iou, iou_p5, iou_worst, mae>
    latency.<backend>.ratio · latency.<backend>.mask_difference · latency.<backend>.iou_with_native

and bounds it by any of

    floor, ceiling            absolute
    below_reference           at most this much worse than the report's first model
    below_baseline            at most this much worse than the baseline's figure
    growth                    at most this share above the baseline's figure

There is no path to an absolute time: a gate on milliseconds tests the machine. What a check cannot find (a backend that
was skipped, a model that is not in the report, a figure that the baseline lacks) is a breach, not a pass.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from u2net.errors import ArtifactError, ConfigError
from u2net.files import atomic_path, canonical_json, check_path, write_json

from .metrics import MATTE_METRICS, METRICS

__all__ = ["REPORT_SCHEMA_VERSION", "Breach", "Check", "Policy", "figure", "judge_report", "load_policy", "load_report"]

REPORT_SCHEMA_VERSION = 1
BASELINE_SCHEMA_VERSION = 1
POLICY_SCHEMA_VERSION = 1
BOUNDS = ("floor", "ceiling", "below_reference", "below_baseline", "growth")
HIGHER_IS_BETTER = {
    **METRICS,
    **MATTE_METRICS,
    "iou_p5": True,
    "iou_worst": True,
    "iou_with_native": True,
    "integer_share": True,
}


class _Missing(Exception):
    """A figure is not there; the message says why."""


@dataclass(frozen=True)
class Check:
    """One `[[check]]` of a policy."""

    models: str
    what: str
    because: str
    bounds: dict[str, float]


@dataclass(frozen=True)
class Policy:
    """A policy. `backends` must have been measured, `pictures` judged at least; `baseline` is a path or None."""

    checks: tuple[Check, ...]
    pictures: int
    backends: tuple[str, ...]
    baseline: Path | None


@dataclass(frozen=True)
class Breach:
    """Something that does not hold: `subject` is the model or part of the report, `reason` one clause."""

    subject: str
    reason: str
    because: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}" + (f" ({self.because})" if self.because else "")


def load_policy(path: str | Path) -> Policy:
    """Read a policy. Raises `ConfigError` where it is not TOML, or holds what this module does not know."""
    path = check_path(path)
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the policy {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the policy {path} is not TOML: {error}") from error
    if value.pop("schema_version", None) != POLICY_SCHEMA_VERSION:
        raise ConfigError(f"the policy {path} is not of schema version {POLICY_SCHEMA_VERSION}")
    require = value.pop("require", {})
    checks = value.pop("check", [])
    unknown = [*value, *(k for k in require if k not in ("pictures", "backends", "baseline"))]
    if unknown or not isinstance(checks, list):
        raise ConfigError(f"the policy {path} has an unknown part: {', '.join(unknown) or 'check'}")
    if not checks:
        raise ConfigError(f"the policy {path} checks nothing")
    baseline = require.get("baseline")
    return Policy(
        checks=tuple(_check(path, check) for check in checks),
        pictures=int(require.get("pictures", 1)),
        backends=tuple(require.get("backends", ())),
        baseline=path.parent / baseline if baseline else None,
    )


def _check(path: Path, value: dict[str, Any]) -> Check:
    rest = dict(value)
    models, what, because = rest.pop("models", "*"), rest.pop("what", None), rest.pop("because", "")
    unknown = [key for key in rest if key not in BOUNDS]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in rest.values())
    if not isinstance(what, str) or unknown or not rest or not numbers:
        fault = (
            f"the bound {unknown[0]!r} is unknown"
            if unknown
            else f"it needs `what` and a number for {', '.join(BOUNDS)}"
        )
        raise ConfigError(f"the policy {path} has a check of {what!r} that says nothing: {fault}")
    return Check(str(models), what, str(because), {key: float(v) for key, v in rest.items()})


def load_report(path: str | Path) -> dict[str, Any]:
    """Read a report's JSON. Raises `ArtifactError` where it is missing, damaged or of another schema."""
    return _load(path, "report", REPORT_SCHEMA_VERSION, "make it with `python -m eval`")


def _load(path: str | Path, kind: str, version: int, hint: str) -> dict[str, Any]:
    path = check_path(path)
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"the {kind} {path} cannot be read: {error.strerror}; {hint}") from error
    except ValueError as error:
        raise ArtifactError(f"the {kind} {path} is damaged: {error}") from error
    if not isinstance(value, dict) or value.get("schema_version") != version:
        raise ArtifactError(f"the {kind} {path} is not of schema version {version}")
    return value


def figure(report: dict[str, Any], model: str, what: str) -> float:
    """The figure `what` of `model` in `report`. Raises `LookupError` with the reason where it is not there."""
    try:
        value = _figure(report, model, what)
    except _Missing as error:
        raise LookupError(str(error)) from None
    except (KeyError, TypeError, ValueError):
        raise LookupError("is missing from the report") from None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise LookupError("is missing from the report")
    return float(value)


def _figure(report: dict[str, Any], model: str, what: str) -> Any:
    facts = next(m for m in report["models"] if m["name"] == model)
    match what.split("."):
        case ["dead_convolutions"]:
            return len(_of(facts, "graph", "no graph was read (a checkpoint)")["dead_convolutions"])
        case ["integer_share"]:
            return _of(facts, "graph", "no graph was read (a checkpoint)")["integer_share"]
        case ["size", key]:
            return facts["size"][key]
        case ["constant_share"]:
            overall = _quality(report, model)["overall"]
            return overall["constant"] / overall["count"]
        case ["quality", metric]:
            return _metric(_quality(report, model)["overall"], metric)
        case ["quality", name, metric]:
            return _metric(_of(_quality(report, model)["sets"], name, f"the set {name} was not judged"), metric)
        case ["agreement", metric]:
            return _quality(report, model)["agreement"][metric]
        case ["latency", backend, metric]:
            return _latency(report, model, backend, metric)
    raise _Missing("is not a figure that a report has")


def _of(value: dict[str, Any], key: str, otherwise: str) -> Any:
    if value.get(key) is None:
        raise _Missing(f"is missing: {otherwise}")
    return value[key]


def _quality(report: dict[str, Any], model: str) -> dict[str, Any]:
    quality = report.get("quality") or {}
    if "skipped" in quality or model not in quality.get("models", {}):
        raise _Missing(f"is missing: quality was not judged{_because(quality)}")
    return dict(quality["models"][model])


def _because(part: dict[str, Any]) -> str:
    reason = part.get("skipped") or part.get("reason")
    return f" ({reason})" if reason else ""


def _metric(values: dict[str, Any], metric: str) -> Any:
    if metric in MATTE_METRICS:
        return _of(values, "matte", "no picture has a true matte")[metric]
    return values[metric]


def _latency(report: dict[str, Any], model: str, backend: str, metric: str) -> Any:
    latency = report.get("latency") or {}
    record = latency.get("backends", {}).get(backend)
    if record is None:
        raise _Missing(f"is missing: {backend} was not measured{_because(latency)}")
    entry = record["models"].get(model)
    if record["status"] in ("skipped", "failed") or entry is None or entry["status"] != "measured":
        raise _Missing(f"is missing: {backend} was {record['status']}{_because(entry or record)}")
    if record["status"] != "measured":
        raise _Missing(f"is incomplete: {backend} ended early{_because(record)}")
    match metric:
        case "ratio":
            return entry["ratio"]["median"]
        case "mask_difference":
            return max(row["mean_difference"] for row in entry["masks"])
        case "iou_with_native":
            return min(row["iou_with_native"] for row in entry["masks"])
    raise _Missing("is not a figure that a report has")


def judge_report(report: dict[str, Any], policy: Policy) -> list[Breach]:
    """Every breach of `policy` in `report`, in the policy's order; an empty list is a pass."""
    return list(_breaches(report, policy))


def _breaches(report: dict[str, Any], policy: Policy) -> Iterator[Breach]:
    names = [model["name"] for model in report["models"]]
    quality, latency = report.get("quality") or {}, report.get("latency") or {}
    if quality.get("pictures", 0) < policy.pictures:
        yield Breach("quality", f"{quality.get('pictures', 0)} pictures were judged, {policy.pictures} are required")
    for backend in policy.backends:
        record = latency.get("backends", {}).get(backend, {"status": "not measured", **latency})
        if record["status"] != "measured":
            yield Breach(f"latency.{backend}", f"required, but {record['status']}{_because(record)}")
    baseline = Baseline.load(policy.baseline) if policy.baseline else None
    for check in policy.checks:
        matching = [name for name in names if fnmatchcase(name, check.models)]
        if not matching:
            yield Breach(check.models, f"no model of this name is in the report, so {check.what} was not checked")
        for name in matching:
            yield from _hold(report, name, check, baseline)


def _hold(report: dict[str, Any], name: str, check: Check, baseline: Baseline | None) -> Iterator[Breach]:
    try:
        value = figure(report, name, check.what)
    except LookupError as error:
        yield Breach(name, f"{check.what} {error.args[0]}", check.because)
        return
    sign = 1 if HIGHER_IS_BETTER.get(check.what.rpartition(".")[2], False) else -1
    for bound, limit in check.bounds.items():
        reason = None
        if bound == "floor" and value < limit:
            reason = f"below the floor {_show(limit)}"
        elif bound == "ceiling" and value > limit:
            reason = f"above the ceiling {_show(limit)}"
        elif bound == "below_reference":
            reference = report["models"][0]["name"]
            other = figure(report, reference, check.what)
            if sign * (other - value) > limit:
                reason = f"worse than {reference}'s {_show(other)} by more than {_show(limit)}"
        elif bound in ("below_baseline", "growth"):
            try:
                if baseline is None:
                    raise LookupError("the policy names no baseline")
                old = baseline.figure(report, name, check.what)
            except LookupError as error:
                yield Breach(name, f"{check.what} cannot be compared: {error.args[0]}", check.because)
                continue
            if bound == "growth" and value > old * (1 + limit):
                reason = f"more than {limit:.0%} above the baseline's {_show(old)}"
            elif bound == "below_baseline" and sign * (old - value) > limit:
                reason = f"worse than the baseline's {_show(old)} by more than {_show(limit)}"
        if reason:
            yield Breach(name, f"{check.what} is {_show(value)}, {reason}", check.because)


def _show(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"


class Baseline:
    """Committed reports, without their per-picture rows: one for each data set and first model."""

    def __init__(self, reports: dict[str, dict[str, Any]]) -> None:
        self.reports = reports

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read a baseline. Raises `ArtifactError`."""
        hint = "make it with `python -m eval baseline`"
        return cls(_load(path, "baseline", BASELINE_SCHEMA_VERSION, hint)["reports"])

    @staticmethod
    def key(report: dict[str, Any]) -> str:
        """What a report must share with a baseline to be compared with it: the data, and the first model's name."""
        quality = report.get("quality") or {}
        return f"{quality.get('source', 'none')} × {quality.get('pictures', 0)}: {report['models'][0]['name']}"

    def figure(self, report: dict[str, Any], model: str, what: str) -> float:
        """The baseline's figure. Raises `LookupError` where it has none."""
        old = self.reports.get(self.key(report))
        if old is None or all(entry["name"] != model for entry in old["models"]):
            raise LookupError(f"the baseline has no {model} on this data")
        try:
            return figure(old, model, what)
        except LookupError as error:
            raise LookupError(f"in the baseline it {error.args[0]}") from None


def trimmed(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what a gate never reads: rows of single pictures, curves, rounds, the machine's load."""
    quality = dict(report.get("quality") or {})
    quality["models"] = {
        name: {key: part for key, part in model.items() if key in ("overall", "sets", "agreement")}
        for name, model in quality.get("models", {}).items()
    }
    latency = dict(report.get("latency") or {})
    latency.pop("settings", None)
    latency["backends"] = {
        name: {
            **{key: record[key] for key in ("title", "status", "reason", "really", "rounds") if key in record},
            "models": {
                model: {key: part for key, part in entry.items() if key != "rounds_ms"}
                for model, entry in record["models"].items()
            },
        }
        for name, record in latency.get("backends", {}).items()
    }
    kept: dict[str, Any] = {k: report[k] for k in ("schema_version", "date", "models", "libraries") if k in report}
    return {**kept, "quality": quality, "latency": latency}


def add_gate_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of `python -m eval gate`."""
    parser.description = "Fail, naming each breach, where a report does not keep a policy."
    parser.add_argument("report", metavar="report.json", help="made by `python -m eval`")
    parser.add_argument(
        "--policy",
        metavar="FILE.toml",
        default=str(Path(__file__).parent / "policy.toml"),
        help="default: eval/policy.toml",
    )
    parser.add_argument("--markdown", metavar="FILE.md", help="append the verdict to this file (the report's Markdown)")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    return parser


def run_gate(arguments: argparse.Namespace) -> int:
    """`python -m eval gate`: 0 where the report passes, 1 where it does not."""
    policy = load_policy(arguments.policy)
    breaches = judge_report(load_report(arguments.report), policy)
    if arguments.markdown:
        _append(Path(arguments.markdown), verdict_markdown(breaches, policy))
    if arguments.json:
        rows = [{"subject": b.subject, "reason": b.reason, "because": b.because} for b in breaches]
        sys.stdout.write(
            canonical_json({"passed": not breaches, "checks": len(policy.checks), "breaches": rows}).decode()
        )
    else:
        for breach in breaches:
            print(f"breach: {breach}")
        print(
            f"gate: {'passed' if not breaches else f'failed, {len(breaches)} breaches'} ({len(policy.checks)} checks)"
        )
    return 1 if breaches else 0


def verdict_markdown(breaches: list[Breach], policy: Policy) -> str:
    """The verdict as Markdown."""
    if not breaches:
        return f"\n### Gate: passed\n\n{len(policy.checks)} checks hold.\n"
    lines = "\n".join(
        f"- **{breach.subject}** {breach.reason}" + (f": {breach.because}" if breach.because else "")
        for breach in breaches
    )
    return f"\n### Gate: failed\n\n{lines}\n"


def _append(path: Path, text: str) -> None:
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    before = before.split("\n### Gate: ")[0]  # a second verdict replaces the first
    with atomic_path(path) as temporary:
        temporary.write_text(before + text, encoding="utf-8")


def add_baseline_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of `python -m eval baseline`."""
    parser.description = "Make a report the baseline that later ones are compared with (commit the result)."
    parser.add_argument("report", metavar="report.json", help="made by `python -m eval`")
    parser.add_argument(
        "--out",
        metavar="FILE.json",
        default=str(Path(__file__).parent / "baseline.json"),
        help="default: eval/baseline.json",
    )
    parser.add_argument("--json", action="store_true", help="print what the baseline now holds as JSON")
    return parser


def run_baseline(arguments: argparse.Namespace) -> int:
    """`python -m eval baseline`: replaces the entry of the same data and first model, keeps the others."""
    report, out = load_report(arguments.report), Path(arguments.out)
    reports = Baseline.load(out).reports if out.exists() else {}
    reports[Baseline.key(report)] = trimmed(report)
    write_json(out, {"schema_version": BASELINE_SCHEMA_VERSION, "reports": reports})
    if arguments.json:
        sys.stdout.write(canonical_json(sorted(reports)).decode())
    else:
        print(f"{out}: {', '.join(sorted(reports))}")
    return 0

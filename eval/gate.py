"""Does a report pass? Floors and ceilings of a policy, and what a committed baseline allows; each breach is named.

What a check cannot find (a backend that was skipped, a model that is not in the report, a figure that the baseline
lacks) is a breach, not a pass. One case is no breach: where the baseline has no report on this data and first model at
all, there is nothing yet to be worse than. The verdict then says so, and how to make the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from eval.baseline import Baseline, Change, changes, load_baseline
from eval.changes import change_line
from eval.figures import figure, reason_of
from eval.measures import higher_is_better
from eval.policy import AGAINST_BASELINE, Check, Policy
from eval.report import Report
from u2net.files import read_regular, write_bytes

__all__ = ["Breach", "Verdict", "append_verdict", "judge_report", "verdict_markdown", "verdict_text"]


@dataclass(frozen=True)
class Breach:
    """Something that does not hold: `subject` is the model or part of the report, `reason` one clause."""

    subject: str
    reason: str
    because: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}" + (f" ({self.because})" if self.because else "")


@dataclass(frozen=True)
class Verdict:
    """Every breach in the policy's order, none where the report passes, and the changes since the baseline.

    `note` says that there is no baseline yet, and how to make it, where the policy asks for one.
    """

    breaches: tuple[Breach, ...]
    checks: int
    changes: tuple[Change, ...] = ()
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing was breached."""
        return not self.breaches

    @property
    def summary(self) -> str:
        """One line."""
        if self.passed:
            return f"gate: passed ({self.checks} checks)"
        breaches = "1 breach" if len(self.breaches) == 1 else f"{len(self.breaches)} breaches"
        return f"gate: failed, {breaches} ({self.checks} checks)"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [{"subject": b.subject, "reason": b.reason, "because": b.because} for b in self.breaches]
        since = [
            {"model": c.model, "what": c.title, "now": c.now, "then": c.then}
            | ({"low": c.interval.low, "high": c.interval.high} if c.interval else {})
            for c in self.changes
        ]
        return {"passed": self.passed, "checks": self.checks, "breaches": rows, "changes": since, "note": self.note}


def judge_report(
    report: Report, policy: Policy, baseline_path: Path | None = None, needs_baseline: bool = False
) -> Verdict:
    """Hold `report` against `policy`; `baseline_path` stands in for the policy's own.

    With `needs_baseline`, having none on this data is a breach. Raises `ArtifactError` where a baseline is damaged.
    """
    path = baseline_path or policy.baseline
    baseline = load_baseline(path) if path else None
    compares = baseline is not None and baseline.of(report) is not None
    wanted = [check for check in policy.checks if any(bound in check.bounds for bound in AGAINST_BASELINE)]
    note = ""
    if path and wanted and not compares:
        # The policy that is installed names a file beside itself, which is no place for somebody's own.
        own = path.resolve().is_relative_to(Path.cwd())
        how = (
            f"--out {path}` and commit it"
            if own
            else ("--out baseline.json`, commit it, and give the gate --baseline baseline.json")
        )
        note = f"no baseline yet for {Baseline.key(report)}: run `u2net eval baseline REPORT {how}"
    breaches = list(_breaches(report, policy, baseline if compares or not path else None, bool(note)))
    if note and needs_baseline:
        breaches.append(Breach("baseline", note))
    since = changes(report, baseline) if baseline else ()
    return Verdict(tuple(breaches), len(policy.checks) - (len(wanted) if note else 0), tuple(since), note)


def _breaches(report: Report, policy: Policy, baseline: Baseline | None, first_run: bool) -> Iterator[Breach]:
    required = policy.require
    if report.quality.pictures < required.pictures:
        reason = f"{report.quality.pictures} pictures were judged, {required.pictures} are required"
        yield Breach("quality", reason)
    for backend in required.backends:
        record = report.latency.backends.get(backend)
        if record is None or record.status != "measured":
            status, why = (record.status, reason_of(record)) if record else ("not measured", reason_of(report.latency))
            yield Breach(f"latency.{backend}", f"required, but {status}{why}")
    for check in policy.checks:
        matching = [name for name in report.names if fnmatchcase(name, check.models)]
        if not matching:
            yield Breach(check.models, f"no model of this name is in the report, so {check.what} was not checked")
        for name in matching:
            yield from _hold(report, name, check, baseline, first_run)


def _hold(report: Report, name: str, check: Check, baseline: Baseline | None, first_run: bool) -> Iterator[Breach]:
    bounds = {b: limit for b, limit in check.bounds.items() if not (first_run and b in AGAINST_BASELINE)}
    if not bounds:
        return
    try:
        value = figure(report, name, check.what)
    except LookupError as error:
        yield Breach(name, f"{check.what} {error.args[0]}", check.because)
        return
    for bound, limit in bounds.items():
        try:
            reason = _breach(report, name, check.what, value, bound, limit, baseline)
        except LookupError as error:
            yield Breach(name, f"{check.what} cannot be compared: {error.args[0]}", check.because)
            continue
        if reason:
            yield Breach(name, f"{check.what} is {_show(value)}, {reason}", check.because)


def _breach(
    report: Report, name: str, what: str, value: float, bound: str, limit: float, baseline: Baseline | None
) -> str | None:
    """Why `value` breaks the bound, or None. Raises `LookupError` where there is nothing to compare with."""
    metric = what.rpartition(".")[2]
    sign = 1 if higher_is_better(metric) else -1
    match bound:
        case "floor":
            return f"below the floor {_show(limit)}" if value < limit else None
        case "ceiling":
            return f"above the ceiling {_show(limit)}" if value > limit else None
        case "below_reference":
            first = report.names[0]
            other = figure(report, first, what)
            worse = sign * (other - value) > limit
            return f"worse than {first}'s {_show(other)} by more than {_show(limit)}" if worse else None
    if baseline is None:
        raise LookupError("the policy names no baseline")
    old = baseline.figure(report, name, what)
    if bound == "growth":
        return f"more than {limit:.0%} above the baseline's {_show(old)}" if value > old * (1 + limit) else None
    if sign * (old - value) <= limit:
        return None
    interval = baseline.interval(report, name, metric) if what == f"quality.{metric}" else None
    sure = f" (difference {interval.mean:+.4f}, 95 % {interval.low:+.4f} to {interval.high:+.4f})" if interval else ""
    return f"worse than the baseline's {_show(old)} by more than {_show(limit)}{sure}"


def _show(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"


def verdict_markdown(verdict: Verdict) -> str:
    """The verdict as Markdown."""
    note = f"\n{verdict.note}\n" if verdict.note else ""
    if verdict.passed:
        return f"\n### Gate: passed\n\n{verdict.checks} checks hold.\n{note}"
    lines = "\n".join(
        f"- **{breach.subject}** {breach.reason}" + (f": {breach.because}" if breach.because else "")
        for breach in verdict.breaches
    )
    return f"\n### Gate: failed\n\n{lines}\n{note}"


def append_verdict(path: Path, verdict: Verdict) -> None:
    """Append the verdict to the Markdown at `path`, in the place of an earlier one."""
    before = read_regular(path).decode(errors="replace") if path.exists() else ""
    before = before.split("\n### Gate: ")[0]
    write_bytes(path, (before + verdict_markdown(verdict)).encode())


def verdict_text(verdict: Verdict) -> str:
    """The verdict for the terminal: what changed, what is breached, and one line at the end."""
    lines = [f"changed: {change_line(change)}" for change in verdict.changes if change.is_worse or change.is_better]
    lines += [f"breach: {breach}" for breach in verdict.breaches]
    lines += [f"note: {verdict.note}"] if verdict.note else []
    return "\n".join([*lines, verdict.summary])

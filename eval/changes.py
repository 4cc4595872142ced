"""A change since the baseline, in words and figures, for every form of the report."""

from __future__ import annotations

from eval.baseline import Change

__all__ = ["change_cells", "change_line"]


def change_cells(change: Change) -> tuple[str, str, str, str]:
    """Then, now, difference, and its 95 % interval where there is one."""
    if change.interval is None:
        difference = f"{change.now / change.then - 1:+.1%}" if change.then else "–"
        return _figure(change.then), _figure(change.now), _minus(difference), ""
    interval = f"{change.interval.low:+.4f} to {change.interval.high:+.4f}"
    return _figure(change.then), _figure(change.now), _minus(f"{change.interval.mean:+.4f}"), _minus(interval)


def change_line(change: Change) -> str:
    """One change as a line of text."""
    then, now, difference, interval = change_cells(change)
    return f"{change.model} {change.title}: {then} → {now} ({difference}{f'; 95 % {interval}' if interval else ''})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.4f}"


def _minus(text: str) -> str:
    return text.replace("-", "−")

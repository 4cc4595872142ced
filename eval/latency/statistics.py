"""A ratio of two times with its confidence interval, and what the rounds of one model come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["processor_summary", "ratio_of_medians", "summary_of_rounds"]


def ratio_of_medians(model_ms: Sequence[float], baseline_ms: Sequence[float]) -> dict[str, Any]:
    """The median of `model_ms[i] / baseline_ms[i]`, and the 95 % confidence interval of that median.

    The interval is between two order statistics (no assumption on the distribution); below 6 rounds it is the range.
    """
    from scipy.stats import binom

    pairs = np.sort(np.asarray(model_ms, float) / np.asarray(baseline_ms, float))
    cut = max(int(binom.ppf(0.025, len(pairs), 0.5)) - 1, 0)
    return {
        "median": float(np.median(pairs)),
        "low": float(pairs[cut]),
        "high": float(pairs[len(pairs) - 1 - cut]),
        "pairs": len(pairs),
    }


def summary_of_rounds(rounds_ms: Sequence[float], baseline_ms: Sequence[float] | None) -> dict[str, Any]:
    """Median, minimum, spread (interquartile range by median) and, beside as many rounds of the baseline, the ratio."""
    low, median, high = np.percentile(rounds_ms, [25, 50, 75])
    summary: dict[str, Any] = {
        "median_ms": round(float(median), 2),
        "min_ms": round(min(rounds_ms), 2),
        "spread": round(float((high - low) / median), 4),
        "rounds_ms": [round(ms, 2) for ms in rounds_ms],
    }
    return summary | _ratio("ratio", rounds_ms, baseline_ms)


def processor_summary(rounds_ms: Sequence[float], baseline_ms: Sequence[float] | None) -> dict[str, Any]:
    """Median of the processor time and, beside as many rounds of the baseline, the ratio."""
    summary: dict[str, Any] = {"processor_ms": round(float(np.median(rounds_ms)), 2)}
    return summary | _ratio("processor_ratio", rounds_ms, baseline_ms)


def _ratio(name: str, rounds_ms: Sequence[float], baseline_ms: Sequence[float] | None) -> dict[str, Any]:
    """The ratio under `name`, or nothing where the baseline had not as many rounds."""
    if not baseline_ms or len(baseline_ms) != len(rounds_ms):
        return {}
    return {name: {key: round(value, 4) for key, value in ratio_of_medians(rounds_ms, baseline_ms).items()}}

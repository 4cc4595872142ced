"""How fast the metrics are, beside PySODMetrics on the same pairs in the same run.

Both are given the same 8-bit masks, in turns, picture by picture. Time is that of the processor, not of the clock, so
other processes on the machine do not count; of several repeats the fastest of each pair is kept.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from u2net.errors import ConfigError

from .metrics import Truth, score
from .quality import Predictor, Sample, open_samples

__all__ = ["bench_metrics", "bench_text", "pairs_of"]

SIZE = (400, 300)


def pairs_of(data: Path | None, model: Path | None, count: int) -> list[tuple[Any, Any]]:
    """(mask, truth) pairs, uint8 (300, 400): the masks are `model`'s, or blurred and disturbed truths without one."""
    from .models import candidates

    samples: list[Sample] = list(open_samples(data))
    chosen = [samples[(2 * i + 1) * len(samples) // (2 * count)] for i in range(min(count, len(samples)))]
    predictor = Predictor(candidates([model])[0]) if model else None
    rng = np.random.default_rng(0)
    pairs = []
    for sample in chosen:
        rgb, truth = sample.load()
        small = np.asarray(Image.fromarray(rgb).resize(SIZE))
        grey = np.asarray(Image.fromarray(truth.mask.astype(np.uint8) * 255).resize(SIZE))
        if predictor is not None:
            pairs.append((predictor.mask(small), grey))
            continue
        from scipy.ndimage import gaussian_filter

        noise = gaussian_filter(rng.normal(0, 300, grey.shape), 6)
        pairs.append((np.clip(gaussian_filter(grey.astype(float), 3) + noise - 8, 0, 255).astype(np.uint8), grey))
    return pairs


def _their_metrics() -> list[Any]:
    try:
        import py_sod_metrics as theirs
    except ImportError:
        raise ConfigError("PySODMetrics is not installed: pip install pysodmetrics") from None
    curves = {
        "fm": theirs.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3),
        "iou": theirs.IOUHandler(with_dynamic=True, with_adaptive=False, with_binary=True),
    }
    return [theirs.MAE(), theirs.Smeasure(), theirs.Emeasure(), theirs.WeightedFmeasure(), theirs.FmeasureV2(curves)]


def bench_metrics(pairs: list[tuple[Any, Any]], repeats: int = 5) -> dict[str, float]:
    """Pairs per second of one core: `theirs`, `same` (the same measures), `all` (with boundaries), `mattes` (with all).

    `speedup` is same / theirs. Truths are prepared anew for each, as they would be for one model.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others = _their_metrics()

    def theirs(mask: Any, grey: Any) -> None:
        for metric in others:
            metric.step(mask, grey)

    work: dict[str, Callable[[Any, Any], object]] = {
        "theirs": theirs,
        "same": lambda mask, grey: score(mask, Truth(grey > 128), stretch=True, boundary=False),
        "all": lambda mask, grey: score(mask, Truth(grey > 128), stretch=True),
        "mattes": lambda mask, grey: score(mask, Truth(grey > 128, grey / 255.0), stretch=True),
    }
    best = {name: np.full(len(pairs), np.inf) for name in work}
    for _ in range(repeats):
        for i, (mask, grey) in enumerate(pairs):
            for name, run in work.items():
                begin = time.thread_time()
                run(mask, grey)
                best[name][i] = min(best[name][i], time.thread_time() - begin)
    result = {f"{name}_pairs_per_s": float(1 / seconds.mean()) for name, seconds in best.items()}
    return {**result, "speedup": result["same_pairs_per_s"] / result["theirs_pairs_per_s"], "pairs": float(len(pairs))}


def bench_text(figures: dict[str, float]) -> str:
    """The figures, a line each."""
    lines = [
        f"{title:56s} {figures[f'{key}_pairs_per_s']:7.1f} pairs/s"
        for title, key in (
            ("PySODMetrics: MAE, S, E, weighted F, F and IoU curves", "theirs"),
            ("ours, the same measures", "same"),
            ("ours, with boundaries, holes, islands and grey too", "all"),
            ("ours, with SAD, MSE, gradient and connectivity too", "mattes"),
        )
    ]
    return "\n".join([*lines, f"{'speed-up on the same measures':56s} {figures['speedup']:7.2f} ×"])

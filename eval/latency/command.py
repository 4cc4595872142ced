"""The work of `u2net eval latency`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.models import candidates, transfer_sizes
from u2net.commandline import Progress
from u2net.files import write_json

from .measure import faults, measure_latency
from .pictures import load_pictures
from .settings import LatencySettings
from .table import latency_text

__all__ = ["Measured", "latency_of"]


@dataclass(frozen=True)
class Measured:
    """The result as JSON and as text, and what went wrong."""

    result: dict[str, Any]
    text: str
    failures: list[str]


def latency_of(
    models: Sequence[Path],
    settings: LatencySettings,
    image: Path | None,
    data: Path | None,
    out: Path | None,
    progress: Progress,
) -> Measured:
    """Measure `models` on the picture `image`, or on some of `data`; `out` gets the result after every round."""
    judged = candidates(models)

    def save(partial: dict[str, Any]) -> None:
        if out is not None:
            write_json(out, partial)

    result = measure_latency(judged, load_pictures(image, data), settings, save=save, progress=progress)
    result["sizes"] = {model.name: asdict(transfer_sizes(model.path)) for model in judged}
    save(result)
    sizes = [
        f"{name}: {size['raw_bytes'] / 1e3:,.0f} kB raw, {size['gzip_bytes'] / 1e3:,.0f} kB gzip,"
        f" {size['brotli_bytes'] / 1e3:,.0f} kB brotli"
        for name, size in result["sizes"].items()
    ]
    return Measured(result, "\n".join([latency_text(result), "", *sizes]), faults(result))

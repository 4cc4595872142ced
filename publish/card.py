"""The model card: how good the model is, what it was made from, on which pictures, and where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import u2net
from eval.report import MaskMeans, Report
from u2net.files import sha256_file

from .manifest import File, ModelFile, TransferSize

__all__ = ["model_card"]

WEIGHTS = Path(u2net.__file__).parent / "weights"

_NETWORKS = {
    "small": 'U²-Net† ("u2netp") of Qin et al. (arXiv 2005.09007)',
    "full": "U²-Net of Qin et al. (arXiv 2005.09007)",
}
_LIMITS = """\
- **Hair, fur and lace**: the network sees a small copy; refinement on the full picture brings much back, not all.
- **Glass, smoke and veils**: the training masks are binary; what is half transparent comes out as a soft guess.
- **Several subjects**: the network finds what stands out, not what you mean. It may keep one, or both, or what lies
  between them.
- **Camouflage and clutter**: a subject in its background's colours is lost in part, and without a clear subject the
  mask is faint or accidental.
- **People** are one subject among many: this is no portrait matting network and knows nothing of who is in a picture.
- It is made for still photographs; frame by frame on a film it flickers."""
_FORMS = {
    "u2e": "for the browser package's own engine",
    "onnx": "for ONNX Runtime",
    "ort": "for ONNX Runtime, in its own format",
}


def model_card(
    name: str,
    side: int,
    files: Sequence[File],
    sizes: Mapping[str, TransferSize],
    sidecars: Mapping[str, Mapping[str, Any]],
    report: Report,
    about: str = "",
) -> str:
    """The card in Markdown.

    The network sees pictures of `side` × `side` pixels. `files` are the manifest's entries and `sizes` what they weigh
    on the wire, by path; `sidecars` are by form ("fp32", "int8", "u2e"), `report` is the evaluation's. `about` says
    where the weights come from, in Markdown; where it is empty and they are the project's own, their card in
    `u2net/weights` says it.
    """
    weights = sidecars["fp32"]["inputs"].get("weights", "")
    own = _is_own(name, weights)
    return f"""\
# u2net-{name}

Finds the subject of a photograph and gives its alpha mask: background removal that runs where the picture is.
Input {side}×{side} RGB, output {side}×{side} in [0, 1]; `manifest.json` states both exactly.

## How good it is

{(_own_section("Figures") if own else "")}
{_figures(report)}

## Where the weights come from

{about.strip() or (_own_section("Weights") if own else _origin(name, weights))}

## Limits

{_LIMITS}

## Files

{_files_table(files, sizes)}

`fp32` is the reference that the others are measured against.

## Provenance

{_provenance_table(sidecars)}

## Licence

Code and weights: Apache-2.0; what others wrote: `licences/`. The pictures that weights were trained on keep their own
licences and are not part of this bundle.
"""


def _is_own(name: str, digest: str) -> bool:
    path = WEIGHTS / f"{name}.safetensors"
    return path.is_file() and sha256_file(path) == digest and (WEIGHTS / "README.md").is_file()


def _own_section(which: str) -> str:
    """The tables of figures, or what remains, of the card of the project's own weights."""
    lines = (WEIGHTS / "README.md").read_text(encoding="utf-8").split("\n")
    blocks = "\n".join(line for line in lines if not line.startswith("<!--")).split("\n\n")
    figures = [block for block in blocks if "| IoU |" in block or "297 photographs" in block]
    if which == "Figures":
        return "\n\n".join(figures) + "\n"
    rest = [block for block in blocks if block not in figures and not block.startswith("# ")]
    return "\n\n".join(rest).replace("\n#", "\n##").replace("## `", "### `").strip()


def _origin(name: str, digest: str) -> str:
    network = _NETWORKS.get(name, "a U²-Net of its own widths")
    return (
        f"The network is {network}. The weights are the checkpoint with sha256 `{digest}`. Who publishes this bundle"
        " says what they were trained on, and under which terms (`--about`)."
    )


def _figures(report: Report) -> str:
    """Quality by set, and latency as a share of the first model's: milliseconds would speak of one machine."""
    names, quality = report.names, report.quality
    parts = []
    if quality.models:
        judged = [quality.models[name] for name in names]
        rows = [["all", *(_iou_mae(each.overall) for each in judged)]]
        if len(quality.sets) > 1:
            rows += [[f"{s} ({n})", *(_iou_mae(each.sets[s]) for each in judged)] for s, n in quality.sets.items()]
        rows.append(["agreement with float, IoU", *(f"{each.agreement.iou:.3f}" for each in judged)])
        parts.append(_table([f"IoU / MAE, {quality.pictures} pictures of {quality.source}", *names], rows))
    for record in report.latency.backends.values():
        entries = [record.models.get(name) for name in names]
        ratios = [entry.ratio.median if entry and entry.ratio else None for entry in entries]
        if any(ratio is not None for ratio in ratios):
            row = ["1" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
            parts.append(_table([f"latency, {record.title}", *names], [["share of the first", *row]]))
    return "\n\n".join(parts)


def _iou_mae(values: MaskMeans) -> str:
    return f"{values.iou:.3f} / {values.mae:.4f}"


def _bytes(count: int) -> str:
    return f"{count / 1000:,.0f} kB" if count < 10_000_000 else f"{count / 1_000_000:,.1f} MB"


def _files_table(files: Sequence[File], sizes: Mapping[str, TransferSize]) -> str:
    rows = [
        [f"`{file.path}`", _FORMS[file.format], file.precision, _bytes(file.bytes), _bytes(sizes[file.path].brotli)]
        for file in files
        if isinstance(file, ModelFile)
    ]
    return _table(["file", "", "precision", "bytes", "brotli"], rows)


def _provenance_table(sidecars: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for form, sidecar in sorted(sidecars.items()):
        sources = ", ".join(f"{role} `{digest[:12]}…`" for role, digest in sorted(sidecar["inputs"].items()))
        rows.append([form, f"`{sidecar['stage']}`", sources, f"`{sidecar['sha256'][:16]}…`"])
    return _table(["file", "made by", "from", "sha256"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

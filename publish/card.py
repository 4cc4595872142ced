"""The model card: what the model is, what it was made from, how good it is, and where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["model_card"]

ROOT = Path(__file__).resolve().parent.parent

#: Where weights come from, for the models whose weights are not the project's own.
_ORIGINS = {
    "small": 'The U²-Net† ("u2netp") weights of Qin et al. (arXiv 2005.09007), Apache-2.0, trained by them on DUTS-TR.',
    "full": "The U²-Net weights of Qin et al. (arXiv 2005.09007), Apache-2.0, trained by them on DUTS-TR.",
}

_LIMITS = """\
- **Hair, fur and lace**: the network sees 320×320 pixels; refinement on the full picture brings much back, not all.
- **Glass, smoke and veils**: the training masks are binary; what is half transparent comes out as a soft guess.
- **Several subjects**: the network finds what stands out, not what you mean. It may keep one, or both, or what lies
  between them.
- **Camouflage and clutter**: a subject in its background's colours is lost in part, and without a clear subject the
  mask is faint or accidental.
- **People** are one subject among many: this is no portrait matting network and knows nothing of who is in a picture.
- It is made for still photographs; frame by frame on a film it flickers."""


def _bytes(count: int) -> str:
    return f"{count / 1000:,.0f} kB" if count < 10_000_000 else f"{count / 1_000_000:,.1f} MB"


def _files_table(files: list[dict[str, Any]], compressed: dict[str, dict[str, int]]) -> str:
    rows = ["| file | precision | bytes | brotli |", "|---|---|---:|---:|"]
    for entry in files:
        if entry["role"] == "model":
            brotli_bytes = compressed.get(entry["path"], {}).get("brotli")
            sent = _bytes(brotli_bytes) if brotli_bytes else "–"
            rows.append(f"| `{entry['path']}` | {entry['precision']} | {_bytes(entry['bytes'])} | {sent} |")
    return "\n".join(rows)


def _provenance_table(sidecars: dict[str, dict[str, Any]]) -> str:
    rows = ["| file | made by | from | sha256 |", "|---|---|---|---|"]
    for precision, sidecar in sorted(sidecars.items()):
        sources = ", ".join(f"{role} `{digest[:12]}…`" for role, digest in sorted(sidecar["inputs"].items()))
        rows.append(f"| {precision} | `{sidecar['stage']}` | {sources} | `{sidecar['sha256'][:16]}…` |")
    return "\n".join(rows)


def model_card(
    name: str,
    files: list[dict[str, Any]],
    compressed: dict[str, dict[str, int]],
    sidecars: dict[str, dict[str, Any]],
    figures_markdown: str,
) -> str:
    """The card in Markdown.

    `files` are the manifest's entries, `compressed` sizes by path as `compressed_sizes` gives them, `sidecars` by
    precision, `figures_markdown` the evaluation's own summary.
    """
    own_card = ROOT / "u2net" / "weights" / "README.md"
    origin = _ORIGINS.get(name) or (own_card.read_text(encoding="utf-8").strip() if own_card.is_file() else "")
    origin = origin.replace("\n#", "\n##").removeprefix("# ").strip()
    return f"""\
# u2net-{name}

Finds the subject of a photograph and gives its alpha mask: background removal that runs where the picture is.
Input 320×320 RGB, output 320×320 in [0, 1]; `manifest.json` states both exactly.

{_files_table(files, compressed)}

`int8` is for WebAssembly and for processors, where it is the smallest and the fastest. `fp16` is for WebGPU and holds
its weights in half precision. `fp32` is the reference that the others are measured against.

## Figures

{figures_markdown.strip()}

## Where the weights come from

{origin}

Calibration of the int8 file changed no behaviour on purpose; its agreement with the float model is among the figures.

## Limits

{_LIMITS}

## Provenance

{_provenance_table(sidecars)}

## Licence

Code and weights: Apache-2.0; the engine and what others wrote in the demo: `licences/`. The pictures that weights were
trained on keep their own licences and are not part of this bundle.
"""

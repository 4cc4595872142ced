"""The models of this project: their names, what else people call them, and where their weights come from.

Everything that turns a name into a file asks here: the export stage, the runner, training, publishing and the Makefile
(`python -m u2net weights path NAME`).

The authors publish their checkpoints on a file-sharing service that offers no stable address. What is mirrored widely,
byte for byte, are the ONNX exports of them that the rembg project releases; `u2net.network` turns those back into
PyTorch. They are kept where rembg keeps them (`$U2NET_HOME`, else `~/.u2net`), so that nobody downloads them twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError
from .files import check_path

__all__ = [
    "ALIASES",
    "DEFAULT_MODEL",
    "PUBLIC_WEIGHTS",
    "PublicWeights",
    "default_path",
    "embedded_weights",
    "own_weights",
]

DEFAULT_MODEL = "small-fast"  # what is exported, run and published where nothing else is named
ALIASES = {"u2net": "full", "u2netp": "small"}  # what others call our models
WEIGHTS = Path(__file__).resolve().parent / "weights"  # the project's own, in the repository


@dataclass(frozen=True)
class PublicWeights:
    """A published file: bytes that never change, at any of `urls`."""

    name: str
    file_name: str
    what: str
    size_bytes: int
    sha256: str
    md5: str  # the checksum that the rembg project publishes
    urls: tuple[str, ...]
    licence: str = "Apache-2.0 (Qin et al., U-2-Net)"


def _rembg(file_name: str) -> tuple[str, ...]:
    return (
        f"https://github.com/danielgatis/rembg/releases/download/v0.0.0/{file_name}",
        f"https://huggingface.co/tomjackson2023/rembg/resolve/main/{file_name}",
    )


PUBLIC_WEIGHTS: dict[str, PublicWeights] = {
    weights.name: weights
    for weights in (
        PublicWeights(
            "small",
            "u2netp.onnx",
            "U²-Net† (u2netp), 1.13 M parameters, salient objects",
            4_574_861,
            "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
            "8e83ca70e441ab06c318d82300c84806",
            _rembg("u2netp.onnx"),
        ),
        PublicWeights(
            "full",
            "u2net.onnx",
            "U²-Net, 44 M parameters, salient objects",
            175_997_641,
            "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
            "60024c5c889badc19c04ad937298a77b",
            _rembg("u2net.onnx"),
        ),
        PublicWeights(
            "human",
            "u2net_human_seg.onnx",
            "U²-Net, 44 M parameters, people",
            175_997_641,
            "01eb6a29a5c4d8edb30b56adad9bb3a2a0535338e480724a213e0acfd2d1c73c",
            "c09ddc2e0104f800e3e1bb4652583d1f",
            _rembg("u2net_human_seg.onnx"),
        ),
    )
}


def default_path(weights: PublicWeights) -> Path:
    """Where `weights` are kept: `$U2NET_HOME`, else `~/.u2net`, as rembg does."""
    home = os.environ.get("U2NET_HOME")
    return (check_path(home) if home else Path.home() / ".u2net") / weights.file_name


def embedded_weights(model: str) -> Path | None:
    """The project's own weights of `model`, where it has some."""
    path = WEIGHTS / f"{ALIASES.get(model, model)}.safetensors"
    return path if path.is_file() else None


def own_weights(model: str) -> Path:
    """The weights that come with `model`, or that were fetched for it. Raises `ConfigError` where there are none."""
    name = ALIASES.get(model, model)
    embedded = embedded_weights(name)
    if embedded is not None:
        return embedded
    if name not in PUBLIC_WEIGHTS:
        raise ConfigError(f"{model} has no weights of its own; name a checkpoint with --weights")
    fetched = default_path(PUBLIC_WEIGHTS[name])
    if fetched.is_file():
        return fetched
    raise ConfigError(f"there are no weights of {model} here; get them by `u2net weights fetch {name}`")

"""U²-Net background removal: the network, its checkpoints, and a runner that cuts subjects out of pictures.

    from u2net import Remover
    Remover("small-fast.onnx").cutout("photo.jpg").save("cutout.png")

Names are imported when they are first used, so that `import u2net` costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .composite import Background
    from .decode import Decoded, load_image
    from .errors import U2NetError
    from .infer import Session
    from .remover import Cutout, Remover

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it when it is imported; see `runtime`

__all__ = ["Background", "Cutout", "Decoded", "Remover", "Session", "U2NetError", "load_image"]

_HOMES = {
    "Background": "composite",
    "Cutout": "remover",
    "Decoded": "decode",
    "Remover": "remover",
    "Session": "infer",
    "U2NetError": "errors",
    "load_image": "decode",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'u2net' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value

"""Render the demo's three sample pictures again: scenes of the procedural set, so they are the project's own.

python web/scripts/make_samples.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

WEB = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(WEB.parent))

from datasets.synthetic import SyntheticSet  # noqa: E402

SIZE = (720, 540)
SEED = 1
#: name → kind and index of the scene: fur, something to look through, and a thing to sell.
SAMPLES = {"bear": ("hair", 6), "glass": ("translucent", 5), "bottle": ("hard", 7)}
QUALITY = 78  # of WebP: below 60 kB each


def main() -> None:
    out = WEB / "demo" / "static" / "samples"
    out.mkdir(exist_ok=True)
    for name, (kind, index) in SAMPLES.items():
        scene = SyntheticSet(index + 1, SEED, SIZE, kind)[index]
        Image.fromarray(scene.rgb).save(out / f"{name}.webp", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()

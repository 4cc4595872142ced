"""Memory grows with the picture by what its planes take, so that a limit in megapixels is one in megabytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.throughput import make_photographs, measure_memory
from tests.support.runner_models import red_detector

#: Decoded colours, the matte, colours without the background's share: 7; a few planes more while one becomes the next.
#: Measured are 10.5, give or take what an allocator keeps; one plane more is a failure.
BYTES_A_PIXEL = 11


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_memory_of_a_pixel(tmp_path: Path, preset: str) -> None:
    model = red_detector(tmp_path / "red.onnx")
    used = []
    for width, height in ((1600, 1200), (3600, 2700)):
        make_photographs(tmp_path / str(width), 1, (width, height))
        picture = tmp_path / str(width) / "photo-0000.jpg"
        used.append(measure_memory(model, picture, tmp_path, preset) * 2**20)
    assert (used[1] - used[0]) / (3600 * 2700 - 1600 * 1200) < BYTES_A_PIXEL

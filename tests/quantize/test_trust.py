"""What quantize says of good and bad folders stands beside what is true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantize.cli import main
from quantize.trust import screenshot
from tests.support.quantize_graphs import save_network


def pictures(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(seed)
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def test_screenshots_differ_and_repeat() -> None:
    first, again, other = (np.asarray(screenshot(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any() and first.std() > 10


def test_every_folder_has_a_figure_beside_the_truth_or_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantize.stage.SCENES", 2)  # drawing them is what takes time
    monkeypatch.setattr("quantize.stage.ADDED", 2)
    model = save_network(tmp_path / "fp32.onnx", size=32)
    good, others = pictures(tmp_path / "good", 12, 0), pictures(tmp_path / "others", 6, 1)
    words = ["trust", str(model), "--calib", str(good), "--data", str(others), "--domain", str(others)]
    assert main([*words, "--fast", "--check", "6", "--threads", "1", "--out", str(tmp_path / "trust")]) == 0
    rows = {row["calibrated_on"]: row for row in json.loads((tmp_path / "trust.json").read_text())["rows"]}
    assert list(rows) == [
        "good, 16 pictures", "good, 64 pictures", "black", "screenshots", "one picture many times",
        "another domain, others",
    ]  # fmt: skip
    for name in ("good, 16 pictures", "good, 64 pictures", "another domain, others"):
        assert 0.5 < rows[name]["said"] <= 1 and 0.5 < rows[name]["true"] <= 1
    assert "20 pictures are of one colour" in rows["black"]["refusal"]
    assert "19 pictures are copies of others" in rows["one picture many times"]["refusal"]
    assert "| black | – | – | – | refused: black has 0 usable pictures" in (tmp_path / "trust.md").read_text()

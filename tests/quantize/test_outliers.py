"""A picture whose masks agree little stands beside how certain the float mask was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantize.cli import main
from quantize.outliers import OFFSET, stability
from tests.quantize.test_trust import pictures
from tests.support.quantize_graphs import save_network


def test_stability_is_what_the_threshold_decides() -> None:
    sure = np.zeros((10, 10), np.float32)
    assert stability(sure) == 1, "nothing on either side"
    sure[:5] = 1
    assert stability(sure) == 1
    unsure = sure.copy()
    unsure[5:] = 0.5 + OFFSET / 2
    assert stability(unsure) == pytest.approx(0.5)
    assert stability(np.full((4, 4), 0.5, np.float32)) == 0, "all of it hangs on the threshold"


def test_the_worst_come_first(tmp_path: Path) -> None:
    model, folder = save_network(tmp_path / "fp32.onnx", size=32), pictures(tmp_path / "pictures", 6, 0)
    other = onnx.load(model)
    for tensor in other.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
            coarse = numpy_helper.to_array(tensor).astype(np.float16).round(1).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(coarse, tensor.name))
    onnx.save(other, tmp_path / "coarse.onnx")
    words = ["outliers", str(model), str(tmp_path / "coarse.onnx"), "--data", str(folder), "--worst", "4"]
    assert main([*words, "--threads", "1", "--out", str(tmp_path / "outliers")]) == 0
    rows = json.loads((tmp_path / "outliers.json").read_text())["rows"]
    found = [row["iou"] for row in rows]
    assert len(rows) == 4 and found == sorted(found) and found[0] < 1
    assert all(row["picture"].endswith(".png") and 0 <= row["stability"] <= 1 and row["mae"] > 0 for row in rows)
    assert "The 4 worst of 6 pictures." in (tmp_path / "outliers.md").read_text()

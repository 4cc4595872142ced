"""Whole networks: the engine's map is the numpy reference's, bit for bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from engine.format import read_model, write_model
from engine.pack import pack_network
from engine.reference import run_reference
from tests.engine.host import EngineHost
from tests.engine.networks import random_network, random_picture

CASES = [
    {"seed": 0},
    {"seed": 1, "height": 32, "width": 32, "widths": (16, 24)},
    {"seed": 2, "height": 21, "width": 50, "widths": (17, 33), "gate": False},
    {"seed": 3, "height": 40, "width": 26, "widths": (8, 16), "stride": 2, "kernel": 6},
    {"seed": 4, "height": 64, "width": 61, "widths": (36, 40)},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_map_is_the_references_bit_for_bit(host: EngineHost, case: dict) -> None:
    network = random_network(**case)
    file = write_model(pack_network(network).model)
    picture = random_picture(case["seed"], *network.input_size)
    assert host.load(file) == 0
    expected = run_reference(read_model(file), picture)
    for _ in range(2):  # the second run finds the arena as the first one left it
        np.testing.assert_array_equal(host.run(picture), expected)
    assert expected.std() > 0.01


def test_a_host_of_thirty_lines_runs_it(wasm_path: Path, tmp_path: Path) -> None:
    network = random_network(5)
    file = write_model(pack_network(network).model)
    picture = random_picture(5, *network.input_size)
    (tmp_path / "model.u2e").write_bytes(file)
    (tmp_path / "input.f32").write_bytes(picture.tobytes())
    script = Path(__file__).parent / "run_engine.mjs"
    names = ["model.u2e", "input.f32", "output.f32"]
    subprocess.run(["node", script, wasm_path, *(tmp_path / name for name in names)], check=True)
    written = np.fromfile(tmp_path / "output.f32", np.float32).reshape(network.output_size)
    np.testing.assert_array_equal(written, run_reference(read_model(file), picture))

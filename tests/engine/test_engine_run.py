"""Whole networks: the engine's map is the numpy reference's, bit for bit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from engine.format import read_model, write_model
from engine.graph import Network
from engine.pack import pack_network
from engine.reference import run_reference
from engine.runtime import WasmEngine
from tests.engine.fuzz import attack
from tests.engine.networks import random_network, random_picture

FOLDER = Path(__file__).parent
CASES = [
    {"seed": 0},
    {"seed": 1, "height": 32, "width": 32, "widths": (16, 24)},
    {"seed": 2, "height": 21, "width": 50, "widths": (17, 33), "gate": False},
    {"seed": 3, "height": 40, "width": 26, "widths": (8, 16), "stride": 2, "kernel": 6},
    {"seed": 4, "height": 64, "width": 61, "widths": (36, 40)},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_map_is_the_references_bit_for_bit(host: WasmEngine, case: dict) -> None:
    network = random_network(**case)
    file = write_model(pack_network(network).model)
    picture = random_picture(case["seed"], *network.input_size)
    assert host.load(file) == 0
    expected = run_reference(read_model(file), picture)
    for _ in range(2):  # the second run finds the arena as the first one left it
        np.testing.assert_array_equal(host.run(picture), expected)
    assert expected.std() > 0.01


def prepare(folder: Path, network: Network) -> tuple[list[Path], np.ndarray]:
    """Files for a host in Node, the last being the one that it writes; and what should be in it."""
    file = write_model(pack_network(network).model)
    picture = random_picture(5, *network.input_size)
    paths = [folder / "model.u2e", folder / "input.f32", folder / "output.f32"]
    paths[0].write_bytes(file)
    paths[1].write_bytes(picture.tobytes())
    return paths, run_reference(read_model(file), picture)


def test_a_host_of_thirty_lines_runs_it(wasm_path: Path, tmp_path: Path) -> None:
    network = random_network(5)
    paths, expected = prepare(tmp_path, network)
    subprocess.run(["node", FOLDER / "run_engine.mjs", wasm_path, *paths], check=True)
    written = np.fromfile(paths[-1], np.float32).reshape(network.output_size)
    np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_map(built: dict[bool, Path], tmp_path: Path, threads: int) -> None:
    network = random_network(6, 190, 201, (24, 40))
    paths, expected = prepare(tmp_path, network)
    command: list[str | Path] = ["node", FOLDER / "run_threads.mjs", built[True], *paths, str(threads)]
    subprocess.run(command, check=True, env={**os.environ, "RUNS": "20"}, timeout=60)
    written = np.fromfile(paths[-1], np.float32).reshape(network.output_size)
    np.testing.assert_array_equal(written, expected)


def test_helpers_that_are_gone_are_not_waited_for(built: dict[bool, Path], tmp_path: Path) -> None:
    network = random_network(7, 190, 201, (24, 40))
    paths, expected = prepare(tmp_path, network)
    command: list[str | Path] = ["node", FOLDER / "run_threads.mjs", built[True], *paths, "3"]
    subprocess.run(command, check=True, env={**os.environ, "LOSE_HELPERS": "1"}, timeout=60)
    written = np.fromfile(paths[-1], np.float32).reshape(network.output_size)
    np.testing.assert_array_equal(written, expected)


def test_spoiled_files_are_refused_or_run(wasm_path: Path) -> None:
    """`make fuzz` does ten thousand."""
    found, statuses, _ = attack(wasm_path.read_bytes(), range(500))
    assert found == []
    assert {0, 3, 4, 5} <= set(statuses)

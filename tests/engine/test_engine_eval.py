"""A packed model is judged as any other: named beside the file that it came from, its masks, its time in Node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.format import write_model
from engine.pack import pack_network
from engine.profile import operator_table, profile_model
from engine.runtime import EngineSession
from eval.latency import LatencySettings, measure_latency, server
from eval.latency.comparison import comparison_table
from eval.latency.pictures import Picture
from eval.models import Candidate, candidates
from eval.quality import Predictor
from tests.engine.networks import random_network
from u2net.errors import ModelError
from u2net.files import write_json
from u2net.preprocess import resize_bilinear, to_tensor


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lite") / "int8.u2e"
    path.write_bytes(write_model(pack_network(random_network(3, 48, 48, (8, 12))).model))
    return path


@pytest.fixture
def picture() -> Picture:
    random = np.random.default_rng(0)
    return Picture("noise", random.integers(0, 256, (40, 56, 3)).astype(np.uint8))


def test_it_is_named_beside_the_model_that_it_was_packed_from(packed: Path) -> None:
    (packed.parent / "int8.onnx").touch()
    (packed.parent / "fp32.onnx").touch()
    found = candidates([packed.parent / "fp32.onnx", packed.parent / "int8.onnx", packed])
    assert [model.name.split("/")[-1] for model in found] == ["fp32", "int8", "int8.u2e"]
    assert [model.is_packed for model in found] == [False, False, True]


def test_facts(packed: Path, tmp_path: Path) -> None:
    facts = Candidate("lite/int8.u2e", packed).graph
    assert (facts.interface, facts.size) == ("tensor", 48)
    convolutions = 9 * 48 * 48 * (12 * 8 + 16 * 12 + 12 * 12) + 9 * 24 * 24 * (8 * 8 * 2 + 16 * 8)
    other = 9 * 48 * 48 * (3 * 12 + 12 + 12 + 12) + 9 * 24 * 24 * 8
    assert facts.gmacs == pytest.approx((convolutions + other) / 1e9)
    assert facts.integer_share == pytest.approx(convolutions / (convolutions + other))
    wide = tmp_path / "int8.u2e"
    wide.write_bytes(write_model(pack_network(random_network(3, 40, 48)).model))
    assert Candidate("wide", wide).graph.size == (40, 48)


def test_its_masks_are_judged(packed: Path, picture: Picture) -> None:
    mask = Predictor(Candidate("lite/int8.u2e", packed)).mask(picture.rgb)
    saliency = EngineSession(packed).run(to_tensor(picture.rgb, 48))
    np.testing.assert_allclose(mask / 255, resize_bilinear(saliency, *picture.rgb.shape[:2]), atol=0.5 / 255 + 1e-6)


def test_its_time_is_measured_in_node(
    packed: Path, picture: Picture, wasm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OWN_ENGINE", wasm_path)
    model = Candidate("lite/int8.u2e", packed)
    settings = LatencySettings(backends=("node", "native"), rounds=2, max_rounds=2, warmup=0, cold_starts=1)
    result = measure_latency([model], [picture], settings)["backends"]
    measured = result["node"]["models"][model.name]
    assert measured["median_ms"] > 0 and measured["memory_bytes"] % 65536 == 0
    assert measured["masks"][0]["max_difference"] == 0.0
    assert result["native"]["status"] == "failed"  # which does not run it


def test_every_operator_is_timed(packed: Path, wasm_path: Path, tmp_path: Path) -> None:
    steps = profile_model(packed, 2, wasm_path)
    assert [step.ms > 0 or step.kind == "pool" for step in steps] == [True] * len(steps)
    assert {step.kind for step in steps} >= {"stem", "convolution, direct", "pool", "resize", "add", "gate", "fuse"}
    assert sum(step.macs for step in steps) / 1e9 == pytest.approx(Candidate("lite/int8.u2e", packed).graph.gmacs)
    table = operator_table(steps).splitlines()
    assert table[-1].startswith(f"| **all** | {len(steps)} | ")
    assert sum(int(line.split("|")[2]) for line in table[2:-1]) == len(steps)
    (tmp_path / "no.u2e").write_bytes(packed.read_bytes()[:-4])
    with pytest.raises(ModelError):
        profile_model(tmp_path / "no.u2e", 1, wasm_path)


def test_results_become_one_table(tmp_path: Path) -> None:
    def ratio(median: float) -> dict[str, float]:
        return {"median": median, "low": median * 0.8, "high": median * 1.25, "pairs": 9}

    def entry(ms: float, share: float, mib: int) -> dict[str, object]:
        known = {"status": "measured", "median_ms": 2 * ms, "memory_bytes": mib << 20, "ratio": ratio(1.0)}
        return {**known, "processor_ms": ms, "processor_ratio": ratio(share)}

    models = {"lite/int8": entry(100, 1, 44), "lite/int8.u2e": entry(20, 0.2, 12), "lite/fp32": entry(150, 1.5, 48)}
    backend = {"title": "Chromium, wasm, 1 thread", "status": "measured", "models": models}
    write_json(tmp_path / "lite.json", {"baseline": "lite/int8", "backends": {"wasm": backend}})
    (row,) = comparison_table([tmp_path / "lite.json"]).splitlines()[2:]
    assert row == "| lite | Chromium | 20 ms | 100 ms | 150 ms | **5.00** | 4.00–6.25 | 12 MiB | 44 MiB |"
    write_json(tmp_path / "other.json", {"baseline": "lite/fp32", "backends": {"wasm": backend}})
    with pytest.raises(ModelError, match="int8 model first"):
        comparison_table([tmp_path / "other.json"])

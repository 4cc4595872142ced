"""Ranges of activations: each calibrator against what it is defined to be."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.calibration import calibration_images
from quantize.graph import FloatGraph, load_graph
from quantize.inputs import network_inputs
from quantize.observe import observe
from quantize.ranges import CALIBRATORS, _end, choose_ranges
from quantize.region import find_region
from tests.support.paths import ROOT
from tests.support.quantize_graphs import inputs, network
from u2net.errors import ConfigError

DOCUMENT = ROOT / "docs" / "quantization.md"


def squared_error(values, end):
    step = end / 255
    return float(np.mean((np.clip(np.rint(values / step), 0, 255) * step - values) ** 2))


@pytest.fixture(scope="module")
def long_tail():
    return np.random.default_rng(0).exponential(size=200_000).astype(np.float32) ** 2


def test_minmax_is_the_extreme(long_tail):
    assert _end([long_tail], 123.0, 1, "minmax") == 123.0


def test_percentile_leaves_one_value_in_ten_thousand_outside(long_tail):
    end = _end([long_tail], float(long_tail.max()), 1, "percentile")
    outside = int(np.count_nonzero(long_tail > end))
    assert 18 <= outside <= 20
    assert end < 0.8 * long_tail.max()


def test_mse_is_the_best_of_a_brute_force_search(long_tail):
    extreme = float(long_tail.max())
    end = _end([long_tail], extreme, 1, "mse")
    best = min(squared_error(long_tail, extreme * share) for share in np.linspace(0.3, 1, 141))
    assert squared_error(long_tail, end) <= 1.02 * best
    assert squared_error(long_tail, end) < 0.9 * squared_error(long_tail, extreme)


def test_entropy_cuts_a_lonely_outlier_and_keeps_a_uniform_range():
    random = np.random.default_rng(0)
    uniform = random.uniform(0, 1, 100_000).astype(np.float32)
    assert _end([uniform], 1.0, 1, "entropy") > 0.9
    with_outlier = np.append(np.abs(random.normal(size=100_000)), 100).astype(np.float32)
    assert _end([with_outlier], 100.0, 1, "entropy") < 20


@settings(max_examples=40, deadline=None)
@given(calibrator=st.sampled_from(sorted(CALIBRATORS)), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_ranges_scale_with_the_values(calibrator, scale, seed):
    values = np.random.default_rng(seed).gamma(0.7, size=5000).astype(np.float32)
    one = _end([values], float(values.max()), 1, calibrator)
    scaled = (values * np.float32(scale)).astype(np.float32)
    assert _end([scaled], float(scaled.max()), 1, calibrator) == pytest.approx(one * scale, rel=0.03)


@pytest.mark.parametrize("calibrator", sorted(CALIBRATORS))
def test_groups_share_one_range_that_starts_at_zero(calibrator):
    graph = FloatGraph(network())
    region = find_region(graph)
    seen = observe(graph, inputs(4), budget=2048, seed=0, threads=1)
    ranges = choose_ranges(graph, region, seen, calibrator)
    assert set(ranges) == set(region.sources)
    assert all(known.zero_point == 0 and known.scale > 0 for known in ranges.values())
    group = region.group
    assert group["pooled"] == group["joined1"] == group["wide"] == group["stage1.rebnconv1_out"]
    assert group["total"] != group["stage1.rebnconvin_out"], "a sum has a range of its own"


def test_signed_tensors_keep_zero_exact():
    model = network()
    kept = [node for node in model.graph.node if node.name != "stage1.rebnconv3_relu"]
    for node in kept:
        for index, name in enumerate(node.input):
            if name == "stage1.rebnconv3_out":
                node.input[index] = "stage1.rebnconv3_pre"
    nodes = [type(node).FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph = FloatGraph(model)
    region = find_region(graph)
    seen = observe(graph, inputs(4), budget=2048, seed=0, threads=1)
    known = choose_ranges(graph, region, seen, "minmax")[region.group["stage1.rebnconv3_pre"]]
    assert 0 < known.zero_point < 255
    assert known.low == pytest.approx(seen.low["stage1.rebnconv3_pre"].min(), abs=known.scale)
    assert known.high == pytest.approx(known.low + 255 * known.scale)


def test_an_unknown_calibrator_is_named():
    graph = FloatGraph(network())
    with pytest.raises(ConfigError, match="'median'"):
        choose_ranges(graph, find_region(graph), None, "median")  # type: ignore[arg-type]


def test_the_constant_channels_are_those_of_the_documentation(small_fp32: Path, shared: Path) -> None:
    """docs/quantization.md says what ruins the usual tools: six photographs stay within what it says of 32."""
    rows = re.findall(r"^\| `([\w.]+)\[(\d+)\]` \| ([\d.]+) … ([\d.]+) \|", DOCUMENT.read_text("utf-8"), flags=re.M)
    assert len(rows) == 3
    graph = load_graph(small_fp32)
    pictures = calibration_images(shared / "data" / "calib" / "images", 6)
    seen = observe(graph, network_inputs(graph, pictures), budget=64, seed=0, threads=1)
    for name, channel, low, high in rows:
        values = next(conv.preactivation for conv in graph.convs if conv.name == name)
        found = seen.low[values][int(channel)], seen.high[values][int(channel)]
        assert float(low) - 0.05 < found[0] < found[1] < float(high) + 0.05, name

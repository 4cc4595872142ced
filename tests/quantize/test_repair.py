"""Splitting constant channels and equalizing channels must not change what the float model computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.emit import emit
from quantize.equalize import border_share, channel_classes, equalize, scale_channels
from quantize.graph import FloatGraph
from quantize.observe import observe
from quantize.plan import Plan
from quantize.ranges import choose_ranges
from quantize.reconstruct import round_all
from quantize.region import find_region
from quantize.split import split_constants
from tests.support.quantize_graphs import inputs, network, run

EXACT = 1e-5


def observed(graph, feeds):
    return observe(graph, feeds, budget=2048, seed=0, threads=1)


@pytest.fixture(scope="module")
def planted():
    """A network with a channel near 200, what was observed of it, and its masks."""
    model = network(constant=40.0)
    graph = FloatGraph(model)
    feeds = inputs(8)
    return graph, observed(graph, feeds), feeds


def test_observed_extremes_and_samples_are_those_of_the_maps(planted):
    graph, seen, feeds = planted
    model = graph.to_model()
    name = graph.conv("stage1.rebnconv2d").preactivation
    del model.graph.output[:]
    model.graph.output.add().name = name
    maps = run(model, feeds)[:, 0]
    np.testing.assert_allclose(seen.low[name], maps.min((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(seen.high[name], maps.max((0, 2, 3)), rtol=1e-6)
    positions = seen.positions[3][16, 16]
    per_picture = len(positions)
    assert len(seen.samples[name]) == per_picture * len(feeds)
    found = seen.samples[name][3 * per_picture : 4 * per_picture]
    np.testing.assert_allclose(found, maps[3].reshape(16, -1)[:, positions].T, rtol=1e-5, atol=1e-5)


def test_split_is_exact_also_at_the_borders(planted):
    graph, seen, feeds = planted
    changed, after, names = split_constants(graph, seen)
    assert names == ("stage1.rebnconv2d[3]",)
    before, now = run(graph.to_model(), feeds), run(changed.to_model(), feeds)
    assert np.abs(before - now).max() < EXACT
    assert before.std() > 0.05, "a blank mask would prove nothing"
    # what is left of the channel spans its ripple, not its constant
    conv = changed.conv("stage1.rebnconv2d")
    assert after.high[conv.preactivation][3] < 0.15 * seen.high[conv.preactivation][3]


def test_split_keeps_pictures_that_go_beyond_the_calibration(planted):
    graph, seen, _ = planted
    changed, _, _ = split_constants(graph, seen)
    others = [1.2 * feed for feed in inputs(8, seed=99)]
    assert np.abs(run(graph.to_model(), others) - run(changed.to_model(), others)).max() < EXACT


def test_observations_follow_the_split(planted):
    graph, seen, feeds = planted
    changed, after, _ = split_constants(graph, seen)
    anew = observed(changed, feeds)
    for name in anew.low:
        np.testing.assert_allclose(after.low[name], anew.low[name], atol=2e-3, err_msg=name)
        np.testing.assert_allclose(after.samples[name], anew.samples[name], atol=2e-3, err_msg=name)


def test_split_leaves_ordinary_networks_alone():
    graph = FloatGraph(network())
    same, _, names = split_constants(graph, observed(graph, inputs(4)))
    assert names == ()
    assert same is graph


def test_splitting_rescues_plain_rounding():
    """What the usual tools do fails on the planted channel and works once it is split."""
    graph, feeds = FloatGraph(network(constant=200.0)), inputs(8)
    seen = observed(graph, feeds)
    reference = run(graph.to_model(), feeds)

    def error(candidate, observations):
        region = find_region(candidate)
        ranges = choose_ranges(candidate, region, observations, "minmax")
        return np.abs(run(emit(candidate, round_all(candidate, region, ranges), "qdq"), feeds) - reference).mean()

    changed, after, _ = split_constants(graph, seen)
    assert error(changed, after) < 0.25 * error(graph, seen)


def test_channels_are_tied_through_pool_resize_concat_and_sum(planted):
    graph, _, _ = planted
    index = channel_classes(graph).index
    first, inner = graph.conv("stage1.rebnconv1"), graph.conv("stage1.rebnconv2d")
    np.testing.assert_array_equal(index["pooled"], index[first.output])
    np.testing.assert_array_equal(index["joined1"], np.concatenate([index[inner.output], index[first.output]]))
    entry, outer = graph.conv("stage1.rebnconvin"), graph.conv("stage1.rebnconv1d")
    np.testing.assert_array_equal(index[entry.output], index[outer.output])
    np.testing.assert_array_equal(index[entry.output], index["total"])


def test_input_and_mask_are_held(planted):
    graph, _, _ = planted
    classes = channel_classes(graph)
    assert not classes.free[classes.index["input"]].any()
    assert not classes.free[classes.index[graph.conv("side1").preactivation]].any()
    assert classes.free[classes.index[graph.conv("stage1.rebnconv2").output]].all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), spread=st.floats(0.1, 2.0))
def test_any_positive_factors_are_exact(seed, spread):
    graph = FloatGraph(network(seed=seed % 5))
    classes = channel_classes(graph)
    factors = np.exp(np.random.default_rng(seed).normal(size=len(classes)) * spread)
    factors[~classes.free] = 1.0
    changed, moved = scale_channels(graph, classes, factors)
    feeds = inputs(2)
    assert np.abs(run(graph.to_model(), feeds) - run(changed.to_model(), feeds)).max() < EXACT
    name = graph.conv("stage1.rebnconv2").output
    np.testing.assert_allclose(moved[name], 1 / factors[classes.index[name]], rtol=1e-6)


def test_equalization_is_exact_and_predicts_its_own_observations(planted):
    graph, seen, feeds = planted
    changed, after, count = equalize(graph, find_region(graph), seen)
    assert count > 16
    assert np.abs(run(graph.to_model(), feeds) - run(changed.to_model(), feeds)).max() < EXACT
    anew = observed(changed, feeds)
    for name in anew.high:
        np.testing.assert_allclose(after.high[name], anew.high[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_equalization_lowers_the_error_of_activation_rounding():
    """One channel fifty times its neighbours, made up for in the next weights: eight bits lose the others."""
    graph = FloatGraph(network())
    classes = channel_classes(graph)
    factors = np.ones(len(classes))
    for name in ("stage1.rebnconv1", "stage1.rebnconv2", "stage2.rebnconvin"):
        factors[classes.index[graph.conv(name).output][0]] = 1 / 50
    skewed, _ = scale_channels(graph, classes, factors)
    feeds = inputs(8)
    reference = run(graph.to_model(), feeds)
    seen = observed(skewed, feeds)
    region = find_region(skewed)

    def error(candidate, observations):
        plan = Plan(region, choose_ranges(candidate, region, observations, "minmax"))
        return np.abs(run(emit(candidate, plan, "simulate"), feeds, fuse=False) - reference).mean()

    changed, after, _ = equalize(skewed, region, seen)
    assert error(changed, after) < 0.6 * error(skewed, seen)


def test_border_share_counts_taps_that_read_padding():
    graph = FloatGraph(network())
    conv = graph.conv("stage1.rebnconv1")
    outside = np.pad(np.zeros((32, 32)), 1, constant_values=1)
    shares = [outside[y : y + 32, x : x + 32].mean() for y in range(3) for x in range(3)]
    assert border_share(conv, graph) == pytest.approx(np.mean([p * (1 - p) for p in shares]))


def test_what_is_kept_does_not_grow_with_the_pictures():
    graph = FloatGraph(network())
    sizes = []
    for count in (4, 16):
        seen = observe(graph, inputs(count), budget=1024, seed=0, threads=1)
        sizes.append(sum(values.nbytes for values in seen.samples.values()))
    assert sizes[1] <= sizes[0]

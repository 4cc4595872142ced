"""Writing plans into graphs: the forms agree, integer kernels really run, and nothing of the interface is lost."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantize.emit import emit
from quantize.graph import FloatGraph, load_graph
from quantize.kernels import count_kernels
from quantize.observe import observe
from quantize.ranges import choose_ranges
from quantize.reconstruct import fit_bias, reconstruct, round_all
from quantize.region import find_region, float_reasons
from quantize.settings import RoundingSettings
from quantize.split import split_constants
from tests.support.quantize_graphs import inputs, network, run
from u2net.errors import ModelError

FLOAT_LAYERS = {"stage1.rebnconvin", "side1"}


@pytest.fixture(scope="module")
def planned():
    """A network with a planted constant channel, split, rounded to nearest; and pictures."""
    feeds = inputs(8)
    graph = FloatGraph(network(constant=60.0))
    seen = observe(graph, feeds, budget=4096, seed=0, threads=1)
    graph, seen, _ = split_constants(graph, seen)
    region = find_region(graph)
    return graph, round_all(graph, region, choose_ranges(graph, region, seen, "mse")), seen, feeds


def test_graph_is_read_by_structure():
    graph = FloatGraph(network())
    assert [conv.name for conv in graph.convs][:2] == ["stage1.rebnconvin", "stage1.rebnconv1"]
    dilated = graph.conv("stage1.rebnconv3")
    assert dilated.dilations == (2, 2) and dilated.relu
    assert dilated.macs == 16 * 16 * 9 * 16 * 16
    assert not graph.conv("side1").relu
    assert (graph.size, graph.interface, graph.opset) == ((32, 32), "tensor", 18)


def test_thin_layers_stay_in_float_with_a_reason():
    graph = FloatGraph(network())
    reasons = float_reasons(graph, keep_float=("stage1.rebnconv2",))
    assert set(reasons) == FLOAT_LAYERS | {"stage1.rebnconv2"}
    assert "3 input channels" in reasons["stage1.rebnconvin"]
    assert "1 output channels" in reasons["side1"]


def test_forms_agree_with_the_simulation_and_with_each_other(planned):
    graph, plan, _, feeds = planned
    simulated = run(emit(graph, plan, "simulate"), feeds, fuse=False)
    qdq, operators = run(emit(graph, plan, "qdq"), feeds), run(emit(graph, plan, "qoperator"), feeds)
    reference = run(graph.to_model(), feeds)
    assert np.abs(qdq - operators).max() < 1e-3
    # a value on the edge between two steps may fall either way, and a random network spreads that
    assert np.abs(qdq - simulated).mean() < 0.6 * np.abs(qdq - reference).mean()


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_integer_kernels_run_after_optimisation(planned, form):
    graph, plan, _, _ = planned
    model = emit(graph, plan, form)
    onnx.checker.check_model(model)
    counted = count_kernels(graph, model)
    assert set(counted.floating) == FLOAT_LAYERS
    expected = sum(conv.macs for conv in graph.convs if conv.name not in FLOAT_LAYERS) / graph.total_macs()
    assert counted.share == pytest.approx(expected)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_layers_kept_in_float_run_in_float(planned, form):
    """The runtime would round their weights on its own, between two quantized tensors."""
    graph, _, seen, feeds = planned
    kept = ("stage1.rebnconv3", "stage1.rebnconv1d", "stage1.rebnconv1")
    region = find_region(graph, kept)
    plan = round_all(graph, region, choose_ranges(graph, region, seen, "mse"))
    model = emit(graph, plan, form)
    assert set(count_kernels(graph, model).floating) == FLOAT_LAYERS | set(kept)
    assert np.abs(run(model, feeds) - run(graph.to_model(), feeds)).mean() < 0.02


def test_a_float_model_has_no_integer_kernels(planned):
    graph, _, _, _ = planned
    counted = count_kernels(graph, graph.to_model())
    assert counted.integer == ()
    assert counted.share == 0


def test_no_float_round_trip_between_convolutions_but_resize(planned):
    graph, plan, _, _ = planned
    kinds = [node.op_type for node in emit(graph, plan, "qoperator").graph.node]
    assert kinds.count("QLinearConv") == 6
    assert kinds.count("QLinearAdd") == 1
    # one quantizer after the first convolution and one after the resize; one dequantizer before that and one at the end
    assert kinds.count("QuantizeLinear") == 2
    assert kinds.count("DequantizeLinear") == 2


def test_metadata_names_and_shapes_survive(planned):
    graph, plan, _, _ = planned
    original = graph.to_model()
    for form in ("qdq", "qoperator", "weights"):
        model = emit(graph, plan, form)
        assert {entry.key: entry.value for entry in model.metadata_props} == graph.metadata
        assert list(model.graph.input) == list(original.graph.input)
        assert list(model.graph.output) == list(original.graph.output)
        assert model.ir_version == original.ir_version


def test_weights_are_a_quarter_of_their_size(planned):
    graph, plan, _, _ = planned
    stored = {tensor.name: tensor for tensor in emit(graph, plan, "qdq").graph.initializer}
    conv = graph.conv("stage1.rebnconv2")
    assert stored[f"{conv.weight}_q"].data_type == onnx.TensorProto.INT8
    assert stored[f"{conv.bias}_q"].data_type == onnx.TensorProto.INT32
    assert conv.weight not in stored


def test_weight_only_form_computes_in_float(planned):
    graph, plan, _, feeds = planned
    model = emit(graph, plan, "weights")
    rounded = graph.replaced(
        {graph.conv(name).weight: conv.dequantized() for name, conv in plan.convs.items()}
        | {graph.conv(name).bias: conv.bias for name, conv in plan.convs.items()}
    )
    only = emit(rounded, type(plan)(type(plan.region)(plan.region.integer, {}, {}, {}), {}), "weights")
    assert np.isfinite(run(model, feeds)).all()
    np.testing.assert_array_equal(run(only, feeds), run(rounded.to_model(), feeds))


def test_biases_fit_32_bits_beside_their_weights(planned):
    graph, plan, _, _ = planned
    for name, conv in plan.convs.items():
        known = plan.range_of(graph.conv(name).input)
        steps = np.abs(conv.bias.astype(np.float64)) / (known.scale * conv.scale.astype(np.float64))
        assert steps.max() <= 2**28 * 1.001, name
    conv = plan.convs["stage1.rebnconv2d"]
    assert not conv.weight[-1].any() and conv.bias[-1] > 0, "the constant channel"
    tiny = type(conv)(conv.weight, np.full_like(conv.scale, 1e-9), conv.bias + 5)
    fitted = fit_bias(tiny, 0.01)
    assert (np.abs(fitted.bias) / (0.01 * fitted.scale)).max() <= 2**28 * 1.001


@pytest.mark.parametrize("method", ["bias", "refit", "learned"])
def test_reconstruction_beats_plain_rounding(planned, method):
    graph, plan, seen, feeds = planned
    better, filled = reconstruct(graph, plan, seen, feeds, method=method, settings=RoundingSettings(), threads=1)
    reference, others = run(graph.to_model(), inputs(8, seed=5)), inputs(8, seed=5)
    plain = np.abs(run(emit(graph, plan, "qdq"), others) - reference).mean()
    ours = np.abs(run(emit(better, filled, "qdq"), others) - reference).mean()
    assert ours < 1.02 * plain if method == "bias" else ours < plain
    # the same inputs, the same bytes
    again = reconstruct(graph, plan, seen, feeds, method=method, settings=RoundingSettings(), threads=1)
    forms = [emit(*pair, "qdq").SerializeToString(deterministic=True) for pair in ((better, filled), again)]
    assert forms[0] == forms[1]


@pytest.mark.parametrize("method", ["bias", "refit", "learned"])
def test_reconstruction_reaches_past_layers_in_float(planned, method):
    graph, _, seen, feeds = planned
    region = find_region(graph, ("stage1.rebnconv3", "stage1.rebnconv1d"))
    plan = round_all(graph, region, choose_ranges(graph, region, seen, "mse"))
    better, filled = reconstruct(graph, plan, seen, feeds, method=method, settings=RoundingSettings(), threads=1)
    reference, others = run(graph.to_model(), inputs(8, seed=5)), inputs(8, seed=5)
    plain = np.abs(run(emit(graph, plan, "qdq"), others) - reference).mean()
    assert np.abs(run(emit(better, filled, "qdq"), others) - reference).mean() < 1.02 * plain


def test_unreadable_and_unfit_models_are_refused(tmp_path):
    def refused(model, match):
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        with pytest.raises(ModelError, match=match):
            load_graph(path)

    refused(b"not a model", "not a readable ONNX model")
    refused(b"", "not a readable|no convolutions|inputs")
    with pytest.raises(ModelError, match="does not exist"):
        load_graph(tmp_path / "absent.onnx")
    graph = FloatGraph(network())
    region = find_region(graph)
    seen = observe(graph, inputs(2), budget=512, seed=0, threads=1)
    refused(emit(graph, round_all(graph, region, choose_ranges(graph, region, seen)), "qdq"), "quantized already")
    old = network()
    old.opset_import[0].version = 11
    graph = FloatGraph(old)
    with pytest.raises(ModelError, match="opset 11"):
        emit(graph, round_all(graph, region, {}), "qdq")

"""Packing real int8 models: every form of the network that is exported and quantized, and refusals by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.format import OperatorKind, read_model, write_model
from engine.graph import Convolution
from engine.pack import WINOGRAD_LIMIT, pack_network
from engine.reference import run_reference
from engine.runtime import EngineSession
from engine.settings import PackSettings
from engine.sizes import at_size
from engine.stage import pack_file, pack_model
from quantize.settings import QuantizeSettings
from quantize.stage import quantize_file
from tests.engine.networks import random_network
from u2net.errors import ArtifactError, ConfigError, ModelError, QualityError

SETTINGS = QuantizeSettings(
    method="nearest", calibrator="minmax", count=2, check_count=1, floor=0, samples=512, equalize=False
)
SIZE = 64


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network with every operator that ours have, of widths that are no multiples of four, quantized."""
    import torch

    from export.exporter import export_model, fold_batch_norm
    from export.settings import ExportSettings
    from u2net.network.model import U2Net, U2NetConfig, _widths

    torch.manual_seed(0)
    model = U2Net(U2NetConfig("tiny", _widths(*[(9, 11)] * 11), resql=True)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    folder = tmp_path_factory.mktemp("engine")
    onnx.save(export_model(fold_batch_norm(model), ExportSettings(size=SIZE)), folder / "fp32.onnx")
    quantize_file(folder / "fp32.onnx", folder / "int8.onnx", settings=SETTINGS)
    return folder / "int8.onnx"


def pictures(count: int, height: int, width: int) -> list[npt.NDArray[np.float32]]:
    random = np.random.default_rng(4)
    coarse = random.uniform(-2, 2.5, (count, 3, 6, 6))
    return list(np.kron(coarse, np.ones((height // 6 + 1, width // 6 + 1)))[..., :height, :width].astype(np.float32))


def onnxruntime_map(model: onnx.ModelProto, picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the graph says, node by node. Optimised, onnxruntime itself strays from that ten times as far as we do."""
    from u2net.runtime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": picture[None]})[0][0, 0]


@pytest.mark.parametrize("size", [(SIZE, SIZE), (50, 97), (33, 40)], ids=str)
def test_a_packed_model_gives_the_maps_of_onnxruntime(int8: Path, size: tuple[int, int]) -> None:
    model = onnx.load(int8)
    if size != (SIZE, SIZE):
        model = at_size(model, *size)
    file = write_model(pack_model(model).model)
    session = EngineSession(file)
    assert session.input_size == session.output_size == size
    for picture in pictures(2, *size):
        ours, theirs = session.run(picture[None]), onnxruntime_map(model, picture)
        # to the last bit what docs/engine.md says, and near enough to what onnxruntime makes of the same integers
        np.testing.assert_array_equal(ours, run_reference(read_model(file), picture))
        assert theirs.std() > 0.02
        assert np.abs(ours - theirs).mean() < 0.02 * theirs.std()


def test_the_stage_proves_what_it_writes(int8: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.u2e"
    sidecar = pack_file(int8, out, PackSettings(count=2))
    figures = sidecar["figures"]
    assert figures["agreement"]["pictures"] == 2 and figures["agreement"]["mae_mean"] < 0.01
    assert figures["bounds"]["convolutions"] == 111
    assert 0 < figures["bounds"]["largest_sum"] < WINOGRAD_LIMIT
    assert figures["memory_bytes"] > figures["arena_bytes"]
    assert sidecar["size_bytes"] == out.stat().st_size
    told: list[str] = []
    assert pack_file(int8, out, PackSettings(count=2), tell=told.append) == sidecar
    assert told == ["int8.u2e is up to date"]
    first = out.read_bytes()
    pack_file(int8, out, PackSettings(count=2), force=True)
    assert out.read_bytes() == first


def test_a_model_that_is_not_what_its_sidecar_says_is_refused(int8: Path, tmp_path: Path) -> None:
    changed = tmp_path / "int8.onnx"
    changed.write_bytes(int8.read_bytes() + b"\x0a\x00")
    changed.with_suffix(".json").write_bytes(int8.with_suffix(".json").read_bytes())
    with pytest.raises((ArtifactError, ModelError)):
        pack_file(changed, tmp_path / "int8.u2e")
    assert not (tmp_path / "int8.u2e").exists()


def test_maps_that_differ_are_not_written(int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.agreement.MAX_DIFFERENCE", -1.0)
    with pytest.raises(QualityError, match="differ from onnxruntime's"):
        pack_file(int8, tmp_path / "int8.u2e", PackSettings(count=1))
    assert list(tmp_path.iterdir()) == []


def spoil(model: onnx.ModelProto, what: str) -> None:
    """Make the model one that the engine cannot run, in one respect."""
    graph = model.graph
    convs = [node for node in graph.node if node.op_type == "Conv"]
    values = {value.name: value for value in graph.initializer}

    def attribute(node: onnx.NodeProto, name: str, value: object) -> None:
        found = next(a for a in node.attribute if a.name == name)
        found.CopyFrom(helper.make_attribute(name, value))

    if what == "zero point":
        zero = next(n for n in graph.node if n.op_type == "QuantizeLinear").input[2]
        values[zero].CopyFrom(numpy_helper.from_array(np.array(3, np.uint8), zero))
    elif what == "stride":
        attribute(convs[1], "strides", [2, 2])
    elif what == "padding":
        attribute(convs[1], "pads", [0, 0, 0, 0])
    elif what == "float weights":
        dequantize = next(n for n in graph.node if convs[1].input[1] in n.output)
        weight = numpy_helper.to_array(values[dequantize.input[0]]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(weight, "kept"))
        convs[1].input[1] = "kept"
    elif what == "another operator":
        graph.node.append(helper.make_node("Softmax", [graph.output[0].name], ["more"], name="node_softmax"))
    elif what == "nearest":
        attribute(next(n for n in graph.node if n.op_type == "Resize"), "mode", "nearest")
    elif what == "two outputs":
        graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    elif what == "pooling":
        attribute(next(n for n in graph.node if n.op_type == "MaxPool"), "kernel_shape", [3, 3])
    elif what == "picture in bytes":
        graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("zero point", "quantize: activations must be uint8 with zero point 0"),
        ("stride", "node_conv2d_1: .*stride 1"),
        ("padding", "node_conv2d_1: the padding"),
        ("float weights", "node_conv2d_1: its weights stay in float"),
        ("another operator", "node_softmax: the engine does not know Softmax"),
        ("nearest", "node_upsample.*: the engine resizes bilinearly"),
        ("two outputs", "2 outputs.*without side maps"),
        ("pooling", "node_max_pool2d.*: the engine pools 2×2"),
        ("picture in bytes", "tensor interface"),
    ],
)
def test_what_cannot_be_packed_is_refused_by_name(int8: Path, what: str, message: str) -> None:
    model = onnx.load(int8)
    spoil(model, what)
    with pytest.raises(ModelError, match=message) as error:
        pack_model(model)
    assert "\n" not in str(error.value)


def test_what_is_no_int8_model_is_refused(int8: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not an int8 model"):
        pack_file(int8.with_name("fp32.onnx"), tmp_path / "x.u2e", PackSettings(count=1))
    with pytest.raises(ConfigError, match=r"a \.u2e file"):
        pack_file(int8, tmp_path / "x.onnx")
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        pack_file(tmp_path / "no.onnx", tmp_path / "x.u2e", PackSettings(count=1))


def test_sums_that_could_overflow_are_refused() -> None:
    """The bound is over all inputs, proven from weights and biases alone."""
    network = random_network(0)
    index = next(i for i, node in enumerate(network.nodes) if getattr(node, "name", "") == "second")
    convolution = network.nodes[index]
    assert isinstance(convolution, Convolution)
    large = replace(convolution, bias=convolution.bias * 0 + 2**31 - 1000)
    steep = replace(convolution, multiplier=convolution.multiplier * np.float32(1e6))
    for wide, message in ((large, "second: its sums can reach"), (steep, "second: its outputs can reach")):
        nodes = (*network.nodes[:index], wide, *network.nodes[index + 1 :])
        with pytest.raises(ModelError, match=message):
            pack_network(replace(network, nodes=nodes))


def test_buffers_that_are_needed_at_one_time_do_not_overlap() -> None:
    model = pack_network(random_network(2, 64, 61, (36, 40))).model
    used: dict[int, list[int]] = {}
    for index, operator in enumerate(model.operators):
        parts = [operator.output, operator.input, operator.second]
        maps: list[int] = []
        if operator.kind == OperatorKind.FUSE:
            count = operator.integers[0]
            maps = np.frombuffer(model.constants, "<u4", count, operator.constants[0]).tolist()
        for buffer in [part.buffer for part in parts if part.channels] + maps:
            used.setdefault(buffer, []).append(index)
    assert sorted(used) == list(range(len(model.buffers)))
    assert sum(buffer.size_bytes for buffer in model.buffers) > model.arena_bytes  # memory is used again
    for a, one in enumerate(model.buffers):
        for b, other in enumerate(model.buffers[:a]):
            at_one_time = min(used[a]) <= max(used[b]) and min(used[b]) <= max(used[a])
            apart = one.offset + one.size_bytes <= other.offset or other.offset + other.size_bytes <= one.offset
            assert apart or not at_one_time


def test_shares_are_measured_beside_scattered_zeros(int8: Path, tmp_path: Path) -> None:
    """Half of the weights zero where they lie: the same multiplications, other masks."""
    from eval.cli import main

    folder = tmp_path / "whole"
    folder.mkdir()
    onnx.save(at_size(onnx.load(int8), 64, 64), folder / "int8.onnx")
    (folder / "int8.u2e").write_bytes(write_model(pack_model(onnx.load(folder / "int8.onnx")).model))
    words = [
        "shares",
        str(folder / "int8.u2e"),
        str(folder / "int8.u2e"),
        "--count",
        "2",
        "--out",
        str(tmp_path / "prune"),
    ]
    assert main(words) == 0
    whole, same, sparse = json.loads((tmp_path / "prune.json").read_text())["rows"]
    assert (whole["name"], whole["share"], whole["iou_mean"]) == ("whole", 1.0, same["iou_mean"])
    assert sparse["name"] == "whole, 50% of its weights zero" and sparse["share"] == 1.0
    assert sparse["size_bytes"] == whole["size_bytes"] and sparse["brotli_bytes"] < whole["brotli_bytes"]
    assert (tmp_path / "prune.svg").read_text().count("<circle") == 6
    assert main(["shares", str(folder / "int8.onnx"), "--out", str(tmp_path / "x")]) == 1

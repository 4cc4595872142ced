"""Exported U²-Nets become PyTorch again, whoever exported them."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from export.exporter import export_model, fold_batch_norm, store_half
from export.passes import ImageInterface
from export.settings import ExportSettings
from tests.support.exports import SIZE, Exported
from tests.u2net.network.test_checkpoint import network, refused
from u2net.errors import CheckpointError
from u2net.network.checkpoint import load_checkpoint
from u2net.network.model import U2Net, U2NetConfig, upsample_to
from u2net.network.onnx_file import onnx_sha256

pytest_plugins = ["tests.support.exports"]


class AuthorsOrder(U2Net):
    """The same network with its forward written in the authors' order: side maps after the whole decoder."""

    def forward(self, x: torch.Tensor, logits: bool = False) -> tuple[torch.Tensor, ...]:
        hx, encoded = x, []
        for index in range(1, 7):
            encoded.append(self.get_submodule(f"stage{index}")(hx))
            hx = F.max_pool2d(encoded[-1], 2, stride=2, ceil_mode=True)
        decoded = [encoded[-1]]
        for index in range(5, 0, -1):
            skip = encoded[index - 1]
            decoded.insert(0, self.get_submodule(f"stage{index}d")(torch.cat((upsample_to(decoded[0], skip), skip), 1)))
        d = [self.get_submodule("side1")(decoded[0])]
        for index in range(2, 7):
            d.append(upsample_to(self.get_submodule(f"side{index}")(decoded[index - 1]), d[0]))
        d0 = self.get_submodule("outconv")(torch.cat(d, 1))
        return tuple(torch.sigmoid(m) for m in (d0, *d))


def authors(model: U2Net) -> U2Net:
    other = AuthorsOrder(U2NetConfig("tiny", model.config.widths)).eval()
    other.load_state_dict(model.state_dict())
    return other


@pytest.fixture(scope="module")
def model() -> U2Net:
    return network()


def legacy(model: torch.nn.Module, opset: int = 11, **settings) -> onnx.ModelProto:
    """As rembg's files were made: torch's TorchScript exporter, opset 11."""
    buffer = io.BytesIO()
    example = (torch.zeros(1, 3, SIZE, SIZE),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, example, buffer, dynamo=False, opset_version=opset, **settings)  # type: ignore[arg-type]
    return onnx.load_model_from_string(buffer.getvalue())


@pytest.fixture(scope="module")
def legacy_proto(model: U2Net) -> onnx.ModelProto:
    return legacy(authors(model))


@pytest.fixture
def own(exported: Exported) -> onnx.ModelProto:
    return exported()


def reload(proto: onnx.ModelProto, folder: Path) -> U2Net:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return load_checkpoint(path)


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def difference(one: U2Net, other: U2Net) -> float:
    x = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return max(float((a - b).abs().max()) for a, b in zip(one(x), other(x), strict=True))


def test_authors_order_is_the_same_network(model: U2Net):
    assert difference(model, authors(model)) < 1e-6


def test_own_export_comes_back(tmp_path: Path, model: U2Net, own: onnx.ModelProto):
    loaded = reload(own, tmp_path)
    assert loaded.config == U2NetConfig("tiny", model.config.widths, size=SIZE)
    assert difference(model, loaded) < 1e-5
    again = export_model(fold_batch_norm(loaded), ExportSettings(size=SIZE))
    assert again.SerializeToString(deterministic=True) == own.SerializeToString(deterministic=True)


@pytest.mark.parametrize("settings", [{"dynamic": True}, {"side_maps": True}], ids=str)
def test_every_form_of_our_own_comes_back(tmp_path: Path, model: U2Net, exported: Exported, settings: dict):
    assert difference(model, reload(exported(**settings), tmp_path)) < 1e-5


@pytest.mark.parametrize("alpha", ["uint8", "float32"])
def test_image_interface_comes_back(tmp_path: Path, model: U2Net, own: onnx.ModelProto, alpha: str):
    rewritten = ImageInterface(alpha=alpha)(ir.from_proto(own)).model
    assert difference(model, reload(ir.to_proto(rewritten), tmp_path)) < 1e-5


@pytest.mark.parametrize(
    "settings", [{"stem": 2}, {"stem": 2, "resql": True}, {"stem": 2, "first_pool": False}], ids=str
)
def test_our_variants_come_back(tmp_path: Path, exported: Exported, settings: dict):
    model = network(**settings)
    loaded = reload(exported(settings), tmp_path)
    assert loaded.config.same_shape(model.config)
    assert difference(model, loaded) < 1e-5


def test_float16_weights_come_back(tmp_path: Path, model: U2Net, own: onnx.ModelProto):
    assert 0 < difference(model, reload(store_half(own), tmp_path)) < 5e-3


def test_small_comes_back_to_the_last_digits(small_weights: Path, small_fp32: Path):
    published, loaded = load_checkpoint(small_weights), load_checkpoint(small_fp32)
    assert loaded.config == published.config
    theirs = published.state_dict()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5, msg=name)


def test_legacy_export_comes_back(tmp_path: Path, model: U2Net, legacy_proto: onnx.ModelProto):
    assert not any(node.op_type == "BatchNormalization" for node in legacy_proto.graph.node)
    assert difference(model, reload(legacy_proto, tmp_path)) < 1e-5


def test_legacy_export_with_batch_norm_comes_back(tmp_path: Path, model: U2Net):
    proto = legacy(authors(model), training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    assert sum(node.op_type == "BatchNormalization" for node in proto.graph.node) == 112
    loaded = reload(proto, tmp_path)
    assert difference(model, loaded) < 1e-5
    ours, theirs = model.state_dict(), loaded.state_dict()
    for name in ours:
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(theirs[name], ours[name], msg=name)


def test_other_epsilon_is_accounted_for(tmp_path: Path, model: U2Net):
    other = authors(model)
    for module in other.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3
    proto = legacy(other, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    assert difference(other, reload(proto, tmp_path)) < 1e-5


def test_names_do_not_matter(tmp_path: Path, model: U2Net, legacy_proto: onnx.ModelProto):
    proto = copied(legacy_proto)
    names: dict[str, str] = {"": ""}

    def renamed(name: str) -> str:
        return names.setdefault(name, f"v{len(names)}")

    for node in proto.graph.node:
        node.name = ""
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for thing in (*proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        thing.name = renamed(thing.name)
    del proto.graph.value_info[:]
    assert difference(model, reload(proto, tmp_path)) < 1e-5


def test_order_of_nodes_does_not_matter(tmp_path: Path, model: U2Net, legacy_proto: onnx.ModelProto):
    """Any topological order: here, of the nodes that could come next always the last one of the file."""
    proto = copied(legacy_proto)
    known = {v.name for v in (*proto.graph.input, *proto.graph.initializer)} | {""}
    waiting = list(proto.graph.node)
    ordered = []
    while waiting:
        index = max(i for i, node in enumerate(waiting) if all(name in known for name in node.input))
        node = waiting.pop(index)
        ordered.append(node)
        known.update(node.output)
    assert [n.op_type for n in ordered] != [n.op_type for n in proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)
    assert difference(model, reload(proto, tmp_path)) < 1e-5


def test_weights_may_be_constant_nodes(tmp_path: Path, model: U2Net, own: onnx.ModelProto):
    proto = copied(own)
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in proto.graph.initializer]
    nodes = [*constants, *proto.graph.node]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    assert difference(model, reload(proto, tmp_path)) < 1e-5


def test_bias_may_be_an_addition(tmp_path: Path, model: U2Net, own: onnx.ModelProto):
    proto = copied(own)
    shapes = {t.name: t for t in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        nodes.append(node)
        if node.op_type == "Conv":
            bias = numpy_helper.to_array(shapes[node.input[2]]).reshape(1, -1, 1, 1)
            proto.graph.initializer.append(numpy_helper.from_array(bias, node.input[2] + "/4d"))
            add = helper.make_node("Add", [node.output[0] + "/raw", node.input[2] + "/4d"], [node.output[0]])
            node.output[0] += "/raw"
            del node.input[2]
            nodes.append(add)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    assert difference(model, reload(proto, tmp_path)) < 1e-5


def test_float16_graph_comes_back(tmp_path: Path, model: U2Net):
    """A graph that computes in float16 from end to end, as the usual converters make it."""
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: TID251  # u2net is imported

    proto = convert_float_to_float16(legacy(authors(model)), keep_io_types=False)
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert difference(model, reload(proto, tmp_path)) < 5e-3


# ---- what is refused -------------------------------------------------------------------------------------------------


def complaint(proto: onnx.ModelProto, folder: Path) -> str:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return refused(path)


def convolutions(count: int, weight: np.ndarray) -> onnx.ModelProto:
    nodes = [helper.make_node("Conv", [f"v{i}", "w"], [f"v{i + 1}"], pads=[1, 1, 1, 1]) for i in range(count)]
    shape = [1, 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"v{count}", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize("count", [0, 1, 5, 119])
def test_other_networks_are_refused(tmp_path: Path, count: int):
    said = complaint(convolutions(count, np.zeros((3, 3, 3, 3), np.float32)), tmp_path)
    assert "is not a U²-Net" in said


def test_damaged_weights_are_refused(tmp_path: Path, own: onnx.ModelProto):
    proto = copied(own)
    proto.graph.initializer[0].raw_data = b"123"
    assert "damaged" in complaint(proto, tmp_path)


def test_weights_computed_in_the_graph_are_refused(tmp_path: Path, own: onnx.ModelProto):
    proto = copied(own)
    name = proto.graph.node[0].input[1]
    proto.graph.node[0].input[1] = "doubled"
    proto.graph.node.insert(0, helper.make_node("Add", [name, name], ["doubled"]))
    assert "computed in the graph" in complaint(proto, tmp_path)


def test_quantized_models_are_refused_by_name(tmp_path: Path, own: onnx.ModelProto):
    proto = copied(own)
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    zero = numpy_helper.from_array(np.array(0, np.uint8), "zero")
    proto.graph.initializer.extend([scale, zero])
    proto.graph.node.insert(0, helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]))
    assert "quantized" in complaint(proto, tmp_path)


def test_external_data_beside_the_graph_is_read(tmp_path: Path, model: U2Net, own: onnx.ModelProto):
    path = tmp_path / "model.onnx"
    onnx.save_model(copied(own), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert difference(model, load_checkpoint(path)) < 1e-5
    before = onnx_sha256(path)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[::-1])
    assert onnx_sha256(path) != before, "the weights are part of the model's identity"
    (tmp_path / "weights.bin").write_bytes(b"short")
    assert "is not what weights.bin holds" in refused(path)
    (tmp_path / "weights.bin").unlink()
    assert "is not beside it; copy both files" in refused(path)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "link.bin", ""])
def test_external_data_of_another_folder_is_never_read(tmp_path: Path, own: onnx.ModelProto, location: str):
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    proto = copied(own)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    assert "outside its own folder, which is refused" in complaint(proto, folder)


def test_external_data_that_is_a_pipe_is_not_waited_for(tmp_path: Path, own: onnx.ModelProto):
    os.mkfifo(tmp_path / "pipe.bin")
    proto = copied(own)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="pipe.bin")
    assert "not a regular file" in complaint(proto, tmp_path)


@pytest.mark.parametrize("kept", [0.1, 0.6, 0.999])
def test_truncated_models_are_refused(tmp_path: Path, own: onnx.ModelProto, kept: float):
    data = own.SerializeToString()
    (tmp_path / "w.onnx").write_bytes(data[: int(len(data) * kept)])
    refused(tmp_path / "w.onnx")


def test_same_convolutions_with_other_resizing_are_refused(tmp_path: Path, own: onnx.ModelProto):
    """All weights are those of a U²-Net, but the graph computes something else with them."""
    proto = copied(own)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Resize" and attribute.name == "mode":
                attribute.s = b"nearest"
    assert "another mask" in complaint(proto, tmp_path)


def test_average_instead_of_largest_is_refused(tmp_path: Path, own: onnx.ModelProto):
    proto = copied(own)
    for node in proto.graph.node:
        if node.op_type == "MaxPool":
            node.op_type = "AveragePool"
    assert "is not a U²-Net" in complaint(proto, tmp_path)


def test_swapped_decoder_inputs_are_refused(tmp_path: Path, own: onnx.ModelProto):
    proto = copied(own)
    joins = [node for node in proto.graph.node if node.op_type == "Concat" and len(node.input) == 2]
    joins[-1].input[:] = list(reversed(joins[-1].input))
    assert "reads what no convolution of a U²-Net reads" in complaint(proto, tmp_path)


def test_a_network_of_four_classes_is_named(tmp_path: Path):
    """As in the clothes parser that shares the layout: four classes instead of one."""

    class FourClasses(U2Net):
        def __init__(self, config: U2NetConfig) -> None:
            super().__init__(config)
            for index in range(1, 7):
                conv = self.get_submodule(f"side{index}")
                assert isinstance(conv, torch.nn.Conv2d)
                self.add_module(f"side{index}", torch.nn.Conv2d(conv.in_channels, 4, 3, padding=1))
            self.outconv = torch.nn.Conv2d(24, 4, 1)

    torch.manual_seed(0)
    proto = legacy(FourClasses(network().config).eval())
    said = complaint(proto, tmp_path)
    assert "gives 4 maps for a picture" in said and "one for each of 4 classes" in said


def test_missing_file():
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint("nowhere/model.onnx")

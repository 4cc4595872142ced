"""Any exporter's U²-Net becomes a graph that the passes can work on and that gives the same masks."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from quantize.graph import FloatGraph, load_graph
from quantize.intake import take_in
from quantize.observe import observe
from quantize.settings import QuantizeSettings
from quantize.stage import quantize_file
from tests.support.exports import Exported
from u2net.errors import ModelError, U2NetError
from u2net.network.model import StageWidths, U2Net, U2NetConfig

pytest_plugins = ["tests.support.exports"]

SIZE = 64


class Outputs(torch.nn.Module):
    """The first `count` maps of a network."""

    def __init__(self, model: U2Net, count: int) -> None:
        super().__init__()
        self.net = model
        self.count = count

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.net(x)[: self.count]


@pytest.fixture(scope="module")
def model() -> U2Net:
    """Just wide enough to have integer convolutions, with batch norms that do something."""
    torch.manual_seed(3)
    made = U2Net(U2NetConfig("wide", (StageWidths(8, 8),) * 11)).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return made


def exported(
    model: U2Net,
    path: Path,
    *,
    opset: int = 11,
    maps: int = 1,
    batch: int = 1,
    size: tuple[int, int] = (SIZE, SIZE),
    free: dict[int, str] | None = None,
    dynamo: bool = False,
    fold: bool = True,
    half: bool = False,
    external: bool = False,
) -> Path:
    """`model` as torch's exporters write it."""
    names = [f"out{59 + index}" for index in range(maps)]
    buffer = io.BytesIO()
    settings: dict[str, Any] = {"opset_version": opset, "input_names": ["input.1"], "output_names": names}
    if dynamo:
        shapes = dict.fromkeys(free, torch.export.Dim.AUTO) if free else None
        settings |= {"dynamo": True, "dynamic_shapes": (shapes,) if shapes else None, "verbose": False}
    else:
        axes = dict.fromkeys(("input.1", *names), free) if free else None
        training = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
        settings |= {"dynamo": False, "dynamic_axes": axes, "training": training, "do_constant_folding": fold}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Outputs(model, maps).eval(), (torch.zeros(batch, 3, *size),), buffer, **settings)  # type: ignore[arg-type]
    proto = onnx.load_model_from_string(buffer.getvalue())
    if half:
        for tensor in proto.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(tensor).astype(np.float16)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for node in proto.graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT and attribute.t.dims:
                    values = numpy_helper.to_array(attribute.t).astype(np.float16)
                    attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        del proto.graph.value_info[:]
    onnx.save_model(proto, path, save_as_external_data=external, location="model.onnx.data", size_threshold=0)
    return path


FORMS: dict[str, dict[str, Any]] = {
    "legacy, opset 9, seven outputs": {"opset": 9, "maps": 7},
    "legacy, opset 11, seven outputs, as rembg's": {"maps": 7},
    "legacy, opset 12, free batch": {"opset": 12, "free": {0: "batch"}},
    "legacy, opset 13, all free": {"opset": 13, "free": {0: "b", 2: "h", 3: "w"}},
    "legacy, opset 17": {"opset": 17},
    "legacy, a batch of four": {"batch": 4},
    "legacy, not square": {"size": (64, 96)},
    "legacy, batch norms as they are": {"fold": False},
    "legacy, float16": {"opset": 13, "half": True},
    "legacy, external data": {"opset": 13, "external": True},
    "dynamo, opset 18, seven outputs": {"opset": 18, "maps": 7, "dynamo": True},
    "dynamo, opset 22, external data": {"opset": 22, "dynamo": True, "external": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_any_exporters_graph_is_taken_in(tmp_path: Path, model: U2Net, form: str) -> None:
    settings = FORMS[form]
    size = settings.get("size", (SIZE, SIZE))
    free = "free" in settings
    graph = load_graph(exported(model, tmp_path / "given.onnx", **settings))
    assert graph.input_shape == ((1, 3, 320, 320) if 2 in settings.get("free", {}) else (1, 3, *size)), free
    assert graph.opset >= 13 and len(graph.convs) == 119
    assert len(graph.outputs) == settings.get("maps", 1)
    assert {node.op_type for node in graph.nodes} <= {"Conv", "Relu", "MaxPool", "Resize", "Concat", "Add", "Sigmoid"}
    assert all(weight.dtype == np.float32 for name, weight in graph.weights.items() if name.endswith("weight"))
    assert graph.convs[3].name == "stage1.rebnconv3"
    if settings.get("opset") == 9 or settings.get("half"):
        return  # opset 9 resizes otherwise, as the file does; `take_in` has compared the two graphs
    from quantize.sessions import open_session

    x = torch.rand(1, 3, *graph.input_shape[2:], generator=torch.Generator().manual_seed(1))
    found = open_session(graph.to_model(), 1).run(None, {graph.input: x.numpy()})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(found, model(x)[0].numpy(), atol=2e-4)


@pytest.mark.parametrize("form", ["legacy, opset 11, seven outputs, as rembg's", "dynamo, opset 22, external data"])
def test_a_foreign_graph_is_quantized(tmp_path: Path, model: U2Net, form: str) -> None:
    source = exported(model, tmp_path / "given.onnx", **FORMS[form])
    settings = QuantizeSettings(count=2, check_count=2, method="nearest", floor=0.0, max_mae=1.0, threads=1)
    try:
        made = quantize_file(source, tmp_path / "int8.onnx", None, settings)
    except U2NetError as error:
        pytest.fail(str(error))
    assert made["figures"]["integer_macs_share"] > 0.5


def test_own_dynamic_export_is_frozen(exported: Exported) -> None:
    model = exported(dynamic=True, batch="dynamic")
    graph = FloatGraph(take_in(model, "dynamic.onnx"))
    assert graph.input_shape == (1, 3, 64, 64) and graph.metadata["u2net.size"] == "64"


def test_own_export_is_left_as_it_is(exported: Exported) -> None:
    model = exported()
    assert take_in(model, "own.onnx") is model


def test_logits_are_refused_with_the_cure(tmp_path: Path, exported: Exported) -> None:
    model = exported()
    last = model.graph.node[-1]
    assert last.op_type == "Sigmoid"
    model.graph.output[0].name = last.input[0]
    del model.graph.node[-1]
    graph = FloatGraph(model)
    x = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32) * 8
    with pytest.raises(ModelError, match=r"not a mask in \[0, 1\]; `python -m export --weights"):
        observe(graph, [x], budget=64, seed=0, threads=1)


@pytest.mark.parametrize("shape", [[1, 1, 64, 64], [1, 3, 64]])
def test_another_input_is_refused_in_words(exported: Exported, shape: list[int]) -> None:
    model = exported()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    del dims[:]
    for value in shape:
        dims.add().dim_value = value
    with pytest.raises(ModelError, match=r"takes an input of shape"):
        take_in(model, "other.onnx")

"""Any exporter's U²-Net becomes a graph that the passes can work on and that gives the same masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quantize.graph import FloatGraph, load_graph
from quantize.intake import take_in
from quantize.observe import observe
from quantize.settings import QuantizeSettings
from quantize.stage import quantize_file
from tests.support.exports import Exported
from tests.support.forms import GRAPHS, SIZE, graph_outcome, wide_network
from tests.support.forms import exported as exported_by_torch
from tests.support.paths import ROOT
from u2net.errors import ModelError, U2NetError
from u2net.network.model import U2Net

pytest_plugins = ["tests.support.exports"]


@pytest.fixture(scope="module")
def model() -> U2Net:
    return wide_network()


@pytest.fixture(scope="module")
def documented() -> str:
    return (ROOT / "docs" / "forms.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", GRAPHS)
def test_any_exporters_graph_is_taken_in(tmp_path: Path, model: U2Net, form: str, documented: str) -> None:
    settings = GRAPHS[form]
    to_export, to_quantize = graph_outcome(form, model, tmp_path / "given.onnx")
    assert not to_export.startswith("refused") and not to_quantize.startswith("refused")
    assert f"| {form} | {to_export} | {to_quantize} |\n" in documented, "run `python docs/forms.py`"
    size = settings.get("size", (SIZE, SIZE))
    free = "free" in settings
    graph = load_graph(tmp_path / "given.onnx")
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
    source = exported_by_torch(model, tmp_path / "given.onnx", **GRAPHS[form])
    settings = QuantizeSettings(count=2, check_count=2, method="nearest", floor=0.0, max_mae=1.0, threads=1)
    try:
        made = quantize_file(source, tmp_path / "int8.onnx", None, settings)
    except U2NetError as error:
        pytest.fail(str(error))
    assert made["figures"]["integer_macs_share"] > 0.5


def test_own_dynamic_export_is_frozen(exported: Exported) -> None:
    model = exported(dynamic=True)
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

"""Graphs of other sizes, batches and operator versions, from the export to the engine and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from datasets.synthetic import SyntheticSet
from export.exporter import at_opset, export_model, fold_batch_norm, ir_version
from export.parity import expected_maps, measure_parity
from export.settings import ExportSettings
from tests.support.exports import Exported
from u2net.errors import ConfigError, ModelError
from u2net.infer import Session
from u2net.network.model import StageWidths, U2Net, U2NetConfig
from u2net.preprocess import Size, read_size, write_size
from u2net.runtime import onnxruntime

pytest_plugins = ["tests.support.exports"]

OBLONG = (64, 96)
ASKED = ExportSettings(size=OBLONG, batch="dynamic")
PLAIN = ("--method", "nearest", "--count", "3", "--check", "2", "--floor", "0", "--max-mae", "1")


@pytest.fixture(scope="module")
def model() -> U2Net:
    """Just wide enough to have integer convolutions."""
    torch.manual_seed(3)
    return fold_batch_norm(U2Net(U2NetConfig("wide", (StageWidths(8, 8),) * 11)))


@pytest.fixture(scope="module")
def fp32(model: U2Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Any number of pictures at a time, of 64 × 96 pixels."""
    path = tmp_path_factory.mktemp("oblong") / "fp32.onnx"
    onnx.save(export_model(model, ASKED), path)
    return path


def test_the_graph_is_what_was_asked_for_and_proven(model: U2Net, fp32: Path) -> None:
    proto = onnx.load(fp32)
    assert next(entry.version for entry in proto.opset_import if entry.domain == "") == 18 and proto.ir_version == 8
    for value, channels in ((proto.graph.input[0], 3), (proto.graph.output[0], 1)):
        dims = [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        assert dims == ["batch", channels, *OBLONG]
    scenes = [scene.rgb for scene in SyntheticSet(2, 0)]
    parity = measure_parity(proto, expected_maps(model, ASKED, scenes))
    assert parity.pictures == 2 and parity.max_difference < 1e-5
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "outconv.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    assert measure_parity(proto, expected_maps(model, ASKED, scenes), limit=None).max_difference > 1e-3


def test_from_an_oblong_export_to_the_engine_and_the_report(
    tmp_path: Path, fp32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quantize took the height for both sides, and eval knew only squares."""
    from engine.cli import main as engine
    from eval.cli import main as evaluate
    from quantize.cli import main as quantize

    int8, packed = tmp_path / "int8.onnx", tmp_path / "int8.u2e"
    assert quantize([str(fp32), "--out", str(int8), *PLAIN]) == 0
    assert "int8.onnx takes one picture of a fixed size, 1×3×64×96, unlike fp32.onnx" in capsys.readouterr().err
    session = onnxruntime.InferenceSession(int8, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, *OBLONG] and session.get_outputs()[0].shape == [1, 1, *OBLONG]
    assert Session(int8, threads=1).saliency(SyntheticSet(1, 0)[0].rgb).shape == OBLONG
    with pytest.raises(ModelError, match=r"64 high and 96 wide; a square one .* `u2net export --size 320`"):
        _ = Session(int8).size
    assert engine([str(int8), "--out", str(packed), "--count", "2"]) == 0
    assert json.loads(Path(f"{packed}.json").read_text())["settings"]["input_size"] == list(OBLONG)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for index, scene in enumerate(SyntheticSet(2, 3)):
        Image.fromarray(scene.rgb).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.fromarray(((scene.alpha > 0.5) * 255).astype(np.uint8)).save(tmp_path / "data" / "masks" / f"{index}.png")
    words = [str(int8), str(packed), "--data", str(tmp_path / "data"), "--no-latency", "--workers", "1"]
    assert evaluate([*words, "--out", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [model["graph"]["size"] for model in report["models"]] == [list(OBLONG)] * 2
    assert "64x96 px, tensor" in (tmp_path / "report" / "report.html").read_text()


def test_an_older_opset_computes_the_same(exported: Exported) -> None:
    newest = exported()
    older = onnx.ModelProto()
    older.CopyFrom(newest)
    older = at_opset(older, 13)
    older.ir_version = ir_version(13)
    onnx.checker.check_model(older, full_check=True)
    assert older.opset_import[0].version == 13 and older.ir_version == 7
    x = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    maps = [
        onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"input": x})[0] for proto in (newest, older)
    ]
    np.testing.assert_array_equal(*maps)


def test_several_pictures_at_a_time_are_refused_where_one_is_needed(tmp_path: Path, fp32: Path) -> None:
    from eval.models import graph_facts

    proto = onnx.load(fp32)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    fp32 = tmp_path / "three.onnx"
    onnx.save(proto, fp32)
    for reader in (Session, graph_facts):
        with pytest.raises(ModelError, match="takes 3 pictures at a time; export it with `--batch 1`"):
            reader(fp32)


@pytest.mark.parametrize(("text", "size"), [("320", 320), ("256x320", (256, 320)), ("64x64", 64)])
def test_a_size_is_read_as_it_is_written(text: str, size: Size) -> None:
    assert read_size(text) == size and read_size(write_size(size)) == size


@pytest.mark.parametrize("text", ["", "x", "320x", "-1", "3e2", "320x320x3", "320 ", "٣٢٠"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert read_size(text) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "16x64"), "--size must be 32 to 2048 pixels, got 16x64"),
        (("--size", "wide"), "expected pixels, as 320, or height by width, as 256x320"),
        (("--batch", "0"), "--batch must be 1 to 64 pictures, or dynamic"),
        (("--batch", "all"), "expected a number of pictures, or dynamic"),
        (("--opset", "12"), "--opset must be 13 to 22"),
        (("--opset", "14", "--dynamic"), "an --opset below 18 goes with fixed sides; leave --dynamic and"),
        (
            ("--interface", "image", "--batch", "2"),
            "--batch goes with the tensor interface; leave --interface image out",
        ),
        (("--interface", "image", "--opset", "17"), "an --opset below 18 goes with the tensor interface"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from export.cli import main

    assert main(["--out", str(tmp_path / "fp32.onnx"), *words]) != 0
    assert said in capsys.readouterr().err
    with pytest.raises(ConfigError):
        ExportSettings(size=(64, 4096))

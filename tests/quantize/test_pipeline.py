"""The quantize command from end to end: on a small network made from nothing, and on `small` with real photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from datasets.calibration import CalibrationImages, CalibrationSplit
from engine.sizes import at_size
from export.passes import ImageInterface
from quantize.agreement import agreement
from quantize.cli import main
from quantize.graph import load_graph
from quantize.plan import without
from quantize.settings import QuantizeSettings
from quantize.stage import ADDED, quantize_file
from quantize.verdict import refuse_poor, refuse_subjectless, warnings_of
from tests.support.quantize_graphs import network, save_network
from u2net.artifact import sidecar_path, verify_artifact
from u2net.errors import ConfigError, DataError, QualityError

QUICK = ["--count", "4", "--threads", "1"]
FEW = ["--check", "4"]


def photographs(folder: Path, count: int) -> Path:
    """A folder of `count` pictures that are all different."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), np.uint8))
        coarse.resize((120, 120), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def float_model(tmp_path_factory) -> Path:
    """A network of 64×64 with a planted constant channel."""
    return save_network(tmp_path_factory.mktemp("float") / "fp32.onnx", constant=60.0, size=64)


def test_command_writes_a_proven_model(float_model, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    assert main([str(float_model), "--out", str(out), "--floor", "0.8", "--json", *QUICK, "--check", "6"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == verify_artifact(out)
    figures = printed["figures"]
    assert printed["stage"] == "quantize"
    assert figures["integer_convolutions"] == 6
    assert set(figures["float_convolutions"]) == {"stage1.rebnconvin", "side1"}
    assert figures["split_channels"] == ["stage1.rebnconv2d[3]"]
    assert figures["agreement"]["pictures"] == 6
    assert figures["agreement"]["iou_mean"] > 0.9
    assert set(printed["inputs"]) == {"model", "calibration", "check"}


@pytest.mark.parametrize("arguments", [["--fast"], ["--format", "qoperator"], ["--calibrator", "entropy", "--fast"]])
def test_same_inputs_same_bytes(float_model, tmp_path, arguments):
    files = []
    for name in ("a", "b"):
        out = tmp_path / name / "int8.onnx"
        assert main([str(float_model), "--out", str(out), "--floor", "0.5", *arguments, *QUICK, *FEW]) == 0
        files.append((out.read_bytes(), sidecar_path(out).read_bytes()))
    assert files[0] == files[1]


@pytest.mark.parametrize("form", ["weights", "fp16"])
def test_variants_for_engines_that_compute_in_float(float_model, tmp_path, form):
    out = tmp_path / f"{form}.onnx"
    sidecar = quantize_file(float_model, out, None, QuantizeSettings(format=form, count=4, check_count=4, threads=1))
    assert sidecar["figures"]["agreement"]["iou_mean"] > 0.97
    assert out.stat().st_size < 0.75 * float_model.stat().st_size
    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert "QLinearConv" not in kinds and "QuantizeLinear" not in kinds


def test_below_the_floor_nothing_is_written(float_model, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    assert main([str(float_model), "--out", str(out), "--method", "nearest", "--floor", "0.99999", *QUICK, *FEW]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "below the floor of 0.99999" in error
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_an_earlier_model_alone(float_model, tmp_path):
    out = tmp_path / "int8.onnx"
    out.write_bytes(b"earlier")
    assert main([str(float_model), "--out", str(out), "--method", "nearest", "--floor", "0.99999", *QUICK, *FEW]) == 1
    assert out.read_bytes() == b"earlier"


def test_blank_masks_are_refused(tmp_path):
    model = network(size=64)
    for tensor in model.graph.initializer:
        if tensor.name == "side1.conv_s1.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 16, 3, 3), np.float32), tensor.name))
        elif tensor.name == "side1.conv_s1.bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), tensor.name))
    onnx.save(model, tmp_path / "fp32.onnx")
    settings = QuantizeSettings(count=2, check_count=2, method="bias", floor=0.0, threads=1)
    with pytest.raises(QualityError, match="blank on every picture"):
        quantize_file(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", None, settings)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_model_of_thin_layers_has_nothing_to_quantize(tiny_fp32, tmp_path, capsys):
    assert main([str(tiny_fp32), "--out", str(tmp_path / "int8.onnx"), *QUICK]) == 1
    assert "no convolution of this model is left to become integer" in capsys.readouterr().err


def test_another_model_than_the_sidecar_speaks_of_is_refused(tiny_fp32, tmp_path, capsys):
    model = tmp_path / "fp32.onnx"
    model.write_bytes(tiny_fp32.read_bytes() + b"\0")
    sidecar_path(model).write_bytes(sidecar_path(tiny_fp32).read_bytes())
    assert main([str(model), "--out", str(tmp_path / "int8.onnx"), *QUICK]) == 1
    assert "is not the file that its sidecar speaks of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.onnx", "--out", "x.onnx"], "does not exist"),
        (["MODEL", "--out", "x.bin"], "the output is an .onnx file"),
        (["MODEL", "--out", "MODEL"], "would overwrite"),
        (["MODEL", "--out", "x.onnx", "--calib", "EMPTY"], "EMPTY"),
        (["MODEL", "--out", "x.onnx", "--calib", "absent-folder"], "absent-folder"),
        (["MODEL", "--out", "x.onnx", "--count", "0"], "at least 1"),
        (["MODEL", "--out", "x.onnx", "--floor", "2"], r"lies in [0, 1]"),
        (["MODEL", "--out", "x.onnx", "--fast", "--method", "learned"], "--fast means"),
        (["sensitivity", "absent.onnx", "--out", "x"], "does not exist"),
        (["compare", "absent.onnx"], "does not exist"),
    ],
)
def test_bad_input_is_one_line(float_model, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    assert main([str(float_model) if word == "MODEL" else word for word in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["EMPTY"]


@pytest.mark.parametrize("text", ["iou", "mae=0.1", "iou=2", "iou=many"])
def test_a_budget_that_makes_no_sense_is_wrong_usage(float_model, text, capsys):
    assert main([str(float_model), "--out", "x.onnx", "--budget", text]) == 2
    assert "expected iou=X" in capsys.readouterr().err


def test_budget_keeps_some_layers_in_float(float_model, tmp_path):
    """A budget between what rounding to nearest reaches and what float reaches."""
    common: dict[str, Any] = {
        "method": "nearest",
        "split": False,
        "equalize": False,
        "count": 4,
        "check_count": 4,
        "threads": 1,
    }
    plain = quantize_file(float_model, tmp_path / "plain.onnx", None, QuantizeSettings(**common, floor=0.0))
    reached = plain["figures"]["agreement"]["iou_mean"]
    assert reached < 0.97, "the planted channel must hurt, or the budget has nothing to do"
    budget = (reached + 2) / 3
    try:
        mixed = quantize_file(
            float_model, tmp_path / "mixed.onnx", None, QuantizeSettings(**common, floor=0.0, budget=budget)
        )
    except QualityError as error:
        pytest.fail(str(error))
    kept = {name for name, why in mixed["figures"]["float_convolutions"].items() if "kept to meet" in why}
    assert kept
    assert mixed["figures"]["integer_convolutions"] == 6 - len(kept)
    assert mixed["figures"]["agreement"]["iou_mean"] >= budget


def test_keep_float_is_obeyed(float_model, tmp_path):
    out = tmp_path / "int8.onnx"
    words = [str(float_model), "--out", str(out), "--fast", "--floor", "0.5", "--keep-float", "stage2.rebnconvin", *FEW]
    assert main([*words, *QUICK]) == 0
    assert "stage2.rebnconvin" in json.loads(sidecar_path(out).read_bytes())["figures"]["float_convolutions"]


def test_sensitivity_finds_the_planted_layer(float_model, tmp_path, capsys):
    out = tmp_path / "sensitivity"
    words = ["sensitivity", str(float_model), "--out", str(out), "--raw", "--check", "3", "--json", *QUICK]
    assert main(words) == 0
    value = json.loads(capsys.readouterr().out)
    harm = [layer["mae_mean"] for layer in value["layers"]]
    assert harm == sorted(harm, reverse=True), "the most harmful first: what to keep in float is the top of the list"
    assert all(layer["float_bytes"] > 0 for layer in value["layers"])
    worst = value["layers"][0]
    assert worst["name"] == "stage1.rebnconv1d", "the layer that reads the planted channel"
    assert len(value["layers"]) == 6
    assert "| stage1.rebnconv1d |" in out.with_suffix(".md").read_text()
    assert out.with_suffix(".svg").read_text().count("<rect") == 7
    curve = value["curve"]
    assert [point["layers"] for point in curve] == [0, 1, 2, 4, 5]
    sizes = [point["size_bytes"] for point in curve]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1], "a layer in float takes more bytes"
    assert curve[1]["mae_mean"] < curve[0]["mae_mean"], "without the planted layer in integers the masks are nearer"
    assert all(point["latency_ms"] > 0 for point in curve)
    assert "| 1 | " in out.with_suffix(".md").read_text()
    assert out.with_name("sensitivity-curve.svg").read_text().count("<circle") == 3 * len(curve)


def test_pictures_for_the_check_are_not_those_calibrated_on(float_model, tmp_path):
    folder = photographs(tmp_path / "photographs", 6)
    settings = QuantizeSettings(count=4, check_count=8, method="bias", floor=0.0, threads=1)
    some = quantize_file(float_model, tmp_path / "a.onnx", folder, settings)
    assert some["figures"]["check"] == {"source": "photographs", "pictures": 2}
    every = quantize_file(float_model, tmp_path / "b.onnx", folder, QuantizeSettings(
        count=6, check_count=8, method="bias", floor=0.0, threads=1))  # fmt: skip
    assert every["figures"]["check"] == {"source": "photographs", "pictures": 1}, "the domain is never changed"
    helped = {"source": "photographs and procedural", "pictures": 5 + ADDED}
    assert every["figures"]["calibration"] == helped, "colours without a subject do not show what a photograph may"
    assert every["figures"]["agreement_on_scenes"]["pictures"] == 12
    assert any("calibrated on 5 pictures only" in warning for warning in every["figures"]["warnings"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("black", "20 pictures are of one colour: 00.png, 01.png, 02.png and 17 more"),
        ("red", "20 pictures are of one colour"),
        ("copies", "19 pictures are copies of others: "),
        ("three", "has 3 usable pictures, fewer than 4"),
    ],
)
def test_pictures_that_say_nothing_are_refused_by_name(float_model, tmp_path, capsys, kind, message):
    """Twenty black pictures gave a mean IoU of 1.0000 and a model whose masks agreed to 0.017."""
    folder = tmp_path / kind
    (original,) = photographs(tmp_path / "one", 1).iterdir()
    if kind == "three":
        photographs(folder, 3)
    for index in range(0 if kind == "three" else 20):
        folder.mkdir(exist_ok=True)
        with Image.open(original) as opened:
            if kind == "copies" and index % 2:  # as JPEG and smaller: a copy all the same
                opened.resize((90, 90), Image.Resampling.LANCZOS).save(folder / f"{index:02d}.jpg", quality=70)
            elif kind == "copies":
                opened.save(folder / f"{index:02d}.png")
            else:
                Image.new("RGB", (40, 30), kind).save(folder / f"{index:02d}.png")
    out = tmp_path / "int8.onnx"
    assert main([str(float_model), "--calib", str(folder), "--out", str(out), "--fast", "--threads", "1"]) == 1
    error = capsys.readouterr().err
    assert message in error and "leave --calib out to use the procedural set" in error
    assert not out.exists()


def test_useless_pictures_among_good_ones_are_left_out_and_named(float_model, tmp_path):
    folder = photographs(tmp_path / "mixed", 8)
    Image.new("RGB", (40, 30), "white").save(folder / "white.png")
    (folder / "again.png").write_bytes((folder / "3.png").read_bytes())
    made = quantize_file(float_model, tmp_path / "int8.onnx", folder, QuantizeSettings(
        count=6, check_count=8, method="bias", floor=0.0, max_mae=1.0, threads=1))  # fmt: skip
    figures = made["figures"]
    assert (figures["calibration"]["pictures"], figures["check"]["pictures"]) == (6 + ADDED, 2)
    said = " ".join(figures["warnings"])
    assert "1 pictures are of one colour: white.png" in said
    assert "again.png (of 3.png)" in said or "3.png (of again.png)" in said


def test_pictures_without_a_subject_are_refused_or_named():
    """Masks that are empty on both sides always agree; screenshots were said to agree to 0.995 that way."""
    images = CalibrationImages("shots", tuple("abcdef"), lambda index: np.zeros((1, 1, 3), np.uint8))
    split = CalibrationSplit(images[:4], images[4:])
    assert refuse_subjectless(split, [0.2, 0.0, 0.3, 0.4, 0.5, 0.0]) == ("b", "f")
    with pytest.raises(DataError, match=r"no subject in 4 of 6 pictures of shots \(a, b, c and 1 more\)"):
        refuse_subjectless(split, [0.0, 0.0, 0.0, 0.4, 0.5, 0.0])
    with pytest.raises(DataError, match="no subject in 2 of 6"):
        refuse_subjectless(split, [0.2, 0.2, 0.3, 0.4, 0.0, 0.0])


def test_the_verdict_rests_on_three_figures():
    def maps(*shares: float) -> list[np.ndarray]:
        """Maps of 1000 pixels whose first `share` is mask."""
        return [(np.arange(1000) < 1000 * share).astype(np.float32) for share in shares]

    settings = QuantizeSettings(floor=0.9, max_mae=0.03)
    refuse_poor(agreement(maps(0.5, 0.5), maps(0.5, 0.5)), settings)
    # one small mask that is lost: nothing of the pooled IoU, a quarter of the mean
    with pytest.raises(QualityError, match=r"mean IoU of 0\.7500"):
        refuse_poor(agreement(maps(0.5, 0.5, 0.5, 0.002), maps(0.5, 0.5, 0.5, 0)), settings)
    # many small ones that are right, a large one that is wrong
    with pytest.raises(QualityError, match=r"pooled IoU of 0\.6"):
        refuse_poor(agreement(maps(*[0.01] * 9, 0.5), maps(*[0.01] * 9, 0.3)), settings)
    with pytest.raises(QualityError, match="differ from float by 0\\.0400"):
        refuse_poor(agreement(maps(0.5), [maps(0.5)[0] * np.float32(0.92)]), settings)
    # a mask that both models leave empty is no evidence for either
    assert agreement(maps(0.5, 0), maps(0.4, 0)).iou_mean == pytest.approx(0.8)


def test_a_folder_that_does_not_show_everything_is_told_of():
    images = CalibrationImages("people", tuple("abcdefghijkl"), lambda index: np.zeros((1, 1, 3), np.uint8))
    split = CalibrationSplit(images[:9], images[9:])
    half, less = (np.arange(100) < 50).astype(np.float32), (np.arange(100) < 40).astype(np.float32)
    good, poor = agreement([half], [half]), agreement([half], [less])
    assert warnings_of(split, (), good, good) == []
    assert "procedural scenes agree to 0.8000 only, 1.0000" in warnings_of(split, (), good, poor)[0]
    assert (
        "sees no subject in most procedural scenes"
        in warnings_of(split, (), good, agreement([half * 0], [half * 0]))[0]
    )


def test_an_unknown_layer_is_refused_with_those_that_there_are(float_model, tmp_path, capsys):
    words = [str(float_model), "--out", str(tmp_path / "x.onnx"), "--keep-float", "stage9.nope", *QUICK]
    assert main(words) == 1
    assert "the model has no such layer; close to it are stage" in capsys.readouterr().err


def test_settings_refuse_what_cannot_work():
    for wrong in ({"method": "best"}, {"calibrator": "median"}, {"format": "int4"}, {"seed": -1}, {"budget": 1.5}):
        with pytest.raises(ConfigError):
            QuantizeSettings(**wrong)


def test_agreement_by_hand():
    first = np.array([[0.9, 0.9], [0.1, 0.1]], np.float32)
    second = np.array([[0.9, 0.1], [0.1, 0.1]], np.float32)
    nothing = second * 0
    found = agreement([first, first, nothing], [first, second, nothing])
    np.testing.assert_allclose(found.mae, [0, 0.2, 0])
    np.testing.assert_allclose(found.iou, [1, 0.5])
    summary = found.summary()
    assert (summary["pictures"], summary["empty_pictures"]) == (3, 1)
    assert (summary["iou_mean"], summary["iou_pooled"]) == (0.75, 0.75)
    assert agreement([nothing], [nothing]).iou_mean == 0, "empty masks are no evidence"


def test_image_interface_is_quantized_the_same_way(float_model, tmp_path):
    """uint8 pixels in, the normalisation in front of the first convolution stays what it is."""
    model = tmp_path / "image.onnx"
    plain = onnx.load(float_model)
    onnx.save(ir.to_proto(ImageInterface(alpha="float32")(ir.from_proto(plain)).model), model)
    settings = QuantizeSettings(count=2, check_count=2, method="bias", floor=0.5, samples=2048)
    sidecar = quantize_file(model, tmp_path / "int8.onnx", None, settings)
    tensors = quantize_file(float_model, tmp_path / "tensor.onnx", None, settings)
    for figure in ("integer_convolutions", "float_convolutions", "split_channels"):
        assert sidecar["figures"][figure] == tensors["figures"][figure]
    graph = onnx.load(tmp_path / "int8.onnx").graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert load_graph(model).interface == "image"


@pytest.fixture(scope="module")
def small_at_160(small_fp32, tmp_path_factory) -> Path:
    """`small` for pictures of 160 × 160: the same weights, a quarter of the time."""
    path = tmp_path_factory.mktemp("small") / "fp32.onnx"
    onnx.save(at_size(onnx.load(small_fp32), 160, 160), path)
    return path


def test_small_in_eight_bits_on_photographs(small_at_160, shared, tmp_path):
    """The model that common tools ruin (mean IoU 0.00 to 0.69), by the quick recipe, on photographs it has not seen."""
    settings = QuantizeSettings(count=12, check_count=6, method="refit", samples=8192, floor=0.0)
    sidecar = quantize_file(small_at_160, tmp_path / "int8.onnx", shared / "data" / "calib" / "images", settings)
    figures = sidecar["figures"]
    assert "stage2d.rebnconv2d[14]" in figures["split_channels"]
    assert figures["agreement"]["iou_mean"] > 0.96
    assert figures["agreement"]["mae_mean"] < 0.005
    assert figures["integer_macs_share"] > 0.95
    assert sidecar["size_bytes"] <= 1_450_000


def test_repairs_change_nothing_in_small(small_at_160, shared):
    """Split and equalization on the real network: the masks stay, to the last bits of single precision."""
    from datasets.calibration import calibration_images
    from quantize.agreement import run_maps
    from quantize.inputs import network_inputs
    from quantize.pipeline import prepare
    from quantize.sessions import open_session

    graph = load_graph(small_at_160)
    pictures = calibration_images(shared / "data" / "calib" / "images", 6)
    prepared = prepare(graph, pictures[:4], QuantizeSettings(count=4, samples=2048))
    assert len(prepared.split) >= 2 and prepared.rescaled > 1000
    maps = [
        np.stack(run_maps(open_session(candidate.to_model(), 2), graph.input, network_inputs(graph, pictures)))
        for candidate in (graph, prepared.graph)
    ]
    difference = np.abs(maps[0] - maps[1])
    assert difference.mean() < 1e-6
    assert difference.max() < 2e-4  # the float network's own noise: activations of 1,361 cancel to 1 on the way


def test_without_keeps_ranges_and_integers(float_model):
    from datasets.calibration import calibration_images
    from quantize.pipeline import plan_of, prepare

    settings = QuantizeSettings(count=2, method="bias", threads=1)
    graph = load_graph(float_model)
    prepared = prepare(graph, calibration_images(None, 2), settings)
    changed, plan = plan_of(prepared, settings)
    fewer = without(changed, plan, ("stage1.rebnconv2",), {"stage1.rebnconv2": "why"})
    assert set(plan.convs) - set(fewer.convs) == {"stage1.rebnconv2"}
    assert fewer.region.reasons["stage1.rebnconv2"] == "why"
    for tensor in fewer.region.tensors:
        assert fewer.range_of(tensor) == plan.range_of(tensor)

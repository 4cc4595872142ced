"""The export command: proven graphs, true sidecars, the same bytes twice, one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import stage
from export.cli import main
from export.exporter import export_model, fold_batch_norm, store_half
from export.ort_format import write_ort
from export.parity import expected_maps, measure_parity
from export.settings import ExportSettings
from tests.support.exports import SIZE, Exported
from tests.support.paths import ROOT
from tests.u2net.network.test_checkpoint import network
from u2net.artifact import verify_artifact
from u2net.errors import ArtifactError, ConfigError, OutputError, QualityError
from u2net.network.checkpoint import load_checkpoint, save_checkpoint
from u2net.network.model import REBNCONV, STAGE_NAMES
from u2net.runtime import onnxruntime
from u2net.zoo import own_weights

pytest_plugins = ["tests.support.exports"]


@pytest.fixture
def graph(exported: Exported) -> onnx.ModelProto:
    return exported()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape).astype(np.uint8) for shape in ((80, 60, 3), (64, 64, 3))]


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_name_and_a_shape_of_ones_own(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = tmp_path / "portraits.toml"
    widths = "\n".join(f"{name} = [2, 4]" for name in STAGE_NAMES)
    shape.write_text(f"size = 64\n[widths]\n{widths}\n")
    words = ["--weights", str(tiny_checkpoint), "--model", str(shape), "--parity-count", "1", "--json"]
    out = tmp_path / "a" / "fp32.onnx"
    assert main([*words, "--out", str(out)]) == 0
    made = json.loads(capsys.readouterr().out)[str(out)]
    assert made["settings"]["size"] == 64 and made["request"]["settings.name"] is None
    assert {p.key: p.value for p in onnx.load(out).metadata_props}["u2net.model"] == "portraits"
    assert main([*words, "--out", str(out), "--name", "faces"]) == 0
    assert {p.key: p.value for p in onnx.load(out).metadata_props}["u2net.model"] == "faces"
    shape.write_text(shape.read_text().replace("stage3 = [2, 4]", "stage3 = [2, 5]"))
    assert main([*words, "--out", str(out)]) == 1
    assert "stage3 [2, 4], not [2, 5]" in capsys.readouterr().err
    assert main([*words, "--out", str(out), "--name", "Ü/x"]) == 1
    assert "a model's name is of small letters" in capsys.readouterr().err


def test_another_size_than_the_taught_one_is_warned_of_with_figures(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """`--size 1024` with weights taught at 320 was exported without a word; the masks are another model's."""
    told: list[str] = []
    settings = ExportSettings(size=64)
    made = stage.export_checkpoint(tiny_checkpoint, tmp_path / "fp32.onnx", settings, parity_count=1, tell=told.append)
    (figures,) = [sidecar["figures"] for sidecar in made.values()]
    assert 0 <= figures["agreement_with_taught_size"]["iou_mean"] <= 1
    assert "taught at 320 pixels; at 64 their masks agree with those to a mean IoU of" in told[0]


def test_agreement_between_sizes_is_that_of_masks(small_weights: Path, shared: Path) -> None:
    from datasets.calibration import calibration_images
    from export.parity import size_agreement

    model = fold_batch_norm(load_checkpoint(small_weights))
    pictures = list(calibration_images(shared / "data" / "calib" / "images", 2))
    assert size_agreement(model, 320, pictures)["iou_mean"] == 1
    assert size_agreement(model, 160, pictures)["iou_mean"] < 0.99


# ---- the graph -------------------------------------------------------------------------------------------------------


def test_folding_batch_norm_changes_nothing():
    model = network()
    folded = fold_batch_norm(model)
    assert not any("bn_s1" in name for name in folded.state_dict())
    assert all(isinstance(m.bn_s1, torch.nn.BatchNorm2d) for m in model.modules() if isinstance(m, REBNCONV))
    x = torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        for one, other in zip(model(x), folded(x), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_graph_is_the_plainest_possible(graph: onnx.ModelProto):
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert kinds["Conv"] == 119 and kinds["Relu"] == 112 and kinds["Add"] == 11 and kinds["Sigmoid"] == 1
    assert set(kinds) == {"Conv", "Relu", "MaxPool", "Resize", "Concat", "Add", "Sigmoid"}


def test_stem_is_one_strided_convolution(exported: Exported):
    graph = exported({"stem": 2})
    first = graph.graph.node[0]
    strides = next(list(a.ints) for a in first.attribute if a.name == "strides")
    assert first.op_type == "Conv" and first.input[0] == "input" and strides == [2, 2]
    assert not {"Reshape", "Transpose"} & {node.op_type for node in graph.graph.node}


def test_contract_of_the_tensor_interface(graph: onnx.ModelProto):
    loaded = session(graph)
    (given,), (result,) = loaded.get_inputs(), loaded.get_outputs()
    assert (given.name, given.type, given.shape) == ("input", "tensor(float)", [1, 3, SIZE, SIZE])
    assert (result.name, result.type, result.shape) == ("alpha", "tensor(float)", [1, 1, SIZE, SIZE])
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert properties == {"u2net.interface": "tensor", "u2net.size": str(SIZE), "u2net.model": "tiny"}
    assert (graph.ir_version, stage_opset(graph)) == (8, 18)


def stage_opset(proto: onnx.ModelProto) -> int:
    return next(entry.version for entry in proto.opset_import if entry.domain == "")


def test_initializers_carry_the_authors_names(graph: onnx.ModelProto):
    ours = {name for name in fold_batch_norm(network()).state_dict() if not name.endswith("tracked")}
    assert {t.name for t in graph.graph.initializer if t.name.endswith((".weight", ".bias"))} == ours


def test_side_maps_are_all_seven(exported: Exported, pictures: list[np.ndarray]):
    graph = exported(side_maps=True)
    assert [o.name for o in graph.graph.output] == ["alpha", *(f"side{i}" for i in range(1, 7))]
    settings = ExportSettings(size=SIZE, side_maps=True)
    assert measure_parity(graph, expected_maps(fold_batch_norm(network()), settings, pictures)).max_difference < 1e-5


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (75, 101), (33, 48)])
def test_dynamic_graph_takes_any_size(exported: Exported, height: int, width: int):
    x = torch.rand(1, 3, height, width)
    (found,) = session(exported(dynamic=True)).run(None, {"input": x.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(found, network()(x)[0].numpy(), atol=1e-5)


# ---- parity ----------------------------------------------------------------------------------------------------------


def test_parity_holds_and_is_measured(graph: onnx.ModelProto, pictures: list[np.ndarray]):
    parity = measure_parity(graph, expected_maps(fold_batch_norm(network()), ExportSettings(size=SIZE), pictures))
    assert parity.pictures == 2 and 0 <= parity.mean_difference <= parity.max_difference < 1e-5


def test_one_changed_weight_breaks_parity(graph: onnx.ModelProto, pictures: list[np.ndarray]):
    other = fold_batch_norm(network())
    with torch.no_grad():
        other.get_parameter("outconv.bias").add_(0.01)
    with pytest.raises(QualityError, match="differs from PyTorch by"):
        measure_parity(graph, expected_maps(other, ExportSettings(size=SIZE), pictures))


def test_not_a_number_breaks_parity(graph: onnx.ModelProto, pictures: list[np.ndarray]):
    bias = next(t for t in graph.graph.initializer if t.name == "outconv.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([np.nan], np.float32), bias.name))
    with pytest.raises(QualityError, match="by inf"):
        measure_parity(graph, expected_maps(fold_batch_norm(network()), ExportSettings(size=SIZE), pictures))


def test_no_picture_is_no_proof(graph: onnx.ModelProto):
    with pytest.raises(QualityError, match="no picture"):
        measure_parity(graph, expected_maps(fold_batch_norm(network()), ExportSettings(size=SIZE), []))


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "tiny.safetensors"
    save_checkpoint(network(), path)
    return path


def test_command_writes_proven_models_and_true_sidecars(
    tmp_path: Path, weights: Path, graph: onnx.ModelProto, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out" / "fp32.onnx"
    arguments = ["--weights", str(weights), "--out", str(out), "--size", str(SIZE)]
    assert main([*arguments, "--fp16", "--ort", "--parity-count", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert names(out.parent) == ["fp16.json", "fp16.onnx", "fp32.json", "fp32.onnx", "fp32.ort", "fp32.ort.json"]
    for name in ("fp32.onnx", "fp16.onnx", "fp32.ort"):
        assert printed[str(out.with_name(name))] == verify_artifact(out.with_name(name))
    sidecar = verify_artifact(out)
    assert sidecar["stage"] == "export" and sidecar["settings"]["size"] == SIZE and sidecar["settings"]["opset"] == 18
    assert 0 < sidecar["figures"]["mean_difference"] <= sidecar["figures"]["max_difference"] < 1e-4
    assert sidecar["figures"]["pictures"] == 2 and sidecar["figures"]["nodes"]["Conv"] == 119
    assert sidecar["libraries"]["onnxruntime"] == onnxruntime.__version__
    assert out.read_bytes() == graph.SerializeToString(deterministic=True), "another process, the same bytes"
    assert out.with_name("fp16.onnx").read_bytes() == store_half(graph).SerializeToString(deterministic=True)
    half = verify_artifact(out.with_name("fp16.onnx"))["figures"]
    assert half["max_difference"] < 1e-4 and half["max_difference_from_fp32"] < 5e-3
    assert printed[str(out.with_suffix(".ort"))]["figures"]["max_difference_from_onnx"] < 1e-4


def test_another_process_with_another_hash_seed_writes_the_same_bytes(
    tmp_path: Path, weights: Path, graph: onnx.ModelProto
):
    out = tmp_path / "out" / "fp32.onnx"
    command = [sys.executable, "-m", "export", "--weights", weights, "--out", out, "--size", SIZE, "--parity-count", 1]
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == graph.SerializeToString(deterministic=True)


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 1
    # What goes before is a warning about the size, where the test asks for another than the taught one.
    said = "".join(line for line in capsys.readouterr().err.splitlines(True) if not line.startswith("warning: "))
    assert said.startswith("error: ") and said.count("\n") == 1 and said.strip().isprintable()
    return said


def test_bad_requests_are_one_line(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out" / "fp32.onnx"
    good = ("--weights", weights, "--out", out)
    assert "is tiny, not small" in fails(capsys, *good, "--model", "small")
    assert "32 to 2048" in fails(capsys, *good, "--size", 8)
    assert "tensor interface" in fails(capsys, *good, "--interface", "image", "--side-maps")
    assert "at least 1" in fails(capsys, *good, "--parity-count", 0)
    assert ".onnx file" in fails(capsys, "--weights", weights, "--out", tmp_path / "out.pb")
    assert "No such file" in fails(capsys, "--weights", tmp_path / "nothing.pth", "--out", out)
    assert "control characters" in fails(capsys, "--weights", weights, "--out", tmp_path / "a\nb.onnx")
    assert "control characters" in fails(capsys, "--weights", tmp_path / "a\nb.pth", "--out", out)
    (tmp_path / "empty").mkdir()
    fails(capsys, *good, "--parity-images", tmp_path / "empty")
    fails(capsys, *good, "--parity-images", tmp_path / "missing")
    (tmp_path / "text.pth").write_text("no weights")
    assert "no checkpoint" in fails(capsys, "--weights", tmp_path / "text.pth", "--out", out)
    assert names(tmp_path / "out") == []


def test_weights_that_are_not_there_name_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    said = fails(capsys, "--model", "small", "--out", tmp_path / "fp32.onnx")
    assert "u2net weights fetch small" in said
    with pytest.raises(ConfigError, match="--weights"):
        own_weights("nobody's")


def test_broken_parity_leaves_no_output(
    tmp_path: Path, weights: Path, graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, capsys
):
    bias = next(t for t in graph.graph.initializer if t.name == "outconv.bias")
    changed = onnx.numpy_helper.to_array(bias) + np.float32(0.01)
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    monkeypatch.setattr(stage, "export_model", lambda folded, settings: graph)
    out = tmp_path / "out" / "fp32.onnx"
    said = fails(capsys, "--weights", weights, "--out", out, "--size", SIZE, "--parity-count", 1)
    assert "differs from PyTorch" in said
    assert names(out.parent) == []


@pytest.mark.parametrize("limit", [50_000, 200])
def test_full_disk_leaves_no_output(
    tmp_path: Path, weights: Path, graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, capsys, limit: int
):
    """A limit on file sizes stands in for a full disk: first the model does not fit, then its sidecar."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(stage, "export_model", lambda folded, settings: graph)
    out = tmp_path / "out" / "fp32.onnx"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == 200:  # only the sidecar shall not fit
        monkeypatch.setattr(stage, "write_sidecar", lambda *a, **k: _raise(OutputError("cannot write fp32.json")))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        said = fails(capsys, "--weights", weights, "--out", out, "--size", SIZE, "--parity-count", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in said
    assert names(out.parent) == []


def _raise(error: Exception) -> None:
    raise error


def test_ort_is_made_only_of_verified_models(tmp_path: Path, graph: onnx.ModelProto):
    path = tmp_path / "fp32.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ArtifactError, match="sidecar"):
        write_ort(path)
    with pytest.raises(ConfigError, match=r"only \.onnx"):
        write_ort(tmp_path / "fp32.pb")


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--size", "--dynamic", "--side-maps", "--interface", "--fp16", "--ort", "--parity-images", "--json"):
        assert option in said


# ---- the real thing --------------------------------------------------------------------------------------------------


def test_small_is_proven_on_photographs(shared: Path, small_weights: Path, small_fp32: Path):
    from datasets.calibration import calibration_images

    settings = ExportSettings()
    photographs = calibration_images(shared / "data" / "calib" / "images", 3, 1)
    folded = fold_batch_norm(load_checkpoint(small_weights))
    expected = expected_maps(folded, settings, photographs)
    assert measure_parity(onnx.load_model(small_fp32), expected).max_difference < 1e-4


@pytest.mark.parametrize("form", ["fp32", "fp16", "image"])
def test_onnxruntime_web_gives_the_same_map(tmp_path: Path, exported: Exported, form: str):
    """In Node, with the WebAssembly engine that browsers run."""
    import shutil

    engine = next(
        (p for p in (ROOT / "eval/browser", ROOT / "web") if (p / "node_modules/onnxruntime-web").is_dir()), None
    )
    node = shutil.which("node")
    if engine is None or node is None:
        pytest.skip("needs Node and the onnxruntime-web package")
    proto = exported()
    if form == "fp16":
        proto = store_half(proto)
    if form == "image":
        import onnx_ir as ir

        from export.passes import ImageInterface

        proto = ir.to_proto(ImageInterface()(ir.from_proto(proto)).model)
    loaded = session(proto)
    given = loaded.get_inputs()[0]
    rng = np.random.default_rng(0)
    kind = np.uint8 if form == "image" else np.float32
    feed = (rng.integers(0, 256, given.shape) / (1 if form == "image" else 64)).astype(kind)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "feed.bin").write_bytes(feed.tobytes())
    array = "Uint8Array" if form == "image" else "Float32Array"
    script = f"""
    import {{ createRequire }} from "node:module";
    import {{ readFileSync, writeFileSync }} from "node:fs";
    const require = createRequire({json.dumps(str(engine / "package.json"))});
    const ort = require("onnxruntime-web");
    ort.env.wasm.numThreads = 1;
    const session = await ort.InferenceSession.create(readFileSync("model.onnx"), {{graphOptimizationLevel: "all"}});
    const data = new {array}(new Uint8Array(readFileSync("feed.bin")).buffer);
    const input = new ort.Tensor("{"uint8" if form == "image" else "float32"}", data, {json.dumps(given.shape)});
    const result = (await session.run({{input}})).alpha;
    writeFileSync("result.bin", Buffer.from(result.data.buffer, result.data.byteOffset, result.data.byteLength));
    """
    (tmp_path / "run.mjs").write_text(script)
    done = subprocess.run([node, "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (expected,) = loaded.run(None, {"input": feed})
    found = np.fromfile(tmp_path / "result.bin", expected.dtype).reshape(expected.shape)
    np.testing.assert_allclose(
        found.astype(np.float32), expected.astype(np.float32), atol=1 if form == "image" else 1e-5
    )


def test_settings_are_checked():
    with pytest.raises(ConfigError):
        ExportSettings(interface="video")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        ExportSettings(alpha="float16")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiple of the model's stem"):
        export_model(fold_batch_norm(network(stem=2)), ExportSettings(size=65))

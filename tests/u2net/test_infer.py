"""Models that the runner takes, and those it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runner_models import SIZE, red_detector
from u2net.errors import ConfigError, ModelError
from u2net.infer import Session
from u2net.onnx_scan import scan
from u2net.preprocess import to_tensor

RUNNER = [
    "decode",
    "infer",
    "onnx_scan",
    "preprocess",
    "sampling",
    "components",
    "guided",
    "foreground",
    "postprocess",
    "contours",
    "composite",
    "encode",
    "remover",
    "batch",
    "cli",
    "errors",
    "artifact",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return red_detector(tmp_path_factory.mktemp("model") / "red.onnx")


def red_square() -> np.ndarray:
    rgb = np.full((90, 120, 3), 40, np.uint8)
    rgb[30:60, 40:80] = (250, 20, 20)
    return rgb


def test_map_is_what_the_graph_computes(model: Path) -> None:
    rgb = red_square()
    r, g, b = to_tensor(rgb, SIZE)[0].astype(np.float64)
    expected = 1 / (1 + np.exp(-8 * (r - g - b)))
    saliency = Session(model, threads=1).saliency(rgb)
    assert saliency.dtype == np.float32
    np.testing.assert_allclose(saliency, expected, atol=1e-5)


def test_image_interface_takes_pixels(tmp_path: Path) -> None:
    session = Session(red_detector(tmp_path / "m.onnx", interface="image"), threads=1)
    assert (session.interface, session.size) == ("image", SIZE)
    prepared = session.prepare(red_square())
    assert prepared.dtype == np.uint8 and prepared.shape == (1, SIZE, SIZE, 4)
    saliency = session.saliency(red_square())
    assert saliency[SIZE // 2, SIZE // 2] > 0.99 and saliency[2, 2] < 0.5


def test_open_size_comes_from_the_metadata(tmp_path: Path) -> None:
    path = red_detector(tmp_path / "m.onnx", input_shape=[1, 3, "h", "w"], metadata={"u2net.size": "96"})  # type: ignore[list-item]
    session = Session(path, threads=1)
    assert session.size == 96
    assert session.saliency(red_square()).shape == (96, 96)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"convolutions": 20}, "20 convolutions"),
        ({"input_shape": [1, 3, 64, 48], "metadata": {"u2net.size": "64"}}, "does not agree"),
        ({"input_shape": [1, 1, 64, 64]}, "input"),
        ({"input_shape": [2, 3, 64, 64]}, "2 pictures at a time"),
        ({"metadata": {"u2net.size": "32"}}, "does not agree"),
        ({"metadata": {"u2net.size": "-1"}}, "u2net.size"),
        ({"metadata": {"u2net.size": "9" * 5000}}, "u2net.size"),
        ({"metadata": {"u2net.interface": "image"}}, "interface"),
        ({"external": True}, "external data"),
    ],
)
def test_refused(tmp_path: Path, changes: dict, said: str) -> None:
    path = red_detector(tmp_path / "m.onnx", **changes)
    with pytest.raises(ModelError, match=said) as caught:
        Session(path, threads=1)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_external_data_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = red_detector(tmp_path / "m.onnx", external=True)
    (tmp_path / "weights.bin").unlink()
    os.mkfifo(tmp_path / "weights.bin")  # reading it would hang
    with pytest.raises(ModelError, match="external data"):
        Session(path, threads=1)


@pytest.mark.parametrize("content", [b"", b"\0", b"not a model at all", b"\x08\x07", b"\xff" * 4096])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError):
        Session(tmp_path / "m.onnx", threads=1)


def test_truncated_models_are_refused(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    for length in range(0, len(data) - 1, max(1, len(data) // 23)):
        (tmp_path / "m.onnx").write_bytes(data[:length])
        with pytest.raises(ModelError):
            Session(tmp_path / "m.onnx", threads=1)


def test_paths_that_are_no_model(tmp_path: Path, model: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "absent.onnx", tmp_path, tmp_path / "pipe.onnx", "/dev/zero", "a\nb.onnx", "a\0b"):
        with pytest.raises(ModelError) as caught:
            Session(path, threads=1)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        Session(model, threads=0)


def test_values_that_are_no_numbers(tmp_path: Path, model: Path) -> None:
    session = Session(model, threads=1)
    tensor = np.full((1, 3, SIZE, SIZE), np.nan, np.float32)
    with pytest.raises(ModelError, match="finite"):
        session.run(tensor)


@given(st.binary(max_size=400))
def test_scan_raises_nothing_else(data: bytes) -> None:
    with suppress(ModelError):
        scan(data)


def test_scan_survives_any_changed_byte(model: Path) -> None:
    data = bytearray(model.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), 300):
        changed = bytearray(data)
        changed[position] = rng.integers(0, 256)
        with suppress(ModelError):
            scan(bytes(changed))


def test_scan_agrees_with_onnx(small_fp32: Path) -> None:
    import onnx

    model = onnx.load(str(small_fp32))
    summary = scan(small_fp32.read_bytes())
    assert summary.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert sum(summary.operators.values()) == len(model.graph.node)
    assert not summary.external_data


def test_runner_needs_numpy_pillow_and_onnxruntime_only(model: Path, tmp_path: Path) -> None:
    """A process in which anything else installed cannot be imported cuts a picture out."""
    program = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "onnx", "scipy", "pymatting", "rich", "safetensors", "numba", "ray"}}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import importlib
for name in {RUNNER!r}:
    importlib.import_module("u2net." + name)
from PIL import Image
Image.new("RGB", (50, 40), "red").save({str(tmp_path / "in.png")!r})
from u2net.cli import main
raise SystemExit(main([{str(tmp_path / "in.png")!r}, "-o", {str(tmp_path / "out.png")!r}, "--model", {str(model)!r}]))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out.png").is_file()


def test_authors_masks_are_reproduced(small_fp32: Path, shared: Path) -> None:
    """The authors published their small model's masks of 18 photographs: min-max stretched, at full size."""
    from PIL import Image

    from u2net.decode import load_image
    from u2net.postprocess import upsample_map
    from u2net.preprocess import min_max

    folder = shared / "data" / "reference" / "u2net-published"
    session = Session(small_fp32, threads=1)
    overlaps, errors = [], []
    for path in sorted((folder / "images").iterdir())[::3]:
        picture = load_image(path)
        mask = next((folder / "u2netp_results").glob(path.stem + ".*"))
        expected = np.asarray(Image.open(mask).convert("L"), np.float32) / 255
        saliency = min_max(upsample_map(session.saliency(picture.rgb), picture.height, picture.width))
        both, either = (saliency > 0.5) & (expected > 0.5), (saliency > 0.5) | (expected > 0.5)
        overlaps.append(both.sum() / max(1, either.sum()))
        errors.append(np.abs(saliency - expected).mean())
    assert np.mean(overlaps) >= 0.985
    assert np.mean(errors) <= 0.005

"""What others load: the Hugging Face folder by the real transformers.js, the ONNX file by the real rembg."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from publish.huggingface import write_huggingface_folder
from u2net import Remover
from u2net.postprocess import FAST

HERE = Path(__file__).resolve().parent
ORACLE = HERE / "transformers_js"


@pytest.fixture(scope="module")
def photograph(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph with one clear subject, as PNG so that every decoder sees the same pixels."""
    path = tmp_path_factory.mktemp("photograph") / "photograph.png"
    source = sorted((shared / "data" / "reference" / "u2net-published" / "images").glob("*.jpg"))[0]
    Image.open(source).convert("RGB").save(path)
    return path


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    first, second = a > 127, b > 127
    return float((first & second).sum() / max(1, (first | second).sum()))


def _ours(model: Path, photograph: Path) -> np.ndarray:
    saliency = Remover(model, refinement=FAST).cutout(photograph).saliency  # one look, as theirs
    with Image.open(photograph) as image:
        size = image.size
    return np.asarray(Image.fromarray((saliency * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR))


def test_transformers_js_loads_the_folder_unchanged(small_fp32: Path, photograph: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (ORACLE / "node_modules").is_dir():
        pytest.skip("needs Node and `npm ci` in tests/publish/transformers_js")
    write_huggingface_folder(tmp_path / "u2net-small", {"fp32": small_fp32}, 320, "# A card")
    out = tmp_path / "out.png"
    result = subprocess.run(
        [node, "remove_background.mjs", str(tmp_path), "u2net-small", "fp32", str(photograph), str(out)],
        cwd=ORACLE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    cutout = np.asarray(Image.open(out))
    assert cutout.shape[2] == 4
    # Its resize is antialiased and ours is not: the masks are the same but for edges.
    assert _iou(cutout[..., 3], _ours(small_fp32, photograph)) > 0.9


def test_rembg_takes_the_model(small_fp32: Path, photograph: Path) -> None:
    rembg = pytest.importorskip("rembg")
    session = rembg.new_session("u2net_custom", model_path=str(small_fp32))
    with Image.open(photograph) as image:
        mask = np.asarray(rembg.remove(image, session=session, only_mask=True))
    assert _iou(mask, _ours(small_fp32, photograph)) > 0.9

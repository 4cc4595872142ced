"""What others load: the Hugging Face folder by the real transformers.js, the ONNX file by the real rembg."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from publish.huggingface import ONNX_FILES, write_huggingface_folder
from tests.support.matting import without_pymatting
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


def test_transformers_js_runs_the_code_of_the_readme(
    lite_fp32: Path, lite_int8: Path, photograph: Path, tmp_path: Path
) -> None:
    """The README's own lines, with the folder on this disk instead of the hub; for every file that it lists."""
    node = shutil.which("node")
    if node is None or not (ORACLE / "node_modules").is_dir():
        pytest.skip("needs Node and `npm ci` in tests/publish/transformers_js")
    folder = tmp_path / "YOUR-NAME" / "u2net-lite"
    (folder / "onnx").mkdir(parents=True)
    for precision, model in (("fp32", lite_fp32), ("int8", lite_int8)):
        shutil.copyfile(model, folder / ONNX_FILES[precision])
    write_huggingface_folder(folder, "u2net-lite", 320, "# A card")
    readme = (folder / "README.md").read_text()
    [code] = re.findall(r"^```js\n(.*?)^```", readme, flags=re.S | re.M)
    listed = dict(re.findall(r"^\| `(\w+)` \| `(onnx/[\w.]+)` \|", readme, flags=re.M))
    assert {folder / path for path in listed.values()} == set((folder / "onnx").iterdir())
    assert 'dtype: "q8"' in code
    for dtype, model in (("q8", lite_int8), ("fp32", lite_fp32)):
        assert dtype in listed
        out = tmp_path / f"{dtype}.png"
        local = f"env.allowRemoteModels = false; env.localModelPath = {json.dumps(str(tmp_path))};\n"
        script = code.replace("import { pipeline }", "import { env, pipeline }").replace("\n\n", "\n" + local, 1)
        script = script.replace('"q8"', json.dumps(dtype))
        script = script.replace('"photo.jpg"', json.dumps(str(photograph))).replace(
            '"cutout.png"', json.dumps(str(out))
        )
        command = [node, "--input-type=module", "--eval", script]
        result = subprocess.run(command, cwd=ORACLE, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        cutout = np.asarray(Image.open(out))
        assert cutout.shape[2] == 4
        # Its resize is antialiased and ours is not: the masks are the same but for edges.
        assert _iou(cutout[..., 3], _ours(model, photograph)) > 0.9


def test_rembg_takes_the_model(small_fp32: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pymatting(monkeypatch)  # rembg imports it for what is not asked of it here
    rembg = pytest.importorskip("rembg")
    session = rembg.new_session("u2net_custom", model_path=str(small_fp32))
    with Image.open(photograph) as image:
        mask = np.asarray(rembg.remove(image, session=session, only_mask=True))
    assert _iou(mask, _ours(small_fp32, photograph)) > 0.9

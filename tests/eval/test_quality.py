"""Quality over folders: rows, sets, agreement, resuming, and what bad input says."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.synthetic import SyntheticSet
from eval import quality, thumbnails
from eval.measures import FLAWS, MASK
from eval.metrics import score
from eval.models import candidates
from eval.quality import FolderSamples, ProceduralSamples, QualitySettings, judge, open_samples
from eval.thumbnails import ADDED, HEIGHT_PX, LOST, thumbnails_of
from tests.support.runner_models import red_detector
from u2net.errors import ConfigError, DataError, ImageError, ModelError
from u2net.infer import Session
from u2net.preprocess import resize_bilinear
from u2net.sampling import to_alpha
from u2net.second_look import look_twice

ONE = QualitySettings(workers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four procedural pairs in two sets."""
    root = tmp_path_factory.mktemp("pairs")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for i, scene in enumerate(SyntheticSet(4, size=(160, 120))):
        stem = f"{'left' if i < 3 else 'right'}_{i}"
        Image.fromarray(scene.rgb).save(root / "images" / f"{stem}.png")
        Image.fromarray((scene.alpha > 0.5).astype(np.uint8) * 255).save(root / "masks" / f"{stem}.png")
    return root


def test_rows_are_the_metrics_of_the_runner(folder, tiny_fp32, tmp_path):
    """What comes out of the worker processes is what the runner and the metrics give when called directly."""
    samples = FolderSamples(folder)
    result = judge(candidates([tiny_fp32]), samples, ONE, journal=tmp_path / "journal.jsonl")
    assert result["pictures"] == 4
    assert result["sets"] == {"left": 3, "right": 1}
    (model,) = result["models"].values()
    session = Session(tiny_fp32, threads=1)
    for sample, row in zip(samples, model["pictures"], strict=True):
        rgb, truth = sample.load()
        mask = to_alpha(resize_bilinear(session.saliency(rgb), *rgb.shape[:2]))
        expected = score(mask, truth).values
        assert row["stem"] == sample.stem
        for name in (*MASK, *FLAWS):
            assert row[name] == pytest.approx(expected[name], abs=2e-6), name
        assert row["agreement_iou"] == 1
        assert row["agreement_mae"] == 0
    left = [row["mae"] for row in model["pictures"] if row["set"] == "left"]
    assert model["sets"]["left"]["mae"] == pytest.approx(np.mean(left), abs=1e-6)
    assert model["overall"]["count"] == 4
    assert len(model["curves"]["iou"]) == 256
    json.dumps(result)


def test_a_checkpoint_and_its_export_agree(folder, tiny_fp32, tiny_checkpoint):
    result = judge(candidates([tiny_fp32, tiny_checkpoint]), FolderSamples(folder), QualitySettings(workers=1, limit=2))
    exported, checkpoint = result["models"].values()
    assert result["pictures"] == 2
    assert checkpoint["agreement"]["mae"] < 1e-3
    assert checkpoint["overall"]["mae"] == pytest.approx(exported["overall"]["mae"], abs=1e-3)


def test_a_stopped_run_goes_on(folder, tiny_fp32, tmp_path, monkeypatch):
    journal = tmp_path / "journal.jsonl"
    models, samples = candidates([tiny_fp32]), FolderSamples(folder)
    whole = judge(models, samples, ONE, journal=journal)
    lines = journal.read_text().splitlines()
    # Two rows lost, one of them cut in the middle of being written.
    journal.write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:100])
    seen: list[tuple[int, int]] = []
    again = judge(models, samples, ONE, journal=journal, progress=lambda done, total: seen.append((done, total)))
    assert again == whole
    assert seen[0] == (2, 4)
    # Nothing left to do: no worker is needed.
    monkeypatch.setattr(quality, "_judge_one", None)
    assert judge(models, samples, ONE, journal=journal) == whole


def test_what_changed_is_judged_anew(folder, tiny_fp32, tmp_path):
    journal = tmp_path / "journal.jsonl"
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    judge(candidates([tiny_fp32]), FolderSamples(data), ONE, journal=journal)
    Image.fromarray(np.zeros((120, 160), np.uint8)).save(data / "masks" / "left_0.png")
    seen: list[tuple[int, int]] = []
    result = judge(
        candidates([tiny_fp32]), FolderSamples(data, "grey"), ONE, journal=journal, progress=lambda *at: seen.append(at)
    )
    assert seen[0] == (3, 4)
    row = next(r for r in next(iter(result["models"].values()))["pictures"] if r["stem"] == "left_0")
    assert row["f_weighted"] == 0
    seen.clear()
    stretched = QualitySettings(workers=1, stretch=True)
    judge(
        candidates([tiny_fp32]),
        FolderSamples(data, "grey"),
        stretched,
        journal=journal,
        progress=lambda *at: seen.append(at),
    )
    assert seen[0] == (0, 4)


def test_procedural_set_is_the_default(tiny_fp32):
    samples = open_samples(None)
    assert isinstance(samples, ProceduralSamples)
    assert len(samples) >= 60
    rgb, truth = samples[0].load()
    assert rgb.shape[:2] == truth.mask.shape
    assert truth.alpha is not None
    assert samples[0].digest() == samples[0].digest() != samples[1].digest()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "masks" / "left_1.png").unlink(), "left_1"),
        (
            lambda d: Image.new("L", (160, 120), 1).save(d / "masks" / "left_1.png"),
            "left_1.png has the value 1 all over",
        ),
        (lambda d: Image.new("L", (9, 9)).save(d / "masks" / "left_1.png"), "9×9"),
        (lambda d: [p.unlink() for p in (d / "images").iterdir()], "holds no pictures"),
        (lambda d: shutil.rmtree(d / "masks"), "masks/"),
        (lambda d: shutil.rmtree(d), "has no folder|does not exist"),
    ],
)
def test_bad_folders_are_one_line(folder, tmp_path, break_it, message):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    break_it(data)
    with pytest.raises(DataError, match=message) as raised:
        open_samples(data)
    assert "\n" not in str(raised.value)


def test_a_damaged_picture_keeps_what_was_judged(folder, tiny_fp32, tmp_path):
    data, journal = tmp_path / "data", tmp_path / "journal.jsonl"
    shutil.copytree(folder, data)
    (data / "images" / "right_3.png").unlink()
    path = data / "images" / "right_3.jpg"
    Image.open(folder / "images" / "right_3.png").save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:2000])  # the header is there, so that opening the folder finds nothing amiss
    with pytest.raises(ImageError, match="right_3") as raised:
        judge(candidates([tiny_fp32]), FolderSamples(data), ONE, journal=journal)
    assert "\n" not in str(raised.value)
    path.write_bytes(whole)
    seen: list[tuple[int, int]] = []
    judge(candidates([tiny_fp32]), FolderSamples(data), ONE, journal=journal, progress=lambda *at: seen.append(at))
    assert seen[0] == (3, 4)


def test_a_model_that_is_not_ours_is_one_line(folder, tmp_path):
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ModelError) as raised:
        judge(candidates([path]), FolderSamples(folder), ONE)
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError):
        judge([], FolderSamples(folder))
    with pytest.raises(ConfigError):
        QualitySettings(workers=-1)


def test_thumbnails(folder, tiny_fp32, tmp_path):
    other = tmp_path / "other" / "fp32.onnx"
    other.parent.mkdir()
    shutil.copy(tiny_fp32, other)
    models = candidates([tiny_fp32, other])
    ((stem, pictures),) = thumbnails_of(models, FolderSamples(folder), ["left_2"])
    assert stem == "left_2"
    names = [model.name for model in models]
    assert list(pictures.masks) == names and list(pictures.differences) == names[1:]
    for content in (pictures.input, pictures.truth, *pictures.masks.values(), *pictures.differences.values()):
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.height) == ("WEBP", HEIGHT_PX)
        assert len(content) < 40_000


def test_differences_show_what_is_lost_and_added():
    first, other = np.zeros((192, 192), np.uint8), np.zeros((192, 192), np.uint8)
    first[:96, :96] = other[:96, 96:] = 255
    shown = np.asarray(thumbnails._difference(Image.fromarray(first), Image.fromarray(other)))
    assert tuple(shown[40, 40]) == LOST and tuple(shown[40, 150]) == ADDED
    assert shown[150, 150].max() < 40


def test_small_on_photographs(shared, small_fp32):
    """The known quality of the authors' weights, on photographs of the real set."""
    samples = [s for s in FolderSamples(shared / "data" / "eval") if s.set_name == "ecssd"][:12]
    result = judge(candidates([small_fp32]), samples, QualitySettings(workers=2))
    (model,) = result["models"].values()
    assert 0.75 < model["overall"]["iou"] < 0.95
    assert model["overall"]["mae"] < 0.08
    assert model["overall"]["constant"] == 0


def test_a_second_look_is_judged_as_the_runner_takes_it(tmp_path):
    """Its masks are the runner's own; one look is judged as without it; journals of both keep apart."""
    for index, (left, top, width, height) in enumerate([(301, 203, 28, 33), (20, 20, 500, 400), (100, 380, 50, 40)]):
        rgb = np.full((480, 640, 3), (30, 60, 90), np.uint8)
        rgb[top : top + height, left : left + width] = (250, 20, 20)
        for name, pixels in (("images", rgb), ("masks", (rgb[..., 0] > 200).astype(np.uint8) * 255)):
            (tmp_path / "pairs" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "pairs" / name / f"{index}.png")
    path = red_detector(tmp_path / "red.onnx")
    samples, models, journal = FolderSamples(tmp_path / "pairs"), candidates([path]), tmp_path / "journal.jsonl"
    (once,) = judge(models, samples, ONE, journal=journal)["models"].values()
    both = QualitySettings(workers=1, second_look=True)
    (model,) = judge(models, samples, both, journal=journal)["models"].values()
    (again,) = judge(models, samples, both, journal=journal)["models"].values()
    assert again == model
    second = model.pop("second_look")
    assert model == once
    session = Session(path, threads=1)
    expected, seen = [], []
    for sample in samples:
        rgb, truth = sample.load()
        seen.append(look_twice(rgb, session.saliency, session.size))
        mask = to_alpha(resize_bilinear(seen[-1].saliency, *rgb.shape[:2]))
        expected.append(score(mask, truth).values["iou"])
    assert second["overall"]["iou"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert second["looks"] == np.mean([one.looks for one in seen]) > 1
    assert second["used"] == sum(one.box is not None for one in seen) == 2
    changes = np.array(expected) - [row["iou"] for row in once["pictures"]]
    assert (second["gained"], second["lost"]) == ((changes > 0.05).sum(), (changes < -0.05).sum())
    assert second["gained"] > 0

"""Animations: every frame is cut out, shown as long and as often as before, and covers the one before it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.support.runner_models import red_detector
from u2net.cli import main
from u2net.decode import DecodeLimits, load_frames, load_image
from u2net.errors import ImageError

DURATIONS_MS = [120, 40, 300]
LEFT = [4, 24, 44]  # of a red square that moves over a blue ground


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(red_detector(tmp_path_factory.mktemp("model") / "red.onnx"))


def frames() -> list[Image.Image]:
    images = []
    for left in LEFT:
        rgb = np.full((48, 64, 3), (20, 40, 120), np.uint8)
        rgb[16:32, left : left + 16] = (250, 20, 20)
        images.append(Image.fromarray(rgb))
    return images


def animation(form: str, loop: int | None = 0, images: list[Image.Image] | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    first, *rest = images or frames()
    if loop is not None:
        options["loop"] = loop
    if form == "WEBP":
        options["lossless"] = True
    first.save(file, form, save_all=True, append_images=rest, duration=DURATIONS_MS, **options)
    return file.getvalue()


def alphas(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGBA"))[..., 3] for frame in ImageSequence.Iterator(image)]


def durations(path: Path) -> list[int]:
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            image.load()
            found.append(round(image.info["duration"]))
        return found


@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("suffix", [".webp", ".gif", ".apng"])
def test_every_frame_is_cut_out(tmp_path: Path, model: str, source: str, suffix: str) -> None:
    (tmp_path / "in").write_bytes(animation(source))
    target = tmp_path / f"out{suffix}"
    assert main([str(tmp_path / "in"), "-o", str(target), "--model", model, "-q"]) == 0
    assert durations(target) == DURATIONS_MS
    with Image.open(target) as image:
        assert image.info["loop"] == 0
    found = alphas(target)
    assert len(found) == 3
    for alpha, left in zip(found, LEFT, strict=True):  # nothing of the frame before is seen through
        columns = np.flatnonzero((alpha > 128).any(axis=0))
        assert abs(columns[0] - left) <= 3 and abs(columns[-1] - (left + 15)) <= 3


@pytest.mark.parametrize("loop", [None, 0, 2])
def test_it_runs_as_often_as_before(tmp_path: Path, model: str, loop: int | None) -> None:
    """GIF counts repetitions and says nothing where there are none; WebP and animated PNG count runs."""
    (tmp_path / "in.gif").write_bytes(animation("GIF", loop))
    plays = {None: 1, 0: 0, 2: 3}[loop]
    for suffix in (".webp", ".apng", ".gif"):
        target = tmp_path / f"out{suffix}"
        assert main([str(tmp_path / "in.gif"), "-o", str(target), "--model", model, "--preset", "fast", "-q"]) == 0
        with Image.open(target) as image:
            assert image.info.get("loop") == (loop if suffix == ".gif" else plays)


def test_a_still_says_that_it_is_the_first_frame(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.gif").write_bytes(animation("GIF"))
    assert main([str(tmp_path / "in.gif"), "-o", str(tmp_path / "out.png"), "--model", model]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "first of 3 frames" in said and ".webp" in said
    assert len(alphas(tmp_path / "out.png")) == 1


def test_a_crop_and_a_mask_of_all_frames(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.gif").write_bytes(animation("GIF"))
    out, mask = tmp_path / "out.webp", tmp_path / "mask.gif"
    arguments = ["-o", str(out), "--mask", str(mask), "--crop", "--margin", "0", "--model", model, "--json"]
    assert main([str(tmp_path / "in.gif"), *arguments]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[0])
    box = result["subject"]["box"]
    assert abs(box["x"] - LEFT[0]) <= 3 and abs(box["width"] - (LEFT[-1] + 16 - LEFT[0])) <= 6
    assert {alpha.shape for alpha in alphas(out)} == {(box["height"], box["width"])}
    assert durations(mask) == DURATIONS_MS and "3 frames" in result["notes"]


def test_a_folder(tmp_path: Path, model: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.gif").write_bytes(animation("GIF"))
    frames()[0].save(tmp_path / "in" / "b.png")
    common = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", model, "-j", "1", "-q"]
    assert main([*common, "--format", "webp"]) == 0
    assert len(alphas(tmp_path / "out" / "a.webp")) == 3 and len(alphas(tmp_path / "out" / "b.webp")) == 1


def test_an_animated_sticker_stays_one_in_every_frame(tmp_path: Path, model: str) -> None:
    """The second frame alone would not pass for a cut-out: it fills its box."""
    images = []
    for side in (10, 48):
        rgba = np.zeros((48, 48, 4), np.uint8)
        rgba[:side, :side] = (30, 200, 30, 255)
        rgba[0, -1] = rgba[-1, 0] = (30, 200, 30, 255)
        images.append(Image.fromarray(rgba))
    (tmp_path / "in.png").write_bytes(animation("PNG", images=[*images, images[0]], disposal=1, blend=0))
    assert main([str(tmp_path / "in.png"), "-o", str(tmp_path / "out.apng"), "--model", model, "-q"]) == 0
    for before, after in zip(images, alphas(tmp_path / "out.apng"), strict=False):
        np.testing.assert_array_equal(after, np.asarray(before)[..., 3])


def test_the_picture_for_programs_without_animation_is_no_frame() -> None:
    data = animation("PNG", images=[Image.new("RGB", (64, 48), "white"), *frames()[:2]], default_image=True)
    assert [frame.duration_ms for frame in load_frames(data)] == DURATIONS_MS[:2]


def test_limits(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = animation("GIF")
    assert load_image(data, DecodeLimits(max_frames=1, max_pixels=64 * 48)).frames == 3  # the first alone is taken
    for limits in (DecodeLimits(max_frames=2), DecodeLimits(max_pixels=3 * 64 * 48 - 1)):
        with pytest.raises(ImageError, match="3 frames"):
            next(load_frames(data, limits))
    assert len(list(load_frames(data, DecodeLimits(max_frames=3, max_pixels=3 * 64 * 48)))) == 3
    (tmp_path / "in.gif").write_bytes(data)
    arguments = ["--max-pixels", "0.005", "--model", model]
    assert main([str(tmp_path / "in.gif"), "-o", str(tmp_path / "out.webp"), *arguments]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--max-pixels" in said and not (tmp_path / "out.webp").exists()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_damage_is_one_line(form: str) -> None:
    data = animation(form)
    for length in range(40, len(data), max(1, len(data) // 40)):
        try:
            for frame in load_frames(data[:length]):
                assert frame.rgb.shape == (48, 64, 3)
        except ImageError as error:
            assert "\n" not in str(error)

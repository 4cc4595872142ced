"""What was found, and the cut to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.support.runner_models import red_detector
from u2net.cli import main
from u2net.errors import ConfigError
from u2net.subject import Box, CropSettings, crop_box, crop_pixels, find_subject


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(red_detector(tmp_path_factory.mktemp("model") / "red.onnx"))


@settings(max_examples=80, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.sampled_from([0, 90, 128, 255])))
def test_the_box_is_pillows(alpha: np.ndarray) -> None:
    subject = find_subject(alpha)
    expected = Image.fromarray((alpha >= 128).astype(np.uint8) * 255).getbbox()
    if expected is None:
        assert subject.box is None and not subject.found
        return
    box = subject.box
    assert box is not None
    assert (box.x, box.y, box.x + box.width, box.y + box.height) == expected
    assert subject.area == pytest.approx(alpha.mean() / 255)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.data(), st.floats(0, 1), st.booleans())
def test_crops_hold_the_box(height: int, width: int, data: st.DataObject, margin: float, square: bool) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    part = crop_box(box, height, width, margin, square)
    pixels = np.zeros((height, width), np.uint8)
    pixels[y : y + box.height, x : x + box.width] = 255
    cropped = crop_pixels(pixels, part)
    assert int(cropped.astype(int).sum()) == int(pixels.astype(int).sum())
    if square:
        assert part.width == part.height
    else:
        assert part.x >= 0 and part.y >= 0 and part.x + part.width <= width and part.y + part.height <= height


def test_margins_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="margin must be 0 to 1"):
        CropSettings(margin=1.5)


def red(path: Path, left: int, top: int, side: int) -> Path:
    rgb = np.full((60, 80, 3), (30, 60, 90), np.uint8)
    rgb[top : top + side, left : left + side] = (250, 20, 20)
    Image.fromarray(rgb).save(path)
    return path


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_what_was_found_is_said(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [red(tmp_path / "some.png", 20, 15, 30), red(tmp_path / "none.png", 0, 0, 0)]
    for one in (True, False):
        out = ["-o", str(tmp_path / "out")]
        if one:
            for picture in pictures:
                assert main([str(picture), "-o", str(tmp_path / "a.png"), "--model", model, "--json"]) == 0
        else:
            assert main([*map(str, pictures), *out, "--model", model, "--json"]) == 0
        lines = [line for line in said(capsys) if "input" in line]
        results = {Path(line["input"]).stem: line for line in lines}
        found, nothing = results["some"], results["none"]
        assert found["subject"]["found"] and found["subject"]["area"] == pytest.approx(900 / 4800, abs=0.05)
        assert abs(found["subject"]["box"]["x"] - 20) <= 2 and abs(found["subject"]["box"]["width"] - 30) <= 4
        assert nothing["subject"]["found"] is False and nothing["subject"]["box"] is None
        assert nothing["notes"] == ["nothing was found in the picture"] and found["notes"] == []
        assert found["timings"]["first_look_ms"] > 0


def test_nothing_found_can_fail(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture = red(tmp_path / "none.png", 0, 0, 0)
    for target in ([str(picture), "-o", str(tmp_path / "a.png")], [str(tmp_path), "-o", str(tmp_path / "out")]):
        assert main([*target, "--model", model, "--fail-if-empty"]) == 1
        assert "nothing was found in the picture" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists() and not list((tmp_path / "out").glob("*.png"))


def test_crop_and_square(tmp_path: Path, model: str) -> None:
    picture = red(tmp_path / "a.png", 40, 25, 30)
    out = tmp_path / "cut.png"
    assert main([str(picture), "-o", str(out), "--mask", str(tmp_path / "m.png"), "--model", model, "--crop"]) == 0
    with Image.open(out) as cut, Image.open(tmp_path / "m.png") as mask:
        assert cut.size == mask.size
        assert 31 <= cut.width <= 40 and 31 <= cut.height <= 38
    arguments = [str(picture), "-o", str(out), "--model", model, "--square", "--margin", "0.5", "--background", "white"]
    assert main(arguments) == 0
    with Image.open(out) as cut:
        assert cut.width == cut.height > 55
        assert np.asarray(cut)[1, 1].min() > 240


def test_a_cutout_is_kept(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A white logo on nothing, and a person who was cut out before: the same alpha, and the same colours."""
    y, x = np.mgrid[0:100, 0:120]
    alpha = (np.clip(30 - np.hypot(x - 40, y - 50), 0, 1) * 255).astype(np.uint8)
    alpha[60:66, 40:118] = 200
    for colour in ((255, 255, 255), (90, 60, 30)):
        rgba = np.dstack((np.broadcast_to(np.array(colour, np.uint8), (100, 120, 3)), alpha))
        Image.fromarray(rgba).save(tmp_path / "logo.png")
        assert main([str(tmp_path / "logo.png"), "-o", str(tmp_path / "out.png"), "--model", model]) == 0
        assert "already a cut-out" in capsys.readouterr().err
        result = np.asarray(Image.open(tmp_path / "out.png"))
        np.testing.assert_array_equal(result[..., 3], alpha)
        np.testing.assert_array_equal(result[alpha > 0, :3], rgba[alpha > 0, :3])
        assert not result[alpha == 0].any()

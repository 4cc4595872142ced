"""Folders, pairs, calibration sampling, public sets and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets import ImageFolder, PairFolder, calibration_images, open_public
from datasets.cli import main
from u2net.errors import ConfigError, DataError, ImageError


def picture(path: Path, size: tuple[int, int] = (12, 8), grey: int = 90, mode: str = "RGB", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, grey if mode == "L" else (grey,) * 3).save(path, **options)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for stem in ("b_2", "a_1", "a_10"):
        picture(tmp_path / "images" / f"{stem}.jpg")
        half_mask(tmp_path / "masks" / f"{stem}.png")
    return tmp_path


def half_mask(path: Path, size: tuple[int, int] = (12, 8), values: tuple[int, int] = (0, 255), mode: str = "L") -> Path:
    """A mask whose left half has one value and whose right half has another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plane = np.full(size[::-1], values[0], np.uint8)
    plane[:, size[0] // 2 :] = values[1]
    image = Image.fromarray(plane)
    if mode == "P":
        image = image.convert("P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[64] * 759])  # the classes of PASCAL VOC
    elif mode == "RGBA":
        image = Image.merge("RGBA", [Image.new("L", size, 0)] * 3 + [image])
    elif mode == "I;16":
        image = Image.fromarray(plane.astype(np.uint16) * 257)
    elif mode != "L":
        image = image.convert(mode)
    image.save(path)
    return path


def test_image_folder_takes_pictures_in_order_of_name(tmp_path: Path) -> None:
    for name in ("c.PNG", "a.jpeg", "b.webp", ".hidden.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    assert [record.stem for record in ImageFolder(tmp_path)] == ["a", "b", "c"]
    assert ImageFolder(tmp_path)[1].image().shape == (8, 12, 3)


def test_image_folder_prefers_its_images_folder_and_searches_below(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "x.png")
    picture(tmp_path / "images" / "deep" / "y.png")
    assert [r.stem for r in ImageFolder(tmp_path)] == ["x"]
    assert [r.stem for r in ImageFolder(tmp_path, recursive=True)] == ["deep/y", "x"]


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_image_folder_that_is_none(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "file":
        path.write_text("x")
    elif what == "empty":
        path.mkdir()
    with pytest.raises(DataError, match=what if what != "empty" else "holds no pictures"):
        ImageFolder(path)


def test_image_applies_orientation_and_flattens(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "turned.jpg", (20, 10), exif=exif)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    clear, turned = ImageFolder(tmp_path)
    assert turned.image().shape == (20, 10, 3)
    assert (clear.image() == 255).all()


def test_damaged_picture_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        ImageFolder(tmp_path)[0].image()


def test_pairs(pairs: Path) -> None:
    folder = PairFolder(pairs)
    assert [r.stem for r in folder] == ["a_1", "a_10", "b_2"]
    assert {name: len(records) for name, records in folder.sets().items()} == {"a": 2, "b": 1}
    record = folder[0]
    assert record.set_name == "a"
    assert record.alpha().dtype == np.float32 and (record.alpha()[:, 6:] == 1).all()
    assert record.mask().sum() == 8 * 6


def test_ground_truth_is_above_128(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "g.png", (3, 1))
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.array([[127, 128, 129]], np.uint8)).save(tmp_path / "masks" / "g.png")
    assert PairFolder(tmp_path)[0].mask().tolist() == [[False, False, True]]


@pytest.mark.parametrize(
    ("mode", "values", "message", "told"),
    [
        ("L", (0, 1), "values up to 1 of 255 and would be read as empty; .* --mask-values 1", "1"),
        ("L", (0, 15), "would be read as empty; .* --mask-values 15", "15"),
        ("P", (0, 1), "classes of a palette .0, 1.; .* --mask-values 1, or", "1"),
        ("P", (0, 2), "classes of a palette", "nonzero"),
        ("RGBA", (0, 255), "alpha channel that may be the mask, or not; .* --mask-values alpha", "alpha"),
        ("L", (0, 0), "has the value 0 all over; .* --mask-values grey", None),
        ("L", (255, 255), "has the value 255 all over", None),
    ],
)
def test_masks_that_can_be_read_in_two_ways_are_refused_by_name(
    tmp_path: Path, mode: str, values: tuple[int, int], message: str, told: str | None
) -> None:
    """They were read as empty or full, without a word."""
    picture(tmp_path / "images" / "g.png")
    half_mask(tmp_path / "masks" / "g.png", values=values, mode=mode)
    with pytest.raises(DataError, match=rf"masks/g\.png .*{message}"):
        PairFolder(tmp_path)[0].alpha()
    with pytest.raises(DataError, match=r"g\.png"):
        PairFolder(tmp_path).check_masks()
    (record,) = PairFolder(tmp_path, mask_values=told or "grey")
    expected = np.zeros((8, 12), bool)
    expected[:, 6:] = True
    assert (record.mask() == (expected if told else values[0] == 255)).all()


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16"])
def test_masks_that_are_plain_are_read_as_before(tmp_path: Path, mode: str) -> None:
    picture(tmp_path / "images" / "g.png")
    half_mask(tmp_path / "masks" / "g.png", mode=mode)
    assert PairFolder(tmp_path)[0].mask().sum() == 8 * 6


def test_classes_beside_a_void_border_are_not_taken_for_grey(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "g.png")
    half_mask(tmp_path / "masks" / "g.png", values=(0, 15))
    with Image.open(tmp_path / "masks" / "g.png") as opened:
        opened.load()
        opened.putpixel((0, 0), 255)
        opened.save(tmp_path / "masks" / "g.png")
    with pytest.raises(DataError, match=r"what look like classes \(0, 15, 255\)"):
        PairFolder(tmp_path)[0].mask()
    assert PairFolder(tmp_path, mask_values="15")[0].mask().sum() == 8 * 6


def test_mask_values_that_say_nothing(pairs: Path) -> None:
    for word in ("white", "1;2", "", "-1"):
        with pytest.raises(ConfigError, match="--mask-values is grey, alpha"):
            PairFolder(pairs, mask_values=word)
    with pytest.raises(DataError, match="has no alpha channel"):
        PairFolder(pairs, mask_values="alpha")[0].mask()


def test_check_names_the_mask_and_takes_the_cure(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stem in ("a_1", "b_2"):
        half_mask(pairs / "masks" / f"{stem}.png", values=(0, 1))
    assert main(["check", str(pairs)]) == 1
    error = capsys.readouterr().err
    assert "masks/a_1.png holds values up to 1" in error and "(2 masks are like that)" in error
    half_mask(pairs / "masks" / "a_10.png", values=(0, 1))
    assert main(["check", str(pairs), "--mask-values", "1"]) == 0


def test_every_fault_of_pairs_is_named(pairs: Path) -> None:
    (pairs / "masks" / "a_1.png").unlink()
    with pytest.raises(DataError, match="pictures without a mask: a_1"):
        PairFolder(pairs)
    picture(pairs / "masks" / "a_1.png", (8, 12), mode="L", grey=0)
    with pytest.raises(DataError, match=r"a_1\.png is 8×12, its picture 12×8"):
        PairFolder(pairs)
    picture(pairs / "masks" / "a_1.png", mode="L", grey=0)
    picture(pairs / "masks" / "z.png", mode="L", grey=0)
    with pytest.raises(DataError, match="masks without a picture: z"):
        PairFolder(pairs)
    assert len(PairFolder(pairs, extra_masks=True)) == 3
    picture(pairs / "images" / "a_1.png")
    with pytest.raises(DataError, match=r"both a_1\.jpg and a_1\.png"):
        PairFolder(pairs)


def test_pairs_without_masks_folder(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match="no folder masks/"):
        PairFolder(tmp_path)


def test_size_is_compared_after_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    picture(tmp_path / "images" / "t.jpg", (20, 10), exif=exif)
    half_mask(tmp_path / "masks" / "t.png", (10, 20))
    assert PairFolder(tmp_path)[0].alpha().shape == (20, 10)


def test_calibration_sample_is_stable_and_disjoint_from_what_is_skipped(tmp_path: Path) -> None:
    for index in range(12):
        picture(tmp_path / f"{index:02d}.png", grey=index * 10)
    first, again = calibration_images(tmp_path, 5, seed=3), calibration_images(tmp_path, 5, seed=3)
    assert first.names == again.names and first.sha256() == again.sha256()
    rest = calibration_images(tmp_path, 100, seed=3, skip=5)
    assert len(rest) == 7 and not set(first.names) & set(rest.names)
    assert calibration_images(tmp_path, 5, seed=4).names != first.names
    assert [p.shape for p in first[1:3]] == [(8, 12, 3)] * 2
    assert first[1:][0][0, 0, 0] == first[1][0, 0, 0]
    with pytest.raises(DataError, match="only 12"):
        calibration_images(tmp_path, 5, skip=12)
    with pytest.raises(ConfigError):
        calibration_images(tmp_path, 0)


@settings(max_examples=25, deadline=None)
@given(
    names=st.sets(st.text("abcdefgh0123456789", min_size=1, max_size=8), min_size=3, max_size=12),
    extra=st.text("xyz", min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_one_more_file_changes_at_most_one_picture(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], extra: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("sample")
    for name in names:
        (folder / f"{name}.png").touch()
    before = set(calibration_images(folder, 3, seed).names)
    (folder / f"{extra}.png").touch()
    assert len(before - set(calibration_images(folder, 3, seed).names)) <= 1


def test_procedural_calibration_is_the_procedural_set() -> None:
    images = calibration_images(None, 2, seed=5)
    later = calibration_images(None, 1, seed=5, skip=1)
    assert images.source == "procedural"
    assert np.array_equal(images[1], later[0]) and images.names[1] == later.names[0]


def test_public_sets_are_recognised_in_their_own_layout(tmp_path: Path) -> None:
    picture(tmp_path / "DUTS-TE" / "DUTS-TE-Image" / "ILSVRC2012_test_3.jpg")
    picture(tmp_path / "DUTS-TE" / "DUTS-TE-Mask" / "ILSVRC2012_test_3.png", mode="L", grey=0)
    for root in (tmp_path, tmp_path / "DUTS-TE"):
        (record,) = open_public("duts-te", root, complete=False)
        assert record.set_name == "duts-te" and record.stem == "duts-te_ILSVRC2012_test_3"
    with pytest.raises(DataError, match="holds 1 pairs; DUTS-TE has 5,019"):
        open_public("duts-te", tmp_path)
    with pytest.raises(DataError, match="not laid out like HKU-IS"):
        open_public("hku-is", tmp_path)
    with pytest.raises(DataError, match="no public set"):
        open_public("imagenet", tmp_path)


def test_davis_is_read_video_by_video(tmp_path: Path) -> None:
    for video, frames in (("bear", 2), ("camel", 1)):
        for frame in range(frames):
            picture(tmp_path / "JPEGImages" / "480p" / video / f"{frame:05d}.jpg")
            picture(tmp_path / "Annotations" / "480p" / video / f"{frame:05d}.png", mode="L", grey=255)
    stems = [r.stem for r in open_public("davis-2016", tmp_path, complete=False)]
    assert stems == ["davis-2016_bear-00000", "davis-2016_bear-00001", "davis-2016_camel-00000"]


def test_make_then_check_then_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    scenes = ["--count", "3", "--size", "96x80", "--seed", "7"]
    assert main(["make", "--out", str(out), "--layers", *scenes]) == 0
    made = json.loads((out / "procedural.json").read_bytes())
    assert made["settings"] == {"count": 3, "kind": None, "seed": 7, "size": [96, 80]}
    assert len(PairFolder(out)) == 3
    # What was written composes to the picture exactly.
    a, f, b, rgb = (
        np.asarray(Image.open(out / folder / "procedural_7-00001.png")).astype(np.int64)
        for folder in ("masks", "foregrounds", "backgrounds", "images")
    )
    assert np.array_equal((2 * (f * a[..., None] + b * (255 - a[..., None])) + 255) // 510, rgb)
    capsys.readouterr()
    assert main(["check", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sets"] == {"procedural": 3}
    for arguments in (["--data", str(out)], scenes):
        sheet = tmp_path / "sheet.png"
        assert main(["preview", "--out", str(sheet), *arguments]) == 0
        with Image.open(sheet) as page:
            assert page.width > 900 and np.asarray(page).max() > 200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "sheet.png"]


def test_make_does_not_write_over_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    assert main(["make", "--count", "1", "--out", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make", "--out", "{}/x", "--count", "0"], "at least one scene"),
        (["make", "--out", "{}/x", "--size", "9x9"], "at least 64×64"),
        (["preview", "--out", "{}/x.txt"], "written as .png"),
        (["check", "{}/nowhere"], "no folder images/"),
        (["check", "{}/nowhere", "--as", "ecssd"], "is not a folder"),
        (["preview", "--data", "{}/nowhere", "--out", "{}/x.png"], "no folder images/"),
    ],
)
def test_bad_requests_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([a.format(tmp_path) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_list_names_every_public_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in value["public"]} >= {"duts-te", "ecssd", "hku-is", "pascal-s", "dut-omron"}
    assert all(each["terms"] and each["source"] and each["count"] > 0 for each in value["public"])


def test_real_pairs(shared: Path) -> None:
    folder = PairFolder(shared / "data" / "eval")
    assert len(folder) == 297
    assert {name: len(records) for name, records in folder.sets().items()}["ecssd"] == 150

"""Decoding: every kind of picture that people have, and every kind of damage."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from u2net.decode import DecodeLimits, load_image
from u2net.errors import ImageError


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pattern(height: int = 12, width: int = 20) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack((x * 12, y * 20, (x + y) * 7), -1).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_applied_and_removed(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    data = saved(pattern(), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = load_image(data)
    np.testing.assert_array_equal(decoded.rgb, expected)
    assert decoded.metadata.exif is not None
    kept = Image.Exif()
    kept.load(decoded.metadata.exif)
    assert 0x0112 not in kept and kept[0x010F] == "maker"


def test_damaged_exif_does_not_cost_the_picture() -> None:
    data = saved(pattern(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12" * 40)
    assert load_image(data).width == 20


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG", "AVIF", "JPEG2000"])
def test_formats(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    decoded = load_image(saved(pattern(), form, **options))
    assert decoded.format == form and decoded.alpha is None and decoded.frames == 1
    tolerance = {"JPEG": 60, "AVIF": 60, "GIF": 60}.get(form, 0)
    assert np.abs(decoded.rgb.astype(int) - np.asarray(pattern())).max() <= tolerance


def test_grey_palette_and_bilevel() -> None:
    grey = pattern().convert("L")
    np.testing.assert_array_equal(load_image(saved(grey, "PNG")).rgb[..., 1], np.asarray(grey))
    flat = pattern().quantize(16)
    np.testing.assert_array_equal(load_image(saved(flat, "PNG")).rgb, np.asarray(flat.convert("RGB")))
    black_white = pattern().convert("1")
    assert set(np.unique(load_image(saved(black_white, "PNG")).rgb)) <= {0, 255}


def test_sixteen_bits_are_rounded() -> None:
    values = np.arange(0, 65536, 13, dtype=np.uint16)[:5000].reshape(50, 100)
    expected = np.round(values / 257).astype(np.uint8)
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(load_image(saved(Image.fromarray(values), form)).rgb[..., 0], expected)


def test_floating_point_tiff() -> None:
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    values[0, 0] = np.nan
    expected = (np.nan_to_num(values) * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(load_image(saved(Image.fromarray(values), "TIFF")).rgb[..., 2], expected)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [("person", True), ("lettering", True), ("frame", False), ("disc", False), ("soft", False), ("clear", False)],
)
def test_what_is_a_cutout_already(shape: str, expected: bool) -> None:
    y, x = np.mgrid[0:100, 0:80]
    alpha = {
        "person": (np.hypot(x - 40, y - 25) < 12) | ((abs(x - 40) < 8) & (y > 30) & (y < 95)),
        "lettering": (x % 9 < 4) & (y > 40) & (y < 60),
        "frame": (x > 8) & (x < 72) & (y > 8) & (y < 92),
        "disc": np.hypot(x - 40, y - 50) < 35,
        "soft": np.full(x.shape, 0.5),
        "clear": np.zeros(x.shape),
    }[shape]
    rgba = np.dstack((np.full((100, 80, 3), 255, np.uint8), (alpha * 255).astype(np.uint8)))
    assert load_image(saved(Image.fromarray(rgba), "PNG")).is_cutout is expected


def test_transparency_is_kept_apart() -> None:
    rgba = pattern().convert("RGBA")
    alpha = np.tile(np.arange(20, dtype=np.uint8) * 13, (12, 1))
    rgba.putalpha(Image.fromarray(alpha))
    decoded = load_image(saved(rgba, "PNG"))
    np.testing.assert_array_equal(decoded.rgb, np.asarray(pattern()))
    np.testing.assert_array_equal(decoded.alpha, alpha)
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    assert np.abs(decoded.flattened().astype(int) - np.asarray(white.convert("RGB"))).max() <= 1
    light = load_image(saved(Image.fromarray(np.dstack((np.full((12, 20, 3), 250, np.uint8), alpha))), "PNG"))
    assert light.flattened()[0, 0].tolist() == [0, 0, 0] and light.flattened()[0, -1].min() > 240
    grey = rgba.convert("LA")
    decoded = load_image(saved(grey, "PNG"))
    np.testing.assert_array_equal(decoded.alpha, alpha)
    np.testing.assert_array_equal(decoded.rgb[..., 0], np.asarray(grey)[..., 0])


def test_transparent_palette_and_colour_key() -> None:
    flat = pattern().quantize(8)
    decoded = load_image(saved(flat, "PNG", transparency=3))
    np.testing.assert_array_equal(decoded.alpha == 0, np.asarray(flat) == 3)
    key = tuple(int(c) for c in np.asarray(pattern())[2, 3])
    decoded = load_image(saved(pattern(), "PNG", transparency=key))
    np.testing.assert_array_equal(decoded.alpha == 0, (np.asarray(pattern()) == key).all(-1))
    assert load_image(saved(Image.new("RGBA", (3, 3), (1, 2, 3, 255)), "PNG")).alpha is None


def test_cmyk_with_and_without_profile() -> None:
    cmyk = pattern().convert("CMYK")
    decoded = load_image(saved(cmyk, "TIFF"))
    np.testing.assert_array_equal(decoded.rgb, np.asarray(cmyk.convert("RGB")))
    assert load_image(saved(cmyk, "JPEG", quality=95)).rgb.shape == (12, 20, 3)
    wrong = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noted = load_image(saved(cmyk, "TIFF", icc_profile=wrong))
    assert "another colour space" in noted.notes[0]


def wide_profile() -> bytes:
    """An RGB profile whose red and blue primaries are swapped: nobody can miss that it was applied."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    tags = {bytes(data[p : p + 4]): p for p in range(132, 132 + 12 * count, 12)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = data[blue + 4 : blue + 12], data[red + 4 : red + 12]
    return bytes(data).replace(b"sRGB IEC61966-2", b"swapped primary")


def test_profile_is_converted_to_srgb() -> None:
    data = saved(pattern(), "PNG", icc_profile=wide_profile())
    decoded = load_image(data)
    assert not decoded.notes
    difference = np.abs(decoded.rgb.astype(int) - np.asarray(pattern())[..., ::-1].astype(int))
    assert difference.max() <= 2


def test_profiles_that_are_no_good_are_noted() -> None:
    for profile in (b"nonsense" * 40, wide_profile()[:300], b"\0" * 16 + b"RGB " + b"\xff" * 500):
        decoded = load_image(saved(pattern(), "PNG", icc_profile=profile))
        np.testing.assert_array_equal(decoded.rgb, np.asarray(pattern()))
        assert "profile" in decoded.notes[0]


def test_profile_bombs() -> None:
    huge = wide_profile() + b"\0" * (5 << 20)
    decoded = load_image(saved(pattern(), "TIFF", icc_profile=huge))
    assert "bytes ignored" in decoded.notes[0]
    np.testing.assert_array_equal(decoded.rgb, np.asarray(pattern()))
    bomb = b"name\0\0" + zlib.compress(b"\0" * (200 << 20), 9)
    chunk = struct.pack(">I", len(bomb)) + b"iCCP" + bomb + struct.pack(">I", zlib.crc32(b"iCCP" + bomb))
    data = saved(pattern(), "PNG")
    with pytest.raises(ImageError):
        load_image(data[:33] + chunk + data[33:])


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (9, 7), c) for c in ("red", "lime", "blue")]
    for form in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        decoded = load_image(saved(frames[0], form, save_all=True, append_images=frames[1:], **options))
        assert decoded.frames == 3 and decoded.notes[0].startswith("first of 3")
        assert decoded.rgb[3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20000), (20000, 1)])
def test_extreme_shapes(width: int, height: int) -> None:
    decoded = load_image(saved(Image.new("RGB", (width, height), "teal"), "PNG"))
    assert (decoded.width, decoded.height) == (width, height)


def png_header(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\x09IDATx"
    )


def test_pixel_cap_is_an_error_before_decoding() -> None:
    with pytest.raises(ImageError, match="megapixels"):
        load_image(png_header(20000, 20000))
    with pytest.raises(ImageError, match="megapixels"):
        load_image(png_header(2**31 - 1, 2**31 - 1))
    data = saved(pattern(), "PNG")
    with pytest.raises(ImageError, match="limit"):
        load_image(data, DecodeLimits(max_pixels=239))
    assert load_image(data, DecodeLimits(max_pixels=240)).width == 20
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None  # the caller's own Pillow keeps its guard


def test_too_many_scans() -> None:
    data = saved(pattern(64, 64), "JPEG", progressive=True)
    assert load_image(data).width == 64
    with pytest.raises(ImageError, match="scans"):
        load_image(data[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\0" * 200 + data[-2:])


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("I am no picture.")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    os.mkfifo(tmp_path / "pipe.png")
    paths: tuple[Any, ...] = (
        *sorted(tmp_path.iterdir()),
        tmp_path,
        tmp_path / "absent.png",
        "/dev/zero",
        "x\ny.png",
        "x\0y",
    )
    for path in paths:
        with pytest.raises(ImageError) as caught:
            load_image(path)
        assert "\n" not in str(caught.value)


def test_file_size_limit() -> None:
    with pytest.raises(ImageError, match="larger than"):
        load_image(saved(pattern(), "PNG"), DecodeLimits(max_bytes=50))
    with pytest.raises(ImageError, match="larger than"):
        load_image(io.BytesIO(b"\0" * 100), DecodeLimits(max_bytes=50))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF"])
def test_truncated_files(form: str) -> None:
    rng = np.random.default_rng(0)
    data = saved(Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)), form)
    for length in range(0, int(len(data) * 0.9), max(1, len(data) // 17)):
        with pytest.raises(ImageError):
            load_image(data[:length])


SEEDS = [saved(pattern(), form) for form in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM")]


@settings(max_examples=300, deadline=5000, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_gives_a_picture_or_an_image_error(data: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    try:
        decoded = load_image(bytes(damaged), DecodeLimits(max_pixels=1_000_000))
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert decoded.rgb.dtype == np.uint8 and decoded.rgb.ndim == 3


def test_arrays_and_pillow_images() -> None:
    pixels = np.asarray(pattern())
    np.testing.assert_array_equal(load_image(pixels).rgb, pixels)
    np.testing.assert_array_equal(load_image(pixels[..., 0]).rgb[..., 2], pixels[..., 0])
    four = np.dstack((pixels, np.full((12, 20), 7, np.uint8)))
    assert int(load_image(four).alpha.max()) == 7  # type: ignore[union-attr]
    np.testing.assert_array_equal(load_image(pattern()).rgb, pixels)
    for wrong in (pixels.astype(float), pixels[:, :, :2], np.zeros((0, 3, 3), np.uint8), np.zeros(5, np.uint8)):
        with pytest.raises(ImageError):
            load_image(wrong)


def test_heic(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    picture = pattern().resize((80, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(picture).save(tmp_path / "a.heic", quality=95)
    decoded = load_image(tmp_path / "a.heic")
    assert decoded.format == "HEIF" and decoded.rgb.shape == (48, 80, 3)
    assert np.abs(decoded.rgb.astype(int) - np.asarray(picture)).mean() < 8
    with pytest.raises(ImageError, match="megapixels"):
        load_image(tmp_path / "a.heic", DecodeLimits(max_pixels=1000))
    with pytest.raises(ImageError):
        load_image((tmp_path / "a.heic").read_bytes()[:200])

"""Pictures that lie, explode, or are merely unusual."""

from __future__ import annotations

import io
import os
import resource
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from u2net.cli import main
from u2net.decode import DecodeLimits, load_image
from u2net.errors import ImageError

from .forgeries import jpeg_of_scans, picture, png, png_chunk, tiff
from .outcome import attack, attack_process, within_time

Refused = dict[str, bytes]


def zeros(count: int) -> bytes:
    """`count` zero bytes, compressed."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(b"\0" * min(1 << 20, count - start)) for start in range(0, count, 1 << 20)]
    return b"".join(parts) + packer.flush()


def bmp(width: int, height: int, bits: int = 24) -> bytes:
    return (
        struct.pack("<2sIHHI", b"BM", 70, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 16, 0, 0, 0, 0)
        + b"\0" * 16
    )


def gif(width: int, height: int) -> bytes:
    data = bytearray(picture("GIF", (8, 8)))
    data[6:10] = struct.pack("<HH", width, height)
    at = data.index(b"\x2c", 13 + 3 * 2)
    while data[at + 1 : at + 5] != b"\0\0\0\0":
        at = data.index(b"\x2c", at + 1)
    data[at + 5 : at + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(picture("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS: Refused = {
    "png of 2.5 gigapixels": png(50_000, 50_000),
    "png of 2.5 gigapixels that are there": png(50_000, 50_000, zeros(50_000 * 6_251), depth=1, colour=0),
    "png of the largest size": png(2**31 - 1, 2**31 - 1),
    "gif of 4 gigapixels": gif(65_535, 65_535),
    "jpeg of 4 gigapixels": jpeg_claiming(65_500, 65_500),
    "bmp of 2 gigapixels": bmp(46_000, 46_000),
    "bmp of 2 gigapixels upside down": bmp(46_000, -46_000),
    "tiff of 4 gigapixels": tiff(
        [(256, 4, 1, 65_000), (257, 4, 1, 65_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
         (277, 3, 1, 1), (278, 4, 1, 65_000), (279, 4, 1, 0xFFFFFFF0)]
    ),
    "ppm of 10 gigapixels": b"P6 100000 100000 255\n" + b"\0" * 64,
    "webp of 268 megapixels": b"RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0\x2f" + struct.pack("<I", 0x0FFFFFFF) + b"\0" * 9,
}  # fmt: skip

LIARS: Refused = {
    "png shorter than its header": png(300, 300),
    "png with a chunk longer than the file": picture()[:33] + png_chunk(b"IDAT", b"x", length=0x7FFFFFFF),
    "png of no width": png(0, 8),
    "png of a bit depth that is none": png(8, 8, depth=77),
    "png without pixels": picture()[:33] + png_chunk(b"IEND", b""),
    "png with a wrong checksum": picture().replace(b"IDAT", b"IDAT", 1)[:-20] + b"\0" * 20,
    "bmp of no height": bmp(8, 0),
    "bmp of 3 bits": bmp(8, 8, 3),
    "tiff that points beyond itself": tiff(
        [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 0x7FFFFFFF), (279, 4, 1, 64)]
    ),
    "tiff with a directory of 4 billion": tiff([(256, 4, 0xFFFFFFFF, 8), (257, 4, 0xFFFFFFFF, 8)]),
    "tiff whose directory is its own successor": tiff([(256, 4, 1, 8)], next_ifd=8),
    "webp that ends": picture("WEBP")[:30],
    "empty": b"",
    "text": b"This is not a picture.\n" * 40,
    "html": b"<!doctype html><img src=x onerror=alert(1)>",
    "svg": b"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/owned) (w) file closefile\nshowpage\n",
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF",
    "zip": b"PK\x03\x04" + b"\0" * 60,
    "one byte": b"\xff",
    "jpeg of a thousand scans": jpeg_of_scans(1000),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_unpack(name: str, tmp_path: Path, model: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attack(main, [path, "-o", tmp_path / "out.png", "--model", model], tmp_path).refused("megapixels", "--max-pixels")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("name", LIARS)
def test_lies_are_refused_with_one_line(name: str, tmp_path: Path, model: Path) -> None:
    path = tmp_path / "lie.jpg"
    path.write_bytes(LIARS[name])
    attack(main, [path, "-o", tmp_path / "out.png", "--model", model], tmp_path).refused("lie.jpg")


def test_the_limit_is_the_callers_to_set() -> None:
    data = picture(size=(200, 100))
    with pytest.raises(ImageError, match="over the limit"):
        load_image(data, DecodeLimits(max_pixels=19_999))
    assert load_image(data, DecodeLimits(max_pixels=20_000)).width == 200
    with pytest.raises(ImageError, match="larger than 100 bytes"):
        load_image(data, DecodeLimits(max_bytes=100))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_every_truncation_is_a_picture_or_an_error(form: str) -> None:
    data = picture(form)
    step = max(1, len(data) // 60)
    with within_time(cpu_s=20):
        for length in range(0, len(data), step):
            try:
                decoded = load_image(data[:length])
            except ImageError as error:
                assert str(error).count("\n") == 0
            else:
                assert decoded.rgb.shape == (16, 24, 3)


COLOURS = [(0, 0, 0), (60, 0, 0), (0, 60, 0), (0, 0, 60), (90, 90, 90), (200, 120, 40)]
UPRIGHT = np.array(COLOURS, np.uint8).reshape(2, 3, 3).repeat(8, 0).repeat(8, 1)
# How a camera held that way stored the upright picture (TIFF 6.0, tag 274).
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, tmp_path: Path, model: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(path, exif=exif)
    assert np.array_equal(load_image(path).rgb, UPRIGHT)
    out = tmp_path / "out.png"
    assert attack(main, [path, "-o", out, "--model", model, "--preset", "fast"], tmp_path).status == 0
    with Image.open(out) as image:
        assert image.size == (24, 16) and image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_nonsense_orientation_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(load_image(picture(exif=exif)).rgb, load_image(picture()).rgb)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 64,
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\xff\x7f\0\0\0\0",
        b"Exif\0\0" + b"A" * 4000,
    ],
)
def test_damaged_exif_does_not_cost_the_picture(exif: bytes) -> None:
    assert load_image(picture("JPEG", exif=exif)).rgb.shape == (16, 24, 3)


def test_cmyk() -> None:
    ink = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    for form in ("JPEG", "TIFF"):
        file = io.BytesIO()
        ink.save(file, form)
        red = load_image(file.getvalue()).rgb[0, 0].astype(int)
        assert red[0] > 240 and red[1] < 15 and red[2] < 15, form


def test_sixteen_bits() -> None:
    values = np.array([[0, 128, 129, 32768, 65407, 65535]], np.uint16)
    for form in ("PNG", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(values).save(file, form)
        got = load_image(file.getvalue()).rgb[0, :, 0]
        assert got.tolist() == np.round(values[0] / 257).astype(int).tolist(), form
    # Sixteen bits a channel in colour, which Pillow reads as eight.
    rows = b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 65535, 32768)
    assert load_image(png(2, 1, zlib.compress(rows), depth=16)).rgb.tolist() == [[[255, 0, 0], [0, 255, 128]]]


def test_palette_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes([255, 64]))
    decoded = load_image(file.getvalue())
    assert decoded.rgb.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert decoded.alpha is not None and decoded.alpha.tolist() == [[255, 64]]
    # A palette index beyond the palette.
    short = png(2, 1, zlib.compress(b"\0\0\xfe"), colour=3, chunks=png_chunk(b"PLTE", b"\x09\x08\x07"))
    assert load_image(short).rgb.shape == (1, 2, 3)


def test_grey_with_alpha_and_one_bit_and_float() -> None:
    file = io.BytesIO()
    Image.merge("LA", (Image.new("L", (1, 1), 80), Image.new("L", (1, 1), 7))).save(file, "PNG")
    decoded = load_image(file.getvalue())
    assert decoded.rgb.tolist() == [[[80, 80, 80]]] and decoded.alpha is not None and decoded.alpha.tolist() == [[7]]
    assert set(np.unique(load_image(picture(mode="1")).rgb)) <= {0, 255}
    file = io.BytesIO()
    Image.fromarray(np.array([[np.nan, np.inf, -3, 0.5]], np.float32)).save(file, "TIFF")
    assert load_image(file.getvalue()).rgb[0, :, 0].tolist() == [0, 0, 0, 128]


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 2), (1, 40)])
def test_extreme_shapes_are_cut_out_at_their_size(size: tuple[int, int], tmp_path: Path, model: Path) -> None:
    path, out, mask = tmp_path / "in.png", tmp_path / "out.png", tmp_path / "mask.png"
    Image.new("RGB", size, (200, 30, 60)).save(path)
    for preset in ("fast", "balanced"):
        done = attack(main, [path, "-o", out, "--mask", mask, "--model", model, "--preset", preset], tmp_path)
        done.clean()
        assert done.status == 0, done.err
        for file in (out, mask):
            with Image.open(file) as image:
                image.load()
                assert image.size == size


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))]
    file = io.BytesIO()
    options = {} if form == "TIFF" else {"duration": 50}
    if form == "WEBP":
        options["lossless"] = True
    frames[0].save(file, form, save_all=True, append_images=frames[1:], **options)
    decoded = load_image(file.getvalue())
    assert decoded.rgb[0, 0].tolist() == [250, 0, 0] and decoded.frames == 2
    assert "first of 2" in " ".join(decoded.notes)


def profile(size: int, tags: int, space: bytes = b"RGB ") -> bytes:
    """An ICC profile that claims `size` bytes and `tags` tags."""
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x04000000, b"mntr", space, b"XYZ ") + b"\0" * 12
    return (head + b"acsp" + b"\0" * 128)[:128] + struct.pack(">I", tags) + b"\xff" * 12 * min(tags, 40)


PROFILES = {
    "larger than any in use": b"\0" * (5 << 20),
    "four billion tags": profile(4096, 0xFFFFFFFF),
    "tags beyond its end": profile(4096, 30),
    "size of 4 GiB": profile(0xFFFFFFFF, 2),
    "another colour space": profile(600, 2, b"CMYK"),
    "noise": bytes(np.random.default_rng(0).integers(0, 256, 3000, np.uint8)),
    "empty": b"\0" * 128,
}


@pytest.mark.parametrize("name", PROFILES)
def test_hostile_colour_profiles_do_not_cost_the_picture(name: str) -> None:
    for form in ("JPEG", "PNG", "TIFF", "WEBP"):
        if form == "PNG" and len(PROFILES[name]) > 1 << 20:
            continue  # Pillow refuses such a chunk, and the picture with it; test_text_and_profile_bombs looks at that
        honest = load_image(picture(form)).rgb
        with within_time():
            decoded = load_image(picture(form, icc_profile=PROFILES[name]))
        assert np.array_equal(decoded.rgb, honest), form


def test_honest_profiles_are_followed() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.abs(load_image(picture(icc_profile=lab)).rgb.astype(int) - load_image(picture()).rgb).max() <= 1


def test_text_and_profile_bombs_in_png_chunks() -> None:
    bomb = zeros(256 << 20)
    honest = picture()
    for chunk in (
        png_chunk(b"zTXt", b"k\0\0" + bomb),
        png_chunk(b"iTXt", b"k\0\1\0\0\0" + bomb),
        png_chunk(b"iCCP", b"k\0\0" + bomb),
    ):
        data = honest[:33] + chunk + honest[33:]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with within_time(), suppress(ImageError):
            assert load_image(data).rgb.shape == (16, 24, 3)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path, model: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("pipe.jpg", "gone.jpg", "loop.jpg", "missing.jpg"):
        attack(main, [tmp_path / name, "-o", tmp_path / "o.png", "--model", model], tmp_path).refused(name)
    for name in ("/dev/zero", "/dev/full"):
        attack(main, [name, "-o", tmp_path / "o.png", "--model", model], tmp_path).refused("not a regular file")


@pytest.mark.parametrize(
    "name", ["a\nerror: forged.jpg", "b\x1b[2Jc.jpg", "\x07bell.jpg", "\u202egpj.exe", "\udcff.jpg"]
)
def test_names_cannot_forge_lines_or_drive_the_terminal(name: str, tmp_path: Path, model: Path) -> None:
    (tmp_path / name).write_bytes(b"no picture")
    outcome = attack(main, [tmp_path / name, "-o", tmp_path / "o.png", "--model", model], tmp_path)
    outcome.refused()
    assert "\u202e" not in outcome.err
    (tmp_path / "dir").mkdir()
    (tmp_path / name).rename(tmp_path / "dir" / name)
    attack(main, [tmp_path / "dir", "-o", tmp_path / "outs", "--model", model, "--jobs", "1"], tmp_path).clean()


def test_a_batch_goes_on_and_says_that_some_failed(tmp_path: Path, model: Path, photo: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index, data in enumerate((*list(LIARS.values())[:4], photo.read_bytes(), BOMBS["png of 2.5 gigapixels"])):
        (folder / f"{index}.jpg").write_bytes(data)
    os.mkfifo(folder / "9.jpg")
    outcome = attack(main, [folder, "-o", tmp_path / "out", "--model", model, "--jobs", "1"], tmp_path)
    outcome.clean()
    assert outcome.status == 1
    assert {n for n in outcome.added if not n.startswith("out/.u2net")} == {"out/4.png"}
    with Image.open(tmp_path / "out" / "4.png") as image:
        image.load()
        assert image.size == (160, 120)


@pytest.mark.parametrize("background", ["bomb.png", "pipe.png", "missing.png", "#12345", "nocolour"])
def test_hostile_backgrounds(background: str, tmp_path: Path, model: Path, photo: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(BOMBS["png of 2.5 gigapixels"])
    os.mkfifo(tmp_path / "pipe.png")
    given = tmp_path / background if background.endswith("png") else background
    output: list[str | Path] = ["-o", tmp_path / "o.png", "--model", model]
    attack(main, [photo, *output, "--background", given], tmp_path).refused()


def test_libraries_do_not_talk_past_the_command(tmp_path: Path, model: Path) -> None:
    """libtiff prints its own complaints; what the person sees is one line all the same."""
    data = bytearray(picture("TIFF", compression="jpeg"))
    at = data.index(b"\xff\xda")
    data[at : at + 8] = b"\xff\xb5\0\0\0\0\0\0"
    path = tmp_path / "noisy.tif"
    path.write_bytes(data)
    arguments: list[str | Path] = ["-m", "u2net", path, "-o", tmp_path / "o.png", "--model", model]
    attack_process(arguments, tmp_path).refused("noisy.tif")

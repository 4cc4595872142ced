"""The files that fuzzing starts from, in `seeds/<target>/`: small, self-made, one per path through a parser.

`python -m tests.attacks.seeds` makes them anew; what fuzzing finds is kept as `found-*`, the tests replay.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from .forgeries import payload, picture, plain_model, png, png_chunk, safetensors, torch_zip

__all__ = ["SEEDS", "seeds_of"]

SEEDS = Path(__file__).parent / "seeds"


def seeds_of(target: str) -> list[bytes]:
    """The kept files of `target`, in order of name."""
    return [path.read_bytes() for path in sorted((SEEDS / target).iterdir()) if path.is_file()]


def _pictures() -> dict[str, bytes]:
    small = (12, 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [Image.new("P", (6, 6), index) for index in range(2)]
    gif = io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], transparency=0)
    sixteen = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300).save(sixteen, "TIFF")
    palette = png(
        4, 2, zlib.compress(b"\0\0\1\2\0" + b"\0\2\1\0\1"), colour=3,
        chunks=png_chunk(b"PLTE", bytes(range(9))) + png_chunk(b"tRNS", b"\0\x80\xff"),
    )  # fmt: skip
    return {
        "rgb.jpg": picture("JPEG", small, quality=60),
        "progressive.jpg": picture("JPEG", small, progressive=True, quality=60),
        "turned.jpg": picture("JPEG", small, exif=exif, quality=60),
        "cmyk.jpg": picture("JPEG", small, mode="CMYK", quality=60),
        "profile.jpg": picture("JPEG", small, icc_profile=srgb, quality=60),
        "rgb.png": picture("PNG", small),
        "rgba.png": picture("PNG", small, mode="RGBA"),
        "grey-alpha.png": picture("PNG", small, mode="LA"),
        "palette.png": palette,
        "sixteen.png": png(2, 1, zlib.compress(b"\0" + struct.pack(">6H", 1, 2, 3, 60000, 5, 6)), depth=16),
        "interlaced.png": picture("PNG", small, mode="1"),
        "animated.gif": gif.getvalue(),
        "rgb.bmp": picture("BMP", (5, 3)),
        "rgb.ppm": picture("PPM", (5, 3)),
        "lossy.webp": picture("WEBP", small, quality=40),
        "lossless.webp": picture("WEBP", small, lossless=True, mode="RGBA"),
        "lzw.tif": picture("TIFF", small, compression="tiff_lzw"),
        "jpeg.tif": picture("TIFF", small, compression="jpeg"),
        "sixteen.tif": sixteen.getvalue(),
        "rgb.avif": picture("AVIF", small, quality=30),
        "rgb.jp2": picture("JPEG2000", small),
    }


def _models() -> dict[str, bytes]:
    few = plain_model(convolutions=3)
    return {
        "few.onnx": few.SerializeToString(),
        "plain.onnx": plain_model(convolutions=112).SerializeToString(),
        "named.onnx": plain_model(
            convolutions=3, metadata={"u2net.size": "32", "u2net.interface": "tensor"}
        ).SerializeToString(),
    }


def _checkpoints() -> dict[str, bytes]:
    entry = {"dtype": "F32", "shape": [1, 3, 1, 1], "data_offsets": [0, 12]}
    return {
        "one.safetensors": safetensors({"stage1.rebnconvin.conv_s1.weight": entry}, b"\0" * 12),
        "config.safetensors": safetensors({"__metadata__": {"u2net.config": '{"size": 320}'}, "a": entry}, b"\0" * 12),
        "dict.pkl": pickle.dumps({"a": 1, "b": [1.5, "x", (None, True)]}, protocol=2),
        "dict.pth": torch_zip(pickle.dumps({"state_dict": {}}, protocol=2)),
        "code.pth": payload("false"),
    }


def _texts() -> dict[str, bytes]:
    entry = {"path": "model.onnx", "role": "model", "bytes": 1, "sha256": "0" * 64, "sri": "sha384-x", "format": "onnx"}
    manifest = {"schema_version": 1, "name": "u2net-x", "files": [entry, {**entry, "path": "web/index.js"}]}
    sidecar = {"schema_version": 1, "stage": "export", "file": "m.onnx", "sha256": "0" * 64, "settings": {}}
    journal = {"output": "a.png", "key": "k", "files": {"a.png": "0" * 64}}
    return {
        "manifest.json": json.dumps(manifest).encode(),
        "sidecar.json": json.dumps(sidecar).encode(),
        "journal.jsonl": json.dumps(journal).encode() * 2,
    }


def _write() -> None:
    for target, files in (
        ("picture", _pictures()),
        ("model", _models()),
        ("checkpoint", _checkpoints()),
        ("text", _texts()),
    ):
        (SEEDS / target).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (SEEDS / target / name).write_bytes(data)


if __name__ == "__main__":
    _write()

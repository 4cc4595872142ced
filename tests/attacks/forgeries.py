"""Hostile files, made from scratch: pictures, models, checkpoints. Everything is small; what it claims is not."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

__all__ = [
    "jpeg_of_scans",
    "picture",
    "plain_model",
    "png",
    "png_chunk",
    "safetensors",
    "tiff",
    "torch_zip",
]

SIDE = 32


def picture(form: str = "PNG", size: tuple[int, int] = (24, 16), mode: str = "RGB", **options: Any) -> bytes:
    """An honest picture of a colour ramp."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack((x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x * 7 + y * 13) % 256), 2)
    image = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes, length: int | None = None, crc: int | None = None) -> bytes:
    """One PNG chunk, with its true length and checksum unless others are given."""
    checksum = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", checksum)


def png(
    width: int, height: int, data: bytes | None = None, *, depth: int = 8, colour: int = 2, chunks: bytes = b""
) -> bytes:
    """A PNG that claims `width`×`height` and holds the compressed `data`, whatever that is."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"\0" * 64) if data is None else data
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + chunks + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )


def tiff(entries: list[tuple[int, int, int, int]], next_ifd: int = 0) -> bytes:
    """A little-endian TIFF with one directory of (tag, type, count, value or offset)."""
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", next_ifd) + b"\0" * 64


def jpeg_of_scans(count: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG whose last scan is repeated `count` times: each costs the decoder a pass over all pixels."""
    data = picture("JPEG", size, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def plain_model(
    nodes: list[onnx.NodeProto] | None = None,
    *,
    convolutions: int = 112,
    side: int = SIDE,
    metadata: dict[str, str] | None = None,
    initializers: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    """A chain of convolutions from a picture to a map, ended by `nodes` (from `last` to `alpha`) or a sigmoid."""
    weights = [
        numpy_helper.from_array(np.full((1, 3, 1, 1), 1 / 3, np.float32), "first"),
        numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "same"),
    ]
    chain = []
    for index in range(convolutions):
        given = "input" if index == 0 else f"v{index - 1}"
        result = "last" if index == convolutions - 1 else f"v{index}"
        chain.append(helper.make_node("Conv", [given, "first" if index == 0 else "same"], [result]))
    chain += nodes if nodes is not None else [helper.make_node("Sigmoid", ["last"], ["alpha"])]
    graph = helper.make_graph(
        chain,
        "plain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, side, side))],
        [helper.make_tensor_value_info("alpha", TensorProto.FLOAT, (1, 1, side, side))],
        weights + (initializers or []),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    return model


def safetensors(header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class _Payload:
    """Unpickling it would run a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def payload(command: str) -> bytes:
    """A pickle that runs `command` when it is loaded by an unrestricted unpickler."""
    return pickle.dumps({"state_dict": _Payload(command)}, protocol=2)


def torch_zip(data: bytes, members: dict[str, bytes] | None = None) -> bytes:
    """A `.pth` archive around the pickle `data`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
        for name, content in (members or {}).items():
            archive.writestr(name, content)
    return file.getvalue()

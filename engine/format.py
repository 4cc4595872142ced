"""The file that the engine runs: its records, written and read. `docs/engine.md` is the specification."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum

from u2net.errors import ModelError

__all__ = [
    "ALIGNMENT",
    "MAX_CHANNELS",
    "MAX_SIDE",
    "VERSION",
    "Buffer",
    "BufferType",
    "EngineModel",
    "Operator",
    "OperatorKind",
    "Slice",
    "read_model",
    "write_model",
]

MAGIC = b"U2E1"
VERSION = 1
ALIGNMENT = 64  # bytes: a cache line
MAX_SIDE = 2048
MAX_CHANNELS = 1024

_HEADER = struct.Struct("<4s15I")
_BUFFER = struct.Struct("<5I")
_OPERATOR = struct.Struct("<10I3I4I2f")
_CHECKED_FROM = 16  # the checksum is of everything from here


class BufferType(IntEnum):
    """What a buffer holds."""

    ACTIVATION = 0  # uint8, channels innermost, with borders of zeros
    MAP = 1  # float32, one channel, no border


class OperatorKind(IntEnum):
    """What an operator does."""

    STEM = 1
    CONVOLUTION = 2
    POOL = 3
    RESIZE = 4
    ADD = 5
    GATE = 6
    SIDE = 7
    FUSE = 8


@dataclass(frozen=True)
class Buffer:
    """A piece of the arena: `offset` in bytes, and what lies there."""

    type: BufferType
    offset: int
    height: int
    width: int
    channels: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the arena that it takes, borders included."""
        return buffer_bytes(self.type, self.height, self.width, self.channels)


def buffer_bytes(kind: BufferType, height: int, width: int, channels: int) -> int:
    """Bytes of a buffer. Activations have a row of zeros above and below and a pixel of zeros between two rows."""
    if kind == BufferType.MAP:
        return height * width * 4
    return ((height + 2) * (width + 1) + 1) * channels


@dataclass(frozen=True)
class Slice:
    """Channels `first` to `first + channels` of the buffer with this index."""

    buffer: int = 0
    first: int = 0
    channels: int = 0


@dataclass(frozen=True)
class Operator:
    """One step of the network. What the constants (offsets in bytes), integers and floats mean depends on the kind."""

    kind: OperatorKind
    output: Slice
    input: Slice = Slice()
    second: Slice = Slice()
    constants: tuple[int, ...] = ()
    integers: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()

    @property
    def weights(self) -> int:
        """How many weights a convolution has, which is what a pixel takes of multiplications; 0 for other kinds."""
        if self.kind == OperatorKind.STEM:
            return 3 * self.integers[0] ** 2 * self.output.channels
        if self.kind == OperatorKind.CONVOLUTION:
            return 9 * self.input.channels * self.output.channels
        return 9 * self.input.channels if self.kind == OperatorKind.SIDE else 0


@dataclass(frozen=True)
class EngineModel:
    """A whole file: (height, width) of the network's input and of its map, and everything in between."""

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    arena_bytes: int
    buffers: tuple[Buffer, ...]
    operators: tuple[Operator, ...]
    constants: bytes = field(repr=False)


def write_model(model: EngineModel) -> bytes:
    """The bytes of the file."""
    records = b"".join(
        _BUFFER.pack(buffer.type, buffer.offset, buffer.height, buffer.width, buffer.channels)
        for buffer in model.buffers
    )
    for operator in model.operators:
        slices = [
            value for part in (operator.output, operator.input, operator.second)
            for value in (part.buffer, part.first, part.channels)
        ]  # fmt: skip
        records += _OPERATOR.pack(
            operator.kind,
            *slices,
            *_filled(operator.constants, 3, 0),
            *_filled(operator.integers, 4, 0),
            *_filled(operator.floats, 2, 0.0),
        )
    start = _aligned(_HEADER.size + len(records))
    body = records.ljust(start - _HEADER.size, b"\0") + model.constants
    fields = [
        *model.input_size,
        *model.output_size,
        len(model.buffers),
        len(model.operators),
        model.arena_bytes,
        start,
        *[0] * 4,
    ]
    header = _HEADER.pack(MAGIC, VERSION, _HEADER.size + len(body), 0, *fields)
    checksum = zlib.crc32(header[_CHECKED_FROM:] + body)
    return _HEADER.pack(MAGIC, VERSION, _HEADER.size + len(body), checksum, *fields) + body


def read_model(data: bytes) -> EngineModel:
    """What `write_model` wrote. Raises `ModelError` for anything else; what the records say is not checked here."""
    if len(data) < 8 or data[:4] != MAGIC:
        raise ModelError("not a file of this engine")
    version = int.from_bytes(data[4:8], "little")
    if version != VERSION:
        raise ModelError(f"of version {version} of the engine's format; this is version {VERSION}")
    if len(data) < _HEADER.size or int.from_bytes(data[8:12], "little") != len(data):
        raise ModelError("truncated: it is not as long as it says")
    header = _HEADER.unpack_from(data)
    if zlib.crc32(data[_CHECKED_FROM:]) != header[3]:
        raise ModelError("damaged: its checksum does not agree")
    buffer_count, operator_count, arena_bytes, start = header[8:12]
    records = _HEADER.size + buffer_count * _BUFFER.size + operator_count * _OPERATOR.size
    if not records <= start <= len(data):
        raise ModelError("malformed: its records do not fit")
    try:
        buffers = tuple(
            Buffer(BufferType(kind), *rest)
            for kind, *rest in _BUFFER.iter_unpack(data[_HEADER.size :][: buffer_count * _BUFFER.size])
        )
        operators = tuple(
            Operator(
                OperatorKind(fields[0]),
                Slice(*fields[1:4]),
                Slice(*fields[4:7]),
                Slice(*fields[7:10]),
                tuple(fields[10:13]),
                tuple(fields[13:17]),
                tuple(fields[17:19]),
            )
            for fields in _OPERATOR.iter_unpack(
                data[_HEADER.size + buffer_count * _BUFFER.size : records]
            )
        )  # fmt: skip
    except ValueError as error:
        raise ModelError(f"malformed: {error}") from None
    return EngineModel(header[4:6], header[6:8], arena_bytes, buffers, operators, data[start:])


def _aligned(offset: int) -> int:
    return (offset + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def _filled(values: tuple[float, ...], count: int, empty: float) -> tuple[float, ...]:
    return values + (empty,) * (count - len(values))

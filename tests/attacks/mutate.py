"""Spoiling files at random, the same way every time: case `index` of a target is a function of `index` alone."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence

__all__ = ["case", "mend_png"]

#: Numbers that parsers stumble over.
NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
MAX_BYTES = 1 << 16


def case(seeds: Sequence[bytes], index: int) -> bytes:
    """One of `seeds` with one to twelve spoiled places."""
    random_ = random.Random(index)
    data = bytearray(random_.choice(seeds))
    for _ in range(min(12, 1 + int(random_.expovariate(0.5)))):
        _spoil(random_, data, seeds)
    del data[MAX_BYTES:]
    if data.startswith(b"\x89PNG") and random_.random() < 0.8:
        return mend_png(bytes(data))  # else nearly every case would end at a checksum
    return bytes(data)


def _spoil(random_: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = random_.randrange(len(data) + 1)
    # Headers decide, so half of the places lie there.
    if random_.random() < 0.5:
        at = min(at, random_.randrange(96))
    kind = random_.randrange(9)
    if not data or kind == 0:
        data[at:at] = random_.randbytes(random_.randrange(1, 16))
    elif kind == 1:
        del data[at : at + random_.choice((1, 2, 4, 16, 200))]
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        length = random_.randrange(1, 64)
        data[at:at] = data[at : at + length] * random_.randrange(1, 8)
    elif kind == 4:
        other = random_.choice(seeds)
        start = random_.randrange(len(other))
        data[at : at + 32] = other[start : start + random_.randrange(1, 200)]
    elif kind in (5, 6):
        form = random_.choice(("B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
        number = random_.choice(NUMBERS) & (256 ** struct.calcsize(form) - 1)
        data[at : at + struct.calcsize(form)] = struct.pack(form, number)
    else:
        for _ in range(random_.randrange(1, 5)):
            if at < len(data):
                data[at] ^= 1 << random_.randrange(8)
            at = random_.randrange(len(data) + 1)


def mend_png(data: bytes) -> bytes:
    """`data` with the checksums of its PNG chunks set right, as far as its lengths lead."""
    out, position = bytearray(data[:8]), 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        body = data[position + 4 : end - 4]
        out += data[position : end - 4] + struct.pack(">I", zlib.crc32(body))
        position = end
    return bytes(out) + data[position:]

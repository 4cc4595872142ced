"""`python -m tests.engine.fuzz`: spoiled `.u2e` files by the thousand, each refused or run, within five seconds.

Most get a right checksum again after they were spoiled: without it none would come further than that.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import wasmtime

from engine.build import build_wasm
from engine.format import read_model, write_model
from engine.pack import pack_network
from engine.runtime import WasmEngine
from tests.engine.networks import random_network, random_picture

__all__ = ["Finding", "attack", "spoiled"]

LIMIT_S = 5.0
MEMORY_BYTES = 1 << 30  # what the engine may take at most
STATUSES = range(7)
HEADER_BYTES, BUFFER_BYTES = 64, 20

SEEDS = [
    write_model(pack_network(network).model)
    for network in (
        random_network(1, 20, 23),
        random_network(2, 16, 16, (16, 24), gate=False),
        random_network(3, 24, 20, (8, 12), stride=2, kernel=6),
    )
]
INTERESTING = [0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 63, 64, 255, 256, 1023, 1024, 2048, 2**15, 2**16, 2**30, 2**31 - 1,
               2**31, 2**32 - 4, 2**32 - 1]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A case that broke the rule."""

    index: int
    what: str


def spoiled(index: int) -> bytes:
    """Case `index`, the same on every machine."""
    random = np.random.default_rng(index)
    data = bytearray(SEEDS[index % len(SEEDS)])
    start = int.from_bytes(data[44:48], "little")
    kind = random.integers(0, 10)
    if kind == 0:  # cut off, or with something behind
        data = data[: random.integers(0, len(data))] if random.integers(2) else data + bytes(random.integers(1, 99))
    elif kind == 1:  # a few bytes anywhere
        for place in random.integers(0, len(data), random.integers(1, 5)):
            data[place] = random.integers(0, 256)
    else:  # words of header and records; sometimes those of one record put in another's place
        for _ in range(random.integers(1, 4)):
            word = 4 * int(random.integers(4, start // 4))
            choice = random.integers(0, 5)
            old = int.from_bytes(data[word : word + 4], "little")
            new = {
                0: int(random.choice(INTERESTING)),
                1: old + int(random.integers(-64, 65)),
                2: old ^ 1 << int(random.integers(0, 32)),
                3: int.from_bytes(data[(other := 4 * int(random.integers(4, start // 4))) : other + 4], "little"),
                4: old * 2 + int(random.integers(-1, 2)),
            }[int(choice)]
            data[word : word + 4] = (new % 2**32).to_bytes(4, "little")
    if kind > 1 or (kind == 1 and random.integers(2)):
        data[8:12] = len(data).to_bytes(4, "little")
        data[12:16] = zlib.crc32(data[16:]).to_bytes(4, "little")
    return bytes(data)


def attack(wasm: bytes, indices: Iterable[int]) -> tuple[list[Finding], Counter[int], float]:
    """What was found, how often each status came, and the seconds of the slowest case."""
    found, statuses, slowest = [], Counter[int](), 0.0
    host = WasmEngine(wasm)
    good = SEEDS[0]
    for index in indices:
        data, begin = spoiled(index), time.perf_counter()
        try:
            status = host.load(data)
            statuses[status] += 1
            if status not in STATUSES:
                found.append(Finding(index, f"status {status}"))
            if status == 0:
                size = host.call("u2e_input_height"), host.call("u2e_input_width")
                result = host.run(random_picture(index, *size))
                if not (np.isnan(result) | ((result >= 0) & (result <= 1))).all():
                    found.append(Finding(index, "a map beyond 0 … 1"))
                address = host.call("u2e_reserve", len(data))  # where the file lay
                if host.read(address, len(data)).tobytes() != data:
                    found.append(Finding(index, "it wrote into its own file"))
            if host.memory_bytes > MEMORY_BYTES:
                found.append(Finding(index, f"took {host.memory_bytes:,} bytes"))
        except (wasmtime.Trap, wasmtime.WasmtimeError, AssertionError) as error:
            found.append(Finding(index, " ".join(str(error).split())[:200]))
            host = WasmEngine(wasm)
        slowest = max(slowest, time.perf_counter() - begin)
        if time.perf_counter() - begin > LIMIT_S:
            found.append(Finding(index, f"took {time.perf_counter() - begin:.1f} s"))
        if index % 100 == 0:
            if host.memory_bytes > 1 << 28:
                host = WasmEngine(wasm)
            if host.load(good) != 0:
                found.append(Finding(index, "a good file does not load any more"))
    return found, statuses, slowest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.engine.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    assert all(write_model(read_model(seed)) == seed for seed in SEEDS)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "engine.wasm"
        build_wasm(path)
        wasm = path.read_bytes()
    found, statuses, slowest = attack(wasm, range(arguments.first, arguments.first + arguments.cases))
    for finding in found[:50]:
        print(f"case {finding.index}: {finding.what}")
    print(f"{arguments.cases} files: {len(found)} findings, statuses {dict(sorted(statuses.items()))}, "
          f"slowest {slowest:.2f} s", file=sys.stderr)  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

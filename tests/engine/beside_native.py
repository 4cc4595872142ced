"""The engine in Python, under wasmtime, beside native onnxruntime: whether it should run under the runner.

    python -m tests.engine.beside_native build/lite build/small-fast [--out FILE.md]        # a part of make bench

One thread each, in turns, processor time, the median of the rounds. A folder holds int8.onnx and int8.u2e.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.runtime import EngineSession
from u2net.files import write_bytes
from u2net.runtime import onnxruntime

ROUNDS = 15


def _processor_ms(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return (time.process_time() - start) * 1e3


def row(folder: Path) -> str:
    """One model: milliseconds of both, and how many times as fast the engine is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    native = onnxruntime.InferenceSession(folder / "int8.onnx", options, providers=["CPUExecutionProvider"])
    packed = EngineSession(folder / "int8.u2e")
    tensor = np.random.default_rng(0).standard_normal((1, 3, *packed.input_size)).astype(np.float32)
    feeds = {native.get_inputs()[0].name: tensor}
    times = [(_processor_ms(lambda: packed.run(tensor)), _processor_ms(lambda: native.run(None, feeds)))
             for _ in range(ROUNDS)]  # fmt: skip
    engine_ms, native_ms = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in times)
    return f"| {folder.name} | {engine_ms:.0f} ms | {native_ms:.0f} ms | {ratio:.2f} |"


def main(folders: list[Path], out: Path | None) -> None:
    """Print the table, and write it to `out`."""
    head = ["| model | engine under wasmtime | onnxruntime, native | times as fast |", "|---|---:|---:|---:|"]
    table = "\n".join([*head, *map(row, folders)])
    print(table)
    if out is not None:
        write_bytes(out, (f"<!-- python -m tests.engine.beside_native BUILD… --out {out.name} -->\n{table}\n").encode())


if __name__ == "__main__":
    arguments = sys.argv[1:]
    target = Path(arguments.pop()) if "--out" in arguments else None
    main([Path(name) for name in arguments if name != "--out"], target)

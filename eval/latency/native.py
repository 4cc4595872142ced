"""The bench on native onnxruntime, in a process of its own: the same questions and answers as `eval/browser/node.mjs`.

One JSON request per line on standard input, one JSON answer per line on standard output. Run by `eval.latency.engines`.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from u2net.runtime import onnxruntime as ort

NUMPY_TYPES = {"uint8": np.uint8, "float32": np.float32}


class Bench:
    """Sessions held side by side, each run timed."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.threads = 1
        self.sessions: dict[int, ort.InferenceSession] = {}
        self.feeds: dict[tuple[int, int], np.ndarray] = {}

    def start(self, provider: str, threads: int) -> dict[str, Any]:
        """Take the settings; native onnxruntime is already loaded."""
        if provider != "cpu":
            raise ValueError(f"unknown provider {provider}")
        self.threads = threads
        return {"engine_start_ms": 0.0}

    def load(self, index: int) -> dict[str, Any]:
        """Create session `index`."""
        model = self._bytes(f"/models/{index}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        begin = time.perf_counter()
        self.sessions[index] = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return {"session_ms": (time.perf_counter() - begin) * 1e3}

    def run(self, index: int, picture: int, input: dict[str, Any], mask: bool = False) -> dict[str, Any]:
        """Run session `index` on `picture` once."""
        key = (index, picture)
        if key not in self.feeds:
            raw = np.frombuffer(self._bytes(f"/inputs/{index}/{picture}"), NUMPY_TYPES[input["type"]])
            self.feeds[key] = raw.reshape(input["dims"])
        begin = time.perf_counter()
        (output,) = self.sessions[index].run([input["output"]], {input["name"]: self.feeds[key]})
        result: dict[str, Any] = {"ms": (time.perf_counter() - begin) * 1e3}
        if mask:
            result |= {"type": str(output.dtype), "dims": list(output.shape)}
            result["mask"] = base64.b64encode(np.asarray(output).tobytes()).decode()
        return result

    def facts(self) -> dict[str, Any]:
        """What the engine says of itself now."""
        providers = {name for session in self.sessions.values() for name in session.get_providers()}
        return {
            "engine": f"onnxruntime {ort.__version__}",
            "threads": self.threads,
            "providers": sorted(providers),
            "heap_bytes": _resident_bytes(),
        }

    def _bytes(self, path: str) -> bytes:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.origin + path) as response:
            return bytes(response.read())


def _resident_bytes() -> int | None:
    """Resident memory of this process, where the system tells (Linux)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return None


def main() -> None:
    """Answer requests until standard input ends."""
    bench = Bench(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": getattr(bench, request["method"])(**(request.get("argument") or {}))}
        except Exception as error:
            answer = {"error": str(error).splitlines()[0] if str(error) else type(error).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

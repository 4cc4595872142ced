"""The engine in Python: engine.wasm under wasmtime. It proves files here; pictures are cut out by `u2net`."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from u2net.errors import ConfigError, ModelError

from .build import build_wasm

try:
    import wasmtime
except ImportError as error:
    raise ConfigError(f"wasmtime is not installed ({error}): pip install u2net-remover[toolchain]") from error

__all__ = ["EngineSession", "EngineStatus", "WasmEngine"]

FloatArray = npt.NDArray[np.float32]
EngineStatus = {
    0: "success",
    1: "not a file of this engine",
    2: "of another version of the engine's format",
    3: "truncated, or longer than it says",
    4: "damaged: its checksum does not agree",
    5: "malformed",
    6: "the memory that it needs cannot be had",
    7: "nothing is loaded",
    8: "a helping thread was lost",
}


@cache
def _compiler() -> wasmtime.Engine:
    return wasmtime.Engine()


@cache
def _own_module() -> wasmtime.Module:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.wasm"
        build_wasm(path)
        return wasmtime.Module(_compiler(), path.read_bytes())


class WasmEngine:
    """An instance of the engine: `wasm`, or what `engine/src` compiles to."""

    def __init__(self, wasm: bytes | None = None) -> None:
        module = wasmtime.Module(_compiler(), wasm) if wasm is not None else _own_module()
        self.store = wasmtime.Store(_compiler())
        self._exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        memory = self._exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory

    @property
    def memory_bytes(self) -> int:
        """What the instance has taken so far."""
        return self._memory.data_len(self.store)

    def call(self, name: str, *arguments: int) -> int:
        """The result of an export, as an unsigned number."""
        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        return int(function(self.store, *arguments)) & 0xFFFFFFFF

    def read(self, address: int, count: int) -> npt.NDArray[np.uint8]:
        """A copy of `count` bytes of its memory."""
        return np.frombuffer(self._memory.read(self.store, address, address + count), np.uint8)

    def write(self, address: int, data: bytes) -> None:
        """Put `data` into its memory."""
        self._memory.write(self.store, data, address)

    def load(self, file: bytes) -> int:
        """The status of loading `file`; see `EngineStatus`."""
        address = self.call("u2e_reserve", len(file))
        if address == 0:
            return 6
        self.write(address, file)
        return self.call("u2e_load", 1)

    def run(self, picture: FloatArray) -> FloatArray:
        """The map, float32 (height, width) in [0, 1], of a normalised picture, float32 (3, height, width)."""
        size = self.call("u2e_output_height"), self.call("u2e_output_width")
        self.write(self.call("u2e_input"), np.ascontiguousarray(picture, "<f4").tobytes())
        status = self.call("u2e_run")
        if status:
            raise ModelError(f"the engine failed: {EngineStatus.get(status, f'status {status}')}")
        return self.read(self.call("u2e_output"), 4 * size[0] * size[1]).view("<f4").reshape(size)


class EngineSession:
    """A loaded `.u2e` file.

    `input_size` and `output_size` are (height, width) in pixels. Raises `ModelError` where the engine refuses the file.
    """

    def __init__(self, model: bytes | str | os.PathLike[str]) -> None:
        name = "the file" if isinstance(model, bytes) else str(model)
        try:
            data = model if isinstance(model, bytes) else Path(model).read_bytes()
        except OSError as error:
            raise ModelError(f"{name} cannot be read: {error.strerror or error}") from error
        self._engine = WasmEngine()
        status = self._engine.load(data)
        if status:
            place = f" (record {self._engine.call('u2e_fault_place')})" if status == 5 else ""
            raise ModelError(f"{name}: {EngineStatus.get(status, f'status {status}')}{place}")
        self.input_size = self._engine.call("u2e_input_height"), self._engine.call("u2e_input_width")
        self.output_size = self._engine.call("u2e_output_height"), self._engine.call("u2e_output_width")

    @property
    def memory_bytes(self) -> int:
        """What the engine has taken, the file included."""
        return self._engine.memory_bytes

    def run(self, tensor: FloatArray) -> FloatArray:
        """The map, float32 (height, width) in [0, 1], of what `u2net.preprocess.to_tensor` makes of a picture."""
        if tensor.shape != (1, 3, *self.input_size):
            raise ModelError(f"the engine's input is (1, 3, {self.input_size[0]}, {self.input_size[1]}), "
                             f"not {tensor.shape}")  # fmt: skip
        return self._engine.run(tensor[0])

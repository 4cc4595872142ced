"""The engine under wasmtime: what a host does, for tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import wasmtime

__all__ = ["EngineHost"]

_config = wasmtime.Config()
_config.cache = True
_wasm_engine = wasmtime.Engine(_config)


class EngineHost:
    """One instance of engine.wasm."""

    def __init__(self, wasm: bytes) -> None:
        self.store = wasmtime.Store(_wasm_engine)
        self.exports = wasmtime.Instance(self.store, wasmtime.Module(_wasm_engine, wasm), []).exports(self.store)
        memory = self.exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self.memory = memory

    def call(self, name: str, *arguments: int) -> int:
        """The result of an export; addresses come back as unsigned numbers."""
        function = self.exports[name]
        assert isinstance(function, wasmtime.Func)
        return int(function(self.store, *arguments)) & 0xFFFFFFFF

    @property
    def memory_bytes(self) -> int:
        return self.memory.data_len(self.store)

    def view(self, address: int, count: int) -> npt.NDArray[np.uint8]:
        """A copy of memory."""
        return np.frombuffer(self.memory.read(self.store, address, address + count), np.uint8)

    def load(self, file: bytes) -> int:
        """Status of loading `file`."""
        address = self.call("u2e_reserve", len(file))
        if address == 0:
            return 6
        self.memory.write(self.store, file, address)
        return self.call("u2e_load", 1)

    def run(self, picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The map of a normalised picture (3, height, width)."""
        size = self.call("u2e_output_height"), self.call("u2e_output_width")
        self.memory.write(self.store, picture.astype("<f4").tobytes(), self.call("u2e_input"))
        assert self.call("u2e_run") == 0
        return self.view(self.call("u2e_output"), 4 * size[0] * size[1]).view("<f4").reshape(size)

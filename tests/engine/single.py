"""A network around one operator, whose inputs a test writes into the engine's memory itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.format import Buffer, BufferType, EngineModel, Operator, OperatorKind, Slice, buffer_bytes, write_model
from engine.pack import order_weights
from engine.runtime import WasmEngine

__all__ = ["Constants", "Single", "convolution"]

#: Steps before the one that is looked at: the stems that write its inputs, so that the plan is a valid one.
ByteArray = npt.NDArray[np.uint8]


class Constants:
    """The constants of a file, collected."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, values: npt.NDArray) -> int:
        """Offset of `values`."""
        self.data.extend(b"\0" * (-len(self.data) % 16))
        offset = len(self.data)
        self.data.extend(np.ascontiguousarray(values).tobytes())
        return offset


@dataclass
class Single:
    """One operator from activations (height, width, channels) to one of `output_shape`."""

    kind: OperatorKind
    input_shapes: list[tuple[int, int, int]]
    output_shape: tuple[int, int, int]
    constants: Constants
    offsets: tuple[int, ...] = ()
    integers: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()

    def model(self) -> EngineModel:
        """Stems, the operator, a side map of its output, the fusion."""
        shapes = [*self.input_shapes, self.output_shape]
        buffers, at = [], 0
        maps = [(*self.output_shape[:2], 1), (*self.output_shape[:2], 1)]
        for index, shape in enumerate([*shapes, *maps]):
            kind = BufferType.ACTIVATION if index < len(shapes) else BufferType.MAP
            buffers.append(Buffer(kind, at, *shape))
            at += (buffer_bytes(kind, *shape) + 63) // 64 * 64
        slices = [Slice(index, 0, shape[2]) for index, shape in enumerate(shapes)]
        operators = []
        constants = self.constants
        for part, shape in zip(slices, self.input_shapes, strict=False):
            assert shape[:2] == self.input_shapes[0][:2]
            channels = (shape[2] + 15) // 16 * 16
            zeros = constants.add(np.zeros(channels * 6, np.int16)), constants.add(np.zeros(channels, np.float32))
            operators.append(
                Operator(OperatorKind.STEM, part, constants=(zeros[0], zeros[1], zeros[1]), integers=(1, 1, 0, 1),
                         floats=(1.0,))
            )  # fmt: skip
        second = slices[1] if len(self.input_shapes) > 1 else Slice()
        operators.append(Operator(self.kind, slices[-1], slices[0], second, self.offsets, self.integers, self.floats))
        side = constants.add(np.zeros(9 * ((self.output_shape[2] + 7) // 8 * 8), np.int16))
        first_map = len(shapes)
        operators.append(
            Operator(OperatorKind.SIDE, Slice(first_map, 0, 1), slices[-1], constants=(side,), floats=(1.0, 0.0))
        )
        names, weights = constants.add(np.array([first_map], np.uint32)), constants.add(np.ones(1, np.float32))
        operators.append(
            Operator(OperatorKind.FUSE, Slice(first_map + 1, 0, 1), constants=(names, weights), integers=(1,))
        )
        size = self.input_shapes[0][:2]
        return EngineModel(size, size, at, tuple(buffers), tuple(operators), bytes(constants.data))

    def run(self, host: WasmEngine, inputs: list[ByteArray]) -> tuple[ByteArray, int]:
        """The operator's output, and how the engine computed it (`u2e_step_kind`)."""
        model = self.model()
        status = host.load(write_model(model))
        assert status == 0, (status, host.call("u2e_fault_place"))
        arena, step = host.call("u2e_arena"), len(inputs)
        for index, values in enumerate(inputs):
            host.call("u2e_run_steps", index, index + 1)  # which clears the border
            buffer = model.buffers[index]
            whole = host.read(arena + buffer.offset, buffer.size_bytes).copy()
            _inside(whole, buffer)[:] = values
            host.write(arena + buffer.offset, whole.tobytes())
        assert host.call("u2e_run_steps", step, step + 1) == 0
        buffer = model.buffers[step]
        whole = host.read(arena + buffer.offset, buffer.size_bytes).copy()
        result = _inside(whole, buffer).copy()
        _inside(whole, buffer)[:] = 0
        assert not whole.any(), "the border is not zero"
        return result, host.call("u2e_step_kind", step)


def _inside(whole: ByteArray, buffer: Buffer) -> ByteArray:
    """The pixels of a buffer, without its border: a view."""
    row = (buffer.width + 1) * buffer.channels
    return np.lib.stride_tricks.as_strided(
        whole[row + buffer.channels :],
        (buffer.height, buffer.width, buffer.channels),
        (row, buffer.channels, 1),
    )


def convolution(
    source: ByteArray,
    weight: npt.NDArray[np.int8],
    bias: npt.NDArray[np.int32],
    multiplier: npt.NDArray[np.float32],
    dilation: int = 1,
) -> Single:
    """The convolution of an activation by (out, in, 3, 3)."""
    constants = Constants()
    offsets = constants.add(order_weights(weight)), constants.add(bias), constants.add(multiplier)
    shape = (*source.shape[:2], len(weight))
    return Single(OperatorKind.CONVOLUTION, [source.shape], shape, constants, offsets, (dilation,))

"""The engine's arithmetic in plain numpy, bit for bit: the oracle of its tests. See docs/engine.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .format import BufferType, EngineModel, Operator, OperatorKind, Slice

__all__ = ["run_reference"]

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


def run_reference(model: EngineModel, picture: FloatArray) -> FloatArray:
    """The map, float32 (height, width), of a normalised picture, float32 (3, height, width)."""
    return _Reference(model, picture).run()


@dataclass
class _Reference:
    model: EngineModel
    picture: FloatArray
    activations: dict[int, ByteArray] = field(default_factory=dict)  # by buffer, (height, width, channels)
    maps: dict[int, FloatArray] = field(default_factory=dict)

    def run(self) -> FloatArray:
        steps: dict[OperatorKind, Callable[[Operator], None]] = {
            OperatorKind.STEM: self.stem,
            OperatorKind.CONVOLUTION: self.convolution,
            OperatorKind.POOL: self.pool,
            OperatorKind.RESIZE: self.resize,
            OperatorKind.ADD: self.add,
            OperatorKind.GATE: self.gate,
            OperatorKind.SIDE: self.side,
            OperatorKind.FUSE: self.fuse,
        }
        for operator in self.model.operators:
            steps[operator.kind](operator)
        return self.result

    # ---- reading and writing ----

    def read(self, part: Slice) -> ByteArray:
        return self.activations[part.buffer][:, :, part.first : part.first + part.channels]

    def write(self, part: Slice, values: npt.NDArray[Any]) -> None:
        buffer = self.model.buffers[part.buffer]
        assert buffer.type == BufferType.ACTIVATION and values.shape == (buffer.height, buffer.width, part.channels)
        whole = self.activations.setdefault(
            part.buffer, np.zeros((buffer.height, buffer.width, buffer.channels), np.uint8)
        )
        whole[:, :, part.first : part.first + part.channels] = values

    def constant(self, offset: int, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        count = int(np.prod(shape))
        return np.frombuffer(self.model.constants, dtype, count, offset).reshape(shape)

    # ---- operators ----

    def stem(self, operator: Operator) -> None:
        kernel, stride, padding, limit = operator.integers
        channels = operator.output.channels
        blocks, pairs = (channels + 15) // 16, (kernel + 1) // 2
        stored = self.constant(operator.constants[0], (blocks, 3, kernel, pairs, 16, 2), "<i2")
        weight = stored.transpose(0, 4, 1, 2, 3, 5).reshape(blocks * 16, 3, kernel, 2 * pairs)[:channels, :, :, :kernel]
        multiplier = self.constant(operator.constants[1], (blocks * 16,), "<f4")[:channels]
        bias = self.constant(operator.constants[2], (blocks * 16,), "<f4")[:channels]
        fixed = np.clip(np.rint(self.picture * np.float32(operator.floats[0])), -limit, limit)
        padded = np.pad(fixed, ((0, 0), (padding, padding), (padding, padding)))
        buffer = self.model.buffers[operator.output.buffer]
        total = np.zeros((buffer.height, buffer.width, channels))
        for plane in range(3):
            for y in range(kernel):
                for x in range(kernel):
                    rows = slice(y, y + stride * (buffer.height - 1) + 1, stride)
                    columns = slice(x, x + stride * (buffer.width - 1) + 1, stride)
                    total += padded[plane, rows, columns, None] * weight[:, plane, y, x].astype(np.float64)
        self.write(operator.output, to_uint8(total.astype(np.int64).astype(np.float32) * multiplier + bias))

    def convolution(self, operator: Operator) -> None:
        source, dilation = self.read(operator.input), operator.integers[0]
        channels = operator.output.channels
        weight = _weights(self.constant(operator.constants[0], (9 * channels * source.shape[2],), "<i1"), channels)
        bias = self.constant(operator.constants[1], (channels,), "<i4")
        multiplier = self.constant(operator.constants[2], (channels,), "<f4")
        total = convolve(source, weight, dilation) + bias.astype(np.int64)
        self.write(operator.output, to_uint8(total.astype(np.float32) * multiplier))

    def pool(self, operator: Operator) -> None:
        source = self.read(operator.input)
        height, width, channels = source.shape
        even = np.pad(source, ((0, height % 2), (0, width % 2), (0, 0)))
        blocks = even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels)
        self.write(operator.output, blocks.max((1, 3)))

    def resize(self, operator: Operator) -> None:
        buffer = self.model.buffers[operator.output.buffer]
        self.write(operator.output, to_uint8(resize(self.read(operator.input), buffer.height, buffer.width)))

    def add(self, operator: Operator) -> None:
        first = self.read(operator.input).astype(np.float32) * np.float32(operator.floats[0])
        second = self.read(operator.second).astype(np.float32) * np.float32(operator.floats[1])
        self.write(operator.output, to_uint8(first + second))

    def gate(self, operator: Operator) -> None:
        source, hidden = self.read(operator.input), operator.integers[0]
        channels = source.shape[2]
        reduce = self.constant(operator.constants[0], (hidden * (channels + 1),), "<f4")
        expand = self.constant(operator.constants[1], (channels * (hidden + 1),), "<f4")
        sums = source.astype(np.int64).sum((0, 1)).astype(np.float32)
        mean = sums * np.float32(operator.floats[0])
        inner = np.maximum(_dense(reduce, mean), np.float32(0))
        gates = _dense(expand, inner) * np.float32(np.float32(1) / np.float32(6)) + np.float32(0.5)
        multiplier = np.clip(gates, np.float32(0), np.float32(1)) * np.float32(operator.floats[1])
        self.write(operator.output, to_uint8(source.astype(np.float32) * multiplier))

    def side(self, operator: Operator) -> None:
        source = self.read(operator.input)
        channels = source.shape[2]
        stored = self.constant(operator.constants[0], (3, 3, (channels + 7) // 8 * 8), "<i2")
        weight = stored[:, :, :channels].transpose(2, 0, 1)[None]
        total = convolve(source, weight, 1)[:, :, 0]
        values = total.astype(np.float32) * np.float32(operator.floats[0]) + np.float32(operator.floats[1])
        before = self.maps.get(operator.output.buffer)
        self.maps[operator.output.buffer] = before + values if operator.integers[0] and before is not None else values

    def fuse(self, operator: Operator) -> None:
        count = operator.integers[0]
        indices = self.constant(operator.constants[0], (count,), "<u4")
        weights = self.constant(operator.constants[1], (count,), "<f4")
        buffer = self.model.buffers[operator.output.buffer]
        fused = np.full((buffer.height, buffer.width), operator.floats[0], np.float32)
        for index, weight in zip(indices, weights, strict=True):
            fused = fused + weight * resize(self.maps[int(index)], buffer.height, buffer.width)
        self.result = sigmoid(resize(fused, *self.model.output_size))


def to_uint8(values: FloatArray) -> ByteArray:
    """To the nearest integers, ties to even, cut to 0 … 255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def convolve(source: ByteArray, weight: npt.NDArray[Any], dilation: int) -> npt.NDArray[np.int64]:
    """The plain integer convolution of (height, width, in) by (out, in, 3, 3), zeros beyond the edge, int64.

    Float64 products are exact here: every sum stays far below 2⁵³.
    """
    height, width, _ = source.shape
    padded = np.pad(source, ((dilation, dilation), (dilation, dilation), (0, 0))).astype(np.float64)
    total = np.zeros((height, width, len(weight)))
    for y in range(3):
        for x in range(3):
            shifted = padded[y * dilation : y * dilation + height, x * dilation : x * dilation + width]
            total += shifted @ weight[:, :, y, x].T.astype(np.float64)
    return total.astype(np.int64)


def taps(source: int, target: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """Left and right neighbour, and weight of the right, of each of `target` samples of `source` values."""
    whole = 2 * target
    position = np.clip((2 * np.arange(target) + 1) * source - target, 0, (source - 1) * whole)
    left = position // whole
    return left, np.minimum(left + 1, source - 1), (position % whole).astype(np.float32) / np.float32(whole)


def resize(values: npt.NDArray[Any], height: int, width: int) -> FloatArray:
    """Bilinear, half-pixel centres, rows first; (height, width[, channels])."""
    values = values.astype(np.float32)
    top, bottom, down = taps(values.shape[0], height)
    left, right, along = taps(values.shape[1], width)
    down = down.reshape(-1, *[1] * (values.ndim - 1))
    along = along.reshape(1, -1, *[1] * (values.ndim - 2))
    rows = values[top] + (values[bottom] - values[top]) * down
    return rows[:, left] + (rows[:, right] - rows[:, left]) * along


def sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + e⁻ˣ) by the engine's polynomial."""
    one = np.float32(1)
    t = np.clip(-x, np.float32(-87), np.float32(88))
    n = np.rint(t * np.float32(1.44269504))
    t = t - n * np.float32(0.693359375)
    t = t + n * np.float32(2.12194440e-4)
    p = np.full_like(t, 1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * t + np.float32(coefficient)
    p = (p * (t * t) + t) + one
    return one / (one + p * np.ldexp(one, n.astype(np.int32)))


def _weights(stored: npt.NDArray[np.int8], outputs: int) -> npt.NDArray[np.int8]:
    """Weights as the file has them, to (out, in, 3, 3)."""
    inputs = stored.size // (9 * outputs)
    parts = []
    for first in range(0, outputs, 8):
        count = min(8, outputs - first)
        block = stored[9 * inputs * first : 9 * inputs * (first + count)].reshape(9, inputs // 2, count, 2)
        parts.append(block.transpose(2, 1, 3, 0).reshape(count, inputs, 3, 3))
    return np.concatenate(parts)


def _dense(stored: FloatArray, values: FloatArray) -> FloatArray:
    """A dense layer whose sums are float32, begin at the bias and run in order."""
    outputs = stored.size // (values.size + 1)
    weight = stored[: outputs * values.size].reshape(outputs, values.size)
    total = stored[outputs * values.size :].copy()
    for column, value in zip(weight.T, values, strict=True):
        total = total + column * value
    return total

"""From the network to the file: channels in fours, constants in the order in which the kernels read them, the arena."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from u2net.errors import ModelError

from .format import MAX_CHANNELS, MAX_SIDE, Buffer, BufferType, EngineModel, Operator, OperatorKind, Slice, buffer_bytes
from .graph import Add, Concat, Convolution, Fuse, Gate, Network, Pool, Resize, Side, SideMap, Stem, Tensor
from .plan import Lifetime, place

__all__ = ["Bounds", "PackedModel", "pack_network"]

#: |normalised input| is at most (1 − 0.406) / 0.225 = 2.64 in the preprocessing; beyond this the stem cuts it off.
INPUT_LIMIT = 2.65
#: Steps of the stem's input in 1: an eighth of the least difference of two 8-bit pixels. A power of two, so that the
#: product is exact. Finer steps would leave fewer bits for the weights, whose sums share 32 bits with it.
INPUT_SCALE = 2048.0
#: Beyond this the engine's rounding to integers is not defined (`round_to_i32`).
ROUNDING_LIMIT = 2**22
#: The Winograd kernel holds sums below this; the loader takes the direct kernel for layers that could go beyond.
WINOGRAD_LIMIT = 2**25


@dataclass(frozen=True)
class Bounds:
    """What the weights prove about the sums of the convolutions, over every possible input."""

    convolutions: int
    products: int  # multiply-accumulates of one picture
    largest_sum: int  # of all |convolution + bias| that can occur
    beyond_winograd: int  # convolutions whose sums the Winograd kernel could not hold
    dead_channels: int  # output channels that are 0 whatever the input
    channels: int  # output channels of the convolutions

    def as_figures(self) -> dict[str, int]:
        """For a sidecar."""
        return {
            "convolutions": self.convolutions,
            "multiply_accumulates": self.products,
            "largest_sum": self.largest_sum,
            "convolutions_beyond_winograd": self.beyond_winograd,
            "dead_channels": self.dead_channels,
            "channels": self.channels,
        }


@dataclass(frozen=True)
class PackedModel:
    """A file, and what was proven about it."""

    model: EngineModel
    bounds: Bounds


def pack_network(network: Network) -> PackedModel:
    """The file of `network`. Raises `ModelError` for what the engine cannot hold."""
    return _Packer(network).pack()


@dataclass
class _Place:
    """Where an activation lies: channels of a buffer, and where each of its real channels is among them."""

    buffer: str
    first: int
    positions: npt.NDArray[np.intp]  # of its channels, from `first`
    channels: int  # padding included

    @property
    def all_positions(self) -> npt.NDArray[np.intp]:
        return self.positions + self.first


@dataclass
class _Packer:
    network: Network
    places: dict[str, _Place] = field(default_factory=dict)
    shapes: dict[str, tuple[BufferType, int, int, int]] = field(default_factory=dict)  # buffers by name
    lives: dict[str, list[int]] = field(default_factory=dict)  # operators that use a buffer
    operators: list[Operator] = field(default_factory=list)
    constants: bytearray = field(default_factory=bytearray)
    sums: list[tuple[int, bool]] = field(default_factory=list)
    products: int = 0
    dead: int = 0
    outputs: int = 0

    def pack(self) -> PackedModel:
        self._check_sizes()
        self._lay_out()
        for node in self.network.nodes:
            self._emit(node)
        names = list(self.lives)
        offsets, arena_bytes = place(
            {
                name: Lifetime(buffer_bytes(*self.shapes[name]), min(self.lives[name]), max(self.lives[name]))
                for name in names
            }
        )
        buffers = tuple(
            Buffer(self.shapes[name][0], offsets[name], *self.shapes[name][1:]) for name in names
        )  # fmt: skip
        model = EngineModel(
            self.network.input_size, self.network.output_size, arena_bytes, buffers, tuple(self.operators),
            bytes(self.constants),
        )  # fmt: skip
        bounds = Bounds(
            convolutions=len(self.sums),
            products=self.products,
            largest_sum=max((most for most, _ in self.sums), default=0),
            beyond_winograd=sum(undilated and most >= WINOGRAD_LIMIT for most, undilated in self.sums),
            dead_channels=self.dead,
            channels=self.outputs,
        )
        return PackedModel(model, bounds)

    def _check_sizes(self) -> None:
        for height, width in (self.network.input_size, self.network.output_size):
            if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
                raise ModelError(f"pictures of {width}×{height}: the engine takes at most {MAX_SIDE} pixels a side")

    # ---- where things lie ----

    def _lay_out(self) -> None:
        """Inputs of a concatenation are parts of its output's buffer; everything else has a buffer of its own."""
        joined: dict[str, Concat] = {}
        for node in self.network.nodes:
            if isinstance(node, Concat):
                for tensor in node.inputs:
                    if tensor.name in joined:
                        raise ModelError(f"{node.name}: {tensor.name} is in two concatenations")
                    joined[tensor.name] = node
        # channels of what only moves values are laid out as those of its input
        positions: dict[str, tuple[npt.NDArray[np.intp], int]] = {}
        for node in self.network.nodes:
            if isinstance(node, Concat):
                parts, first = [], 0
                for tensor in node.inputs:
                    own, channels = positions[tensor.name]
                    self.places[tensor.name] = _Place(node.output.name, first, own, channels)
                    parts.append(own + first)
                    first += channels
                positions[node.output.name] = (np.concatenate(parts), first)
            elif isinstance(node, Pool | Resize | Gate):
                positions[node.output.name] = positions[node.input.name]
            elif not isinstance(node, Side | Fuse):
                count = node.output.channels
                positions[node.output.name] = (np.arange(count), (count + 3) // 4 * 4)
        for node in self.network.nodes:
            if isinstance(node, Side | Fuse):
                continue
            tensor = node.output
            if tensor.name in joined and isinstance(node, Concat):
                raise ModelError(f"{node.name}: a concatenation of concatenations")
            own, channels = positions[tensor.name]
            if channels > MAX_CHANNELS:
                raise ModelError(f"{tensor.name}: {channels} channels; the engine takes at most {MAX_CHANNELS}")
            if tensor.name not in joined:
                self.places[tensor.name] = _Place(tensor.name, 0, own, channels)
                self.shapes[tensor.name] = (BufferType.ACTIVATION, tensor.height, tensor.width, channels)

    def _slice(self, tensor: Tensor) -> Slice:
        """The slice of a tensor that the operator being written uses."""
        place = self.places[tensor.name]
        return Slice(self._use(place.buffer), place.first, place.channels)

    def _map(self, side: SideMap) -> Slice:
        self.shapes.setdefault(side.name, (BufferType.MAP, side.height, side.width, 1))
        return Slice(self._use(side.name), 0, 1)

    def _use(self, buffer: str) -> int:
        """The index of a buffer: buffers are numbered as they come to be used."""
        self.lives.setdefault(buffer, []).append(len(self.operators))
        return list(self.lives).index(buffer)

    def _constant(self, values: npt.NDArray[Any]) -> int:
        """Append constants, aligned to 16 bytes; returns their offset."""
        self.constants.extend(b"\0" * (-len(self.constants) % 16))
        offset = len(self.constants)
        self.constants.extend(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
        return offset

    # ---- operators ----

    @singledispatchmethod
    def _emit(self, node: object) -> None:
        raise TypeError(type(node))

    @_emit.register
    def _(self, node: Stem) -> None:
        output = self._slice(node.output)
        channels, _, kernel, _ = node.weight.shape
        blocks, pairs = (output.channels + 15) // 16, (kernel + 1) // 2
        weight = np.zeros((blocks * 16, 3, kernel, 2 * pairs))
        weight[:channels, :, :, :kernel] = node.weight
        limit = round(INPUT_LIMIT * INPUT_SCALE)
        flat = np.abs(weight).reshape(len(weight), -1)
        with np.errstate(divide="ignore"):
            steps = np.minimum((2**31 - 1) / (limit * flat.sum(1) * 1.001), 32767 / flat.max(1))
        steps[~np.isfinite(steps)] = 1.0
        integers = np.rint(weight * steps[:, None, None, None])
        if not (np.abs(integers).reshape(len(weight), -1).sum(1) * limit < 2**31).all():
            raise ModelError("the sums of the first convolution do not fit 32 bits")
        # blocks of 16 outputs; within, planes, rows, pairs along the row, outputs, the two of a pair
        ordered = integers.reshape(blocks, 16, 3, kernel, pairs, 2).transpose(0, 2, 3, 4, 1, 5)
        multiplier, bias = np.zeros(blocks * 16), np.zeros(blocks * 16)
        multiplier[:] = 1 / (steps * INPUT_SCALE * np.float64(node.output.scale))
        bias[:channels] = node.bias / np.float64(node.output.scale)
        self.products += int(node.weight.size * node.output.height * node.output.width)
        self.operators.append(
            Operator(
                OperatorKind.STEM,
                output,
                constants=(
                    self._constant(ordered.astype(np.int16)),
                    self._constant(multiplier.astype(np.float32)),
                    self._constant(bias.astype(np.float32)),
                ),
                integers=(kernel, node.stride, node.padding, limit),
                floats=(INPUT_SCALE,),
            )
        )

    @_emit.register
    def _(self, node: Convolution) -> None:
        source, output = self._slice(node.input), self._slice(node.output)
        place = self.places[node.input.name]
        count = node.weight.shape[0]
        weight = np.zeros((output.channels, source.channels, 3, 3), np.int8)
        weight[:count, place.positions] = node.weight
        bias = np.zeros(output.channels, np.int64)
        multiplier = np.ones(output.channels, np.float32)
        bias[:count], multiplier[:count] = node.bias, node.multiplier
        bias, multiplier, dead = _tame(weight, bias, multiplier)
        low, high = _extremes(weight, bias)
        most = int(max(np.abs(low).max(), np.abs(high).max()))
        if most >= 2**31:
            raise ModelError(f"{node.name}: its sums can reach {most:.3g}, beyond 32 bits")
        rounded = np.maximum(np.abs(low), np.abs(high)) * multiplier.astype(np.float64)
        if rounded.max() >= ROUNDING_LIMIT:
            raise ModelError(f"{node.name}: its outputs can reach {rounded.max():.3g}, beyond what the engine rounds")
        self.sums.append((most, node.dilation == 1))
        self.dead += int(dead[:count].sum())
        self.outputs += count
        self.products += int(node.weight.size * node.output.height * node.output.width)
        self.operators.append(
            Operator(
                OperatorKind.CONVOLUTION,
                output,
                source,
                constants=(
                    self._constant(order_weights(weight)),
                    self._constant(bias.astype(np.int32)),
                    self._constant(multiplier),
                ),
                integers=(node.dilation,),
            )
        )

    @_emit.register
    def _(self, node: Pool) -> None:
        source, output = self._slice(node.input), self._slice(node.output)
        self.operators.append(Operator(OperatorKind.POOL, output, source))

    @_emit.register
    def _(self, node: Resize) -> None:
        source, output = self._slice(node.input), self._slice(node.output)
        self.operators.append(Operator(OperatorKind.RESIZE, output, source))

    @_emit.register
    def _(self, node: Concat) -> None:
        """Nothing happens: its inputs were written where its output is."""

    @_emit.register
    def _(self, node: Add) -> None:
        first, second, output = self._slice(node.first), self._slice(node.second), self._slice(node.output)
        own = [self.places[tensor.name].positions.tolist() for tensor in (node.first, node.second, node.output)]
        if not own[0] == own[1] == own[2]:
            raise ModelError(f"{node.output.name}: the engine adds activations whose channels lie alike")
        floats = (float(node.first.scale / node.output.scale), float(node.second.scale / node.output.scale))
        self.operators.append(Operator(OperatorKind.ADD, output, first, second, floats=floats))

    @_emit.register
    def _(self, node: Gate) -> None:
        source, output = self._slice(node.input), self._slice(node.output)
        positions = self.places[node.input.name].positions
        hidden = node.reduce.shape[0]
        reduce = np.zeros((hidden, source.channels), np.float32)
        reduce[:, positions] = node.reduce
        expand, expand_bias = np.zeros((source.channels, hidden), np.float32), np.zeros(source.channels, np.float32)
        expand[positions], expand_bias[positions] = node.expand, node.expand_bias
        self.operators.append(
            Operator(
                OperatorKind.GATE,
                output,
                source,
                constants=(
                    self._constant(np.concatenate([reduce.reshape(-1), node.reduce_bias])),
                    self._constant(np.concatenate([expand.reshape(-1), expand_bias])),
                ),
                integers=(hidden,),
                floats=(
                    float(np.float32(node.input.scale / (node.input.height * node.input.width))),
                    float(np.float32(node.input.scale / node.output.scale)),
                ),
            )
        )

    @_emit.register
    def _(self, node: Side) -> None:
        for index, tensor in enumerate(node.inputs):
            source, output = self._slice(tensor), self._map(node.output)
            weight = np.zeros(((source.channels + 7) // 8 * 8, 3, 3))
            weight[self.places[tensor.name].positions] = node.weight.astype(np.float64) * np.float64(tensor.scale)
            # 16 bits for a weight, 32 for the sum over every tap of weight · 255
            step = max(np.abs(weight).max() / 32767, np.abs(weight).sum() * 255 * 1.001 / (2**31 - 1)) or 1.0
            integers = np.rint(weight / step)
            if not np.abs(integers).sum() * 255 < 2**31:
                raise ModelError(f"{node.output.name}: the sums of a side map do not fit 32 bits")
            self.products += int(node.weight.size * node.output.height * node.output.width) if index == 0 else 0
            self.operators.append(
                Operator(
                    OperatorKind.SIDE,
                    output,
                    source,
                    constants=(self._constant(integers.transpose(1, 2, 0).astype(np.int16)),),
                    integers=(int(index > 0),),
                    floats=(float(step), node.bias if index == 0 else 0.0),
                )
            )

    @_emit.register
    def _(self, node: Fuse) -> None:
        maps = [self._map(side).buffer for side in node.maps]
        output = self._map(SideMap("fused map", node.height, node.width))
        self.operators.append(
            Operator(
                OperatorKind.FUSE,
                output,
                constants=(self._constant(np.array(maps, np.uint32)), self._constant(node.weights)),
                integers=(len(maps),),
                floats=(node.bias,),
            )
        )


def order_weights(weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """(out, in, 3, 3), both in fours, as the file has it: blocks of 8 outputs (4 in a last one); in each the nine taps,
    pairs of inputs, outputs, the two of a pair."""
    outputs, inputs = weight.shape[:2]
    parts = []
    for first in range(0, outputs, 8):
        block = weight[first : first + 8]
        pairs = block.reshape(len(block), inputs // 2, 2, 9)
        parts.append(pairs.transpose(3, 1, 0, 2).reshape(-1))
    return np.concatenate(parts)


def _extremes(
    weight: npt.NDArray[np.int8], bias: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Least and greatest convolution + bias of every output channel over all inputs of 0 … 255."""
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    return 255 * np.minimum(flat, 0).sum(1) + bias, 255 * np.maximum(flat, 0).sum(1) + bias


def _tame(
    weight: npt.NDArray[np.int8], bias: npt.NDArray[np.int64], multiplier: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Biases and multipliers that give the same outputs with smaller sums; and which channels are always 0.

    A channel without weights is a constant: its bias becomes its output. A channel whose sum can never be positive is
    0: its bias may be as near to 0 as keeps that so. Biases of −50 million occur.
    """
    bias, multiplier = bias.copy(), multiplier.copy()
    constant = ~weight.reshape(len(weight), -1).any(1)
    with np.errstate(over="ignore"):
        value = np.rint(bias[constant].astype(np.float32) * multiplier[constant])
    bias[constant], multiplier[constant] = np.clip(value, 0, 255), 1.0
    _, high = _extremes(weight, bias)
    dead = high <= 0
    bias[dead] -= high[dead]
    return bias, multiplier, dead

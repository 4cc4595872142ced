"""Pictures as what a network takes in, for either interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from u2net.preprocess import Size, network_input

from .graph import FloatGraph, Interface

__all__ = ["NetworkInputs", "network_inputs"]

ByteArray = npt.NDArray[np.uint8]


class NetworkInputs(Sequence[npt.NDArray[Any]]):
    """The inputs of a network for a sequence of pictures, made each time they are asked for, so none is kept.

    float32 (1, 3, height, width) for the `tensor` interface, uint8 (1, height, width, 4) for `image`.
    """

    def __init__(self, pictures: Sequence[ByteArray], size: Size, interface: Interface) -> None:
        self.pictures = pictures
        self.size = size
        self.interface = interface

    def __len__(self) -> int:
        return len(self.pictures)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> NetworkInputs: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[Any] | NetworkInputs:
        if isinstance(index, slice):
            return NetworkInputs(self.pictures[index], self.size, self.interface)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return network_input(self.pictures[index], self.size, self.interface)


def network_inputs(graph: FloatGraph, pictures: Sequence[ByteArray]) -> NetworkInputs:
    """`pictures` as inputs of `graph`."""
    return NetworkInputs(pictures, graph.size, graph.interface)

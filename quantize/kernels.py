"""What the runtime really does with a quantized model: counted in the graph after it has been optimised.

A file full of QuantizeLinear nodes may still compute every convolution in float. Here the runtime optimises the model
as it does in deployment, and the convolutions of the result are counted with their multiply-accumulates.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from .graph import FloatGraph
from .sessions import open_session

__all__ = ["KernelCount", "count_kernels"]

INTEGER_KERNELS = ("QLinearConv", "ConvInteger")


@dataclass(frozen=True)
class KernelCount:
    """Convolutions of the optimised graph."""

    integer: tuple[str, ...]  # names of the convolutions in integer kernels
    floating: tuple[str, ...]
    integer_macs: int
    total_macs: int

    @property
    def share(self) -> float:
        """Share of the multiply-accumulates that integer kernels do, in [0, 1]."""
        return self.integer_macs / self.total_macs


def count_kernels(graph: FloatGraph, quantized: onnx.ModelProto) -> KernelCount:
    """Optimise `quantized`, made from `graph`, and count. Raises `ModelError` where the runtime cannot load it."""
    with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
        path = Path(folder) / "optimised.onnx"
        open_session(quantized, 1, fuse=True, optimized=path)
        nodes = onnx.load(path, load_external_data=False).graph.node
    # the runtime appends a token of its own to the names of nodes that it fuses
    found = {node.name.split("_token_")[0] for node in nodes if node.op_type in INTEGER_KERNELS}
    integer = tuple(conv.name for conv in graph.convs if conv.node in found)
    floating = tuple(conv.name for conv in graph.convs if conv.node not in found)
    return KernelCount(integer, floating, sum(graph.conv(name).macs for name in integer), graph.total_macs())

"""Store weights as float16, compute in float32.

Every initializer that convolutions read becomes float16 and is widened by a Cast, which engines fold away when they
load the model. So the file is half as large, the arithmetic and its speed are those of float32 everywhere, and no
engine has to support float16 (WebAssembly has no such arithmetic, and a GPU only with `shader-f16`).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["HalfWeights"]


class HalfWeights(ir.passes.InPlacePass):
    """Round float32 initializers of more than `min_elements` to float16 and cast them back in the graph.

    Raises `OverflowError` where a value does not fit float16.
    """

    def __init__(self, min_elements: int = 16) -> None:  # a Cast node costs more bytes than a short bias saves
        super().__init__()
        self.min_elements = min_elements

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        modified = False
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size <= self.min_elements:
                continue
            if value.is_graph_output() or not value.uses():
                continue
            name = value.name
            with np.errstate(over="ignore"):
                half = tensor.numpy().astype(np.float16)
            if not np.isfinite(half).all():
                raise OverflowError(f"{name} does not fit float16")
            first = min(value.uses(), key=lambda use: _position(graph, use.node)).node
            cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT.value}, name=f"{name}/widen")
            wide = cast.outputs[0]
            wide.name, wide.dtype, wide.shape = f"{name}/float32", ir.DataType.FLOAT, value.shape
            for use in list(value.uses()):
                if use.node is not cast:
                    use.node.replace_input_with(use.idx, wide)
            value.const_value = ir.tensor(half, name=name)
            value.dtype = ir.DataType.FLOAT16
            graph.insert_before(first, cast)
            modified = True
        return ir.passes.PassResult(model, modified)


def _position(graph: ir.Graph, node: ir.Node) -> int:
    for index, other in enumerate(graph):
        if other is node:
            return index
    raise ValueError("the node is not in the graph")

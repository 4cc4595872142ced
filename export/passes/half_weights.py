"""Store weights as float16, compute in float32.

Every convolution's weight becomes float16 and is widened by a Cast, which engines fold away when they load the model.
So the file is half as large, the arithmetic and its speed are those of float32 everywhere, and no engine has to support
float16 (WebAssembly has no such arithmetic, and a GPU only with `shader-f16`). Biases stay float32: they are a
hundredth of the bytes, and with batch norm folded in some exceed 1,000, where float16 goes in steps of 1.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from u2net.errors import ModelError

__all__ = ["HalfWeights"]


class HalfWeights(ir.passes.InPlacePass):
    """Round the float32 weights of convolutions to float16 and cast them back in the graph.

    Raises `ModelError` where a value does not fit float16.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            weight = node.inputs[1] if node.op_type == "Conv" else None
            tensor = weight.const_value if weight is not None else None
            if weight is None or tensor is None or tensor.dtype != ir.DataType.FLOAT or not weight.is_initializer():
                continue
            with np.errstate(over="ignore"):
                half = tensor.numpy().astype(np.float16)
            if not np.isfinite(half).all():
                raise ModelError(f"{weight.name} does not fit float16; leave --fp16 out")
            cast = ir.node("Cast", [weight], {"to": ir.DataType.FLOAT.value}, name=f"{weight.name}/widen")
            wide = cast.outputs[0]
            wide.name, wide.dtype, wide.shape = f"{weight.name}/float32", ir.DataType.FLOAT, weight.shape
            for use in list(weight.uses()):
                if use.node is not cast:
                    use.node.replace_input_with(use.idx, wide)
            weight.const_value = ir.tensor(half, name=weight.name)
            weight.dtype = ir.DataType.FLOAT16
            model.graph.insert_before(node, cast)
            modified = True
        return ir.passes.PassResult(model, modified)

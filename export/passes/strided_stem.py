"""Turn pixel-unshuffle and the convolution after it into one strided convolution.

A k×k convolution with padding p on the r×r pixel-unshuffled picture is a kr×kr convolution with stride r and padding
pr on the picture itself: the same products, without moving the picture through two transposed copies.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common

__all__ = ["StridedStem"]


class StridedStem(ir.passes.InPlacePass):
    """Rewrite Reshape → Transpose → Reshape → Conv at the graph's input, which is how pixel-unshuffle is exported."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        modified = False
        for picture in graph.inputs:
            channels = picture.shape[1] if picture.shape is not None and len(picture.shape) == 4 else None
            if not isinstance(channels, int):
                continue
            for conv in _convolutions_behind_unshuffle(picture):
                modified |= self._rewrite(graph, picture, channels, conv)
        if modified:
            onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified)

    @staticmethod
    def _rewrite(graph: ir.Graph, picture: ir.Value, channels: int, conv: ir.Node) -> bool:
        weight = conv.inputs[1]
        if weight is None or weight.const_value is None or len(weight.uses()) != 1:
            return False
        values = weight.const_value.numpy()
        out, folded, k_y, k_x = values.shape
        factor = round((folded / channels) ** 0.5)
        if factor < 2 or channels * factor**2 != folded or conv.attributes.get_int("group", 1) != 1:
            return False
        # Channel (c, i, j) of the unshuffled picture at (y, x) is channel c of the picture at (y·r + i, x·r + j).
        values = values.reshape(out, channels, factor, factor, k_y, k_x)
        values = values.transpose(0, 1, 4, 2, 5, 3).reshape(out, channels, k_y * factor, k_x * factor)
        weight.const_value = ir.tensor(np.ascontiguousarray(values), name=weight.name)
        weight.shape = ir.Shape(values.shape)
        pads = [pad * factor for pad in conv.attributes.get_ints("pads", [0, 0, 0, 0])]
        conv.attributes["pads"] = ir.AttrInt64s("pads", pads)
        conv.attributes["strides"] = ir.AttrInt64s("strides", [factor, factor])
        conv.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [k_y * factor, k_x * factor])
        conv.attributes.pop("auto_pad", None)
        conv.replace_input_with(0, picture)
        return True


def _convolutions_behind_unshuffle(picture: ir.Value) -> list[ir.Node]:
    """Convolutions, undilated and of stride 1, that read `picture` through a pixel-unshuffle."""
    found = []
    for first in _readers(picture, "Reshape"):
        for transpose in _readers(first.outputs[0], "Transpose"):
            if list(transpose.attributes.get_ints("perm", [])) != [0, 1, 3, 5, 2, 4]:
                continue
            for second in _readers(transpose.outputs[0], "Reshape"):
                for conv in _readers(second.outputs[0], "Conv"):
                    strides = conv.attributes.get_ints("strides", [1, 1])
                    dilations = conv.attributes.get_ints("dilations", [1, 1])
                    if list(strides) == [1, 1] and list(dilations) == [1, 1]:
                        found.append(conv)
    return found


def _readers(value: ir.Value, op_type: str) -> list[ir.Node]:
    return [use.node for use in value.uses() if use.node.op_type == op_type and use.idx == 0]

"""Pixel-unshuffle and a convolution as one strided convolution."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from export.passes import StridedStem
from u2net.runtime import onnxruntime


def unshuffling(factor: int, channels: int = 3, perm: tuple[int, ...] = (0, 1, 3, 5, 2, 4)) -> onnx.ModelProto:
    """The graph that torch exports for pixel_unshuffle and a 3×3 convolution."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, channels * factor**2, 3, 3)).astype(np.float32)
    size, small = 8 * factor, 8
    nodes = [
        helper.make_node("Reshape", ["input", "split"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=perm),
        helper.make_node("Reshape", ["b", "merge"], ["c"]),
        helper.make_node("Conv", ["c", "weight", "bias"], ["output"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, channels, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 5, small, small])],
        [
            numpy_helper.from_array(np.array([1, channels, small, factor, small, factor]), "split"),
            numpy_helper.from_array(np.array([1, channels * factor**2, small, small]), "merge"),
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(rng.normal(size=5).astype(np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(proto: onnx.ModelProto, feed: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": feed})[0]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_one_convolution_gives_what_four_nodes_gave(factor: int):
    proto = unshuffling(factor)
    result = StridedStem()(ir.from_proto(proto))
    assert result.modified
    rewritten = ir.to_proto(result.model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert [node.op_type for node in rewritten.graph.node] == ["Conv"]
    x = np.random.default_rng(1).normal(size=(1, 3, 8 * factor, 8 * factor)).astype(np.float32)
    np.testing.assert_allclose(run(rewritten, x), run(proto, x), atol=1e-4)
    weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in proto.graph.initializer}
    expected = F.conv2d(F.pixel_unshuffle(torch.from_numpy(x), factor), weights["weight"], weights["bias"], padding=1)
    np.testing.assert_allclose(run(rewritten, x), expected.numpy(), atol=1e-4)


def test_other_rearrangements_are_left_alone():
    proto = unshuffling(2, perm=(0, 3, 5, 1, 2, 4))  # blocks before channels: not what pixel_unshuffle does
    result = StridedStem()(ir.from_proto(proto))
    assert not result.modified
    assert [node.op_type for node in ir.to_proto(result.model).graph.node][-1] == "Conv"


def test_strided_convolution_is_left_alone():
    proto = unshuffling(2)
    proto.graph.node[-1].attribute.append(helper.make_attribute("strides", [2, 2]))
    assert not StridedStem()(ir.from_proto(proto)).modified

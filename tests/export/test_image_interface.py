"""The image interface: bytes of a canvas in, alpha bytes out, the same masks as the tensor interface."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export.passes import ImageInterface
from tests.support.exports import SIZE, Exported
from u2net.errors import ModelError
from u2net.preprocess import normalise
from u2net.runtime import onnxruntime

pytest_plugins = ["tests.support.exports"]


def run(proto: onnx.ModelProto, feed: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": feed})[0]


def rewrite(proto: onnx.ModelProto, alpha: str = "uint8") -> onnx.ModelProto:
    result = ImageInterface(alpha=alpha)(ir.from_proto(proto))
    assert result.modified
    return ir.to_proto(result.model)


def pixels(kind: str) -> np.ndarray:
    rgba = np.random.default_rng(3).integers(0, 256, (1, SIZE, SIZE, 4)).astype(np.uint8)
    if kind == "dark":
        rgba[..., :3] //= 5
    if kind == "black":
        rgba[..., :3] = 0
    return rgba


@pytest.mark.parametrize("kind", ["bright", "dark", "black"])
def test_same_map_as_the_tensor_interface(exported: Exported, kind: str):
    rgba = pixels(kind)
    expected = run(exported(), normalise(rgba[0, :, :, :3].astype(np.float32)))
    found = run(rewrite(exported(), alpha="float32"), rgba)
    assert found.shape == (1, SIZE, SIZE) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected[0, 0], atol=1e-6)


def test_bytes_are_rounded_half_up(exported: Exported):
    rgba = pixels("bright")
    exact = run(rewrite(exported(), alpha="float32"), rgba)
    found = run(rewrite(exported()), rgba)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.floor(exact * np.float32(255) + np.float32(0.5)))


def test_alpha_of_the_input_is_ignored(exported: Exported):
    opaque, clear = pixels("bright"), pixels("bright")
    opaque[..., 3], clear[..., 3] = 255, 0
    np.testing.assert_array_equal(run(rewrite(exported()), opaque), run(rewrite(exported()), clear))


def test_free_sizes_stay_free(exported: Exported):
    proto = rewrite(exported(dynamic=True), alpha="float32")
    rgba = np.random.default_rng(4).integers(0, 256, (1, 75, 101, 4)).astype(np.uint8)
    expected = run(exported(dynamic=True), normalise(rgba[0, :, :, :3].astype(np.float32)))
    np.testing.assert_allclose(run(proto, rgba)[0], expected[0, 0], atol=1e-6)


def test_rewritten_model_is_well_formed_and_left_alone(exported: Exported):
    proto = rewrite(exported())
    onnx.checker.check_model(proto, full_check=True)
    assert not ImageInterface()(ir.from_proto(proto)).modified


def test_other_graphs_are_refused(exported: Exported):
    with pytest.raises(ModelError, match="one input and one output"):
        ImageInterface().call(ir.from_proto(exported(side_maps=True)))
    proto = exported()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    with pytest.raises(ModelError, match=r"\(1, 3, H, W\)"):
        ImageInterface().call(ir.from_proto(proto))
